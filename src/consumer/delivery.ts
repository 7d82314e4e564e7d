/** One message in a handler's hands: what it is, and the verbs that settle it. */
import { parseMs, SpillwayError, textOf } from "../base/index.ts";
import type { Span } from "../base/index.ts";
import { formatId } from "../flow/index.ts";
import type { Fault, MessageClass, Verdict } from "../flow/index.ts";
import type { Run } from "./machine.ts";

/** What a delivery needs of its consumer. */
export interface Settler {
  /** Resolves when the verdict is durable. @throws {SpillwayError} delivery_settled */
  settle(run: Run, verdict: Verdict): Promise<void>;
  working(run: Run, extendMs: number): void;
}

const decoder = new TextDecoder();

export class Delivery<T = unknown> {
  readonly #run: Run;
  readonly #settler: Settler;
  readonly #flow: string;
  readonly #isJson: boolean;
  #abort: AbortController | undefined;
  #value: T | undefined;
  #isRead = false;
  #headers: Readonly<Record<string, string>> | undefined;

  constructor(flow: string, run: Run, settler: Settler, isJson: boolean) {
    this.#flow = flow;
    this.#run = run;
    this.#settler = settler;
    this.#isJson = isJson;
  }

  /** "flow/partition/seq": the same on every attempt, for handlers that are idempotent. */
  get id(): string {
    const { partition, seq } = this.#run.delivered;
    return formatId(this.#flow, partition, seq);
  }

  /** From 1; the attempt in which a process died counts. */
  get attempt(): number {
    return this.#run.delivered.attempt;
  }

  get key(): string | undefined {
    return this.#run.delivered.key;
  }

  get group(): string | undefined {
    return this.#run.delivered.group;
  }

  get class(): MessageClass {
    return this.#run.delivered.class;
  }

  get acceptedAt(): Date {
    return new Date(this.#run.delivered.acceptedAtMs);
  }

  /** When the message expires; undefined: never. */
  get deadline(): Date | undefined {
    const { deadlineAtMs } = this.#run.delivered;
    return deadlineAtMs === undefined ? undefined : new Date(deadlineAtMs);
  }

  /** The payload as it was sent. */
  get bytes(): Uint8Array {
    return this.#run.delivered.payload;
  }

  /** The message: parsed JSON, or the bytes of a flow of bytes. */
  get value(): T {
    if (!this.#isRead) {
      const { payload } = this.#run.delivered;
      this.#value = (this.#isJson ? JSON.parse(decoder.decode(payload)) : payload) as T;
      this.#isRead = true;
    }
    return this.#value as T;
  }

  get headers(): Readonly<Record<string, string>> {
    if (this.#headers === undefined) {
      const { headers } = this.#run.delivered;
      this.#headers =
        headers.length === 0
          ? {}
          : (JSON.parse(decoder.decode(headers)) as Readonly<Record<string, string>>);
    }
    return this.#headers;
  }

  /** Aborts when the delivery's lease ends or its consumer closes: its settle counts no more. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#run.state === "lost") this.#abort.abort(lostError());
    }
    return this.#abort.signal;
  }

  get isSettled(): boolean {
    return this.#run.state !== "running";
  }

  /** Done. Resolves when that is durable. */
  ack(): Promise<void> {
    return this.#settler.settle(this.#run, { kind: "ack" });
  }

  /** Failed: tried again after the contract's delay, or later. `fault: "target"` feeds the breaker. */
  nack(options: { error?: string; delay?: Span; fault?: Fault } = {}): Promise<void> {
    const { error = "nack", delay, fault } = options;
    return this.#settler.settle(this.#run, {
      kind: "nack",
      error,
      ...(delay === undefined ? {} : { delayMs: spanOf(delay) }),
      ...(fault === undefined ? {} : { fault }),
    });
  }

  /** Not tried: costs no attempt. `overload`: the target said that it is saturated. */
  release(options: { delay?: Span; overload?: boolean } = {}): Promise<void> {
    const { delay, overload } = options;
    return this.#settler.settle(this.#run, {
      kind: "release",
      ...(delay === undefined ? {} : { delayMs: spanOf(delay) }),
      ...(overload === undefined ? {} : { overload }),
    });
  }

  /** Never to be retried: a dead letter with this reason. */
  term(reason: string): Promise<void> {
    return this.#settler.settle(this.#run, {
      kind: "term",
      reason: `terminated: ${textOf(reason)}`,
    });
  }

  /** Still at it: the lease ends no sooner than so long from now. */
  working(extend: Span = "30s"): void {
    this.#settler.working(this.#run, spanOf(extend));
  }

  /** The run behind the delivery, for those who tie it to another write. */
  get run(): Run {
    return this.#run;
  }

  /** Tells the handler to stop. */
  abort(): void {
    this.#abort?.abort(lostError());
  }
}

function lostError(): SpillwayError {
  return new SpillwayError("delivery_settled", { found: "the lease ended" });
}

function spanOf(span: Span): number {
  const ms = parseMs(span);
  if (ms !== undefined) return ms;
  const allowed = 'a number of ms, or text such as "10s"';
  throw new SpillwayError("option_invalid", { option: "delay", found: span, allowed });
}

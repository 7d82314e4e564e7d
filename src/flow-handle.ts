/** One flow of an open instance: sends, consumers, state and controls. */
import { EventEmitter } from "node:events";
import {
  checkOptions,
  checkPlace,
  checkSignal,
  parseMs,
  refuseOption,
  SpillwayError,
  textOf,
} from "./base/index.ts";
import type { Clock, ErrorCode, Span } from "./base/index.ts";
import type { Delivery } from "./consumer/index.ts";
import type { Handler, HandlerOptions, TargetDriver, TargetView } from "./consumer/index.ts";
import type { EngineProfile } from "./engines/index.ts";
import { changePolicy, Ids, parseId, warningsOf } from "./flow/index.ts";
import type { Contract, PolicyPatch, Validator, Warning } from "./flow/index.ts";
import { deadLetter, messageView } from "./message-view.ts";
import type { DeadLetter, MessageView } from "./message-view.ts";
import { draftOf, encode } from "./producer/index.ts";
import type { MessageOptions, ProducerDriver, Refused, Route, Sent } from "./producer/index.ts";
import type { Draft } from "./protocol/index.ts";
import type { QueueDriver, QueueFact, QueueView, Reason, Writes } from "./queue/index.ts";

/** What an accepted message gets: it is durable (G1). */
export interface Receipt {
  /** "flow/partition/seq". */
  readonly id: string;
  /** It had been accepted before, under the same idempotency key; `id` is the first one's. */
  readonly duplicate: boolean;
  readonly durability: EngineProfile["durability"];
}

export interface SendOptions extends MessageOptions {
  readonly signal?: AbortSignal;
  /** How long to wait for credit: ms, or text such as "10s"; for ever by default. */
  readonly timeout?: Span;
}

/** Why a message is not taken now. */
export interface Refusal {
  readonly accepted: false;
  readonly code: ErrorCode;
  readonly retryAfterMs?: number;
}

export type BatchResult = ({ readonly accepted: true } & Receipt) | BatchRefusal;

export interface BatchRefusal extends Refusal {
  readonly error: SpillwayError;
}

/** Events of a flow; `accepted`, `acked` and `released` are told only while somebody listens. */
export interface FlowEvents {
  /** Sends wait for credit, and why. */
  blocked: [{ readonly code: ErrorCode; readonly retryAfterMs?: number }];
  resumed: [];
  accepted: [{ readonly id: string }];
  acked: [{ readonly id: string; readonly attempt: number }];
  retrying: [
    { readonly id: string; readonly attempt: number; readonly dueAt: Date; readonly error: string },
  ];
  released: [{ readonly id: string }];
  dead: [{ readonly id: string; readonly attempt: number; readonly reason: string }];
  discarded: [{ readonly id: string; readonly reason: string }];
  redriven: [{ readonly id: string }];
  leaseEnded: [{ readonly id: string; readonly attempt: number }];
  suspected: [{ readonly id: string; readonly crashes: number }];
  /** A partition cannot go on; the code says why. */
  stopped: [{ readonly partition: number; readonly code: string }];
  breaker: [{ readonly from: string; readonly to: string }];
  error: [SpillwayError];
}

export interface FlowState extends QueueView {
  readonly producer: {
    readonly credits: number;
    readonly waiting: number;
    readonly blocked: boolean;
  };
  readonly target: TargetView;
}

export interface FlowParts {
  readonly contract: Contract;
  readonly clock: Clock;
  readonly durability: EngineProfile["durability"];
  readonly queue: QueueDriver;
  readonly producer: ProducerDriver;
  readonly target: TargetDriver;
  readonly writes: Writes;
  readonly validate: Validator<unknown> | undefined;
  readonly opened: Promise<void>;
  /** Aborts when the instance closes. */
  readonly closed: AbortSignal;
  readonly saveControls: (controls: Controls) => Promise<void>;
  readonly controls: Controls;
}

/** What an operator has set, kept over restarts. */
export interface Controls {
  readonly paused: boolean;
  readonly pausedPartitions: readonly number[];
  readonly intakeClosed: boolean;
  readonly closedPartitions: readonly number[];
}

const noOptions: MessageOptions = {};
/** Sends of one batch that are on their way at once. */
const batchWindow = 4096;
const routine: ReadonlySet<string> = new Set(["accepted", "acked", "released"]);

export class Flow<T = unknown> {
  readonly name: string;
  readonly #parts: FlowParts;
  readonly #events = new EventEmitter<FlowEvents>();
  readonly #ids: Ids;
  #contract: Contract;
  #controls: Controls;

  constructor(parts: FlowParts) {
    this.#parts = parts;
    this.#ids = new Ids(parts.contract.name);
    this.#contract = parts.contract;
    this.#controls = parts.controls;
    this.name = parts.contract.name;
    this.#events.setMaxListeners(0);
    (this.#events as EventEmitter).on("newListener", (event: string) => {
      if (routine.has(event)) parts.queue.machine.watchesAll = true;
    });
  }

  /** Limits and policies, complete; see `change`. */
  get contract(): Contract {
    return this.#contract;
  }

  /** What the contract allows and probably does not mean. */
  get warnings(): readonly Warning[] {
    return warningsOf(this.#contract);
  }

  /** Resolves when every partition is open: before, sends wait. Rejects if the store cannot be opened. */
  opened(): Promise<void> {
    return this.#parts.opened;
  }

  on<Name extends keyof FlowEvents>(
    event: Name,
    listener: (...args: FlowEvents[Name]) => void,
  ): this {
    this.#events.on(event, listener as never);
    return this;
  }

  once<Name extends keyof FlowEvents>(
    event: Name,
    listener: (...args: FlowEvents[Name]) => void,
  ): this {
    this.#events.once(event, listener as never);
    return this;
  }

  off<Name extends keyof FlowEvents>(
    event: Name,
    listener: (...args: FlowEvents[Name]) => void,
  ): this {
    this.#events.off(event, listener as never);
    return this;
  }

  // Sending.

  /**
   * Sends one message; waits for credit while there is none. Resolves once it is durable (G1).
   * @throws {SpillwayError} A refusal (deadline_infeasible, rate_limited, intake_closed, store_full,
   *   idempotency_conflict, message_too_large, ...), message_invalid, aborted, timed_out, closed, or
   *   outcome_unknown: with an idempotency key the same send is safe.
   */
  async send(value: T, options: SendOptions = {}): Promise<Receipt> {
    checkOptions(options);
    checkSignal(options.signal);
    const { draft, route } = await this.#draft(value, options);
    const timeoutMs = options.timeout === undefined ? undefined : msOf(options.timeout);
    return this.#receipt(
      await this.#parts.producer.send(draft, route, { signal: options.signal, timeoutMs }),
    );
  }

  /**
   * Sends one message if there is credit now.
   * @returns The promise of its receipt, or why it is not taken. A flow with an asynchronous schema
   *   cannot tell at once: use `send` with a timeout there.
   */
  trySend(value: T, options: MessageOptions = {}): Promise<Receipt> | Refusal {
    const validated = this.#parts.validate?.(value) ?? value;
    if (validated instanceof Promise) {
      throw new SpillwayError("option_invalid", {
        option: "schema",
        found: "an asynchronous schema",
        allowed: "a synchronous one with trySend; use send with a timeout",
      });
    }
    const { draft, route } = this.#encode(validated, options);
    const sent = this.#parts.producer.trySend(draft, route);
    if (sent instanceof Promise) return sent.then((answer) => this.#receipt(answer));
    return refusalOf(sent);
  }

  /**
   * Sends many messages; a result for each, in order. Waits for credit like `send`.
   * @param optionsOf Key, group and so on of each message.
   */
  async sendBatch(
    values: readonly T[],
    optionsOf: (value: T, at: number) => MessageOptions = () => noOptions,
    waiting: { signal?: AbortSignal } = {},
  ): Promise<BatchResult[]> {
    if (!Array.isArray(values)) refuseOption("values", typeof values, "an array");
    checkOptions(waiting);
    checkSignal(waiting.signal);
    const results: BatchResult[] = Array.from({ length: values.length });
    const give = (at: number, error: unknown): void => {
      results[at] = batchRefusalOf(error);
    };
    for (let from = 0; from < values.length; from += batchWindow) {
      const items: { draft: Draft; route: Route }[] = [];
      const places: number[] = [];
      for (let at = from; at < Math.min(values.length, from + batchWindow); at++) {
        try {
          const value = values[at]!;
          const validated = this.#parts.validate?.(value) ?? value;
          const plain = validated instanceof Promise ? await validated : validated;
          items.push(this.#encode(plain, optionsOf(value, at)));
          places.push(at);
        } catch (error) {
          give(at, error);
        }
      }
      await this.#parts.producer.sendMany(items, waiting.signal, {
        accepted: (at, partition, seq, duplicate) => {
          const id = this.#ids.of(partition, seq);
          const { durability } = this.#parts;
          results[places[at]!] = { accepted: true, id, duplicate, durability };
        },
        refused: (at, error) => give(places[at]!, error),
      });
    }
    return results;
  }

  /** Messages written to it are sent; it holds its writer back while there is no credit. */
  writable(optionsOf: (value: T) => MessageOptions = () => ({})): WritableStream<T> {
    const sends = new Set<Promise<unknown>>();
    let failed: unknown;
    return new WritableStream<T>({
      write: async (value) => {
        if (failed !== undefined) throw failed;
        const sent = this.send(value, optionsOf(value)).catch((error: unknown) => {
          failed ??= error;
        });
        sends.add(sent);
        void sent.then(() => sends.delete(sent));
        await this.#parts.producer.ready();
      },
      close: async () => {
        await Promise.all(sends);
        if (failed !== undefined) throw failed;
      },
    });
  }

  /** Resolves when no send waits for credit. */
  ready(): Promise<void> {
    return this.#parts.producer.ready();
  }

  /** Credit in hand, and how many sends wait for it. */
  credits(): { readonly messages: number; readonly waiting: number; readonly blocked: boolean } {
    const { credits, waiting, blocked } = this.#parts.producer.view();
    return { messages: credits, waiting, blocked };
  }

  async #draft(value: T, options: MessageOptions): Promise<{ draft: Draft; route: Route }> {
    const { validate } = this.#parts;
    return this.#encode(validate === undefined ? value : await validate(value), options);
  }

  #encode(value: unknown, options: MessageOptions): { draft: Draft; route: Route } {
    const payload = encode(value, this.#contract.payload);
    const encoded = draftOf(payload, options, this.#contract.order === "key");
    const allowed = this.#contract.messageBytesMax;
    if (encoded.draft.bytes <= allowed) return encoded;
    throw new SpillwayError("message_too_large", { found: encoded.draft.bytes, allowed });
  }

  #receipt(sent: Sent): Receipt {
    return {
      id: this.#ids.of(sent.partition, sent.seq),
      duplicate: sent.duplicate,
      durability: this.#parts.durability,
    };
  }

  // Consuming.

  /**
   * Handles messages: returning acks, throwing retries by the contract, and the delivery's own verbs
   * say anything else. Several handlers of one flow, and flows of one target, share its window.
   */
  consume(handler: Handler<T>, options: HandlerOptions & { signal?: AbortSignal } = {}): Consumer {
    const remove = this.#parts.target.handle(this.name, handler, options);
    if (isAborted(options.signal)) remove();
    else options.signal?.addEventListener("abort", remove, { once: true });
    return { [Symbol.dispose]: remove, stop: remove };
  }

  /** Deliveries one by one, each to be settled by its own verbs; as many at once as are asked for. */
  async *deliveries(options: { signal?: AbortSignal } = {}): AsyncGenerator<Delivery<T>, void> {
    const { closed } = this.#parts;
    // Not `AbortSignal.any`: Node holds on to such a signal for ever if nobody ends the iteration.
    const signals = options.signal === undefined ? [closed] : [options.signal, closed];
    const hasEnded = (): boolean => signals.some(isAborted);
    const come: Delivery<T>[] = [];
    let wake: (() => void) | undefined;
    const puller = this.#parts.target.pull<T>(this.name, (delivery) => {
      come.push(delivery);
      wake?.();
    });
    const onAbort = (): void => wake?.();
    for (const signal of signals) signal.addEventListener("abort", onAbort);
    try {
      while (!hasEnded()) {
        puller.ask();
        while (come.length === 0 && !hasEnded()) {
          await new Promise<void>((resolve) => (wake = resolve));
        }
        const delivery = come.shift();
        if (delivery !== undefined) yield delivery;
      }
    } finally {
      for (const signal of signals) signal.removeEventListener("abort", onAbort);
      puller.remove();
      // One that cannot be given back any more, because its lease or the instance ended, is back anyway.
      for (const delivery of come) delivery.release().catch(() => undefined);
    }
  }

  /**
   * Takes up to `max` deliveries, each to be settled by its own verbs; waits for the first one. What
   * nobody is there for any more when it comes goes back untried.
   * @returns None when nothing came in time.
   */
  async pull(options: {
    readonly max: number;
    readonly waitMs: number;
    readonly signal?: AbortSignal;
  }): Promise<Delivery<T>[]> {
    const { max, waitMs, signal } = options;
    const { closed, clock, target } = this.#parts;
    const come: Delivery<T>[] = [];
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    let isOver = false;
    const puller = target.pull<T>(this.name, (delivery) => {
      // What comes with the first one, in the same turn, goes along.
      if (isOver) delivery.release().catch(() => undefined);
      else if (come.push(delivery) === 1) clock.defer(end);
    });
    const timer = clock.after(waitMs, end);
    const onAbort = (): void => end();
    const signals = signal === undefined ? [closed] : [signal, closed];
    for (const each of signals) each.addEventListener("abort", onAbort);
    if (signals.some(isAborted)) end();
    for (let asked = 0; asked < max; asked++) puller.ask();
    await ended;
    isOver = true;
    timer.cancel();
    puller.remove();
    for (const each of signals) each.removeEventListener("abort", onAbort);
    return come;
  }

  /** How much the target says that it takes, beside what is measured; null: it says nothing. */
  publishCapacity(limit: number | null): void {
    this.#parts.target.publish(limit);
  }

  /**
   * Passes a delivery of this flow on to another: the ack here and the message there become durable
   * together. Waits for the other flow's credit, so that its pressure is felt here.
   * @throws {SpillwayError} As `send`: then the delivery is still to be settled, or has gone back untried
   *   if its ack was on its way. delivery_settled: its lease had ended.
   */
  async forward<Next>(
    delivery: Delivery<T>,
    next: Flow<Next>,
    value: Next,
    options: SendOptions = {},
  ): Promise<Receipt> {
    const { draft, route } = await next.#draft(value, options);
    const { writes, target } = this.#parts;
    const timeoutMs = options.timeout === undefined ? undefined : msOf(options.timeout);
    const joint = writes.beginJoint();
    let settled: Promise<void> | undefined;
    try {
      const sent = await next.#parts.producer.send(
        { ...draft, joint },
        route,
        { signal: options.signal, timeoutMs },
        // Its half has left: the ack follows, and both wait for each other.
        () => {
          settled ??= target.settleWith(delivery.run, { kind: "ack" }, joint);
          settled.catch(() => writes.dropJoint(joint));
        },
      );
      await settled;
      return next.#receipt(sent);
    } catch (error) {
      writes.dropJoint(joint);
      throw error;
    } finally {
      writes.endJoint(joint);
    }
  }

  // Seeing.

  state(): FlowState {
    const { credits, waiting, blocked } = this.#parts.producer.view();
    return {
      ...this.#parts.queue.view(),
      producer: { credits, waiting, blocked },
      target: this.#parts.target.view(),
    };
  }

  /**
   * Why a message waits, and for what; or how it ended.
   * @throws {SpillwayError} not_found
   */
  async why(id: string): Promise<Reason> {
    const parsed = typeof id === "string" ? parseId(id) : undefined;
    if (parsed?.flow === this.name) {
      const reason = await this.#parts.queue.why(parsed.partition, parsed.seq);
      if (reason !== undefined) return reason;
    }
    throw new SpillwayError("not_found", { id, flow: this.name });
  }

  /**
   * Where a message is and why it waits, with what the store knows of it.
   * @throws {SpillwayError} not_found
   */
  async look(id: string): Promise<MessageView> {
    const why = await this.why(id);
    const { partition, seq } = parseId(id)!;
    const looked = await this.#parts.queue.shelves.look(partition, seq);
    return messageView(id, why, looked);
  }

  // Operating.

  /** Nothing is handed out any more; messages are still taken in. @param partition Absent: the flow. */
  async pause(partition?: number): Promise<void> {
    this.#checkPartition(partition);
    this.#parts.queue.pause(partition);
    const { pausedPartitions } = this.#controls;
    await this.#control(
      partition === undefined
        ? { paused: true }
        : { pausedPartitions: [...new Set([...pausedPartitions, partition])] },
    );
  }

  async resume(partition?: number): Promise<void> {
    this.#checkPartition(partition);
    this.#parts.queue.resume(partition);
    const { pausedPartitions } = this.#controls;
    await this.#control(
      partition === undefined
        ? { paused: false }
        : { pausedPartitions: pausedPartitions.filter((paused) => paused !== partition) },
    );
  }

  /**
   * New messages are refused with `intake_closed`; what is stored is handed out.
   * @param partition Absent: the flow. Of one partition: messages without key go to the others.
   */
  async closeIntake(partition?: number): Promise<void> {
    this.#checkPartition(partition);
    this.#parts.queue.setIntake(true, partition);
    const { closedPartitions } = this.#controls;
    await this.#control(
      partition === undefined
        ? { intakeClosed: true }
        : { closedPartitions: [...new Set([...closedPartitions, partition])] },
    );
  }

  async openIntake(partition?: number): Promise<void> {
    this.#checkPartition(partition);
    this.#parts.queue.setIntake(false, partition);
    const { closedPartitions } = this.#controls;
    await this.#control(
      partition === undefined
        ? { intakeClosed: false }
        : { closedPartitions: closedPartitions.filter((closed) => closed !== partition) },
    );
  }

  /** Closes the intake, of the flow or of one partition, and resolves when nothing is pending there. */
  async drain(
    options: { partition?: number; signal?: AbortSignal; pollMs?: number } = {},
  ): Promise<void> {
    checkOptions(options);
    checkSignal(options.signal);
    const { partition, pollMs = 20, signal } = options;
    await this.closeIntake(partition);
    const { machine } = this.#parts.queue;
    const left = (): number =>
      partition === undefined
        ? machine.stored().messages
        : (machine.partitions[partition]?.storedMessages ?? 0);
    while (left() > 0) {
      if (isAborted(signal)) throw new SpillwayError("aborted", {}, { cause: signal?.reason });
      await new Promise<void>((resolve) => this.#parts.clock.after(pollMs, resolve));
    }
  }

  #checkPartition(partition: unknown): void {
    checkPlace("partition", partition, this.#contract.partitions);
  }

  async #control(change: Partial<Controls>): Promise<void> {
    this.#controls = { ...this.#controls, ...change };
    await this.#parts.saveControls(this.#controls);
  }

  /**
   * Changes limits and policies from now on.
   * @throws {SpillwayError} contract_invalid
   */
  change(patch: PolicyPatch): Contract {
    const before = this.#contract;
    this.#contract = changePolicy(before, patch);
    this.#parts.queue.change(this.#contract);
    // The target may be shared, and what it has learnt is kept unless its own limits change.
    if (targetLimits(before) !== targetLimits(this.#contract)) {
      this.#parts.target.change(this.#contract);
    }
    return this.#contract;
  }

  /**
   * Dead letters of all partitions, oldest first in each.
   * @param options.after Only those behind this id in that order.
   * @throws {SpillwayError} not_found: `after` is no id of this flow.
   */
  async *deadLetters(options: { readonly after?: string } = {}): AsyncGenerator<DeadLetter, void> {
    checkOptions(options);
    const { after } = options;
    const [[from, fromSeq] = [0, [0]]] = after === undefined ? [] : this.#seqs([after]);
    for (let partition = from; partition < this.#contract.partitions; partition++) {
      let afterSeq = partition === from ? fromSeq[0]! : 0;
      for (;;) {
        const page = await this.#parts.queue.shelves.list("dead", {
          partition,
          afterSeq,
          limit: 256,
        });
        for (const entry of page) yield deadLetter(this.#ids.of(partition, entry.seq), entry);
        if (page.length < 256) break;
        afterSeq = page.at(-1)!.seq;
      }
    }
  }

  /**
   * Brings dead letters back under their ids, with no attempts, as the buffer has room.
   * @param options.ids Only these; all by default. @returns How many.
   */
  async redrive(options: { ids?: readonly string[]; max?: number } = {}): Promise<number> {
    checkOptions(options);
    const { ids, max = Infinity } = options;
    if (typeof max !== "number" || !(max >= 0)) refuseOption("max", max, "a number, 0 or more");
    return this.#parts.queue.shelves.redrive({
      max,
      ...(ids === undefined ? {} : { seqs: this.#seqs(ids) }),
    });
  }

  /** Discards dead letters for good, with a reason that stays listed. @returns How many there were. */
  async purge(ids: readonly string[], reason: string): Promise<number> {
    if (typeof reason !== "string") refuseOption("reason", typeof reason, "text");
    let count = 0;
    for (const [partition, seqs] of this.#seqs(ids)) {
      count += await this.#parts.queue.shelves.purge(partition, seqs, reason);
    }
    return count;
  }

  #seqs(ids: readonly string[]): Map<number, number[]> {
    if (!Array.isArray(ids)) refuseOption("ids", typeof ids, "an array of ids");
    const seqs = new Map<number, number[]>();
    for (const id of ids) {
      const parsed = typeof id === "string" ? parseId(id) : undefined;
      if (parsed?.flow !== this.name || parsed.partition >= this.#contract.partitions) {
        throw new SpillwayError("not_found", { id, flow: this.name });
      }
      const list = seqs.get(parsed.partition) ?? [];
      list.push(parsed.seq);
      seqs.set(parsed.partition, list);
    }
    return seqs;
  }

  /** Told by the instance: facts of the queue become events. */
  tell(fact: QueueFact): void {
    if (fact.kind === "stopped") {
      this.#emit("stopped", { partition: fact.partition, code: fact.code });
      return;
    }
    const { kind, partition, seq, ...rest } = fact;
    const id = this.#ids.of(partition, seq);
    if ("dueAtMs" in rest) {
      const { dueAtMs, attempt, error } = rest;
      this.#emit("retrying", { id, attempt, error, dueAt: new Date(dueAtMs) });
    } else {
      this.#emit(kind, { id, ...rest });
    }
  }

  /** A listener that throws is a warning of the process: neither the flow nor the others suffer. */
  #emit(event: keyof FlowEvents, ...args: unknown[]): void {
    if (this.#events.listenerCount(event) === 0) return;
    const warn = (error: unknown): void =>
      process.emitWarning(`flow ${this.name}: a listener of "${event}" failed: ${textOf(error)}`);
    for (const listener of this.#events.rawListeners(event)) {
      try {
        const result: unknown = Reflect.apply(listener, this, args);
        if (result instanceof Promise) result.catch(warn);
      } catch (error) {
        warn(error);
      }
    }
  }

  tellBlocked(refusal: Refused): void {
    const { code, retryAfterMs } = refusal;
    this.#emit("blocked", { code, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
  }

  tellResumed(): void {
    this.#emit("resumed");
  }

  tellBreaker(from: string, to: string): void {
    this.#emit("breaker", { from, to });
  }

  /** An error that nobody listens for is a warning of the process, never its end. */
  tellError(error: SpillwayError): void {
    if (this.#events.listenerCount("error") > 0) this.#emit("error", error);
    else process.emitWarning(`flow ${this.name}: ${error.message}`, { code: error.code });
  }
}

export interface Consumer extends Disposable {
  /** Takes nothing more; what it has goes on. */
  stop(): void;
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function targetLimits({ window, rate }: Contract): string {
  return JSON.stringify({ window, rate });
}

function refusalOf(refused: Refused): Refusal {
  const { code, retryAfterMs } = refused;
  return { accepted: false, code, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
}

function batchRefusalOf(error: unknown): BatchRefusal {
  const known =
    error instanceof SpillwayError
      ? error
      : new SpillwayError("message_invalid", { found: textOf(error) }, { cause: error });
  const { code, retryAfterMs } = known;
  return {
    accepted: false,
    code,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    error: known,
  };
}

function msOf(span: Span): number {
  const ms = parseMs(span);
  if (ms !== undefined) return ms;
  const allowed = 'a number of ms, or text such as "10s"';
  throw new SpillwayError("option_invalid", { option: "timeout", found: span, allowed });
}

export type { MessageOptions };

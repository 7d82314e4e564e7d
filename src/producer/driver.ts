/**
 * Turns sends into promises: one for each message, settled when the queue has answered. All sends of
 * one turn of the event loop leave together.
 */
import { SpillwayError } from "../base/index.ts";
import type { Clock, Timer } from "../base/index.ts";
import type { Draft, Link, ProducerFrame, ToProducerFrame } from "../protocol/index.ts";
import { ProducerMachine } from "./machine.ts";
import type { Op, ProducerEffect, ProducerOptions, Refused, Route } from "./machine.ts";

export interface Sent {
  readonly partition: number;
  readonly seq: number;
  /** The message was accepted before, under the same idempotency key. */
  readonly duplicate: boolean;
}

export interface Waiting {
  readonly signal?: AbortSignal | undefined;
  /** How long to wait for credit; for ever by default. */
  readonly timeoutMs?: number | undefined;
}

/** Where one message's answer goes. */
interface Answer {
  resolve(sent: Sent): void;
  reject(error: SpillwayError): void;
  /** Called when a joint draft has left. */
  left?(): void;
}

/** Messages that are answered together: one object for all of them, and one for each. */
interface Batch {
  left: number;
  readonly answered: (at: number, answer: Sent | SpillwayError) => void;
  readonly resolve: () => void;
}

class BatchAnswer implements Answer {
  readonly #batch: Batch;
  readonly #at: number;

  constructor(batch: Batch, at: number) {
    this.#batch = batch;
    this.#at = at;
  }

  resolve(sent: Sent): void {
    this.#give(sent);
  }

  reject(error: SpillwayError): void {
    this.#give(error);
  }

  #give(answer: Sent | SpillwayError): void {
    const batch = this.#batch;
    batch.answered(this.#at, answer);
    if (--batch.left === 0) batch.resolve();
  }
}

/** One message of a batch; `at` is its place in it. */
export interface Item {
  readonly draft: Draft;
  readonly route: Route;
  readonly at: number;
}

export interface ProducerDeps {
  readonly clock: Clock;
  readonly link: Link<ProducerFrame, ToProducerFrame>;
  readonly onBlocked: (refusal: Refused) => void;
  readonly onResumed: () => void;
}

export class ProducerDriver {
  readonly #machine: ProducerMachine<Answer>;
  readonly #deps: ProducerDeps;
  readonly #isDirect: boolean;
  readonly #waitingMax: number;
  #timer: Timer | undefined;
  #isScheduled = false;
  #isClosed = false;
  #isStopped = false;
  readonly #ready: (() => void)[] = [];

  constructor(options: ProducerOptions, deps: ProducerDeps) {
    this.#machine = new ProducerMachine(options);
    this.#isDirect = options.beatGapMs === 0;
    this.#waitingMax = options.waitingMax;
    this.#deps = deps;
    deps.link.onFrame = (frame) => {
      this.#machine.frame(frame, deps.clock.now());
      this.#schedule();
    };
  }

  /**
   * Resolves once the message is durable (G1).
   * @throws {SpillwayError} What the queue refused it with, aborted, timed_out, closed.
   */
  send(draft: Draft, route: Route, waiting: Waiting = {}, left?: () => void): Promise<Sent> {
    const { signal, timeoutMs } = waiting;
    if (signal?.aborted === true) return Promise.reject(abortOf(signal));
    const { promise, resolve, reject } = Promise.withResolvers<Sent>();
    const answer: Answer = left === undefined ? { resolve, reject } : { resolve, reject, left };
    const op = this.#offer(draft, route, answer, true);
    if ("code" in op) reject(errorOf(op));
    else if (signal !== undefined || timeoutMs !== undefined) {
      return this.#bounded(promise, op, reject, signal, timeoutMs);
    }
    return promise;
  }

  /** @returns The promise of its answer, or why it cannot be sent now. */
  trySend(draft: Draft, route: Route): Promise<Sent> | Refused {
    const { promise, resolve, reject } = Promise.withResolvers<Sent>();
    const op = this.#offer(draft, route, { resolve, reject }, false);
    return "code" in op ? op : promise;
  }

  /**
   * Sends many, in order; calls with each one's answer. Resolves when all are answered. While more wait
   * than may (Q4), it waits before them: a batch can, where a single send would be refused.
   * @param signal Ends the wait of those that were not sent.
   */
  async sendMany(
    items: readonly Item[],
    signal: AbortSignal | undefined,
    answered: (at: number, answer: Sent | SpillwayError) => void,
  ): Promise<void> {
    while (!isAborted(signal) && !this.#hasRoomFor(items.length)) await this.#readyOr(signal);
    if (!isAborted(signal)) return this.#sendAll(items, signal, answered);
    for (const { at } of items) answered(at, abortOf(signal));
  }

  /** Resolves when nothing waits for credit, or when the signal aborts. */
  async #readyOr(signal: AbortSignal | undefined): Promise<void> {
    if (signal === undefined) return this.ready();
    const { promise: aborted, resolve } = Promise.withResolvers<void>();
    const onAbort = (): void => resolve();
    signal.addEventListener("abort", onAbort);
    await Promise.race([this.ready(), aborted]);
    signal.removeEventListener("abort", onAbort);
  }

  #hasRoomFor(count: number): boolean {
    if (this.#isClosed || this.#isStopped) return true; // It is refused at once.
    const { waiting } = this.#machine;
    return waiting === 0 || waiting + count <= this.#waitingMax;
  }

  #sendAll(
    items: readonly Item[],
    signal: AbortSignal | undefined,
    answered: (at: number, answer: Sent | SpillwayError) => void,
  ): Promise<void> {
    if (items.length === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const batch: Batch = { left: items.length, answered, resolve };
    const ops: Op<Answer>[] = [];
    for (const { draft, route, at } of items) {
      const answer = new BatchAnswer(batch, at);
      const op = this.#offer(draft, route, answer, true);
      if ("code" in op) answer.reject(errorOf(op));
      else if (signal !== undefined) ops.push(op);
    }
    if (signal === undefined) return promise;
    const onAbort = (): void => {
      for (const op of ops) if (this.#machine.cancel(op)) op.token.reject(abortOf(signal));
      this.#schedule();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  #offer(draft: Draft, route: Route, answer: Answer, wait: boolean): Op<Answer> | Refused {
    if (this.#isClosed || this.#isStopped) return { code: "closed" };
    const nowMs = this.#deps.clock.now();
    const partition = this.#machine.steer(route, nowMs);
    let op = this.#machine.offer(partition, draft, answer, nowMs, wait);
    if ("code" in op && this.#isDirect && !wait) {
      // Over a function call the answer to a request comes within the call.
      this.#machine.ask(partition, draft.bytes, nowMs);
      this.#flush();
      op = this.#machine.offer(partition, draft, answer, nowMs, wait);
    }
    this.#schedule();
    return op;
  }

  /** A wait that a signal or a time ends; what has been sent is waited for in any case. */
  async #bounded(
    promise: Promise<Sent>,
    op: Op<Answer>,
    reject: (error: SpillwayError) => void,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
  ): Promise<Sent> {
    const give = (error: SpillwayError): void => {
      if (!this.#machine.cancel(op)) return;
      reject(op.maybe ? new SpillwayError("outcome_unknown", {}, { cause: error }) : error);
      this.#schedule();
    };
    const timedOut = (): SpillwayError => {
      const { code: waitedFor, retryAfterMs = 0 } = this.#machine.waitsFor(op);
      return new SpillwayError("timed_out", { timeoutMs, waitedFor, retryAfterMs });
    };
    const onAbort = (): void => give(abortOf(signal!));
    signal?.addEventListener("abort", onAbort);
    const timer =
      timeoutMs === undefined
        ? undefined
        : this.#deps.clock.after(timeoutMs, () => give(timedOut()));
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
      timer?.cancel();
    }
  }

  /** Resolves when nothing waits for credit. */
  ready(): Promise<void> {
    if (this.#isClosed || this.#machine.waiting === 0) return Promise.resolve();
    return new Promise((resolve) => this.#ready.push(resolve));
  }

  view(): ReturnType<ProducerMachine<Answer>["view"]> {
    return this.#machine.view(this.#deps.clock.now());
  }

  /** @throws {SpillwayError} invariant_broken */
  check(): void {
    this.#machine.check();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isClosed) return;
    this.#isScheduled = true;
    this.#deps.clock.defer(() => {
      this.#isScheduled = false;
      if (!this.#isClosed) this.#flush();
    });
  }

  #flush(): void {
    const { clock } = this.#deps;
    this.#carryOut(this.#machine.flush(clock.now()));
    if (this.#machine.waiting === 0) for (const resolve of this.#ready.splice(0)) resolve();
    const nowMs = clock.now();
    const atMs = this.#machine.nextWakeAtMs(nowMs);
    this.#timer?.cancel();
    this.#timer = undefined;
    if (atMs < Infinity) {
      this.#timer = clock.after(Math.max(1, atMs - nowMs), () => this.#schedule());
    }
  }

  #carryOut(effects: readonly ProducerEffect<Answer>[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "frame":
          this.#deps.link.send(effect.frame);
          break;
        case "accepted":
          effect.op.token.resolve(effect); // It says what `Sent` does.
          break;
        case "refused":
          effect.op.token.reject(errorOf(effect.refusal));
          break;
        case "left":
          effect.op.token.left?.();
          break;
        case "blocked":
          this.#deps.onBlocked(effect.refusal);
          break;
        case "resumed":
          this.#deps.onResumed();
          break;
      }
    }
  }

  /** Takes no more and ends what waits for credit; what has been sent is still answered. */
  stop(): void {
    this.#isStopped = true;
    this.#machine.stop();
    this.#schedule();
  }

  /** Ends every send that was not answered. */
  close(): void {
    if (this.#isClosed) return;
    this.#machine.close();
    this.#carryOut(this.#machine.flush(this.#deps.clock.now()));
    this.#isClosed = true;
    this.#timer?.cancel();
    for (const resolve of this.#ready.splice(0)) resolve();
  }
}

function errorOf(refusal: Refused): SpillwayError {
  const { code, retryAfterMs, found, allowed } = refusal;
  return new SpillwayError(code, {
    ...(found === undefined ? {} : { found }),
    ...(allowed === undefined ? {} : { allowed }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

function isAborted(signal: AbortSignal | undefined): signal is AbortSignal {
  return signal?.aborted === true;
}

function abortOf(signal: AbortSignal): SpillwayError {
  return new SpillwayError("aborted", {}, { cause: signal.reason });
}

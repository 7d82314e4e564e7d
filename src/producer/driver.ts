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
  accept(partition: number, seq: number, duplicate: boolean): void;
  reject(error: SpillwayError): void;
  /** Called when a joint draft has left. */
  readonly left?: (() => void) | undefined;
}

class SingleAnswer implements Answer {
  readonly promise: Promise<Sent>;
  readonly left: (() => void) | undefined;
  readonly #resolve: (sent: Sent) => void;
  readonly reject: (error: SpillwayError) => void;

  constructor(left?: () => void) {
    const { promise, resolve, reject } = Promise.withResolvers<Sent>();
    this.promise = promise;
    this.left = left;
    this.#resolve = resolve;
    this.reject = reject;
  }

  accept(partition: number, seq: number, duplicate: boolean): void {
    this.#resolve({ partition, seq, duplicate });
  }
}

/** Answers to the messages of a batch; `at` is a message's place in what was given to `sendMany`. */
export interface BatchAnswers {
  accepted(at: number, partition: number, seq: number, duplicate: boolean): void;
  refused(at: number, error: SpillwayError): void;
}

/** Messages that are answered together: one object for all of them, and one for each. */
interface Batch {
  left: number;
  readonly answers: BatchAnswers;
  readonly resolve: () => void;
}

class BatchAnswer implements Answer {
  readonly #batch: Batch;
  readonly #at: number;

  constructor(batch: Batch, at: number) {
    this.#batch = batch;
    this.#at = at;
  }

  accept(partition: number, seq: number, duplicate: boolean): void {
    this.#batch.answers.accepted(this.#at, partition, seq, duplicate);
    this.#answered();
  }

  reject(error: SpillwayError): void {
    this.#batch.answers.refused(this.#at, error);
    this.#answered();
  }

  #answered(): void {
    if (--this.#batch.left === 0) this.#batch.resolve();
  }
}

export interface Item {
  readonly draft: Draft;
  readonly route: Route;
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
  readonly #onAnswered: (() => void)[] = [];

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
    const answer = new SingleAnswer(left);
    const op = this.#offer(draft, route, answer, true);
    if ("code" in op) answer.reject(errorOf(op));
    else if (signal !== undefined || timeoutMs !== undefined) {
      return this.#bounded(answer, op, signal, timeoutMs);
    }
    return answer.promise;
  }

  /** @returns The promise of its answer, or why it cannot be sent now. */
  trySend(draft: Draft, route: Route): Promise<Sent> | Refused {
    const answer = new SingleAnswer();
    const op = this.#offer(draft, route, answer, false);
    return "code" in op ? op : answer.promise;
  }

  /**
   * Sends many, in order. Resolves when all are answered. While more wait than may (Q4), it waits before
   * them: a batch can, where a single send would be refused.
   * @param signal Ends the wait of those that were not sent.
   */
  async sendMany(
    items: readonly Item[],
    signal: AbortSignal | undefined,
    answers: BatchAnswers,
  ): Promise<void> {
    while (!isAborted(signal) && !this.#hasRoomFor(items.length)) await this.#readyOr(signal);
    if (!isAborted(signal)) return this.#sendAll(items, signal, answers);
    for (let at = 0; at < items.length; at++) answers.refused(at, abortOf(signal));
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
    answers: BatchAnswers,
  ): Promise<void> {
    if (items.length === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const batch: Batch = { left: items.length, answers, resolve };
    const ops: Op<Answer>[] = [];
    for (let at = 0; at < items.length; at++) {
      const { draft, route } = items[at]!;
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
    if ("code" in op && this.#isDirect && !wait && op.code !== "group_limited") {
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
    answer: SingleAnswer,
    op: Op<Answer>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
  ): Promise<Sent> {
    const give = (error: SpillwayError): void => {
      if (!this.#machine.cancel(op)) return;
      answer.reject(op.maybe ? new SpillwayError("outcome_unknown", {}, { cause: error }) : error);
      this.#schedule();
    };
    const timedOut = (): SpillwayError => {
      const { code: waitedFor, retryAfterMs = 0 } = this.#machine.waitsFor(
        op,
        this.#deps.clock.now(),
      );
      return new SpillwayError("timed_out", { timeoutMs, waitedFor, retryAfterMs });
    };
    const onAbort = (): void => give(abortOf(signal!));
    signal?.addEventListener("abort", onAbort);
    const timer =
      timeoutMs === undefined
        ? undefined
        : this.#deps.clock.after(timeoutMs, () => give(timedOut()));
    try {
      return await answer.promise;
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

  /** Resolves when everything that was sent is answered. */
  answered(): Promise<void> {
    if (this.#isClosed || this.#machine.isAnswered) return Promise.resolve();
    return new Promise((resolve) => this.#onAnswered.push(resolve));
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
    if (this.#onAnswered.length > 0 && this.#machine.isAnswered) {
      for (const resolve of this.#onAnswered.splice(0)) resolve();
    }
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
        case "accepted": {
          const { ops, partition, seq, duplicate } = effect;
          for (let at = 0; at < ops.length; at++) {
            ops[at]!.token.accept(partition, seq + at, duplicate);
          }
          break;
        }
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

  /** What the link led to is gone; what waits goes on waiting, until streams are opened again. */
  disconnected(): void {
    this.#machine.disconnected();
    this.#schedule();
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
    for (const resolve of [...this.#ready.splice(0), ...this.#onAnswered.splice(0)]) resolve();
  }
}

function errorOf(refusal: Refused): SpillwayError {
  const { code, retryAfterMs, bound, found, allowed } = refusal;
  return new SpillwayError(code, {
    ...(bound === undefined ? {} : { bound }),
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

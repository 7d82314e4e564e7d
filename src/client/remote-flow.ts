/** A flow of a server, as the library's own: sends on live credit, takes under a window of its own. */
import { checkOptions, checkSignal, Emitter, SpillwayError, textOf } from "../base/index.ts";
import type { Clock, ErrorCode } from "../base/index.ts";
import { consume, deliveries, TargetDriver } from "../consumer/index.ts";
import type { Consumer, Delivery, Handler, HandlerOptions } from "../consumer/index.ts";
import { Ids } from "../flow/index.ts";
import type { Validator } from "../flow/index.ts";
import { ProducerDriver, Sender, timeoutOf } from "../producer/index.ts";
import type {
  BatchResult,
  MessageOptions,
  Receipt,
  Refusal,
  SendOptions,
} from "../producer/index.ts";
import type {
  Attached,
  ConsumerFrame,
  Link,
  ProducerFrame,
  ToConsumerFrame,
  ToProducerFrame,
} from "../protocol/index.ts";
import type { Connection } from "./connection.ts";

export interface RemoteFlowEvents {
  /** Sends wait for credit or a connection, and why. */
  blocked: [{ readonly code: ErrorCode; readonly retryAfterMs?: number }];
  resumed: [];
  breaker: [{ readonly from: string; readonly to: string }];
  /** The server does not let this client send to, or take from, the flow. */
  error: [SpillwayError];
}

export interface RemoteFlowParts {
  readonly name: string;
  readonly connection: Connection;
  readonly clock: Clock;
  readonly seed: number;
  readonly outbox: { readonly messages: number; readonly bytes: number };
  readonly validate: Validator<unknown> | undefined;
  /** Aborts when the client closes. */
  readonly closed: AbortSignal;
}

/** Least time between heartbeats of a sender that waits. */
const beatGapMs = 20;

export class RemoteFlow<T = unknown> {
  readonly name: string;
  readonly #parts: RemoteFlowParts;
  readonly #events = new Emitter<RemoteFlowEvents>((event, error) =>
    console.warn(`flow ${this.name}: a listener of "${event}" failed: ${textOf(error)}`),
  );
  #producing: Producing<T> | undefined;
  #consuming: Consuming | undefined;

  constructor(parts: RemoteFlowParts) {
    this.#parts = parts;
    this.name = parts.name;
  }

  on<Name extends keyof RemoteFlowEvents>(
    event: Name,
    listener: (...args: RemoteFlowEvents[Name]) => void,
  ): this {
    this.#events.on(event, listener);
    return this;
  }

  once<Name extends keyof RemoteFlowEvents>(
    event: Name,
    listener: (...args: RemoteFlowEvents[Name]) => void,
  ): this {
    this.#events.once(event, listener);
    return this;
  }

  off<Name extends keyof RemoteFlowEvents>(
    event: Name,
    listener: (...args: RemoteFlowEvents[Name]) => void,
  ): this {
    this.#events.off(event, listener);
    return this;
  }

  get #sending(): Producing<T> {
    this.#producing ??= new Producing<T>(this.#parts, this.#events);
    return this.#producing;
  }

  get #taking(): Consuming {
    this.#consuming ??= new Consuming(this.#parts, this.#events);
    return this.#consuming;
  }

  /**
   * Sends one message; waits for a connection and for credit. Resolves once it is durable at the
   * server (G1).
   * @throws {SpillwayError} As the library's `send`; disconnected or no_credit: the outbox is full;
   *   outcome_unknown: the connection ended for good before the answer, and there was no idempotency key
   */
  async send(value: T, options: SendOptions = {}): Promise<Receipt> {
    checkOptions(options);
    checkSignal(options.signal);
    const sender = this.#sending.sender ?? (await this.#sending.attached(options));
    return sender.send(value, options);
  }

  /** Sends one message if there is credit now. @returns The promise of its receipt, or why not. */
  trySend(value: T, options: MessageOptions = {}): Promise<Receipt> | Refusal {
    const { sender } = this.#sending;
    if (sender !== undefined) return sender.trySend(value, options);
    return { accepted: false, code: "disconnected", retryAfterMs: 1000 };
  }

  /** Sends many messages; a result for each, in order. Waits as `send` does. */
  async sendBatch(
    values: readonly T[],
    optionsOf?: (value: T, at: number) => MessageOptions,
    waiting: { signal?: AbortSignal } = {},
  ): Promise<BatchResult[]> {
    const sender = this.#sending.sender ?? (await this.#sending.attached(waiting));
    return sender.sendBatch(values, optionsOf, waiting);
  }

  /** Messages written to it are sent; it holds its writer back while there is no credit. */
  async writable(optionsOf: (value: T) => MessageOptions = () => ({})): Promise<WritableStream<T>> {
    const sender = this.#sending.sender ?? (await this.#sending.attached({}));
    return sender.writable(optionsOf);
  }

  /**
   * Resolves when the flow is known and no send waits for credit.
   * @throws {SpillwayError} aborted, closed, or why the server does not let it send
   */
  async ready({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const waiting = signal === undefined ? {} : { signal };
    const sender = this.#sending.sender ?? (await this.#sending.attached(waiting));
    if (signal === undefined) return sender.driver.ready();
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(new SpillwayError("aborted", {}, { cause: signal.reason }));
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort);
    await Promise.race([sender.driver.ready(), aborted]).finally(() =>
      signal.removeEventListener("abort", onAbort),
    );
  }

  /** Credit in hand, and how many sends wait for it. */
  credits(): { readonly messages: number; readonly waiting: number; readonly blocked: boolean } {
    const { sender, pending } = this.#sending;
    return sender?.credits() ?? { messages: 0, waiting: pending, blocked: pending > 0 };
  }

  /** Handles messages: returning acks, throwing retries by the contract. */
  consume(handler: Handler<T>, options: HandlerOptions & { signal?: AbortSignal } = {}): Consumer {
    const taking = this.#taking;
    const stops: (() => void)[] = [];
    let isStopped = false;
    const attached = (target: TargetDriver): void => {
      if (isStopped) return;
      const consumer = consume(target, this.name, handler, options);
      stops.push(() => consumer.stop());
    };
    taking.whenAttached(attached, ({ message }) => {
      if (this.#events.has("error")) return; // Who listens hears of it.
      console.warn(`flow ${this.name}: its handler gets nothing: ${message}`);
    });
    const stop = (): void => {
      isStopped = true;
      for (const each of stops) each();
    };
    return { [Symbol.dispose]: stop, stop };
  }

  /** Deliveries one by one, each to be settled by its own verbs. */
  async *deliveries(options: { signal?: AbortSignal } = {}): AsyncGenerator<Delivery<T>, void> {
    const { closed } = this.#parts;
    const signals = options.signal === undefined ? [closed] : [options.signal, closed];
    const { promise, resolve, reject } = Promise.withResolvers<TargetDriver | undefined>();
    this.#taking.whenAttached(resolve, reject);
    const onAbort = (): void => resolve(undefined);
    for (const signal of signals) signal.addEventListener("abort", onAbort);
    try {
      if (signals.some(({ aborted }) => aborted)) return;
      const target = await promise;
      if (target !== undefined) yield* deliveries<T>(target, this.name, signals);
    } finally {
      for (const signal of signals) signal.removeEventListener("abort", onAbort);
    }
  }

  /** The window of this process, and what is in flight in it; undefined: nothing was attached yet. */
  target(): ReturnType<TargetDriver["view"]> | undefined {
    return this.#consuming?.target?.view();
  }

  /** Takes nothing new, lets handlers end until `timeUp`, gives back the rest. */
  async close(timeUp: Promise<void>): Promise<void> {
    this.#producing?.stop();
    const target = this.#consuming?.target;
    target?.drain();
    await Promise.race([Promise.all([target?.idle(), this.#producing?.answered()]), timeUp]);
    target?.release();
  }

  /** Ends what was not answered. */
  end(): void {
    this.#producing?.close();
    this.#consuming?.close();
  }
}

/** The sending half: made when the first message is sent. */
class Producing<T> {
  sender: Sender<T> | undefined;
  /** Sends that wait for the first connection. */
  pending = 0;
  readonly #parts: RemoteFlowParts;
  readonly #events: Emitter<RemoteFlowEvents>;
  readonly #attached = Promise.withResolvers<Sender<T>>();
  readonly #channel: number;
  #link: Link<ProducerFrame, ToProducerFrame> | undefined;

  constructor(parts: RemoteFlowParts, events: Emitter<RemoteFlowEvents>) {
    this.#parts = parts;
    this.#events = events;
    this.#attached.promise.catch(() => undefined); // Who waits for it hears of it.
    this.#channel = parts.connection.attach({
      role: "produce",
      flow: parts.name,
      onAttached: (attached) => this.#open(attached),
      onReset: () => this.sender?.driver.disconnected(),
      onRejected: (error) => this.#fail(error),
      onFrame: (frame) => this.#link?.onFrame(frame as ToProducerFrame),
    });
  }

  #fail(error: SpillwayError): void {
    this.#attached.reject(error);
    this.sender?.driver.close();
    this.#events.emit("error", error);
  }

  #open(attached: Attached): void {
    if (this.sender !== undefined) return; // What a flow is made of does not change.
    const { name, connection, clock, seed, outbox, validate } = this.#parts;
    const channel = this.#channel;
    this.#link = {
      send: (frame) => connection.send({ kind: "produce", channel, frame }),
      onFrame: () => undefined,
    };
    const { partitions, shards } = attached;
    const waitingBytesMax = outbox.bytes;
    const driver = new ProducerDriver(
      { partitions, shards, seed, waitingMax: outbox.messages, waitingBytesMax, beatGapMs },
      {
        clock,
        link: this.#link,
        onBlocked: ({ code, retryAfterMs }) =>
          this.#events.emit("blocked", {
            code,
            ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
          }),
        onResumed: () => this.#events.emit("resumed"),
      },
    );
    const { payload, isOrdered, messageBytesMax, durability } = attached;
    const ids = new Ids(name);
    const parts = { payload, isOrdered, messageBytesMax, durability, ids, validate, driver };
    this.sender = new Sender<T>(parts);
    this.#attached.resolve(this.sender);
  }

  /**
   * Waits for the first connection.
   * @throws {SpillwayError} aborted, timed_out, closed, disconnected (the outbox is full), or why the
   *   server does not let it send
   */
  async attached(options: SendOptions): Promise<Sender<T>> {
    const { clock, outbox, closed, connection } = this.#parts;
    const { signal } = options;
    const timeoutMs = timeoutOf(options);
    if (this.pending >= outbox.messages) {
      throw new SpillwayError("disconnected", { found: this.pending, allowed: outbox.messages });
    }
    const { promise: ended, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(new SpillwayError("aborted", {}, { cause: signal?.reason }));
    const onClose = (): void => reject(new SpillwayError("closed"));
    signal?.addEventListener("abort", onAbort);
    closed.addEventListener("abort", onClose);
    const timer =
      timeoutMs === undefined
        ? undefined
        : clock.after(timeoutMs, () => {
            const waitedFor = connection.failure?.code ?? "disconnected";
            reject(new SpillwayError("timed_out", { timeoutMs, waitedFor, retryAfterMs: 1000 }));
          });
    this.pending++;
    try {
      if (signal?.aborted === true) onAbort();
      if (closed.aborted) onClose();
      return await Promise.race([this.#attached.promise, ended]);
    } finally {
      this.pending--;
      signal?.removeEventListener("abort", onAbort);
      closed.removeEventListener("abort", onClose);
      timer?.cancel();
    }
  }

  /** Nothing new; what was sent is still answered. */
  stop(): void {
    this.sender?.driver.stop();
  }

  /** Resolves when everything that was sent is answered. */
  async answered(): Promise<void> {
    await this.sender?.driver.answered();
  }

  close(): void {
    this.sender?.driver.close();
    this.#parts.connection.detach(this.#channel);
  }
}

/** The taking half: made when the first handler comes. */
class Consuming {
  target: TargetDriver | undefined;
  readonly #parts: RemoteFlowParts;
  readonly #events: Emitter<RemoteFlowEvents>;
  readonly #channel: number;
  #link: Link<ConsumerFrame, ToConsumerFrame> | undefined;
  #waiting: { attached(target: TargetDriver): void; rejected(error: SpillwayError): void }[] = [];
  #error: SpillwayError | undefined;

  constructor(parts: RemoteFlowParts, events: Emitter<RemoteFlowEvents>) {
    this.#parts = parts;
    this.#events = events;
    this.#channel = parts.connection.attach({
      role: "consume",
      flow: parts.name,
      onAttached: (attached) => this.#open(attached),
      onReset: () => this.target?.resetFlow(parts.name),
      onRejected: (error) => this.#fail(error),
      onFrame: (frame) => this.#link?.onFrame(frame as ToConsumerFrame),
    });
  }

  #fail(error: SpillwayError): void {
    this.#error = error;
    for (const waiting of this.#waiting.splice(0)) waiting.rejected(error);
    this.target?.release();
    this.#events.emit("error", error);
  }

  whenAttached(
    attached: (target: TargetDriver) => void,
    rejected: (error: SpillwayError) => void,
  ): void {
    if (this.#error !== undefined) rejected(this.#error);
    else if (this.target !== undefined) attached(this.target);
    else this.#waiting.push({ attached, rejected });
  }

  #open(attached: Attached): void {
    if (this.target !== undefined) return;
    const { name, connection, clock, seed } = this.#parts;
    const channel = this.#channel;
    this.#link = {
      send: (frame) => connection.send({ kind: "consume", channel, frame }),
      onFrame: () => undefined,
    };
    const { window, creditLeaseMs, payload } = attached;
    this.target = new TargetDriver(
      { name, window, creditLeaseMs, seed },
      { clock, onBreaker: (from, to) => this.#events.emit("breaker", { from, to }) },
    );
    this.target.addFlow(name, payload === "json", this.#link);
    for (const waiting of this.#waiting.splice(0)) waiting.attached(this.target);
  }

  close(): void {
    this.target?.close();
    this.#parts.connection.detach(this.#channel);
  }
}

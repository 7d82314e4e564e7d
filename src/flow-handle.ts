/** One flow of an open instance: sends, consumers, state and controls. */
import {
  checkOptions,
  checkPlace,
  checkSignal,
  Emitter,
  refuseOption,
  SpillwayError,
  textOf,
} from "./base/index.ts";
import type { Clock, ErrorCode } from "./base/index.ts";
import { consume, deliveries, pull } from "./consumer/index.ts";
import type { Consumer, Delivery } from "./consumer/index.ts";
import type { Handler, HandlerOptions, TargetDriver, TargetView } from "./consumer/index.ts";
import type { EngineProfile } from "./engines/index.ts";
import { changePolicy, Ids, parseId, warningsOf } from "./flow/index.ts";
import type { Contract, PolicyPatch, Validator, Warning } from "./flow/index.ts";
import { deadLetter, messageView } from "./message-view.ts";
import type { DeadLetter, MessageView } from "./message-view.ts";
import { Sender, timeoutOf } from "./producer/index.ts";
import type {
  BatchResult,
  MessageOptions,
  ProducerDriver,
  Receipt,
  Refusal,
  Refused,
  SendOptions,
} from "./producer/index.ts";
import type {
  ConsumerFrame,
  Link,
  ProducerFrame,
  ToConsumerFrame,
  ToProducerFrame,
} from "./protocol/index.ts";
import type { QueueDriver, QueueFact, QueueView, Reason, Writes } from "./queue/index.ts";

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

const routine: ReadonlySet<string> = new Set(["accepted", "acked", "released"]);

export class Flow<T = unknown> {
  readonly name: string;
  readonly #parts: FlowParts;
  readonly #sender: Sender<T>;
  readonly #events = new Emitter<FlowEvents>((event, error) =>
    process.emitWarning(`flow ${this.name}: a listener of "${event}" failed: ${textOf(error)}`),
  );
  readonly #ids: Ids;
  #contract: Contract;
  #controls: Controls;

  constructor(parts: FlowParts) {
    this.#parts = parts;
    this.#ids = new Ids(parts.contract.name);
    this.#contract = parts.contract;
    this.#controls = parts.controls;
    this.name = parts.contract.name;
    const { payload, order, messageBytesMax } = parts.contract;
    this.#sender = new Sender<T>({
      payload,
      isOrdered: order === "key",
      messageBytesMax,
      ids: this.#ids,
      durability: parts.durability,
      validate: parts.validate,
      driver: parts.producer,
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
    if (routine.has(event)) this.#parts.queue.machine.watchesAll = true;
    this.#events.on(event, listener);
    return this;
  }

  once<Name extends keyof FlowEvents>(
    event: Name,
    listener: (...args: FlowEvents[Name]) => void,
  ): this {
    if (routine.has(event)) this.#parts.queue.machine.watchesAll = true;
    this.#events.once(event, listener);
    return this;
  }

  off<Name extends keyof FlowEvents>(
    event: Name,
    listener: (...args: FlowEvents[Name]) => void,
  ): this {
    this.#events.off(event, listener);
    return this;
  }

  // Sending.

  /**
   * Sends one message; waits for credit while there is none. Resolves once it is durable (G1).
   * @throws {SpillwayError} A refusal (deadline_infeasible, rate_limited, intake_closed, store_full,
   *   idempotency_conflict, message_too_large, ...), message_invalid, aborted, timed_out, closed, or
   *   outcome_unknown: with an idempotency key the same send is safe.
   */
  send(value: T, options: SendOptions = {}): Promise<Receipt> {
    return this.#sender.send(value, options);
  }

  /**
   * Sends one message if there is credit now.
   * @returns The promise of its receipt, or why it is not taken. A flow with an asynchronous schema
   *   cannot tell at once: use `send` with a timeout there.
   */
  trySend(value: T, options: MessageOptions = {}): Promise<Receipt> | Refusal {
    return this.#sender.trySend(value, options);
  }

  /**
   * Sends many messages; a result for each, in order. Waits for credit like `send`.
   * @param optionsOf Key, group and so on of each message.
   */
  sendBatch(
    values: readonly T[],
    optionsOf?: (value: T, at: number) => MessageOptions,
    waiting?: { signal?: AbortSignal },
  ): Promise<BatchResult[]> {
    return this.#sender.sendBatch(values, optionsOf, waiting);
  }

  /** Messages written to it are sent; it holds its writer back while there is no credit. */
  writable(optionsOf: (value: T) => MessageOptions = () => ({})): WritableStream<T> {
    return this.#sender.writable(optionsOf);
  }

  /** Resolves when no send waits for credit. */
  ready(): Promise<void> {
    return this.#parts.producer.ready();
  }

  /** Credit in hand, and how many sends wait for it. */
  credits(): { readonly messages: number; readonly waiting: number; readonly blocked: boolean } {
    return this.#sender.credits();
  }

  // Consuming.

  /**
   * Handles messages: returning acks, throwing retries by the contract, and the delivery's own verbs
   * say anything else. Several handlers of one flow, and flows of one target, share its window.
   */
  consume(handler: Handler<T>, options: HandlerOptions & { signal?: AbortSignal } = {}): Consumer {
    return consume(this.#parts.target, this.name, handler, options);
  }

  /** Deliveries one by one, each to be settled by its own verbs; as many at once as are asked for. */
  deliveries(options: { signal?: AbortSignal } = {}): AsyncGenerator<Delivery<T>, void> {
    return deliveries<T>(this.#parts.target, this.name, this.#until(options.signal));
  }

  /**
   * Takes up to `max` deliveries, each to be settled by its own verbs; waits for the first one. What
   * nobody is there for any more when it comes goes back untried.
   * @returns None when nothing came in time.
   */
  pull(options: {
    readonly max: number;
    readonly waitMs: number;
    readonly signal?: AbortSignal;
  }): Promise<Delivery<T>[]> {
    const { max, waitMs } = options;
    const { clock, target } = this.#parts;
    const signals = this.#until(options.signal);
    return pull<T>(target, this.name, clock, { max, waitMs, signals });
  }

  /** What ends a wait: the caller's signal, and the instance's end. */
  #until(signal: AbortSignal | undefined): readonly AbortSignal[] {
    const { closed } = this.#parts;
    return signal === undefined ? [closed] : [signal, closed];
  }

  /** How much the target says that it takes, beside what is measured; null: it says nothing. */
  publishCapacity(limit: number | null): void {
    this.#parts.target.publish(limit);
  }

  /**
   * How many messages the target says that it takes in a second, beside the contract's `rate`; null: it
   * says nothing any more.
   * @throws {SpillwayError} option_invalid
   */
  publishRate(ratePerS: number | null): void {
    if (ratePerS !== null && !(ratePerS > 0)) {
      refuseOption("ratePerS", ratePerS, "a number above 0, or null"); // 0 would never be asked again.
    }
    this.#parts.target.publishRate(ratePerS);
  }

  /** The target says that nothing is to start for so long: 5 minutes at most. */
  publishPause(retryAfterMs: number): void {
    this.#parts.target.publishPause(retryAfterMs);
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
    const { draft, route } = await next.#sender.draft(value, options);
    const { writes, target } = this.#parts;
    const timeoutMs = timeoutOf(options);
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
      return next.#sender.receipt(sent);
    } catch (error) {
      writes.dropJoint(joint);
      throw error;
    } finally {
      writes.endJoint(joint);
    }
  }

  // Ends in other processes.

  /** Another producer, at the end of a link. @param id One of its own. @returns How to take it away. */
  attachProducer(id: string, link: Link<ToProducerFrame, ProducerFrame>): () => void {
    this.#parts.queue.addProducer(id, link);
    return () => this.#parts.queue.removeProducer(id);
  }

  /** Another consumer, at the end of a link: what it has when it is taken away was a failed attempt. */
  attachConsumer(id: string, link: Link<ToConsumerFrame, ConsumerFrame>): () => void {
    this.#parts.queue.addConsumer(id, link, true);
    return () => this.#parts.queue.removeConsumer(id);
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
      this.#events.emit("stopped", { partition: fact.partition, code: fact.code });
      return;
    }
    const { kind, partition, seq, ...rest } = fact;
    const id = this.#ids.of(partition, seq);
    if ("dueAtMs" in rest) {
      const { dueAtMs, attempt, error } = rest;
      this.#events.emit("retrying", { id, attempt, error, dueAt: new Date(dueAtMs) });
    } else {
      this.#events.emit(kind, { id, ...rest });
    }
  }

  tellBlocked(refusal: Refused): void {
    const { code, retryAfterMs } = refusal;
    this.#events.emit("blocked", { code, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
  }

  tellResumed(): void {
    this.#events.emit("resumed");
  }

  tellBreaker(from: string, to: string): void {
    this.#events.emit("breaker", { from, to });
  }

  /** An error that nobody listens for is a warning of the process, never its end. */
  tellError(error: SpillwayError): void {
    if (this.#events.has("error")) this.#events.emit("error", error);
    else process.emitWarning(`flow ${this.name}: ${error.message}`, { code: error.code });
  }
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function targetLimits({ window, rate }: Contract): string {
  return JSON.stringify({ window, rate });
}

export type { BatchRefusal } from "./producer/index.ts";
export type { BatchResult, Consumer, MessageOptions, Receipt, Refusal, SendOptions };

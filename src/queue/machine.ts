/**
 * The middle of a flow: takes messages in on credit (intake), keeps the books of its partitions
 * (partition), chooses what is next (dispatch, waits) and hands it out on credit (delivery). One
 * machine serves all partitions of a flow that this process owns.
 *
 * It is pure: a driver feeds it events with the time at which they came, calls `turn` when a batch of
 * them is in, and carries out what `take` returns. Between a decision and its bookkeeping nothing
 * else happens.
 *
 * M1  accepted = acked + dead + discarded + pending, by the engine's own counters (G2).
 * M2  A started attempt ends once: by its consumer's verdict, the end of its lease, its consumer's
 *     end, or the end of its owner.
 * M3  One suspect at a time: a message that was in flight when a process died is started only while
 *     no other such message is out; after `crashesMax` crashes it is a dead letter.
 * M4  A retry takes a token of the flow's retry budget (R1).
 */
import { catalogue } from "../base/index.ts";
import { budget, drain, recovery } from "../control/index.ts";
import type { Drain, SavedHistory } from "../control/index.ts";
import type { Claim, Descriptor, StoredMessage, WriteResult } from "../engines/engine.ts";
import type { Contract } from "../flow/index.ts";
import type {
  ConsumerFrame,
  Draft,
  ProducerFrame,
  RefusalCode,
  SendResult,
  Settlement,
} from "../protocol/index.ts";
import { answersTo } from "./answers.ts";
import { appendOf } from "./appends.ts";
import { Attempts } from "./attempts.ts";
import { Delivery } from "./delivery.ts";
import { Dispatch } from "./dispatch.ts";
import { factOf } from "./effects.ts";
import type { QueueEffect, QueueFact, QueueWrite } from "./effects.ts";
import type { Entry } from "./entry.ts";
import { Intake } from "./intake.ts";
import type { Stored } from "./intake.ts";
import { Partition } from "./partition.ts";
import type { PendingAppend, PendingChange } from "./outgoing.ts";
import type { RedrivenLetter } from "./partition.ts";
import type { Source } from "./sources.ts";
import { viewOf } from "./view.ts";
import type { QueueView } from "./view.ts";
import { Waits } from "./waits.ts";
import { explain } from "./why.ts";
import type { Reason } from "./why.ts";

/** Payloads kept in memory between append and dispatch; the store has them all. */
const cacheBytesMax = 32 * 1024 * 1024;
/** After a store that took nothing. */
const comeBackMs = 1000;
const dueLimit = 512;
/** What the store alone knows is read this long before it is due. */
const dueAheadMs = 1000;
const sweepEveryMs = 1000;
const routine: ReadonlySet<QueueFact["kind"]> = new Set(["accepted", "acked", "released"]);
const gone = { kind: "nack", error: "the consumer left" } as const;
const leaseEnded = "the lease of the delivery ended";

export class QueueMachine {
  #contract: Contract;
  readonly #attempts: Attempts;
  readonly partitions: readonly Partition[];
  readonly #intake: Intake;
  readonly #dispatch: Dispatch;
  readonly #delivery: Delivery;
  readonly #waits: Waits;
  readonly #drain: Drain;
  readonly #producers = new Set<string>();
  /** Tell of routine facts, too: one object a message, so only while somebody listens. */
  watchesAll = false;
  #effects: QueueEffect[] = [];
  /** Sources that gave something in this turn: they may run low. */
  readonly #drained = new Set<Source>();
  #isPaused = false;
  #isClosing = false;
  #cachedBytes = 0;
  #sweepAtMs = 0;
  /** When the event at hand came. */
  #nowMs: number;

  constructor(contract: Contract, seed: number, nowMs: number) {
    this.#contract = contract;
    this.#nowMs = nowMs;
    this.#drain = drain.init({ expectedRatePerS: contract.expectedRate }, nowMs);
    this.#waits = new Waits(contract.retry.budget, nowMs);
    this.#attempts = new Attempts(seed, this.#waits, this.#drain, {
      contract: () => this.#contract,
      owned: (partition) => this.partitions[partition]!,
      fact: (fact) => this.#fact(fact),
    });
    this.#dispatch = new Dispatch({
      mayDispatch: (partition) => this.#mayDispatch(partition),
      weightOf: (group) => this.#contract.groups.weights[group] ?? 1,
    });
    this.#delivery = new Delivery({
      leaseMs: () => this.#contract.leaseMs,
      send: (consumer, frame) => this.#effects.push({ kind: "toConsumer", consumer, frame }),
      isPaused: (partition) => !this.#mayDispatch(partition),
      expire: (entry, nowMs) => this.#attempts.expires(entry, nowMs),
    });
    this.#intake = new Intake(
      contract,
      this.#drain,
      {
        send: (producer, frame) => this.#effects.push({ kind: "toProducer", producer, frame }),
        take: (producer, partition, position, draft) =>
          this.#accept(producer, partition, position, draft),
        stored: () => this.stored(),
        isKnown: () => this.#isKnown,
        waits: () => this.#isBusy || this.#hasPaused,
      },
      nowMs,
    );
    const host = {
      ordered: contract.order === "key",
      readAhead: contract.readAhead,
      effect: (effect: QueueEffect) => this.#effects.push(effect),
      offer: (source: Source) => this.#dispatch.offer(source),
      startable: (partition: number) => this.#startable(partition),
      starting: (count: number) => (this.#delivery.starting += count),
      delay: (entry: Entry) => {
        for (const late of this.#waits.delay(entry)) this.partitions[late.partition]!.evict(late);
      },
      suspect: (entry: Entry) => this.#attempts.suspect(entry, this.#nowMs),
      prepared: (entry: Entry) => this.#prepared(entry),
      keep: (bytes: number, must: boolean) => this.#keep(bytes, must),
      drop: (bytes: number) => (this.#cachedBytes -= bytes),
    };
    this.partitions = Array.from({ length: contract.partitions }, (_, i) => new Partition(i, host));
  }

  get contract(): Contract {
    return this.#contract;
  }

  /** New limits and policies; the next decisions follow them. */
  change(contract: Contract, nowMs: number): void {
    this.#nowMs = nowMs;
    this.#contract = contract;
    this.#intake.change(contract, nowMs);
    this.#waits.setShare(contract.retry.budget);
  }

  // Owners of partitions.

  claimed(partition: number, claim: Claim, nowMs: number): void {
    this.#nowMs = nowMs;
    this.partitions[partition]!.claimed(claim);
    for (const producer of this.#producers) this.#intake.join(producer, partition, nowMs);
  }

  /** The partition's claim or store is lost: what waits is answered, and nothing more is done there. */
  stopped(partition: number, cause: RefusalCode, nowMs: number): void {
    this.#nowMs = nowMs;
    const owned = this.partitions[partition]!;
    if (owned.stopped !== undefined) return;
    // Only what was being written has an unknown outcome; the others know that nothing was done.
    const code = cause === "outcome_unknown" ? "store_unavailable" : cause;
    const { appends, maybe, changes } = owned.stop(code);
    for (const { confirmTo, change, attempt } of changes) {
      if (confirmTo === undefined) continue;
      const frame = {
        kind: "settled",
        partition,
        seq: change.seq,
        attempt,
        effective: false,
      } as const;
      this.#effects.push({ kind: "toConsumer", consumer: confirmTo, frame });
    }
    const results = [
      ...maybe.map((pending) => ({ pending, code: "outcome_unknown" as const })),
      ...appends.map((pending) => ({ pending, code })),
    ];
    for (const { pending, code } of results) this.#refuse(pending, partition, code);
    owned.entries.forEach((entry) => {
      if (entry.state === "starting") this.#delivery.starting--;
    });
    this.#delivery.drop(partition);
    this.#waits.drop(partition);
    for (const producer of this.#producers) {
      this.#intake.leave(producer, partition, nowMs, true);
      this.#effects.push({
        kind: "toProducer",
        producer,
        frame: { kind: "closed", partition, code },
      });
    }
    this.#fact({ kind: "stopped", partition, code });
  }

  // Hop 1: producers.

  producerJoined(producer: string, nowMs: number): void {
    this.#nowMs = nowMs;
    this.#producers.add(producer);
    for (const owned of this.partitions) {
      if (owned.isOpen) this.#intake.join(producer, owned.index, nowMs);
    }
  }

  /** @param sure Nothing of it can arrive any more. */
  producerLeft(producer: string, nowMs: number, sure: boolean): void {
    this.#nowMs = nowMs;
    this.#producers.delete(producer);
    for (const owned of this.partitions) this.#intake.leave(producer, owned.index, nowMs, sure);
  }

  producerFrame(producer: string, frame: ProducerFrame, nowMs: number): void {
    this.#nowMs = nowMs;
    this.#intake.frame(producer, frame, nowMs);
  }

  /** What was learnt of arrivals, to be kept over a restart; undefined: nothing is learnt. */
  learnt(nowMs: number): SavedHistory | undefined {
    return this.#intake.learnt(nowMs);
  }

  /** Goes on from what was learnt before, if it fits the contract. */
  recall(learnt: SavedHistory, nowMs: number): void {
    this.#intake.recall(learnt, nowMs);
  }

  /** Gives credit at once, without waiting for the turn to end. */
  issue(nowMs: number): void {
    this.#nowMs = nowMs;
    this.#intake.issue(nowMs);
  }

  #accept(producer: string, partition: number, position: number, draft: Draft): void {
    const { bytes, joint } = draft;
    const append = appendOf(draft, this.#contract, this.#nowMs);
    this.partitions[partition]!.outgoing.append({ append, bytes, producer, position, joint });
  }

  #refuse({ position, producer }: PendingAppend, partition: number, code: RefusalCode): void {
    const result: SendResult = {
      kind: "refused",
      position,
      code,
      // A refusal that may pass says when to come back (G12).
      ...(catalogue[code].retry === "later" ? { retryAfterMs: comeBackMs } : {}),
    };
    const frame = { kind: "results", partition, results: [result] } as const;
    this.#effects.push({ kind: "toProducer", producer, frame });
  }

  // The store's answers.

  written(partition: number, result: WriteResult, nowMs: number): void {
    this.#nowMs = nowMs;
    const owned = this.partitions[partition]!;
    if (owned.outgoing.writing === undefined) return; // It was stopped meanwhile.
    const { appends, changes, startedAtMs } = owned.written(result, nowMs);
    this.#delivery.wrote(nowMs - startedAtMs);
    for (const pending of changes) this.#durable(pending, partition);
    for (const { producer, results } of answersTo(appends, result.appended)) {
      const frame = { kind: "results", partition, results } as const;
      this.#effects.push({ kind: "toProducer", producer, frame });
    }
    if (!this.watchesAll) return;
    for (const { kind, seq } of result.appended) {
      if (kind === "stored") this.#fact({ kind: "accepted", partition, seq });
    }
  }

  /**
   * Nothing of the write happened, because the store takes no appends now. Settles go on (E20).
   * @returns The joint writes whose other halves will wait in vain.
   */
  refused(partition: number, code: "store_full" | "buffer_full", nowMs: number): number[] {
    this.#nowMs = nowMs;
    const owned = this.partitions[partition]!;
    if (owned.outgoing.writing === undefined) return [];
    const { appends } = owned.unwritten();
    if (code === "store_full") this.#intake.storeIsFull(nowMs);
    for (const pending of appends) this.#refuse(pending, partition, code);
    return appends.flatMap(({ joint }) => (joint === undefined ? [] : [joint]));
  }

  #durable({ change, entry, attempt, confirmTo }: PendingChange, partition: number): void {
    const { seq } = change;
    if (confirmTo !== undefined) {
      const frame = { kind: "settled", partition, seq, attempt, effective: true } as const;
      this.#effects.push({ kind: "toConsumer", consumer: confirmTo, frame });
    }
    const { kind } = change;
    if (!this.watchesAll && (kind === "ack" || kind === "released")) return;
    const fact = factOf(change, partition, entry?.attempts ?? 0);
    if (fact !== undefined) this.#fact(fact);
  }

  scanned(
    effect: Extract<QueueEffect, { kind: "scan" }>,
    descriptors: readonly Descriptor[],
    heads: readonly number[],
    nowMs: number,
  ): void {
    this.#nowMs = nowMs;
    const { read, source, query } = effect;
    const full = descriptors.length >= query.limit;
    this.partitions[effect.partition]!.reading.scanned(
      read,
      source,
      query.afterSeq,
      descriptors,
      heads,
      full,
    );
  }

  dueRead(
    effect: Extract<QueueEffect, { kind: "due" }>,
    descriptors: readonly Descriptor[],
    heads: readonly number[],
    nowMs: number,
  ): void {
    this.#nowMs = nowMs;
    const full = descriptors.length >= effect.limit;
    this.partitions[effect.partition]!.reading.dueRead(effect.read, descriptors, heads, full);
  }

  keyRead(
    effect: Extract<QueueEffect, { kind: "readKey" }>,
    descriptors: readonly Descriptor[],
    nowMs: number,
  ): void {
    this.#nowMs = nowMs;
    const full = descriptors.length >= effect.limit;
    this.partitions[effect.partition]!.reading.keyRead(
      effect.read,
      effect.keyHash,
      descriptors,
      full,
      nowMs,
    );
  }

  groupsRead(
    effect: Extract<QueueEffect, { kind: "groups" }>,
    groups: readonly string[],
    nowMs: number,
  ): void {
    this.#nowMs = nowMs;
    this.partitions[effect.partition]!.reading.groupsRead(effect.lane, groups);
  }

  loaded(
    effect: Extract<QueueEffect, { kind: "payloads" }>,
    messages: readonly (StoredMessage | null)[],
    nowMs: number,
  ): void {
    this.#nowMs = nowMs;
    const owned = this.partitions[effect.partition]!;
    for (const entry of owned.loaded(effect.seqs, messages)) {
      this.#delivery.starting--;
      this.#waits.ended(entry);
      owned.vanished(entry, nowMs);
    }
  }

  /** A message cannot be read: it is put aside with its reason, never delivered (G13). */
  damaged(partition: number, seq: number, nowMs: number): void {
    this.#nowMs = nowMs;
    const owned = this.partitions[partition]!;
    const entry = owned.entries.get(seq);
    if (entry?.state !== "starting") return;
    entry.needsPayload = false;
    this.#delivery.starting--;
    this.#waits.ended(entry);
    this.#attempts.end(entry, { seq, kind: "dead", reason: "store_corrupt" }, nowMs);
  }

  // Hop 2: consumers.

  /** @param isRemote It is in another process, and what it grants takes a while to come. */
  consumerJoined(consumer: string, nowMs: number, isRemote = false): void {
    this.#nowMs = nowMs;
    this.#delivery.join(consumer, isRemote);
  }

  /** What it had counts as failed attempts: it may have been handled. */
  consumerLeft(consumer: string, nowMs: number): void {
    this.#nowMs = nowMs;
    for (const entry of this.#delivery.leave(consumer)) {
      this.#attempts.resolve(entry, gone, nowMs);
    }
  }

  consumerFrame(consumer: string, frame: ConsumerFrame, nowMs: number): void {
    this.#nowMs = nowMs;
    switch (frame.kind) {
      case "credit":
        this.#delivery.granted(consumer, frame.grant, nowMs);
        break;
      case "settle":
        for (const settlement of frame.settlements) this.#settle(consumer, settlement, nowMs);
        break;
      case "working": {
        const entry = this.partitions[frame.partition]?.entries.get(frame.seq);
        if (entry !== undefined) {
          this.#delivery.extend(entry, consumer, frame.attempt, nowMs + frame.extendMs);
        }
        break;
      }
      case "recovered":
        recovery.begin(this.#dispatch.recovery, nowMs);
        for (const owned of this.partitions) {
          if (!owned.isOpen) continue;
          owned.split();
          for (const source of owned.sources.all()) this.#dispatch.offer(source);
        }
        break;
    }
  }

  #settle(consumer: string, settlement: Settlement, nowMs: number): void {
    const { partition, seq, attempt, verdict, durationMs, confirm, joint } = settlement;
    const entry = this.partitions[partition]?.entries.get(seq);
    if (entry === undefined || !this.#delivery.settled(entry, consumer, attempt, nowMs)) {
      if (!confirm) return;
      const frame = { kind: "settled", partition, seq, attempt, effective: false } as const;
      this.#effects.push({ kind: "toConsumer", consumer, frame });
      return;
    }
    if (verdict.kind !== "release") this.#attempts.handled(attempt, durationMs, nowMs);
    const to = confirm ? consumer : undefined;
    this.#attempts.resolve(entry, verdict, nowMs, { to, attempt, joint });
  }

  // Operators.

  pause(partition?: number): void {
    if (partition === undefined) this.#isPaused = true;
    else this.partitions[partition]!.isPaused = true;
    for (const owned of this.partitions) {
      if (!this.#mayDispatch(owned.index)) this.#delivery.paused(owned.index);
    }
  }

  resume(partition?: number): void {
    if (partition === undefined) this.#isPaused = false;
    else this.partitions[partition]!.isPaused = false;
    for (const owned of this.partitions) {
      if (!this.#mayDispatch(owned.index)) continue;
      this.#delivery.resumed(owned.index);
      for (const source of owned.sources.all()) this.#dispatch.offer(source);
    }
  }

  /**
   * Closed: new messages are refused with `intake_closed`; what is stored goes on.
   * @param partition Absent: the whole flow.
   */
  setIntake(isClosed: boolean, partition?: number): void {
    this.#intake.setClosed(isClosed, partition);
  }

  /** Brings dead letters back, as many as the buffer has room for. @returns How many. */
  redrive(partition: number, letters: readonly RedrivenLetter[]): number {
    const owned = this.partitions[partition]!;
    if (!this.#isKnown) return 0;
    const { messages, bytes } = this.stored();
    const { buffer } = this.#contract;
    let room = buffer.messages - messages - this.#intake.outstanding.messages;
    let roomBytes = buffer.bytes - bytes - this.#intake.outstanding.bytes;
    let count = 0;
    for (const letter of letters) {
      if (room < 1 || roomBytes < letter.bytes) break;
      count++;
      if (!owned.redrive(letter)) continue; // It is on its way already.
      room--;
      roomBytes -= letter.bytes;
    }
    return count;
  }

  purge(partition: number, seqs: readonly number[], reason: string): void {
    for (const seq of seqs) {
      this.partitions[partition]!.outgoing.change({ seq, kind: "discard", reason }, undefined);
    }
  }

  /** Nothing new is started; what was started and not handed out gets its attempt back. */
  close(): void {
    this.#isClosing = true;
    this.#intake.setClosed(true);
    this.#takeBack();
  }

  #takeBack(): void {
    for (const entry of this.#delivery.takePrepared()) {
      this.#attempts.resolve(entry, { kind: "release" }, this.#nowMs);
    }
  }

  #prepared(entry: Entry): void {
    this.#delivery.prepared(entry);
    if (this.#isClosing) this.#takeBack();
  }

  // Turns.

  /** Ends a batch of events: leases, due times, the next dispatches, credit. */
  turn(nowMs: number): void {
    this.#nowMs = nowMs;
    for (const entry of this.#delivery.expired(nowMs)) {
      const { partition, seq, attempts: attempt } = entry;
      this.#fact({ kind: "leaseEnded", partition, seq, attempt });
      this.#attempts.resolve(entry, { kind: "nack", error: leaseEnded }, nowMs);
    }
    this.#waits.release(nowMs, (entry) => this.partitions[entry.partition]!.makeReady(entry));
    this.#delivery.fill(nowMs);
    if (this.#contract.discard.includes("shed")) {
      this.#attempts.shed(this.partitions, this.stored(), nowMs);
    }
    if (!this.#isClosing) this.#start(nowMs);
    this.#delivery.flush(nowMs, this.#dispatch.hasReady);
    drain.backlog(this.#drain, nowMs, this.#isBusy ? 1 : 0);
    for (const owned of this.partitions) {
      owned.flushLoads();
      const dueAtMs = owned.reading.storeDueAtMs;
      if (dueAtMs === undefined || dueAtMs > nowMs + dueAheadMs) continue;
      if (this.#waits.hasRoomFor(dueAtMs)) owned.reading.readDue(dueLimit);
    }
    this.#intake.issue(nowMs);
  }

  #startable(partition: number): number {
    if (this.#isClosing || this.#dispatch.hasReady || !this.#mayDispatch(partition)) return 0;
    return this.#delivery.room(this.#nowMs);
  }

  #start(nowMs: number): void {
    let room = this.#delivery.room(nowMs);
    const rates = {
      arrivalsPerS: drain.arrivalRatePerS(this.#drain, nowMs),
      drainPerS: drain.ratePerS(this.#drain) ?? 0,
    };
    while (room > 0) {
      const picked = this.#dispatch.pick(rates);
      if (picked === undefined) break;
      const { entry, source } = picked;
      this.#drained.add(source);
      const owned = this.partitions[entry.partition]!;
      if (this.#attempts.endsInstead(entry, nowMs)) continue;
      this.#delivery.starting++;
      owned.start(entry);
      room--;
    }
    for (const source of this.#drained) this.partitions[source.partition]!.reading.want(source);
    this.#drained.clear();
    if (nowMs >= this.#sweepAtMs) this.#sweep(nowMs);
  }

  /** Groups that came and went are forgotten, and so is a split whose backlog is gone. */
  #sweep(nowMs: number): void {
    this.#sweepAtMs = nowMs + sweepEveryMs;
    let isSplit = false;
    for (const owned of this.partitions) {
      owned.sources.sweep();
      if (owned.sources.isSplit) isSplit = true;
    }
    if (!isSplit) recovery.end(this.#dispatch.recovery);
  }

  /**
   * The writes that may go now, one for each partition that has something to write and no write on
   * its way. Joint parts are included when `isWhole` says that their other half is, too; a partition
   * holds its write back while `isSoon` says that a half waits only for the other's write to end:
   * else two that are busy in turn would never be free together.
   */
  writes(
    nowMs: number,
    isWhole: (joint: number) => boolean,
    isSoon: (joint: number) => boolean,
  ): { partition: number; write: QueueWrite }[] {
    const writes: { partition: number; write: QueueWrite }[] = [];
    let stored: Stored | undefined;
    for (const owned of this.partitions) {
      const { outgoing } = owned;
      if (outgoing.writing !== undefined || !outgoing.hasWork) continue;
      if (outgoing.isAwaited(isWhole, isSoon)) continue;
      stored ??= this.stored();
      const { buffer } = this.#contract;
      // The bound is the flow's: a partition may take what the others leave (N1).
      const limits = {
        messages: Math.max(0, buffer.messages - stored.messages) + owned.storedMessages,
        bytes: Math.max(0, buffer.bytes - stored.bytes) + owned.storedBytes,
      };
      const write = owned.nextWrite(nowMs, limits, isWhole);
      if (write !== undefined) writes.push({ partition: owned.index, write });
    }
    return writes;
  }

  /** The other half of a joint write will not come: a delivery goes back untried, a send is refused. */
  dropJoint(joint: number): void {
    for (const owned of this.partitions) {
      const { change, append } = owned.outgoing.dropJoint(joint);
      if (append !== undefined) {
        this.#refuse(append, owned.index, "delivery_settled");
      }
      if (change?.entry === undefined) continue;
      const { entry, attempt, confirmTo } = change;
      const { partition, seq } = entry;
      if (confirmTo !== undefined) {
        const frame = { kind: "settled", partition, seq, attempt, effective: false } as const;
        this.#effects.push({ kind: "toConsumer", consumer: confirmTo, frame });
      }
      this.#attempts.resolve(entry, { kind: "release" }, this.#nowMs);
    }
  }

  /** Counts the halves of joint writes: all that wait, and those that could go now. */
  joints(all: Map<number, number>, free: Map<number, number>): void {
    for (const owned of this.partitions) {
      owned.outgoing.joints(all);
      if (owned.outgoing.writing === undefined) owned.outgoing.joints(free);
    }
  }

  /** What the world is to do, in order. */
  take(): QueueEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** When `turn` is to be called though nothing comes; Infinity: never. */
  nextWakeAtMs(nowMs: number): number {
    let least = Math.min(
      this.#waits.nextAtMs(nowMs),
      this.#delivery.nextLeaseAtMs,
      this.#delivery.nextAskAtMs(nowMs),
      this.#intake.dueAtMs,
    );
    for (const { reading } of this.partitions) {
      const { storeDueAtMs } = reading;
      if (storeDueAtMs === undefined || !this.#waits.hasRoomFor(storeDueAtMs)) continue;
      least = Math.min(least, storeDueAtMs - dueAheadMs);
    }
    return least;
  }

  /** Nothing is in flight, started or waiting to be written. */
  get isIdle(): boolean {
    if (this.#delivery.inFlight + this.#delivery.starting > 0) return false;
    return this.partitions.every(
      (owned) => owned.outgoing.writing === undefined && !owned.outgoing.hasWork,
    );
  }

  // What it holds.

  stored(): Stored {
    const stored = { messages: 0, bytes: 0, unwritten: 0, unwrittenBytes: 0 };
    for (const owned of this.partitions) {
      stored.messages += owned.storedMessages;
      stored.bytes += owned.storedBytes;
      stored.unwritten += owned.outgoing.reservedMessages;
      stored.unwrittenBytes += owned.outgoing.reservedBytes;
    }
    return stored;
  }

  why(partition: number, seq: number, nowMs: number): Reason | undefined {
    const owned = this.partitions[partition];
    const entry = owned?.entries.get(seq);
    if (owned === undefined || entry === undefined) return undefined;
    return explain(entry, owned, {
      nowMs,
      isPaused: !this.#mayDispatch(partition),
      isServed: this.#delivery.isServed(nowMs),
      budgetAtMs: budget.readyAtMs(this.#waits.budget, nowMs),
    });
  }

  view(nowMs: number): QueueView {
    return viewOf(
      {
        contract: this.#contract,
        partitions: this.partitions,
        isPaused: this.#isPaused,
        isIntakeClosed: this.#intake.isClosed,
        closedPartitions: this.#intake.closedPartitions,
        drain: this.#drain,
        budget: this.#waits.budget,
        delivery: this.#delivery.view(nowMs),
        intake: this.#intake.view(nowMs),
        isBusy: this.#isBusy,
      },
      nowMs,
    );
  }

  check(): void {
    for (const owned of this.partitions) owned.check();
    this.#delivery.check();
    this.#intake.check();
    budget.check(this.#waits.budget);
  }

  get #isKnown(): boolean {
    return this.partitions.every(({ claim }) => claim !== undefined);
  }

  get #isBusy(): boolean {
    return this.#delivery.preparedCount > 0 || this.#dispatch.hasReady;
  }

  get #hasPaused(): boolean {
    return this.#isPaused || this.partitions.some(({ isPaused }) => isPaused);
  }

  #mayDispatch(partition: number): boolean {
    const owned = this.partitions[partition]!;
    return !this.#isPaused && !owned.isPaused && owned.isOpen;
  }

  #keep(bytes: number, must: boolean): boolean {
    if (!must && this.#cachedBytes + bytes > cacheBytesMax) return false;
    this.#cachedBytes += bytes;
    return true;
  }

  #fact(fact: QueueFact): void {
    if (!this.watchesAll && routine.has(fact.kind)) return;
    this.#effects.push({ kind: "fact", fact });
  }
}

/**
 * One partition as its owner knows it: which messages are pending, which of them are at hand, what
 * waits to be written and what a write brought. All that waits goes into one fenced write.
 *
 * P1  One write at a time; what comes meanwhile is merged into the next.
 * P2  A message leaves the books only when its end is durable, and then once (E10, G2).
 * P3  A keyed message starts only as its key's head; the next head becomes ready when the verdict on
 *     the one before is on its way into the same write or an earlier one (G4).
 * P4  Memory is bounded by the read-ahead, whatever the backlog (G6).
 * P5  `complete` only when every pending message is known here: kept, or behind a known head.
 */
import { assert, IntegerMap } from "../base/index.ts";
import type {
  AppendResult,
  Claim,
  Counters,
  StoredMessage,
  WriteResult,
} from "../engines/engine.ts";
import { messageClasses } from "../flow/index.ts";
import type { MessageClass } from "../flow/index.ts";
import { entryOf } from "./entry.ts";
import type { Entry, Message } from "./entry.ts";
import type { QueueEffect, QueueWrite } from "./effects.ts";
import { Keys } from "./keys.ts";
import type { Chain } from "./keys.ts";
import { Outgoing } from "./outgoing.ts";
import type { PendingAppend, PendingChange, Writing } from "./outgoing.ts";
import { ReadAhead } from "./read-ahead.ts";
import type { Sources, Source } from "./sources.ts";

export interface RedrivenLetter {
  readonly seq: number;
  readonly class: MessageClass;
  readonly group?: string;
  readonly bytes: number;
}

/** What a partition needs of the machine that it is part of. */
export interface PartitionHost {
  readonly ordered: boolean;
  readonly readAhead: number;
  effect(effect: QueueEffect): void;
  /** The source has something to dispatch. */
  offer(source: Source): void;
  /** How many messages of a partition may be started at once, with nothing else before them. */
  startable(partition: number): number;
  /** So many more attempts are being made durable. */
  starting(count: number): void;
  /** Keeps a message until its due time; for want of room it, or a later one, is evicted. */
  delay(entry: Entry): void;
  suspect(entry: Entry): void;
  prepared(entry: Entry): void;
  /** @returns Whether memory allows to keep a payload; `must`: it is kept in any case. */
  keep(bytes: number, must: boolean): boolean;
  drop(bytes: number): void;
}

export class Partition {
  readonly index: number;
  readonly #host: PartitionHost;
  readonly entries: IntegerMap<Entry> = new IntegerMap();
  readonly keys: Keys = new Keys();
  readonly outgoing: Outgoing = new Outgoing();
  readonly reading: ReadAhead;
  claim: Claim | undefined;
  counters: Counters = { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0, bytes: 0 };
  isPaused: boolean = false;
  /** Why it stopped for good, until it is claimed again. */
  stopped: string | undefined;
  #loads: Entry[] = [];
  #lastSeq = 0;
  #writes = 0;
  readonly #redriven = new Map<number, RedrivenLetter>();
  /** Letters brought back so far. */
  redrives: number = 0;

  constructor(index: number, host: PartitionHost) {
    this.index = index;
    this.#host = host;
    this.reading = new ReadAhead(index, {
      ordered: host.ordered,
      readAhead: host.readAhead,
      entries: this.entries,
      keys: this.keys,
      isOpen: () => this.isOpen,
      effect: (effect) => host.effect(effect),
      offer: (source) => host.offer(source),
      delay: (entry) => host.delay(entry),
      next: (chain, next, nowMs) => this.#next(chain, next, nowMs),
    });
  }

  get sources(): Sources {
    return this.reading.sources;
  }

  /** Letters are on their way back. */
  get isRedriving(): boolean {
    return this.#redriven.size > 0;
  }

  get isOpen(): boolean {
    return this.claim !== undefined && this.stopped === undefined;
  }

  get storedMessages(): number {
    return this.counters.pending + this.outgoing.reservedMessages;
  }

  get storedBytes(): number {
    return this.counters.bytes + this.outgoing.reservedBytes;
  }

  claimed(claim: Claim): void {
    this.claim = claim;
    this.counters = claim.counters;
    this.#lastSeq = claim.nextSeq - 1;
    const allKnown = claim.counters.pending === claim.interrupted.length;
    for (const descriptor of claim.interrupted) {
      const entry = entryOf(this.index, this.reading.unordered(descriptor), undefined);
      const chain = entry.keyHash === 0 ? undefined : this.keys.get(entry.keyHash);
      if (chain !== undefined) {
        chain.more = true; // The flow had no order before: this one comes after the other.
        continue;
      }
      this.entries.set(entry.seq, entry);
      if (entry.keyHash !== 0) this.keys.begin(entry, !allKnown);
      entry.state = "suspect";
      this.#host.suspect(entry);
    }
    this.reading.begin(claim.laneHeads, claim.nextDueAtMs);
  }

  // What waits to be written.

  /** The next write, if one may go now: joint parts only when `isWhole` says so. */
  nextWrite(
    nowMs: number,
    limits: { messages: number; bytes: number },
    isWhole: (joint: number) => boolean,
  ): QueueWrite | undefined {
    if (!this.isOpen) return undefined;
    const writing = this.outgoing.take(nowMs, isWhole);
    if (writing === undefined) return undefined;
    const { appends, changes } = writing;
    if (appends.length > 0) this.#startWith(appends);
    return {
      writeId: `${this.claim!.fence}.${++this.#writes}`,
      appends: appends.map((pending) => pending.append),
      changes: changes.map((pending) => pending.change),
      limits,
      isJoint: this.outgoing.isJoint(writing),
    };
  }

  /**
   * Messages that would be started as soon as they are stored start with their append: one commit
   * instead of two. Only while nothing else is ready, so that none is overtaken; only what nothing of
   * its key or lane is before; and only where no read on its way could bring it as well.
   */
  #startWith(appends: readonly PendingAppend[]): void {
    let room = this.#host.startable(this.index);
    if (room === 0) return;
    const { complete, knowsAllGroups } = this.reading;
    const keys = new Set<number>();
    for (const pending of appends) {
      const { append } = pending;
      const keyHash = this.#host.ordered ? (append.keyHash ?? 0) : 0;
      if (keyHash !== 0) {
        const isFirst = complete && !keys.has(keyHash) && this.keys.get(keyHash) === undefined;
        keys.add(keyHash);
        if (!isFirst) continue;
      }
      if (append.dueAtMs !== undefined || append.deadlineAtMs !== undefined) continue;
      if (append.group !== undefined && !knowsAllGroups) continue;
      const rank = rankOf(append.class);
      if (!this.sources.of(rank, append.group ?? "").atTail) continue;
      append.started = true;
      this.#host.starting(1);
      if (--room === 0) return;
    }
  }

  /** The write is durable. The caller answers producers and consumers from what it returns. */
  written(result: WriteResult, nowMs: number): Writing {
    const writing = this.outgoing.done();
    this.counters = result.counters;
    for (const pending of writing.changes) this.#changed(pending, nowMs);
    let complete = writing.appends.length > 0 && this.reading.complete;
    for (let at = 0; at < writing.appends.length; at++) {
      complete = this.#appended(writing.appends[at]!, result.appended[at]!, complete, nowMs);
    }
    return writing;
  }

  /** Nothing of the write happened: changes wait again, appends are the caller's to answer. */
  unwritten(): Writing {
    const writing = this.outgoing.undone();
    this.#unstart(writing.appends);
    return writing;
  }

  /** It stops for good: what waits is the caller's to answer. */
  stop(code: string): ReturnType<Outgoing["stop"]> {
    this.stopped = code;
    this.#loads = [];
    const left = this.outgoing.stop();
    this.#unstart(left.maybe);
    return left;
  }

  #unstart(appends: readonly PendingAppend[]): void {
    for (const { append } of appends) if (append.started === true) this.#host.starting(-1);
  }

  #changed({ change, entry, joint }: PendingChange, nowMs: number): void {
    if (entry === undefined) {
      if (change.kind === "redrive") this.#isBack(change.seq);
      return;
    }
    switch (change.kind) {
      case "started":
        entry.needsCommit = false;
        this.#maybePrepared(entry);
        break;
      case "released":
      case "retry":
        entry.dueAtMs = change.dueAtMs ?? 0;
        this.activate(entry, nowMs, true);
        break;
      case "ack":
      case "dead":
      case "discard":
        if (joint !== undefined) this.advance(entry, nowMs); // P3: not before the joint write.
        this.#forget(entry, true); // P2
        break;
      case "redrive":
        break;
    }
  }

  /**
   * Brings a dead letter back; the caller has made sure that the buffer has room for it.
   * @returns False when it is on its way back already.
   */
  redrive(letter: RedrivenLetter): boolean {
    if (this.#redriven.has(letter.seq)) return false;
    this.redrives++;
    this.outgoing.reserve(letter.bytes);
    this.#redriven.set(letter.seq, letter);
    this.outgoing.change({ seq: letter.seq, kind: "redrive" }, undefined);
    return true;
  }

  /** It is pending again: its lane is read from before it. */
  #isBack(seq: number): void {
    const letter = this.#redriven.get(seq);
    if (letter === undefined) return;
    this.#redriven.delete(seq);
    this.outgoing.unreserve(letter.bytes);
    this.reading.isBack(rankOf(letter.class), letter.group ?? "", seq);
  }

  /** @returns Whether every pending message is still known (P5). */
  #appended(
    pending: PendingAppend,
    result: AppendResult,
    complete: boolean,
    nowMs: number,
  ): boolean {
    this.outgoing.unreserve(pending.bytes);
    const { append } = pending;
    if (result.kind !== "stored") {
      if (append.started === true) this.#host.starting(-1);
      return complete;
    }
    const { seq } = result;
    this.#lastSeq = seq;
    const rank = rankOf(append.class);
    const keyHash = this.#host.ordered ? (append.keyHash ?? 0) : 0;
    const source = this.sources.of(rank, append.group ?? "");
    if (source.reading) source.missed = true;
    if (append.started === true) {
      const known = this.entries.get(seq);
      if (known === undefined) this.#enterStarted(pending, seq, keyHash, nowMs);
      else {
        // A read that began after the append brought it, with this attempt: it starts as others do.
        this.#host.starting(-1);
        known.attempts--;
        known.isRetry = false;
      }
      if (source.atTail) source.cursor = seq; // L1: known.
      return complete;
    }
    if (this.entries.has(seq)) {
      if (source.atTail) source.cursor = seq; // A read of the store brought it before this answer.
      return complete;
    }
    const chain = keyHash === 0 ? undefined : this.keys.get(keyHash);
    if (chain !== undefined) {
      if (this.keys.follows(chain)) {
        const entry = this.#enter(pending, seq, keyHash, nowMs);
        entry.state = "behind";
        chain.followers.pushBack(entry);
      }
      if (source.atTail) source.cursor = seq; // L1: behind a known head.
      return complete;
    }
    // Also when that time has come by now: a scan passes over whatever has a due time.
    if (append.dueAtMs !== undefined) {
      if (source.atTail) source.cursor = seq; // L1: awaited by its due time.
      // Whether it is its key's head is known only when all is known.
      if (keyHash !== 0 && !complete) this.reading.storeKeeps(append.dueAtMs, seq);
      else {
        const entry = this.#enter(pending, seq, keyHash, nowMs);
        if (keyHash !== 0) this.keys.begin(entry, false);
        this.#host.delay(entry);
      }
      return complete && this.reading.knowsAllDue;
    }
    if (!source.atTail || source.ready.size >= this.reading.quota || (keyHash !== 0 && !complete)) {
      source.atTail = false; // L3: it is read when its turn comes.
      this.reading.want(source);
      return false;
    }
    const entry = this.#enter(pending, seq, keyHash, nowMs);
    if (keyHash !== 0) this.keys.begin(entry, false);
    source.cursor = seq;
    source.ready.pushBack(entry);
    this.#host.offer(source);
    return complete;
  }

  #enter(pending: PendingAppend, seq: number, keyHash: number, nowMs: number): Entry {
    const { append, bytes } = pending;
    const message: Message | undefined = this.#host.keep(bytes, false) ? append : undefined;
    const entry: Entry = {
      partition: this.index,
      seq,
      rank: rankOf(append.class),
      keyHash,
      group: append.group ?? "",
      cost: append.cost ?? 1,
      bytes,
      deadlineAtMs: append.deadlineAtMs,
      acceptedAtMs: nowMs,
      state: "ready",
      attempts: 0,
      crashes: 0,
      dueAtMs: append.dueAtMs ?? 0,
      message,
      needsCommit: false,
      needsPayload: false,
      leaseAtMs: 0,
      holder: undefined,
      before: undefined,
      after: undefined,
      releases: 0,
      isRetry: false,
    };
    this.entries.set(seq, entry);
    return entry;
  }

  /** A message that was stored with its first attempt. */
  #enterStarted(pending: PendingAppend, seq: number, keyHash: number, nowMs: number): void {
    const entry = this.#enter(pending, seq, keyHash, nowMs);
    if (keyHash !== 0) this.keys.begin(entry, false);
    entry.attempts = 1;
    entry.state = "starting";
    if (entry.message === undefined) {
      entry.needsPayload = true;
      this.#loads.push(entry);
    }
    this.#maybePrepared(entry);
  }

  // Where a known message goes next.

  /** A head may run: now, at its due time, or after the budget allows it. */
  activate(entry: Entry, nowMs: number, first = false): void {
    if (entry.dueAtMs > nowMs || (entry.isRetry && entry.attempts > 0)) {
      this.#host.delay(entry);
      return;
    }
    this.makeReady(entry, first);
  }

  makeReady(entry: Entry, first = false): void {
    entry.state = "ready";
    const source = this.sources.holding(entry.rank, entry.group, entry.seq);
    if (first) source.ready.pushFront(entry);
    else source.ready.pushBack(entry);
    this.#host.offer(source);
  }

  /** Memory is full: the store keeps it, and is asked again before its due time. */
  evict(entry: Entry): void {
    this.#forget(entry, false);
    const chain = entry.keyHash === 0 ? undefined : this.keys.get(entry.keyHash);
    if (chain?.head === entry) {
      for (const follower of this.keys.forget(chain)) this.#forget(follower, false);
    }
    if (entry.dueAtMs > 0) this.reading.storeKeeps(entry.dueAtMs, entry.seq);
    // Released at once: the store has no due time of it, so its lane is read again (L1).
    else this.reading.unread(entry.rank, entry.group, entry.seq);
  }

  /** The verdict on a head is on its way: the next of its key comes up (P3). */
  advance(entry: Entry, nowMs: number): void {
    if (entry.keyHash === 0) return;
    const chain = this.keys.get(entry.keyHash);
    if (chain?.head !== entry) return;
    this.#next(chain, this.keys.advance(chain), nowMs);
  }

  #next(chain: Chain, next: Entry | "read" | undefined, nowMs: number): void {
    if (next === undefined) return;
    if (next !== "read") return this.activate(next, nowMs);
    this.reading.readKey(chain.head.keyHash);
  }

  /** Takes an entry off the books and its payload out of memory. */
  #forget(entry: Entry, hasEnded: boolean): void {
    this.entries.delete(entry.seq);
    if (entry.message !== undefined) this.#host.drop(entry.bytes);
    entry.message = undefined;
    if (hasEnded) this.reading.ended(entry.seq);
  }

  // Starting an attempt.

  start(entry: Entry): void {
    entry.attempts++;
    entry.state = "starting";
    entry.needsCommit = true;
    this.outgoing.change({ seq: entry.seq, kind: "started" }, entry);
    if (entry.message !== undefined) return;
    entry.needsPayload = true;
    this.#loads.push(entry);
  }

  flushLoads(): void {
    if (this.#loads.length === 0) return;
    const seqs = this.#loads.map((entry) => entry.seq);
    this.#loads = [];
    this.#host.effect({ kind: "payloads", partition: this.index, seqs });
  }

  /** @returns Those that are no longer pending in the store: they were ended elsewhere. */
  loaded(seqs: readonly number[], messages: readonly (StoredMessage | null)[]): Entry[] {
    const gone: Entry[] = [];
    if (!this.isOpen) return gone; // What was starting is given up.
    for (let at = 0; at < seqs.length; at++) {
      const entry = this.entries.get(seqs[at]!);
      if (entry?.needsPayload !== true) continue;
      const message = messages[at] ?? null;
      if (message === null) {
        gone.push(entry);
        continue;
      }
      this.#host.keep(entry.bytes, true);
      entry.message = message;
      entry.needsPayload = false;
      this.#maybePrepared(entry);
    }
    return gone;
  }

  /** Ends an entry that is no longer pending in the store. */
  vanished(entry: Entry, nowMs: number): void {
    entry.state = "settling";
    this.advance(entry, nowMs);
    this.#forget(entry, true);
  }

  #maybePrepared(entry: Entry): void {
    if (entry.state !== "starting" || entry.needsCommit || entry.needsPayload) return;
    entry.state = "prepared";
    this.#host.prepared(entry);
  }

  split(): void {
    this.sources.split(this.#lastSeq);
  }

  check(): void {
    this.keys.check();
    for (const [seq, entry] of this.entries) {
      assert(entry.seq === seq, "P2 an entry stands under its seq");
      if (entry.keyHash === 0 || entry.state === "behind" || entry.state === "settling") continue;
      assert(this.keys.get(entry.keyHash)?.head === entry, "P3 what runs is its key's head");
    }
  }
}

function rankOf(name: MessageClass): 0 | 1 | 2 {
  return messageClasses.indexOf(name) as 0 | 1 | 2;
}

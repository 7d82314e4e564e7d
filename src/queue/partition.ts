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
import { assert } from "../base/index.ts";
import type {
  Append,
  AppendResult,
  Change,
  Claim,
  Counters,
  Descriptor,
  DueCursor,
  StoredMessage,
  WriteResult,
} from "../engines/engine.ts";
import { messageClasses } from "../flow/index.ts";
import type { MessageClass } from "../flow/index.ts";
import { entryOf } from "./entry.ts";
import type { Entry, Message } from "./entry.ts";
import type { QueueEffect, QueueWrite } from "./effects.ts";
import { followersMax, Keys } from "./keys.ts";
import type { Chain } from "./keys.ts";
import { Reads } from "./reads.ts";
import { Sources } from "./sources.ts";
import type { Source } from "./sources.ts";

/** `started` is decided when it is written. */
type Appending = Omit<Append, "started"> & { started?: boolean };

export interface PendingAppend {
  readonly append: Appending;
  readonly bytes: number;
  readonly producer: string;
  readonly position: number;
  readonly joint: number | undefined;
}

export interface PendingChange {
  readonly change: Change;
  /** Undefined for a change of a shelved message. */
  readonly entry: Entry | undefined;
  /** Who wants to hear that it is durable. */
  readonly confirmTo: string | undefined;
  readonly attempt: number;
  readonly joint: number | undefined;
}

export interface Writing {
  readonly writeId: string;
  readonly appends: readonly PendingAppend[];
  readonly changes: readonly PendingChange[];
  readonly startedAtMs: number;
}

/** Who settled, and whether they want to hear of it. */
export interface Confirm {
  readonly to: string | undefined;
  readonly attempt: number;
  readonly joint: number | undefined;
}

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

/** Appends in one write: enough to share a commit, little enough for short transactions. */
const appendsMax = 1024;
const appendBytesMax = 4 * 1024 * 1024;
const groupsPage = 256;

export class Partition {
  readonly index: number;
  readonly #host: PartitionHost;
  readonly entries: Map<number, Entry> = new Map();
  readonly keys: Keys = new Keys();
  readonly sources: Sources;
  claim: Claim | undefined;
  counters: Counters = { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0, bytes: 0 };
  isPaused: boolean = false;
  /** Reserved by appends that are not durable yet. */
  reservedMessages: number = 0;
  reservedBytes: number = 0;
  /** Why it stopped for good, until it is claimed again. */
  stopped: string | undefined;
  writing: Writing | undefined;
  #appends: PendingAppend[] = [];
  #changes: PendingChange[] = [];
  #loads: Entry[] = [];
  #lastSeq = 0;
  #writes = 0;
  /** Joint parts that wait or are being written. */
  #jointsWaiting = 0;
  #storeDue: DueCursor | undefined;
  #dueReading = false;
  #evicted: DueCursor | undefined;
  #groupsUnread = 0;
  readonly #reads = new Reads();
  readonly #redriven = new Map<number, RedrivenLetter>();

  constructor(index: number, host: PartitionHost) {
    this.index = index;
    this.#host = host;
    this.sources = new Sources(index);
  }

  get isOpen(): boolean {
    return this.claim !== undefined && this.stopped === undefined;
  }

  get storedMessages(): number {
    return this.counters.pending + this.reservedMessages;
  }

  get storedBytes(): number {
    return this.counters.bytes + this.reservedBytes;
  }

  get hasWork(): boolean {
    return this.#appends.length > 0 || this.#changes.length > 0;
  }

  get appendsWaiting(): number {
    return this.#appends.length;
  }

  /** P5. */
  get complete(): boolean {
    return this.#storeDue === undefined && this.#groupsUnread === 0 && this.sources.allAtTail;
  }

  /** When messages that only the store knows become due; undefined: there are none. */
  get storeDueAtMs(): number | undefined {
    return this.#dueReading ? undefined : this.#storeDue?.dueAtMs;
  }

  claimed(claim: Claim): void {
    this.claim = claim;
    this.counters = claim.counters;
    this.#lastSeq = claim.nextSeq - 1;
    const allKnown = claim.counters.pending === claim.interrupted.length;
    for (const descriptor of claim.interrupted) {
      const entry = entryOf(this.index, this.#unordered(descriptor), undefined);
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
    for (const [rank, lane] of messageClasses.entries()) {
      if (claim.laneHeads[lane] === 0) continue;
      this.sources.unread(rank as 0 | 1 | 2, "", 0);
      this.want(this.sources.of(rank as 0 | 1 | 2, ""));
      this.#groupsUnread++;
      this.#readGroups(lane, null);
    }
    if (claim.nextDueAtMs !== null) this.#storeDue = { dueAtMs: -1, seq: 0 };
  }

  // What waits to be written.

  append(pending: PendingAppend): void {
    if (pending.joint !== undefined) this.#jointsWaiting++;
    this.reservedMessages++;
    this.reservedBytes += pending.bytes;
    this.#appends.push(pending);
  }

  change(change: Change, entry: Entry | undefined, confirm?: Confirm): void {
    if (confirm?.joint !== undefined) this.#jointsWaiting++;
    this.#changes.push({
      change,
      entry,
      confirmTo: confirm?.to,
      attempt: confirm?.attempt ?? 0,
      joint: confirm?.joint,
    });
  }

  /** Which joint tokens wait here, as far as the next write reaches. */
  joints(into: Map<number, number>): void {
    if (this.#jointsWaiting === 0) return;
    const reach = this.#reach();
    for (let at = 0; at < reach; at++) {
      const { joint } = this.#appends[at]!;
      if (joint !== undefined) count(into, joint);
    }
    for (const { joint } of this.#changes) if (joint !== undefined) count(into, joint);
  }

  /** Whether halves wait here, none of which can go, and one only for a write on its way to end. */
  isAwaited(isWhole: (joint: number) => boolean, isSoon: (joint: number) => boolean): boolean {
    if (this.#jointsWaiting === 0) return false;
    const has = (is: (joint: number) => boolean): boolean => {
      const fits = (p: { readonly joint: number | undefined }): boolean =>
        p.joint !== undefined && is(p.joint);
      return this.#appends.some(fits) || this.#changes.some(fits);
    };
    return !has(isWhole) && has(isSoon);
  }

  /** The other half of a joint write will not come: the half that waits here is the caller's to end. */
  dropJoint(joint: number): { readonly change?: PendingChange; readonly append?: PendingAppend } {
    if (this.#jointsWaiting === 0) return {};
    const isIt = (pending: { readonly joint: number | undefined }): boolean =>
      pending.joint === joint;
    const atChange = this.#changes.findIndex(isIt);
    const atAppend = this.#appends.findIndex(isIt);
    const change = atChange < 0 ? undefined : this.#changes.splice(atChange, 1)[0]!;
    const append = atAppend < 0 ? undefined : this.#appends.splice(atAppend, 1)[0]!;
    if (change !== undefined) this.#jointsWaiting--;
    if (append !== undefined) {
      this.#jointsWaiting--;
      this.#unreserve(append.bytes);
    }
    return { ...(change && { change }), ...(append && { append }) };
  }

  /**
   * P1: takes what waits into one write. Joint parts stay behind unless `isWhole` says that their
   * other half is taken in the same batch.
   */
  nextWrite(
    nowMs: number,
    limits: { messages: number; bytes: number },
    isWhole: (joint: number) => boolean,
  ): QueueWrite | undefined {
    if (this.writing !== undefined || !this.isOpen || !this.hasWork) return undefined;
    const appends = this.#takeAppends(isWhole);
    const changes = this.#takeChanges(isWhole);
    if (appends.length === 0 && changes.length === 0) return undefined;
    if (appends.length > 0) this.#startWith(appends);
    const writeId = `${this.claim!.fence}.${++this.#writes}`;
    this.writing = { writeId, appends, changes, startedAtMs: nowMs };
    return {
      writeId,
      appends: appends.map((pending) => pending.append),
      changes: changes.map((pending) => pending.change),
      limits,
      isJoint: this.#jointsWaiting > 0 && (appends.some(isHalf) || changes.some(isHalf)),
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
    const { complete } = this;
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
      if (append.group !== undefined && this.#groupsUnread > 0) continue;
      const rank = messageClasses.indexOf(append.class) as 0 | 1 | 2;
      if (!this.sources.of(rank, append.group ?? "").atTail) continue;
      append.started = true;
      this.#host.starting(1);
      if (--room === 0) return;
    }
  }

  // What follows runs for every write: without joint parts nothing is looked through.

  /** How many of the appends, from the first, go into one write. */
  #reach(): number {
    let bytes = 0;
    let reach = 0;
    for (const pending of this.#appends) {
      if (reach >= appendsMax || (reach > 0 && bytes + pending.bytes > appendBytesMax)) break;
      bytes += pending.bytes;
      reach++;
    }
    return reach;
  }

  #takeAppends(isWhole: (joint: number) => boolean): PendingAppend[] {
    const all = this.#appends;
    const taken = this.#reach();
    const stays = (p: PendingAppend): boolean => p.joint !== undefined && !isWhole(p.joint);
    if (this.#jointsWaiting === 0 || !all.some(stays)) {
      this.#appends = taken === all.length ? [] : all.slice(taken);
      return taken === all.length ? all : all.slice(0, taken);
    }
    const go = (p: PendingAppend, at: number): boolean => at < taken && !stays(p);
    this.#appends = all.filter((pending, at) => !go(pending, at));
    return all.filter(go);
  }

  #takeChanges(isWhole: (joint: number) => boolean): PendingChange[] {
    const all = this.#changes;
    if (this.#jointsWaiting === 0) {
      this.#changes = [];
      return all;
    }
    const stays = (p: PendingChange): boolean => p.joint !== undefined && !isWhole(p.joint);
    this.#changes = all.some(stays) ? all.filter(stays) : [];
    return this.#changes.length === 0 ? all : all.filter((pending) => !stays(pending));
  }

  /** The write is durable. The caller answers producers and consumers from what it returns. */
  written(result: WriteResult, nowMs: number): Writing {
    const writing = this.writing!;
    this.writing = undefined;
    this.counters = result.counters;
    if (this.#jointsWaiting > 0) {
      this.#jointsWaiting -= writing.appends.filter(isHalf).length;
      this.#jointsWaiting -= writing.changes.filter(isHalf).length;
    }
    for (const pending of writing.changes) this.#changed(pending, nowMs);
    let complete = writing.appends.length > 0 && this.complete;
    for (let at = 0; at < writing.appends.length; at++) {
      complete = this.#appended(writing.appends[at]!, result.appended[at]!, complete, nowMs);
    }
    return writing;
  }

  /** Nothing of the write happened: changes wait again, appends are the caller's to answer. */
  unwritten(): Writing {
    const writing = this.writing!;
    this.writing = undefined;
    this.#changes = [...writing.changes, ...this.#changes];
    for (const pending of writing.appends) {
      this.#unreserve(pending.bytes);
      if (isHalf(pending)) this.#jointsWaiting--;
      if (pending.append.started === true) this.#host.starting(-1);
    }
    return writing;
  }

  /** It stops for good: what waits is the caller's to answer. */
  stop(code: string): {
    appends: readonly PendingAppend[];
    maybe: readonly PendingAppend[];
    changes: readonly PendingChange[];
  } {
    this.stopped = code;
    const maybe = this.writing?.appends ?? [];
    const appends = this.#appends;
    const changes = [...(this.writing?.changes ?? []), ...this.#changes];
    for (const { append } of maybe) if (append.started === true) this.#host.starting(-1);
    this.writing = undefined;
    this.#appends = [];
    this.#changes = [];
    this.#loads = [];
    // What may be stored by now keeps its place, for nobody here will hear of it (G3).
    for (const pending of appends) this.#unreserve(pending.bytes);
    return { appends, maybe, changes };
  }

  #unreserve(bytes: number): void {
    this.reservedMessages--;
    this.reservedBytes -= bytes;
    assert(this.reservedMessages >= 0 && this.reservedBytes >= 0, "P1 reservations are given back");
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
    this.reservedMessages++;
    this.reservedBytes += letter.bytes;
    this.#redriven.set(letter.seq, letter);
    this.change({ seq: letter.seq, kind: "redrive" }, undefined);
    return true;
  }

  /** It is pending again: its lane is read from before it. */
  #isBack(seq: number): void {
    const letter = this.#redriven.get(seq);
    if (letter === undefined) return;
    this.#redriven.delete(seq);
    this.#unreserve(letter.bytes);
    this.#reads.back(seq);
    const rank = messageClasses.indexOf(letter.class) as 0 | 1 | 2;
    const group = letter.group ?? "";
    this.sources.unread(rank, group, seq - 1);
    this.want(this.sources.holding(rank, group, seq));
  }

  /** @returns Whether every pending message is still known (P5). */
  #appended(
    pending: PendingAppend,
    result: AppendResult,
    complete: boolean,
    nowMs: number,
  ): boolean {
    this.#unreserve(pending.bytes);
    const { append } = pending;
    if (result.kind !== "stored") {
      if (append.started === true) this.#host.starting(-1);
      return complete;
    }
    const { seq } = result;
    this.#lastSeq = seq;
    const rank = messageClasses.indexOf(append.class) as 0 | 1 | 2;
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
      if (keyHash !== 0 && !complete) this.#storeKeeps(append.dueAtMs, seq);
      else {
        const entry = this.#enter(pending, seq, keyHash, nowMs);
        if (keyHash !== 0) this.keys.begin(entry, false);
        this.#host.delay(entry);
      }
      return complete && this.#storeDue === undefined;
    }
    if (!source.atTail || source.ready.size >= this.#quota() || (keyHash !== 0 && !complete)) {
      source.atTail = false; // L3: it is read when its turn comes.
      this.want(source);
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
      rank: messageClasses.indexOf(append.class) as 0 | 1 | 2,
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
    if (entry.dueAtMs > 0) return this.#storeKeeps(entry.dueAtMs, entry.seq);
    // Released at once: the store has no due time of it, so its lane is read again (L1).
    this.sources.unread(entry.rank, entry.group, entry.seq - 1);
    this.want(this.sources.holding(entry.rank, entry.group, entry.seq));
  }

  #storeKeeps(dueAtMs: number, seq: number): void {
    const before: DueCursor = { dueAtMs, seq: seq - 1 };
    if (this.#dueReading && isBefore(before, this.#evicted)) this.#evicted = before;
    if (isBefore(before, this.#storeDue)) this.#storeDue = before;
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
    this.#readKey(chain.head.keyHash);
  }

  #readKey(keyHash: number): void {
    this.#host.effect({
      kind: "readKey",
      read: this.#reads.begin(),
      partition: this.index,
      keyHash,
      limit: followersMax + 1,
    });
  }

  /** Takes an entry off the books and its payload out of memory. */
  #forget(entry: Entry, hasEnded: boolean): void {
    this.entries.delete(entry.seq);
    if (entry.message !== undefined) this.#host.drop(entry.bytes);
    entry.message = undefined;
    if (hasEnded) this.#reads.ended(entry.seq);
  }

  // Starting an attempt.

  start(entry: Entry): void {
    entry.attempts++;
    entry.state = "starting";
    entry.needsCommit = true;
    this.change({ seq: entry.seq, kind: "started" }, entry);
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

  // Reading ahead.

  #quota(): number {
    const { size } = this.sources;
    return size <= 4 ? this.#host.readAhead : Math.max(16, Math.floor(this.#host.readAhead / size));
  }

  /** Reads on when a source runs low. */
  want(source: Source): void {
    const quota = this.#quota();
    if (source.atTail || source.reading || !this.isOpen || source.ready.size > quota / 2) return;
    source.reading = true;
    source.missed = false;
    this.#host.effect({
      kind: "scan",
      read: this.#reads.begin(),
      partition: this.index,
      source,
      query: {
        lane: messageClasses[source.rank],
        afterSeq: source.cursor,
        limit: quota,
        nowMs: 0, // Whatever has a due time comes by that (L1).
        group: source.group === "" ? null : source.group,
      },
    });
  }

  /**
   * @param heads For each descriptor the first pending seq of its key; 0 without a key.
   * @param full There may be more after these.
   */
  scanned(
    read: number,
    source: Source,
    afterSeq: number,
    descriptors: readonly Descriptor[],
    heads: readonly number[],
    full: boolean,
  ): void {
    source.reading = false;
    if (source.cursor !== afterSeq || source.stale) {
      source.stale = false;
      this.#reads.end(read);
      this.want(source); // The cursor was set back meanwhile: read again from there.
      return;
    }
    let passedEnd = false;
    for (let at = 0; at < descriptors.length; at++) {
      const descriptor = this.#unordered(descriptors[at]!);
      if (descriptor.seq > source.untilSeq) {
        passedEnd = true;
        break;
      }
      source.cursor = descriptor.seq;
      const entry = this.#meet(descriptor, heads[at]!);
      if (entry !== undefined) source.ready.pushBack(entry);
    }
    source.atTail = passedEnd || (!full && !source.missed);
    if (source.ready.size > 0) this.#host.offer(source);
    this.#reads.end(read);
    this.want(source);
  }

  /** @returns The entry of a message that was not known and may run, with its chain begun. */
  #meet(descriptor: Descriptor, head: number): Entry | undefined {
    const { seq, keyHash } = descriptor;
    if (this.entries.has(seq) || this.#reads.hasEnded(seq)) return undefined;
    if (keyHash !== undefined) {
      const chain = this.keys.get(keyHash);
      if (chain !== undefined) {
        chain.more = true; // K3
        return undefined;
      }
      if (head !== seq) {
        // Its head comes up first, and brings it along: unless that has ended, and the store did not
        // know it yet. Then the store is asked which is the next.
        if (this.entries.has(head) || this.#reads.hasEnded(head)) {
          this.keys.seek(entryOf(this.index, descriptor, undefined));
          this.#readKey(keyHash);
        }
        return undefined;
      }
    }
    const entry = entryOf(this.index, descriptor, undefined);
    this.entries.set(seq, entry);
    if (entry.keyHash !== 0) this.keys.begin(entry, true);
    return entry;
  }

  keyRead(
    read: number,
    keyHash: number,
    descriptors: readonly Descriptor[],
    full: boolean,
    nowMs: number,
  ): void {
    const chain = this.keys.get(keyHash);
    if (chain !== undefined) {
      const entries: Entry[] = [];
      for (const descriptor of descriptors) {
        if (this.entries.has(descriptor.seq) || this.#reads.hasEnded(descriptor.seq)) continue;
        const entry = entryOf(this.index, descriptor, undefined);
        this.entries.set(entry.seq, entry);
        entries.push(entry);
      }
      this.#next(chain, this.keys.read(chain, entries, !full), nowMs);
    }
    this.#reads.end(read);
  }

  groupsRead(lane: MessageClass, groups: readonly string[]): void {
    const rank = messageClasses.indexOf(lane) as 0 | 1 | 2;
    for (const group of groups) {
      this.sources.unread(rank, group, 0);
      this.want(this.sources.holding(rank, group, 1));
    }
    if (groups.length < groupsPage) this.#groupsUnread--;
    else {
      this.#readGroups(lane, groups.at(-1)!);
    }
  }

  #readGroups(lane: MessageClass, after: string | null): void {
    this.#host.effect({ kind: "groups", partition: this.index, lane, after, limit: groupsPage });
  }

  /**
   * Asks for the next delayed messages that only the store knows, however far ahead they are due:
   * what a bounded time hid would be taken for not being there.
   */
  readDue(limit: number): void {
    if (this.#storeDue === undefined || this.#dueReading || !this.isOpen) return;
    this.#dueReading = true;
    this.#evicted = undefined;
    this.#host.effect({
      kind: "due",
      read: this.#reads.begin(),
      partition: this.index,
      untilMs: Number.MAX_SAFE_INTEGER,
      after: this.#storeDue,
      limit,
    });
  }

  dueRead(
    read: number,
    descriptors: readonly Descriptor[],
    heads: readonly number[],
    full: boolean,
  ): void {
    this.#dueReading = false;
    const last = descriptors.at(-1);
    this.#storeDue =
      full && last !== undefined ? { dueAtMs: last.dueAtMs ?? 0, seq: last.seq } : undefined;
    if (this.#evicted !== undefined && isBefore(this.#evicted, this.#storeDue)) {
      this.#storeDue = this.#evicted;
    }
    for (let at = 0; at < descriptors.length; at++) {
      const entry = this.#meet(this.#unordered(descriptors[at]!), heads[at]!);
      if (entry !== undefined) this.#host.delay(entry);
    }
    this.#reads.end(read);
  }

  /** Without order per key a message's key is only a label. */
  #unordered(descriptor: Descriptor): Descriptor {
    if (this.#host.ordered || descriptor.keyHash === undefined) return descriptor;
    const { keyHash: _label, ...rest } = descriptor;
    return rest;
  }

  split(): void {
    this.sources.split(this.#lastSeq);
  }

  check(): void {
    this.keys.check();
    assert(this.reservedMessages >= 0, "P1 reservations are counted");
    for (const [seq, entry] of this.entries) {
      assert(entry.seq === seq, "P2 an entry stands under its seq");
      if (entry.keyHash === 0 || entry.state === "behind" || entry.state === "settling") continue;
      assert(this.keys.get(entry.keyHash)?.head === entry, "P3 what runs is its key's head");
    }
  }
}

function isHalf(pending: { readonly joint: number | undefined }): boolean {
  return pending.joint !== undefined;
}

function count(into: Map<number, number>, token: number): void {
  into.set(token, (into.get(token) ?? 0) + 1);
}

function isBefore(a: DueCursor, b: DueCursor | undefined): boolean {
  return b === undefined || a.dueAtMs < b.dueAtMs || (a.dueAtMs === b.dueAtMs && a.seq < b.seq);
}

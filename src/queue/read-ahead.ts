/**
 * What one partition's owner reads of its backlog, and when: lanes and groups by their cursors,
 * followers of a key when its head has ended, delayed messages by their due time. It decides what is
 * asked and what an answer tells; whose turn it is, others decide.
 *
 * L1  Every pending message is an entry, behind a known head, after its source's cursor, or awaited by
 *     its due time. Nothing else may be: it would wait for ever (G11).
 * P4  Memory is bounded by the read-ahead, whatever the backlog (G6).
 * P5  `complete` only when every pending message is known here: kept, or behind a known head.
 *
 * Reads may be answered in any order, and late: what ended meanwhile is known from `Reads`.
 */
import type { IntegerMap } from "../base/index.ts";
import type { Descriptor, DueCursor } from "../engines/engine.ts";
import { messageClasses } from "../flow/index.ts";
import type { MessageClass } from "../flow/index.ts";
import { entryOf } from "./entry.ts";
import type { Entry } from "./entry.ts";
import type { QueueEffect } from "./effects.ts";
import { followersMax } from "./keys.ts";
import type { Chain, Keys } from "./keys.ts";
import { Reads } from "./reads.ts";
import { Sources } from "./sources.ts";
import type { Source } from "./sources.ts";

const groupsPage = 256;

/** What reading ahead needs of its partition. */
export interface ReadAheadHost {
  readonly ordered: boolean;
  readonly readAhead: number;
  readonly entries: IntegerMap<Entry>;
  readonly keys: Keys;
  isOpen(): boolean;
  effect(effect: QueueEffect): void;
  /** The source has something to dispatch. */
  offer(source: Source): void;
  /** Keeps a message until its due time. */
  delay(entry: Entry): void;
  /** The next head of a key, or what to do to learn it. */
  next(chain: Chain, next: Entry | "read" | undefined, nowMs: number): void;
}

export class ReadAhead {
  readonly sources: Sources;
  readonly #partition: number;
  readonly #host: ReadAheadHost;
  readonly #reads = new Reads();
  #storeDue: DueCursor | undefined;
  #dueReading = false;
  #evicted: DueCursor | undefined;
  #groupsUnread = 0;

  constructor(partition: number, host: ReadAheadHost) {
    this.#partition = partition;
    this.#host = host;
    this.sources = new Sources(partition);
  }

  /** P5. */
  get complete(): boolean {
    return this.#storeDue === undefined && this.#groupsUnread === 0 && this.sources.allAtTail;
  }

  /** Whether every delayed message is known here. */
  get knowsAllDue(): boolean {
    return this.#storeDue === undefined;
  }

  /** Whether every group that has pending messages is known. */
  get knowsAllGroups(): boolean {
    return this.#groupsUnread === 0;
  }

  /** When messages that only the store knows become due; undefined: there are none, or they are read. */
  get storeDueAtMs(): number | undefined {
    return this.#dueReading ? undefined : this.#storeDue?.dueAtMs;
  }

  /** How many ready messages a source keeps (L2). */
  get quota(): number {
    const { size } = this.sources;
    return size <= 4 ? this.#host.readAhead : Math.max(16, Math.floor(this.#host.readAhead / size));
  }

  /** Begins with what a claim tells: which lanes hold something, and whether anything is delayed. */
  begin(laneHeads: Readonly<Record<MessageClass, number>>, nextDueAtMs: number | null): void {
    for (const [rank, lane] of messageClasses.entries()) {
      if (laneHeads[lane] === 0) continue;
      this.sources.unread(rank as 0 | 1 | 2, "", 0);
      this.want(this.sources.of(rank as 0 | 1 | 2, ""));
      this.#groupsUnread++;
      this.#readGroups(lane, null);
    }
    if (nextDueAtMs !== null) this.#storeDue = { dueAtMs: -1, seq: 0 };
  }

  /** A message ended: a read on its way may still show it. */
  ended(seq: number): void {
    this.#reads.ended(seq);
  }

  /** A dead letter is pending again: its lane is read from before it. */
  isBack(rank: 0 | 1 | 2, group: string, seq: number): void {
    this.#reads.back(seq);
    this.unread(rank, group, seq);
  }

  /** A pending message is not known any more: its lane is read from before it. */
  unread(rank: 0 | 1 | 2, group: string, seq: number): void {
    this.sources.unread(rank, group, seq - 1);
    this.want(this.sources.holding(rank, group, seq));
  }

  /** A delayed message is not kept here: the store is asked again before its due time. */
  storeKeeps(dueAtMs: number, seq: number): void {
    const before: DueCursor = { dueAtMs, seq: seq - 1 };
    if (this.#dueReading && isBefore(before, this.#evicted)) this.#evicted = before;
    if (isBefore(before, this.#storeDue)) this.#storeDue = before;
  }

  // Lanes and groups.

  /** Reads on when a source runs low. */
  want(source: Source): void {
    const { quota } = this;
    if (source.atTail || source.reading || !this.#host.isOpen()) return;
    if (source.ready.size > quota / 2) return;
    source.reading = true;
    source.missed = false;
    this.#host.effect({
      kind: "scan",
      read: this.#reads.begin(),
      partition: this.#partition,
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
      const descriptor = this.unordered(descriptors[at]!);
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

  groupsRead(lane: MessageClass, groups: readonly string[]): void {
    const rank = messageClasses.indexOf(lane) as 0 | 1 | 2;
    for (const group of groups) {
      this.sources.unread(rank, group, 0);
      this.want(this.sources.holding(rank, group, 1));
    }
    if (groups.length < groupsPage) this.#groupsUnread--;
    else this.#readGroups(lane, groups.at(-1)!);
  }

  #readGroups(lane: MessageClass, after: string | null): void {
    const partition = this.#partition;
    this.#host.effect({ kind: "groups", partition, lane, after, limit: groupsPage });
  }

  /** @returns The entry of a message that was not known and may run, with its chain begun. */
  #meet(descriptor: Descriptor, head: number): Entry | undefined {
    const { entries, keys } = this.#host;
    const { seq, keyHash } = descriptor;
    if (entries.has(seq) || this.#reads.hasEnded(seq)) return undefined;
    if (keyHash !== undefined) {
      const chain = keys.get(keyHash);
      if (chain !== undefined) {
        chain.more = true; // K3
        return undefined;
      }
      if (head !== seq) {
        // Its head comes up first, and brings it along: unless that has ended, and the store did not
        // know it yet. Then the store is asked which is the next.
        if (entries.has(head) || this.#reads.hasEnded(head)) {
          keys.seek(entryOf(this.#partition, descriptor, undefined));
          this.readKey(keyHash);
        }
        return undefined;
      }
    }
    const entry = entryOf(this.#partition, descriptor, undefined);
    entries.set(seq, entry);
    if (entry.keyHash !== 0) keys.begin(entry, true);
    return entry;
  }

  // Keys.

  readKey(keyHash: number): void {
    this.#host.effect({
      kind: "readKey",
      read: this.#reads.begin(),
      partition: this.#partition,
      keyHash,
      limit: followersMax + 1,
    });
  }

  keyRead(
    read: number,
    keyHash: number,
    descriptors: readonly Descriptor[],
    full: boolean,
    nowMs: number,
  ): void {
    const { entries, keys } = this.#host;
    const chain = keys.get(keyHash);
    if (chain !== undefined) {
      const followers: Entry[] = [];
      for (const descriptor of descriptors) {
        if (entries.has(descriptor.seq) || this.#reads.hasEnded(descriptor.seq)) continue;
        const entry = entryOf(this.#partition, descriptor, undefined);
        entries.set(entry.seq, entry);
        followers.push(entry);
      }
      this.#host.next(chain, keys.read(chain, followers, !full), nowMs);
    }
    this.#reads.end(read);
  }

  // Delays.

  /**
   * Asks for the next delayed messages that only the store knows, however far ahead they are due:
   * what a bounded time hid would be taken for not being there.
   */
  readDue(limit: number): void {
    if (this.#storeDue === undefined || this.#dueReading || !this.#host.isOpen()) return;
    this.#dueReading = true;
    this.#evicted = undefined;
    this.#host.effect({
      kind: "due",
      read: this.#reads.begin(),
      partition: this.#partition,
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
      const entry = this.#meet(this.unordered(descriptors[at]!), heads[at]!);
      if (entry !== undefined) this.#host.delay(entry);
    }
    this.#reads.end(read);
  }

  /** Without order per key a message's key is only a label. */
  unordered(descriptor: Descriptor): Descriptor {
    if (this.#host.ordered || descriptor.keyHash === undefined) return descriptor;
    const { keyHash: _label, ...rest } = descriptor;
    return rest;
  }
}

function isBefore(a: DueCursor, b: DueCursor | undefined): boolean {
  return b === undefined || a.dueAtMs < b.dueAtMs || (a.dueAtMs === b.dueAtMs && a.seq < b.seq);
}

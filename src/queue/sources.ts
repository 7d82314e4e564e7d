/**
 * Bounded read-ahead. A source is what one lane of one partition holds of one group (or of none): the
 * messages after its cursor are still in the store, those before it were seen. A flood of one group
 * fills its own source and hides no other.
 *
 * L1  Every pending message that is due lies after its source's cursor or is known: kept as an entry,
 *     passed over behind a key, or awaited by its due time.
 * L2  A source keeps at most `quota` ready entries that it read itself.
 * L3  At the tail nothing lies after the cursor: what is stored from now on joins at once.
 *
 * After an outage a source may be split at a seq: `backlog` before it, `fresh` after it.
 */
import { Deque } from "../base/index.ts";
import type { Entry } from "./entry.ts";

export interface Source {
  readonly partition: number;
  readonly rank: 0 | 1 | 2;
  /** "": messages without a group. */
  readonly group: string;
  readonly ready: Deque<Entry>;
  cursor: number;
  /** Last seq that belongs to it: the split after an outage. */
  untilSeq: number;
  atTail: boolean;
  reading: boolean;
  /** Something was stored for it while a read was on its way. */
  missed: boolean;
  /** The cursor was set while a read was on its way: what that brings is void. */
  stale: boolean;
  /** It stands in its node's rotation. */
  rotates: boolean;
  isBacklog: boolean;
}

export class Sources {
  readonly #partition: number;
  readonly #current = new Map<string, Source>();
  readonly #backlog = new Map<string, Source>();

  constructor(partition: number) {
    this.#partition = partition;
  }

  get size(): number {
    return this.#current.size + this.#backlog.size;
  }

  /** The source that new messages of a lane and group belong to. */
  of(rank: 0 | 1 | 2, group: string): Source {
    const name = nameOf(rank, group);
    let source = this.#current.get(name);
    if (source === undefined) {
      source = this.#create(rank, group, 0, true);
      this.#current.set(name, source);
    }
    return source;
  }

  /** The source that a known message belongs to. */
  holding(rank: 0 | 1 | 2, group: string, seq: number): Source {
    const backlog = this.#backlog.get(nameOf(rank, group));
    return backlog !== undefined && seq <= backlog.untilSeq ? backlog : this.of(rank, group);
  }

  /** The store holds messages of this lane and group that were not seen. */
  unread(rank: 0 | 1 | 2, group: string, afterSeq: number): void {
    const source = this.holding(rank, group, afterSeq + 1);
    source.cursor = Math.min(source.cursor, afterSeq);
    source.atTail = false;
    if (source.reading) source.stale = true;
  }

  /** Parts what is stored by now from what comes: the lane is shared between both from here on. */
  split(lastSeq: number): void {
    for (const [name, source] of this.#current) {
      if (this.#backlog.has(name) || (source.atTail && source.ready.size === 0)) continue;
      source.untilSeq = lastSeq;
      source.isBacklog = true;
      source.rotates = false;
      this.#backlog.set(name, source);
      this.#current.set(name, this.#create(source.rank, source.group, lastSeq, true));
    }
  }

  /** Drops what is used up, so that many groups that came and went cost nothing. */
  sweep(): void {
    for (const [name, source] of this.#backlog) if (isUsedUp(source)) this.#backlog.delete(name);
    for (const [name, source] of this.#current) {
      if (source.group !== "" && isUsedUp(source)) this.#current.delete(name);
    }
  }

  get allAtTail(): boolean {
    for (const source of this.#current.values()) if (!source.atTail) return false;
    for (const source of this.#backlog.values()) if (!source.atTail) return false;
    return true;
  }

  get isSplit(): boolean {
    return this.#backlog.size > 0;
  }

  *all(): Generator<Source, void, undefined> {
    yield* this.#backlog.values();
    yield* this.#current.values();
  }

  #create(rank: 0 | 1 | 2, group: string, cursor: number, atTail: boolean): Source {
    return {
      partition: this.#partition,
      rank,
      group,
      ready: new Deque<Entry>(),
      cursor,
      untilSeq: Infinity,
      atTail,
      reading: false,
      missed: false,
      stale: false,
      rotates: false,
      isBacklog: false,
    };
  }
}

function nameOf(rank: number, group: string): string {
  return group === "" ? String(rank) : `${rank}:${group}`;
}

function isUsedUp(source: Source): boolean {
  return source.atTail && !source.reading && source.ready.size === 0;
}

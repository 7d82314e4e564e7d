/**
 * The pending messages of a partition with every order in which they are read.
 *
 * P1  Every row stands in its lane and, where it has a key, among its key's seqs; in the due order
 *     exactly while it has a `dueAtMs`. Nothing else stands there.
 * P2  Only pending messages are in flight. Their rows count the attempts before; shown is one more.
 * P3  `bytes` is the sum over the rows.
 */
import { assert } from "../../base/index.ts";
import { messageClasses } from "../../flow/index.ts";
import type { KeyHash, MessageClass, Seq } from "../../flow/index.ts";
import type { Descriptor, DueCursor, ScanQuery, StoredMessage } from "../engine.ts";
import { bySeq, Lane } from "./lane.ts";
import { describe, showMessage } from "./rows.ts";
import type { Row } from "./rows.ts";
import { Sorted } from "./sorted.ts";

const byDue = (a: DueCursor, b: DueCursor): number => a.dueAtMs - b.dueAtMs || a.seq - b.seq;

export class Pending {
  readonly #rows = new Map<Seq, Row>();
  readonly #inFlight = new Set<Seq>();
  readonly #lanes: Readonly<Record<MessageClass, Lane>> = {
    critical: new Lane(),
    normal: new Lane(),
    bulk: new Lane(),
  };
  readonly #keys = new Map<KeyHash, Sorted<Seq>>();
  readonly #due = new Sorted(byDue);
  #bytes = 0;

  get size(): number {
    return this.#rows.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get nextDueAtMs(): number | null {
    return this.#due.first()?.dueAtMs ?? null;
  }

  get laneHeads(): Record<MessageClass, Seq> {
    const { critical, normal, bulk } = this.#lanes;
    return {
      critical: critical.all.first() ?? 0,
      normal: normal.all.first() ?? 0,
      bulk: bulk.all.first() ?? 0,
    };
  }

  get(seq: Seq): Row | undefined {
    return this.#rows.get(seq);
  }

  add(row: Row): void {
    const { seq, append } = row;
    this.#rows.set(seq, row);
    this.#bytes += row.bytes;
    this.#lanes[append.class].add(seq, append.group ?? null);
    if (row.dueAtMs !== undefined) this.#due.add({ dueAtMs: row.dueAtMs, seq });
    if (append.keyHash === undefined) return;
    const seqs = this.#keys.get(append.keyHash) ?? new Sorted(bySeq);
    seqs.add(seq);
    this.#keys.set(append.keyHash, seqs);
  }

  /** Takes a row out; an attempt in flight is one that ended. */
  remove(row: Row): void {
    const { seq, append } = row;
    if (this.#inFlight.delete(seq)) row.attempts++;
    this.#rows.delete(seq);
    this.#bytes -= row.bytes;
    this.#lanes[append.class].delete(seq, append.group ?? null);
    if (row.dueAtMs !== undefined) this.#due.delete({ dueAtMs: row.dueAtMs, seq });
    if (append.keyHash === undefined) return;
    const seqs = this.#keys.get(append.keyHash);
    seqs?.delete(seq);
    if (seqs?.size === 0) this.#keys.delete(append.keyHash);
  }

  /** Starting what is in flight changes nothing: it is the same attempt. */
  start(row: Row): void {
    this.#inFlight.add(row.seq);
  }

  /** @param counts Whether the attempt in flight, if there is one, was used up. */
  stop(row: Row, dueAtMs: number | undefined, counts: boolean): void {
    if (this.#inFlight.delete(row.seq) && counts) row.attempts++;
    if (row.dueAtMs !== undefined) this.#due.delete({ dueAtMs: row.dueAtMs, seq: row.seq });
    row.dueAtMs = dueAtMs;
    if (dueAtMs !== undefined) this.#due.add({ dueAtMs, seq: row.seq });
  }

  /** What was in flight has crashed: an attempt and a crash each. Ascending by seq. */
  interrupt(): Descriptor[] {
    const interrupted = [...this.#inFlight].toSorted(bySeq).map((seq) => {
      const row = this.#rows.get(seq)!;
      row.attempts++;
      row.crashes++;
      return describe(row, false);
    });
    this.#inFlight.clear();
    return interrupted;
  }

  scan({ lane, afterSeq, limit, nowMs, group }: ScanQuery): Descriptor[] {
    const found: Descriptor[] = [];
    if (limit <= 0) return found;
    for (const seq of this.#lanes[lane].after(afterSeq, group)) {
      const row = this.#rows.get(seq)!;
      if (row.dueAtMs !== undefined && row.dueAtMs > nowMs) continue;
      if (found.push(this.#describe(seq)) >= limit) break;
    }
    return found;
  }

  groups(lane: MessageClass, after: string | null, limit: number): string[] {
    return this.#lanes[lane].names.after(after).take(limit).toArray();
  }

  due(untilMs: number, after: DueCursor | null, limit: number): Descriptor[] {
    const found: Descriptor[] = [];
    for (const { dueAtMs, seq } of this.#due.after(after)) {
      if (dueAtMs > untilMs || found.length >= limit) break;
      found.push(this.#describe(seq));
    }
    return found;
  }

  keyHead(keyHash: KeyHash): Seq {
    return this.#keys.get(keyHash)?.first() ?? 0;
  }

  readKey(keyHash: KeyHash, afterSeq: Seq, limit: number): Descriptor[] {
    const seqs = this.#keys.get(keyHash)?.after(afterSeq).take(limit) ?? [];
    return Array.from(seqs, (seq) => this.#describe(seq));
  }

  message(seq: Seq): StoredMessage | null {
    const row = this.#rows.get(seq);
    return row === undefined ? null : showMessage(row, this.#inFlight.has(seq));
  }

  /** The rows counted one by one. */
  count(): { readonly pending: number; readonly bytes: number } {
    let bytes = 0;
    for (const row of this.#rows.values()) bytes += row.bytes;
    return { pending: this.#rows.size, bytes };
  }

  check(): void {
    let [keyed, due, bytes] = [0, 0, 0];
    for (const { append, dueAtMs, bytes: size } of this.#rows.values()) {
      if (append.keyHash !== undefined) keyed++;
      if (dueAtMs !== undefined) due++;
      bytes += size;
    }
    const inLanes = messageClasses.reduce((sum, lane) => sum + this.#lanes[lane].all.size, 0);
    const ofKeys = this.#keys.values().reduce((sum, seqs) => sum + seqs.size, 0);
    assert(inLanes === this.#rows.size, "P1 every row stands in one lane");
    assert(ofKeys === keyed, "P1 every keyed row stands with its key");
    assert(this.#due.size === due, "P1 due rows stand in the due order");
    assert(
      this.#inFlight.values().every((seq) => this.#rows.has(seq)),
      "P2 only pending is in flight",
    );
    assert(bytes === this.#bytes, "P3 bytes");
  }

  #describe(seq: Seq): Descriptor {
    return describe(this.#rows.get(seq)!, this.#inFlight.has(seq));
  }
}

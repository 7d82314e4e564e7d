/**
 * Applies the changes of one element, in order.
 *
 * C1  A change of a seq that is neither pending nor, for `redrive` and `discard`, dead does nothing (E10).
 * C2  A message in flight shows one attempt more than its row; ending the attempt by `retry` writes it
 *     down, `released` takes it back, and neither does anything to attempts when it is not in flight.
 *
 * Acks are collected: a run of neighbours in one lane is one statement. They are written before
 * anything looks a row up and at the end.
 */
import { SpillwayError } from "../../base/index.ts";
import type { Seq } from "../../flow/index.ts";
import type { ByteReader } from "./bytes.ts";
import {
  bytesOf,
  entry,
  find,
  forget,
  has,
  inBody,
  inSide,
  laneOf,
  recall,
  remember,
  withSide,
} from "./partition.ts";
import type { Entry, Part } from "./partition.ts";
import { idSpan } from "./schema.ts";
import type { Statements } from "./statements.ts";
import { changeKind } from "./wire.ts";

export class Changes {
  readonly #statements: Statements;
  /** Acked seqs of each lane, and whether any of them has rows in `body` or `side`. */
  readonly #acked: readonly Seq[][] = Array.from({ length: 8 }, () => []);
  readonly #flags: number[] = Array.from({ length: 8 }, () => 0);
  #waiting = 0;

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  apply(part: Part, from: ByteReader, count: number, nowMs: number): void {
    for (let i = 0; i < count; i++) {
      const kind = from.u8();
      const seq = from.f64();
      switch (kind) {
        case changeKind.started:
          this.#start(part, seq);
          break;
        case changeKind.ack:
          this.#ack(part, seq);
          break;
        case changeKind.released:
          this.#release(part, seq, from.f64());
          break;
        case changeKind.retry:
          this.#retry(part, seq, from.f64(), from.text());
          break;
        case changeKind.dead:
          this.#shelve(part, seq, 0, nowMs, from.text());
          break;
        case changeKind.discard:
          this.#discard(part, seq, nowMs, from.text());
          break;
        case changeKind.redrive:
          this.#redrive(part, seq);
          break;
        default:
          throw new SpillwayError("invariant_broken", { invariant: "change kind", kind });
      }
    }
    this.#flush(part);
  }

  /** Forgets what a failed transaction left. */
  reset(): void {
    for (const seqs of this.#acked) seqs.length = 0;
    this.#flags.fill(0);
    this.#waiting = 0;
  }

  #find(part: Part, seq: Seq): Entry | undefined {
    const held = recall(part, seq);
    if (held !== undefined) return held;
    if (this.#waiting > 0) this.#flush(part);
    return find(part, seq, this.#statements);
  }

  #start(part: Part, seq: Seq): void {
    if (part.started.has(seq)) return; // The same attempt.
    const value = this.#find(part, seq);
    if (value === undefined) return;
    forget(part, seq);
    part.started.set(seq, value);
  }

  #ack(part: Part, seq: Seq): void {
    const value = this.#find(part, seq);
    if (value === undefined) return;
    take(part, seq, value);
    part.acked++;
    const lane = laneOf(value);
    this.#acked[lane]!.push(seq);
    this.#flags[lane]! |= value % 32;
    this.#waiting++;
  }

  #release(part: Part, seq: Seq, dueAtMs: number): void {
    const value = this.#find(part, seq);
    if (value === undefined) return;
    part.started.delete(seq);
    const due = Number.isNaN(dueAtMs) ? null : dueAtMs;
    const writes = due !== null || has(value, inSide);
    if (writes) this.#statements.sideRelease.run(part.p, seq, laneOf(value), due);
    remember(part, seq, writes ? withSide(value) : value);
  }

  #retry(part: Part, seq: Seq, dueAtMs: number, error: string): void {
    const value = this.#find(part, seq);
    if (value === undefined) return;
    const attempts = part.started.delete(seq) ? 1 : 0;
    this.#statements.sideRetry.run(part.p, seq, laneOf(value), attempts, dueAtMs, error);
    remember(part, seq, withSide(value));
  }

  #discard(part: Part, seq: Seq, nowMs: number, reason: string): void {
    if (this.#shelve(part, seq, 1, nowMs, reason)) return;
    const { p } = part;
    const id = p * idSpan + seq;
    if (this.#statements.deadDiscard.run(nowMs, reason, id, p, seq).changes === 0) return;
    this.#statements.bodyDelete.run(id, id);
    part.dead--;
    part.discarded++;
  }

  /** @returns false when it is not pending. */
  #shelve(part: Part, seq: Seq, kind: 0 | 1, nowMs: number, reason: string): boolean {
    const value = this.#find(part, seq);
    if (value === undefined) return false;
    const { p } = part;
    const id = p * idSpan + seq;
    const lane = laneOf(value);
    const attempts = part.started.has(seq) ? 1 : 0;
    this.#statements.shelve.run(kind, nowMs, reason, attempts, id, p, lane, seq);
    take(part, seq, value);
    this.#statements.messageDelete.run(p, lane, seq, seq);
    if (has(value, inSide)) this.#statements.sideDelete.run(p, seq, seq);
    if (kind === 0) part.dead++;
    else {
      part.discarded++;
      if (has(value, inBody)) this.#statements.bodyDelete.run(id, id);
    }
    return true;
  }

  #redrive(part: Part, seq: Seq): void {
    const row = this.#statements.deadEntry.get(part.p, seq);
    if (row === undefined) return;
    this.#statements.deadRestore.run(part.p, seq);
    this.#statements.deadDelete.run(part.p, seq);
    const bytes = row["bytes"] as number;
    part.dead--;
    part.pending++;
    part.bytes += bytes;
    remember(part, seq, entry(row["lane"] as number, bytes, row["body"] === 1, false));
  }

  #flush(part: Part): void {
    if (this.#waiting === 0) return;
    this.#waiting = 0;
    for (let lane = 0; lane < this.#acked.length; lane++) {
      const seqs = this.#acked[lane]!;
      if (seqs.length === 0) continue;
      sort(seqs);
      let first = seqs[0]!;
      for (let i = 1; i <= seqs.length; i++) {
        if (i < seqs.length && seqs[i] === seqs[i - 1]! + 1) continue;
        this.#deleteRun(part.p, lane, first, seqs[i - 1]!, this.#flags[lane]!);
        first = seqs[i]!;
      }
      seqs.length = 0;
      this.#flags[lane] = 0;
    }
  }

  #deleteRun(p: number, lane: number, first: Seq, last: Seq, flags: number): void {
    this.#statements.messageDelete.run(p, lane, first, last);
    if ((flags & inBody) !== 0) {
      this.#statements.bodyDelete.run(p * idSpan + first, p * idSpan + last);
    }
    if ((flags & inSide) !== 0) this.#statements.sideDelete.run(p, first, last);
  }
}

/** Takes a message out of what is pending. */
function take(part: Part, seq: Seq, value: Entry): void {
  if (!part.started.delete(seq)) forget(part, seq); // P1: it is never both.
  part.pending--;
  part.bytes -= bytesOf(value);
}

function sort(seqs: Seq[]): void {
  for (let i = 1; i < seqs.length; i++) {
    if (seqs[i]! >= seqs[i - 1]!) continue;
    seqs.sort((a, b) => a - b);
    return;
  }
}

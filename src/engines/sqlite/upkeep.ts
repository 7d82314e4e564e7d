/**
 * Expiry and compaction in slices, each a short transaction of its own, so that commits come in
 * between: forgotten idempotency ids first, then free pages at the end of the file, then the log.
 *
 * U1  A part of the free pages stays: a queue that breathes must not grow its file anew each time.
 * U2  When nothing is left to do, the file is as small as what it holds allows (E16).
 */
import type { DatabaseSync } from "node:sqlite";
import type { Part } from "./partition.ts";
import { idSpan, pageBytes } from "./schema.ts";
import type { Statements } from "./statements.ts";

/** Both are about 2 ms of work. */
const idsPerSlice = 200;
const pagesPerSlice = 256;
/** 0.5 MB: what an empty store may keep. */
const freePagesMin = 128;
/** Of the pages in use, as many again may stay free. */
const freeShare = 1 / 8;

export interface Upkeep {
  readonly reclaimedBytes: number;
  readonly more: boolean;
}

/**
 * @param clock Milliseconds of a clock that does not jump; only this work's own time counts.
 * @param quiet Whether the log may be emptied, which costs a stall of some milliseconds.
 */
export function* maintain(
  db: DatabaseSync,
  statements: Statements,
  part: Part,
  nowMs: number,
  budgetMs: number,
  clock: () => number,
  quiet: () => boolean,
): Generator<void, Upkeep, void> {
  let spentMs = 0;
  let reclaimedBytes = 0;
  const slices = [() => expire(statements, part, nowMs), () => shrink(db, statements)];
  for (const slice of slices) {
    for (;;) {
      const beganMs = clock();
      const { bytes, more } = slice();
      spentMs += clock() - beganMs;
      reclaimedBytes += bytes;
      if (!more) break;
      if (spentMs >= budgetMs) return { reclaimedBytes, more: true };
      yield;
    }
  }
  if (reclaimedBytes > 0 || quiet()) db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  return { reclaimedBytes, more: false };
}

interface Slice {
  readonly bytes: number;
  readonly more: boolean;
}

/** Ids leave in the order of acceptance; one with a longer window is passed over. */
function expire(statements: Statements, part: Part, nowMs: number): Slice {
  const low = part.p * idSpan;
  const page = statements.dedupPage.all(low, low + idSpan, idsPerSlice);
  const last = page.at(-1);
  if (last === undefined || !page.some((row) => (row["until"] as number) < nowMs)) {
    return { bytes: 0, more: false };
  }
  const { changes } = statements.dedupExpire.run(low, last["id"] as number, nowMs);
  return { bytes: 0, more: page.length === idsPerSlice && Number(changes) * 2 >= page.length };
}

/** U1 decides how far. */
function shrink(db: DatabaseSync, statements: Statements): Slice {
  const free = statements.freePages.get()!["freelist_count"] as number;
  const used = (statements.allPages.get()!["page_count"] as number) - free;
  const surplus = free - Math.max(freePagesMin, Math.floor(used * freeShare));
  if (surplus <= 0) return { bytes: 0, more: false };
  const pages = Math.min(surplus, pagesPerSlice);
  db.exec(`PRAGMA incremental_vacuum(${pages})`);
  return { bytes: pages * pageBytes, more: surplus > pages };
}

/**
 * Tells a damaged write-ahead log from a torn tail, before SQLite opens it: SQLite itself ends the log
 * at the first frame that does not fit and drops everything behind it without a word.
 *
 * One writer syncs each commit before the next begins, so a crash leaves at most one commit frame of
 * this log's generation (equal salts) behind the first bad frame. Two or more were synced: damage.
 * Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
 */
import { pageBytes } from "./schema.ts";

const headBytes = 32;
const frameHeadBytes = 24;
const frameBytes = frameHeadBytes + pageBytes;

export interface WalScan {
  /** Index of the first frame that does not fit; -1 when all do. */
  readonly firstBad: number;
  /** Commit frames of the same generation behind it. */
  readonly commitsBehind: number;
  readonly damaged: boolean;
}

/** @param log The file's content. */
export function scanWal(log: Uint8Array): WalScan {
  const view = new DataView(log.buffer, log.byteOffset, log.byteLength);
  if (log.length < headBytes) return verdict(-1, 0);
  const littleEndian = (view.getUint32(0) & 1) === 0;
  const head = sum(view, 0, 24, littleEndian, 0, 0);
  if (head.a !== view.getUint32(24) || head.b !== view.getUint32(28)) {
    return verdict(0, commitsOfLargestGeneration(view));
  }
  return scanFrames(view, littleEndian, head);
}

function scanFrames(view: DataView, littleEndian: boolean, head: Sum): WalScan {
  const generation = saltsAt(view, 16);
  let { a, b } = head;
  let firstBad = -1;
  let commitsBehind = 0;
  for (let at = headBytes, n = 0; at + frameBytes <= view.byteLength; at += frameBytes, n++) {
    const ours = saltsAt(view, at + 8) === generation;
    if (firstBad < 0) {
      const front = sum(view, at, at + 8, littleEndian, a, b);
      const whole = sum(view, at + frameHeadBytes, at + frameBytes, littleEndian, front.a, front.b);
      if (ours && whole.a === view.getUint32(at + 16) && whole.b === view.getUint32(at + 20)) {
        ({ a, b } = whole);
        continue;
      }
      firstBad = n;
    }
    if (ours && n > firstBad && view.getUint32(at + 4) !== 0) commitsBehind++;
  }
  return verdict(firstBad, commitsBehind);
}

interface Sum {
  readonly a: number;
  readonly b: number;
}

function sum(
  view: DataView,
  from: number,
  to: number,
  littleEndian: boolean,
  a: number,
  b: number,
): Sum {
  for (let i = from; i < to; i += 8) {
    a = (a + view.getUint32(i, littleEndian) + b) >>> 0;
    b = (b + view.getUint32(i + 4, littleEndian) + a) >>> 0;
  }
  return { a, b };
}

function saltsAt(view: DataView, at: number): number {
  return view.getUint32(at) * 4294967296 + view.getUint32(at + 4);
}

/** Without a head that fits, the generation with most commit frames stands for the log's own. */
function commitsOfLargestGeneration(view: DataView): number {
  const votes = new Map<number, number>();
  for (let at = headBytes; at + frameBytes <= view.byteLength; at += frameBytes) {
    if (view.getUint32(at + 4) === 0) continue;
    const salts = saltsAt(view, at + 8);
    votes.set(salts, (votes.get(salts) ?? 0) + 1);
  }
  return Math.max(0, ...votes.values());
}

function verdict(firstBad: number, commitsBehind: number): WalScan {
  return { firstBad, commitsBehind, damaged: firstBad >= 0 && commitsBehind >= 2 };
}

/**
 * The smallest run of a seed that is still broken in the same way: first its parts are left out (faults,
 * clients, habits, operations) by delta debugging, then its sends.
 */
import { drawPlan } from "./plan.ts";
import type { Less } from "./plan.ts";
import { run } from "./run.ts";
import type { RunResult } from "./run.ts";

export interface Shrunk {
  readonly less: Less;
  readonly result: RunResult;
  /** Runs that it took. */
  readonly runs: number;
}

const runsDefault = 200;

/** @param first The broken run of the whole seed. */
export async function shrink(
  seed: number,
  first: RunResult,
  runsMax: number = runsDefault,
): Promise<Shrunk> {
  const code = codeOf(first);
  let best: Shrunk = { less: {}, result: first, runs: 0 };
  let runs = 0;
  const tryLess = async (less: Less): Promise<boolean> => {
    if (runs >= runsMax) return false;
    runs++;
    const result = await run(drawPlan(seed, less));
    if (codeOf(result) !== code) return false;
    best = { less, result, runs };
    return true;
  };
  await shrinkParts(seed, tryLess);
  for (let sends = 64; sends >= 1; sends >>= 1) {
    if (!(await tryLess({ ...best.less, sends }))) break;
  }
  await shrinkParts(seed, tryLess, best.less);
  return { ...best, runs };
}

/** Leaves out halves, then quarters, ... of what is left, then single parts. */
async function shrinkParts(
  seed: number,
  tryLess: (less: Less) => Promise<boolean>,
  from: Less = {},
): Promise<void> {
  const without = new Set(from.without);
  const { parts } = drawPlan(seed, from);
  let left = parts.filter((part) => !without.has(part));
  for (let size = Math.ceil(left.length / 2); size >= 1; size = size === 1 ? 0 : size >> 1) {
    for (let at = 0; at < left.length;) {
      const some = left.slice(at, at + size);
      if (await tryLess({ ...from, without: [...without, ...some] })) {
        for (const part of some) without.add(part);
        left = left.filter((part) => !without.has(part));
      } else at += size;
    }
  }
}

/** What is broken, without its circumstances: "G5.dedup". */
export function codeOf({ broken }: RunResult): string | undefined {
  return broken[0]?.slice(0, broken[0].indexOf(":"));
}

/** The line that plays a run again. */
export function commandOf(seed: number, { without = [], sends }: Less = {}): string {
  const parts = without.length === 0 ? "" : ` --without ${without.join(",")}`;
  return `npm run simulate -- --seed ${seed}${parts}${sends === undefined ? "" : ` --sends ${sends}`}`;
}

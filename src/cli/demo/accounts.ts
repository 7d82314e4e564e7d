/** The accounts of a data directory, from the store alone. */
import { isSpillwayError } from "../../base/index.ts";
import { auditStore } from "../../engines/sqlite/index.ts";
import { faultsOf } from "../audit.ts";

/** Over the life of a flow; `pending` is counted from the rows. */
export interface Accounts {
  readonly accepted: number;
  readonly acked: number;
  readonly dead: number;
  readonly discarded: number;
  readonly pending: number;
  /** What does not hold, a line each. */
  readonly faults: readonly string[];
}

/** @returns Zeros where there is no store yet. @throws {SpillwayError} store_newer, store_corrupt */
export function accountsOf(dir: string, flow: string): Accounts {
  const audits = audited(dir).filter(({ ref }) => ref.flow === flow);
  const sum = { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0 };
  for (const { report } of audits) {
    sum.accepted += report.counters.accepted;
    sum.acked += report.counters.acked;
    sum.dead += report.counted.dead;
    sum.discarded += report.counters.discarded;
    sum.pending += report.counted.pending;
  }
  return { ...sum, faults: audits.flatMap(faultsOf) };
}

function audited(dir: string): ReturnType<typeof auditStore> {
  try {
    return auditStore(dir);
  } catch (error) {
    if (isSpillwayError(error, "not_found")) return [];
    throw error;
  }
}

/**
 * Drives the embedded store and writes a receipt for each write it acknowledges, until it has done
 * them all or is killed.
 *
 *     node --conditions=source workload.ts '{"dir": …, "ledger": …, …}'
 *
 * Ledger: "C" once all is claimed, "A p k" for the k-th write of partition p, "D" when done, "F …" when
 * the store failed.
 */
import { fsyncSync, openSync, writeSync } from "node:fs";
import { isSpillwayError } from "../../src/base/index.ts";
import type { Claim, Engine } from "../../src/engines/engine.ts";
import { sqlite } from "../../src/engines/sqlite/index.ts";
import { draftOf, flow, limits, writesPerProcess } from "./writes.ts";

export interface Workload {
  readonly dir: string;
  readonly ledger: string;
  /** For each partition the first write to do. */
  readonly from: readonly number[];
  readonly to: number;
  readonly synchronous: "full" | "unsafe-normal";
  /** Whether the receipts are synced: in the recorded folder they must not be. */
  readonly syncLedger: boolean;
}

const work = JSON.parse(process.argv[2]!) as Workload;
const ledger = openSync(work.ledger, "a");
const { dir, synchronous, to } = work;
const next = [...work.from];
while (next.some((k) => k <= to)) await runOnce();
note("D");

/** Opens the store, writes until each partition reaches the end of its round, and closes it. */
async function runOnce(): Promise<void> {
  await using engine = sqlite({ dir, synchronous, reserveBytes: 0, minFreeBytes: 0 });
  await engine.open();
  const claims: Claim[] = [];
  for (const partition of next.keys()) {
    const result = await engine.claim({ flow, partition }, { node: "w", address: "" }, 1000);
    if (result.kind === "claimed") claims.push(result.claim);
  }
  note("C");
  const ends = await Promise.allSettled(claims.map((claim) => run(engine, claim)));
  const failed = ends.filter((end) => end.status === "rejected");
  if (failed.length === 0) return;
  for (const { reason } of failed) note(`F ${nameOf(reason)}`);
  const last = { ...draftOf(0, 1), claim: claims[0]!, limits };
  await engine.write([last]).catch((error: unknown) => note(`F ${nameOf(error)}`));
  process.exit(0);
}

async function run(engine: Engine, claim: Claim): Promise<void> {
  const { partition } = claim.ref;
  do {
    const k = next[partition]!;
    if (k > to) return;
    const draft = draftOf(partition, k);
    await engine.write([{ ...draft, claim, limits }]);
    note(`A ${partition} ${k}`);
    next[partition] = k + 1;
    if (k % 10 === 0) await engine.maintain(claim, draft.nowMs, 2);
  } while (next[partition] % writesPerProcess !== 1);
}

function nameOf(error: unknown): string {
  return isSpillwayError(error) ? error.code : String(error);
}

function note(line: string): void {
  writeSync(ledger, `${line}\n`);
  if (work.syncLedger) fsyncSync(ledger);
}

/**
 * Kills a process that writes, again and again, and looks at what it left: every write that has a
 * receipt, at most one more of each partition, nothing partial, and counters that the rows agree with.
 *
 *     node --conditions=source test/crash-states/kill.ts --cycles 200 [--seed 1]
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { sequence } from "../../src/base/index.ts";
import { digestOf, Direct, Expected, faultOf } from "./content.ts";
import type { Workload } from "./workload.ts";

const partitions = 2;
/** From the first claim to the kill. */
const aliveMaxMs = 150;
const script = fileURLToPath(new URL("workload.ts", import.meta.url));

export interface KillReport {
  readonly cycles: number;
  /** Writes with a receipt. */
  readonly receipts: number;
  /** Writes that happened without a receipt. */
  readonly unacknowledged: number;
  readonly fault?: string;
}

/** @returns After the first fault, or after all cycles. */
export async function killCycles(cycles: number, seed: number): Promise<KillReport> {
  const home = mkdtempSync(join(tmpdir(), "spillway-kill-"));
  const draw = sequence(seed);
  const done = Array.from({ length: partitions }, () => 0);
  let [receipts, unacknowledged] = [0, 0];
  using expected = new Expected(partitions);
  try {
    for (let cycle = 1; cycle <= cycles; cycle++) {
      const acked = await runAndKill(home, done, draw() * aliveMaxMs);
      for (const [partition, k] of acked.entries()) {
        const found = look(join(home, "store"), partition, k, expected);
        if (typeof found === "string") {
          const fault = `cycle ${cycle}, seed ${seed}, partition ${partition}: ${found}`;
          return { cycles: cycle, receipts, unacknowledged, fault };
        }
        receipts += k - done[partition]!;
        unacknowledged += found - k;
        done[partition] = found;
        expected.restart(partition);
      }
    }
    return { cycles, receipts, unacknowledged };
  } finally {
    rmSync(home, { recursive: true });
  }
}

/** @returns For each partition the last write that has a receipt. */
async function runAndKill(
  home: string,
  done: readonly number[],
  aliveMs: number,
): Promise<number[]> {
  const ledger = join(home, "ledger.log");
  writeFileSync(ledger, "");
  const work: Workload = {
    dir: join(home, "store"),
    ledger,
    from: done.map((k) => k + 1),
    to: 1e9,
    synchronous: "full",
    syncLedger: true,
  };
  const changed = watch(ledger);
  const child = spawn(process.execPath, ["--conditions=source", script, JSON.stringify(work)], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const ended = once(child, "exit");
  await Promise.race([once(changed, "change"), ended]);
  changed.close();
  await sleep(aliveMs);
  child.kill("SIGKILL");
  await ended;
  const acked = [...done];
  for (const line of readFileSync(ledger, "utf8").split("\n").slice(0, -1)) {
    const [tag, partition, k] = line.split(" ");
    if (tag === "A") acked[Number(partition)] = Number(k);
  }
  return acked;
}

/** @returns How many writes the store holds, or what is wrong with it. */
function look(dir: string, partition: number, acked: number, expected: Expected): number | string {
  try {
    using store = new Direct(dir);
    const fault = faultOf(store.db, partition);
    if (fault !== undefined) return fault;
    const digest = digestOf(store.db, partition);
    // In this order: what is asked for is what `expected` goes on from.
    if (expected.has(partition, acked, digest)) return acked;
    if (expected.has(partition, acked + 1, digest)) return acked + 1;
    return `it is not what ${acked} or ${acked + 1} writes leave`;
  } catch (error) {
    return String(error);
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      cycles: { type: "string", default: "200" },
      seed: { type: "string", default: "1" },
    },
  });
  const report = await killCycles(Number(values.cycles), Number(values.seed));
  process.stdout.write(`${JSON.stringify(report)}\n`);
  process.exitCode = report.fault === undefined ? 0 : 1;
}

/** Runs the workload under the recorder. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Workload } from "./workload.ts";

const here = fileURLToPath(new URL(".", import.meta.url));

export interface Recording extends Disposable {
  readonly home: string;
  readonly dir: string;
  readonly log: string;
  readonly ledger: string;
  readonly exitCode: number | null;
  readonly stderr: string;
}

/** @returns Why nothing can be recorded here. */
export function whyNot(): string | undefined {
  if (process.platform !== "linux") return "the recorder needs Linux";
  const { error } = spawnSync("cc", ["--version"]);
  return error === undefined ? undefined : "the recorder needs a C compiler (cc)";
}

/** @param failSync The number of the sync that fails; -1 none. */
export function record(
  writes: number,
  synchronous: Workload["synchronous"],
  failSync = -1,
): Recording {
  const home = mkdtempSync(join(tmpdir(), "spillway-crash-"));
  const library = join(home, "recorder.so");
  const source = join(here, "recorder.c");
  execFileSync("cc", ["-O2", "-shared", "-fPIC", "-o", library, source, "-ldl", "-lpthread"]);
  const dir = join(home, "store");
  mkdirSync(dir);
  const log = join(home, "record.log");
  const ledger = join(dir, "ledger.log"); // In the recorded folder: receipts get their place in the order.
  const from = [1, 1];
  const workload: Workload = { dir, ledger, from, to: writes, synchronous, syncLedger: false };
  const script = join(here, "workload.ts");
  const environment = {
    REC_ROOT: dir,
    REC_LOG: log,
    LD_PRELOAD: library,
    FAIL_SYNC: `${failSync}`,
  };
  const { status, stderr } = spawnSync(
    process.execPath,
    ["--conditions=source", script, JSON.stringify(workload)],
    { env: { ...process.env, ...environment }, encoding: "utf8", timeout: 60_000 },
  );
  const dispose = (): void => rmSync(home, { recursive: true, force: true });
  return { home, dir, log, ledger, exitCode: status, stderr, [Symbol.dispose]: dispose };
}

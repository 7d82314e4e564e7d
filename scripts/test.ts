/**
 * Runs every suite that this machine can run, says plainly what it could not, and ends with the totals
 * that CI reads: `N passed, N failed`. `--all` (CI) makes a missing tool a failure; checks that failed
 * before come in by SPILLWAY_FAILED_CHECKS. Other arguments go to vitest.
 */
import { spawnSync } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { missingTools } from "../test/support/tools.ts";

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly testResults: readonly {
    readonly status: string;
    readonly assertionResults: readonly unknown[];
  }[];
}

const reportFile = "reports/vitest.json";
const all = process.argv.includes("--all");
const rest = process.argv.slice(2).filter((argument) => argument !== "--all");
await rm(reportFile, { force: true });
const { status } = spawnSync("vitest", ["run", ...rest], { stdio: "inherit" });
const report = await readFile(reportFile, "utf8").then(
  (text) => JSON.parse(text) as Report,
  () => undefined,
);

let failed = failuresOf(report);
if (status !== 0 && failed === 0) failed = 1;
failed += Number(process.env["SPILLWAY_FAILED_CHECKS"] ?? 0);
for (const { suites, binaries, install } of missingTools()) {
  const verdict = all ? "MISSING" : "not run";
  process.stdout.write(`${verdict}: ${suites} (no ${binaries.join(" or ")}; ${install})\n`);
  if (all) failed++;
}
const skipped = report?.numPendingTests ?? 0;
process.stdout.write(
  `${report?.numPassedTests ?? 0} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}\n`,
);
process.exitCode = failed === 0 ? 0 : 1;

/** A file that fails outside its tests (an import error) has no failed test of its own: it counts as one. */
function failuresOf(from: Report | undefined): number {
  if (from === undefined) return 1;
  const broken = from.testResults.filter(
    (file) => file.status === "failed" && file.assertionResults.length === 0,
  );
  return from.numFailedTests + broken.length;
}

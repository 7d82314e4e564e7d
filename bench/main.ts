/**
 * `npm run bench -- NAME... [--json]`: runs the named benchmarks and prints their figures, each next
 * to its floor; `all` runs every one. Exits 1 on an error only: a missed target is a figure, too.
 */
import { cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import type { Bench, Figure } from "./bench.ts";
import { backlog } from "./backlog.ts";
import { core } from "./core.ts";
import { cycle } from "./cycle.ts";
import { eventLoop } from "./event-loop.ts";
import { flood } from "./flood.ts";
import { hotKey } from "./hot-key.ts";
import { http } from "./http.ts";
import { idle } from "./idle.ts";
import { latency } from "./latency.ts";
import { outage } from "./outage.ts";
import { overload } from "./overload.ts";
import { network } from "./network.ts";
import { spike } from "./spike.ts";
import { wire } from "./wire.ts";

const benches: readonly Bench[] = [
  cycle,
  core,
  latency,
  backlog,
  hotKey,
  overload,
  eventLoop,
  wire,
  http,
  network,
  idle,
  spike,
  flood,
  outage,
];

interface Report {
  readonly bench: string;
  readonly describe: string;
  readonly node: string;
  readonly cpu: string;
  readonly cpus: number;
  /** Processes that ran or waited to, over a minute, before and after: above `cpus` the run was disturbed. */
  readonly load: readonly [before: number, after: number];
  readonly tookMs: number;
  readonly figures: readonly Figure[];
}

async function report(bench: Bench): Promise<Report> {
  const before = loadavg()[0]!;
  const beganMs = performance.now();
  const figures = await bench.run();
  return {
    bench: bench.name,
    describe: bench.describe,
    node: process.version,
    cpu: cpus()[0]?.model ?? "unknown",
    cpus: cpus().length,
    load: [before, loadavg()[0]!],
    tookMs: Math.round(performance.now() - beganMs),
    figures,
  };
}

function tableOf({ bench, describe, node, cpus, load, tookMs, figures }: Report): string {
  const rows = [
    ["figure", "value", "floor", "ratio", "target", ""],
    ...figures.map(({ name, value, unit, floor, ratio, target, met }) => [
      name,
      `${show(value)} ${unit}`,
      floor === undefined ? "" : show(floor),
      ratio === undefined ? "" : ratio.toFixed(2),
      target ?? "",
      met === undefined ? "" : met ? "met" : "missed",
    ]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row
      .map((cell, at) => cell.padEnd(widths[at]!))
      .join("  ")
      .trimEnd(),
  );
  const loads = load.map((value) => value.toFixed(1)).join(" to ");
  return `${bench}: ${describe}\n\n${lines.join("\n")}\n\nNode ${node}, ${cpus} cpus, load ${loads}, ${(tookMs / 1000).toFixed(0)} s\n`;
}

function show(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

function chosen(names: readonly string[]): readonly Bench[] {
  if (names.includes("all")) return benches;
  const found = names.map((name) => benches.find((bench) => bench.name === name));
  if (found.length > 0 && !found.includes(undefined)) return found as Bench[];
  const known = benches.map(({ name, describe }) => `  ${name.padEnd(12)}${describe}`);
  throw new Error(`name a benchmark, or "all":\n${known.join("\n")}`);
}

try {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { json: { type: "boolean", default: false } },
  });
  const reports: Report[] = [];
  for (const bench of chosen(positionals)) {
    const made = await report(bench);
    reports.push(made);
    if (!values.json) process.stdout.write(`${tableOf(made)}\n`);
  }
  if (values.json) {
    process.stdout.write(`${JSON.stringify(reports.length === 1 ? reports[0] : { reports })}\n`);
  }
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

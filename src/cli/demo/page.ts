/** What the demo comes to, as a page for people: every figure with its meaning. */
import { count, millis, plural, span, table } from "../format.ts";
import type { Concurrency } from "./options.ts";
import { refusedCount, reportOf } from "./report.ts";
import type { Outcome, Report } from "./report.ts";
import type { RunResult } from "./run.ts";

/** In at most 80 columns, unless a path is long. */
export function pageOf(outcome: Outcome): string {
  const report = reportOf(outcome);
  return [
    "",
    ...messagesPart(report, outcome),
    "",
    ...protectionPart(report),
    "",
    ...comparisonPart(report, outcome),
    ...closingPart(report, outcome),
    "",
  ].join("\n");
}

function messagesPart(report: Report, { main }: Outcome): string[] {
  const codes = Object.entries(report.refusedByCode).map(([code, n]) => `${code} ${count(n)}`);
  const rows: [string, number, string][] = [
    ["offered", report.offered, "on schedule, whether or not there is room"],
    ["accepted", report.accepted, "synced to disk before the producer was told so"],
    ["refused", refusedCount(main), codes.length === 0 ? "" : codes.join(", ")],
    ["handled", report.acked, "acked by the consumer, and that is on disk, too"],
    ["dead letters", report.deadLettered, "used up their attempts"],
    ["discarded", report.discarded, "dropped as the contract declares"],
    ["pending", report.pending, "still in the store"],
    ["lost", report.lost, "accepted and none of the above, by the store's own audit"],
  ];
  if (report.pendingBefore > 0) {
    rows.splice(1, 0, ["found", report.pendingBefore, "in the store, left by an earlier run"]);
  }
  if (report.duplicates > 0) {
    rows.splice(3, 0, ["duplicates", report.duplicates, "accepted before, under the same key"]);
  }
  return ["Messages", ...aligned(rows.map(([name, n, text]) => [name, count(n), text]))];
}

function protectionPart(report: Report): string[] {
  const { limitMessages, handlerLatencyMs: handler, signalLagMs: lag } = report;
  const rows = [
    [
      "goodput",
      `${count(report.goodputPerSecond)}/s`,
      "handled while messages came faster than that",
    ],
    ["window", String(report.windowFound), windowText(report.concurrency)],
    ["in flight", String(report.peakInFlight), "calls at most, by the consumer's own count"],
    [
      "backlog",
      count(report.peakStoredMessages),
      `messages at most; the limit is ${count(limitMessages)}`,
    ],
    ["drain", span(report.drainSeconds * 1000), "from the load's end to an empty buffer"],
    ["handler", millis(handler.p50), `median; ${millis(handler.p99)} for the slowest 1 %`],
    ["signal lag", millis(lag.p50), `from granting credit to its use; p99 ${millis(lag.p99)}`],
    ["held back", span(report.producerBlockedMs), "that sends had to wait for credit, in all"],
    ["memory", `${count(report.rssPeakMiB)} MiB`, "at most: producer, queue, store and this view"],
  ];
  return ["Protection", ...aligned(rows)];
}

function windowText(concurrency: Concurrency): string {
  return concurrency === "adaptive"
    ? "calls in flight, found by measuring"
    : "calls in flight, fixed";
}

function comparisonPart(report: Report, { compared, main }: Outcome): string[] {
  if (compared.length === 0) return [];
  const head = ["concurrency", "handled/s", "median", "p99", "in flight"];
  const rows = [head, rowOf(main), ...compared.map(rowOf)];
  const percent = Math.round((report.goodputRatio ?? 0) * 100);
  return [
    "The same spike at fixed concurrencies, for at most 20 seconds",
    ...table(rows, new Set([1, 2, 3, 4])),
    `  ${percent} % of the best fixed setting, without anybody having set one.`,
    "",
  ];
}

function rowOf({ concurrency, goodputPerS, latencyMs, peakInFlight }: RunResult): string[] {
  return [
    concurrency === "adaptive" ? "adaptive" : `fixed ${concurrency}`,
    count(goodputPerS),
    millis(latencyMs.p50),
    millis(latencyMs.p99),
    String(peakInFlight),
  ];
}

function closingPart(report: Report, { dir, isKept, tookMs }: Outcome): string[] {
  const kept = isKept
    ? `The store is kept; check it: spillway audit ${dir}`
    : "The store is removed.";
  const stopped = report.wasStopped ? "Stopped before its end. " : "";
  const verdict =
    report.faults.length === 0
      ? ["Every message is accounted for."]
      : [`${plural(report.faults.length, "thing")} did not hold:`, ...report.faults];
  return [...verdict, `${stopped}${kept}`, `Took ${span(tookMs)}.`];
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  return table(rows, new Set([1]));
}

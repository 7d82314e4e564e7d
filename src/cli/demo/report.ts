/** What a run comes to: one object for programs, one page for people. */
import { count, millis, plural, span, table } from "../format.ts";
import type { Load } from "./load.ts";
import type { Concurrency } from "./options.ts";
import type { RunResult } from "./run.ts";

export interface Outcome {
  readonly load: Load;
  readonly main: RunResult;
  /** The same spike at fixed concurrencies; those that were cut short are not among them. */
  readonly compared: readonly RunResult[];
  readonly dir: string;
  readonly isKept: boolean;
  readonly tookMs: number;
}

/** The object that `--json` prints; counts are of this run alone, but for `store`. */
export interface Report {
  readonly offered: number;
  readonly accepted: number;
  readonly acked: number;
  readonly deadLettered: number;
  readonly discarded: number;
  /** Still in the store. */
  readonly pending: number;
  /** In the store before the run. */
  readonly pendingBefore: number;
  /** pendingBefore + accepted - acked - deadLettered - discarded - pending. */
  readonly lost: number;
  readonly refusedByCode: Readonly<Record<string, number>>;
  readonly duplicates: number;
  readonly limitMessages: number;
  readonly peakStoredMessages: number;
  readonly peakInFlight: number;
  readonly goodputPerSecond: number;
  readonly bestFixedGoodputPerSecond: number | null;
  readonly goodputRatio: number | null;
  readonly handlerLatencyMs: { readonly p50: number; readonly p99: number };
  readonly producerBlockedMs: number;
  readonly signalLagMs: { readonly p50: number; readonly p99: number };
  readonly rssPeakMiB: number;
  readonly windowFound: number;
  readonly concurrency: Concurrency;
  readonly compared: readonly Compared[];
  /** Of the flow since it was made. */
  readonly store: {
    readonly accepted: number;
    readonly acked: number;
    readonly dead: number;
    readonly discarded: number;
    readonly pending: number;
  };
  readonly seconds: number;
  readonly wasStopped: boolean;
  readonly dir: string | null;
  /** What did not hold; nothing, if all is well. */
  readonly faults: readonly string[];
}

export interface Compared {
  readonly concurrency: Concurrency;
  readonly goodputPerSecond: number;
  readonly handlerLatencyMs: { readonly p50: number; readonly p99: number };
  readonly peakInFlight: number;
}

export function reportOf({ main, compared, dir, isKept, tookMs }: Outcome): Report {
  const { before, after } = main;
  const acked = after.acked - before.acked;
  const deadLettered = after.dead - before.dead;
  const discarded = after.discarded - before.discarded;
  const accepted = after.accepted - before.accepted;
  // A receipt for what the store does not know is a loss, too.
  const promised = Math.max(accepted, main.accepted);
  const lost = before.pending + promised - acked - deadLettered - discarded - after.pending;
  const best = bestOf(compared)?.goodputPerS;
  const { accepted: inStore, pending } = after;
  return {
    offered: main.offered,
    accepted,
    acked,
    deadLettered,
    discarded,
    pending,
    pendingBefore: before.pending,
    lost,
    refusedByCode: main.refused,
    duplicates: main.duplicates,
    limitMessages: main.limitMessages,
    peakStoredMessages: main.peakDepth,
    peakInFlight: main.peakInFlight,
    goodputPerSecond: rounded(main.goodputPerS, 1),
    bestFixedGoodputPerSecond: best === undefined ? null : rounded(best, 1),
    goodputRatio: best === undefined ? null : rounded(main.goodputPerS / best, 3),
    handlerLatencyMs: latencyOf(main),
    producerBlockedMs: Math.round(main.blockedMs),
    signalLagMs: { p50: rounded(main.signalLagMs.p50, 2), p99: rounded(main.signalLagMs.p99, 2) },
    rssPeakMiB: rounded(main.rssPeakBytes / 1024 ** 2, 1),
    windowFound: main.windowFound,
    concurrency: main.concurrency,
    compared: compared.map(comparedOf),
    store: {
      accepted: inStore,
      acked: after.acked,
      dead: after.dead,
      discarded: after.discarded,
      pending,
    },
    seconds: rounded(tookMs / 1000, 1),
    wasStopped: main.wasStopped,
    dir: isKept ? dir : null,
    faults: faultsOf(main, lost),
  };
}

function comparedOf(result: RunResult): Compared {
  return {
    concurrency: result.concurrency,
    goodputPerSecond: rounded(result.goodputPerS, 1),
    handlerLatencyMs: latencyOf(result),
    peakInFlight: result.peakInFlight,
  };
}

function latencyOf({ latencyMs }: RunResult): { p50: number; p99: number } {
  return { p50: rounded(latencyMs.p50, 2), p99: rounded(latencyMs.p99, 2) };
}

function bestOf(compared: readonly RunResult[]): RunResult | undefined {
  return compared.toSorted((a, b) => b.goodputPerS - a.goodputPerS)[0];
}

function faultsOf(main: RunResult, lost: number): string[] {
  const { offered, accepted, duplicates, peakDepth, limitMessages, overrun } = main;
  const refused = refusedCount(main);
  return [
    ...main.after.faults,
    ...(lost === 0 ? [] : [`lost: ${lost}`]),
    ...(offered === accepted + duplicates + refused
      ? []
      : [`offered ${offered}, but ${accepted + duplicates + refused} were answered`]),
    ...(peakDepth <= limitMessages ? [] : [`stored ${peakDepth}, above the limit`]),
    ...(overrun <= 0 ? [] : [`in flight ${overrun} above the window`]),
  ];
}

function refusedCount({ refused }: RunResult): number {
  return Object.values(refused).reduce((sum, number) => sum + number, 0);
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

/** The page for people: at most 80 columns. */
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
    ["offered", report.offered, "by the producer, on schedule, whether or not there is room"],
    ["accepted", report.accepted, "synced to disk before the producer was told so"],
    ["refused", refusedCount(main), codes.length === 0 ? "" : `told at once: ${codes.join(", ")}`],
    ["handled", report.acked, "acked by the consumer, and the ack is on disk"],
    ["dead letters", report.deadLettered, "used up their attempts"],
    ["discarded", report.discarded, "dropped as the contract declares"],
    ["pending", report.pending, "still in the store"],
    ["lost", report.lost, "accepted and neither of the above, by the store's own audit"],
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
    ["goodput", `${count(report.goodputPerSecond)}/s`, "handled while work was waiting"],
    ["window", String(report.windowFound), windowText(report.concurrency)],
    ["in flight", String(report.peakInFlight), "at most, by the consumer's own count"],
    ["backlog", count(report.peakStoredMessages), `at most; the limit is ${count(limitMessages)}`],
    ["handler", millis(handler.p50), `median; ${millis(handler.p99)} for the slowest 1 %`],
    ["signal lag", millis(lag.p50), `from granting credit to its use; p99 ${millis(lag.p99)}`],
    ["held back", span(report.producerBlockedMs), "that sends had to wait for credit, in all"],
    [
      "memory",
      `${count(report.rssPeakMiB)} MiB`,
      "of the producer, the queue and this view, at most",
    ],
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
  const row = (result: RunResult): string[] => [
    result.concurrency === "adaptive" ? "adaptive" : `fixed ${result.concurrency}`,
    count(result.goodputPerS),
    millis(result.latencyMs.p50),
    millis(result.latencyMs.p99),
    String(result.peakInFlight),
  ];
  const head = ["concurrency", "handled/s", "median", "p99", "in flight"];
  const rows = [head, row(main), ...compared.map(row)];
  const percent = Math.round((report.goodputRatio ?? 0) * 100);
  return [
    "The same spike at fixed concurrencies, each for a few seconds",
    ...table(rows, new Set([1, 2, 3, 4])),
    `  ${percent} % of the best fixed setting, without anybody having set one.`,
    "",
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

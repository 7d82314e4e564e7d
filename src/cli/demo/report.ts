/**
 * What the demo comes to, as one object. Counts come from the store's audit, before and after: what the
 * demo counted itself is only held against them.
 */
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
  /** From the load's end until nothing was pending, or the run ended. */
  readonly drainSeconds: number;
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
    drainSeconds: rounded(main.drainMs / 1000, 1),
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

export function refusedCount({ refused }: RunResult): number {
  return Object.values(refused).reduce((sum, number) => sum + number, 0);
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

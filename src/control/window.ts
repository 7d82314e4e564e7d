/**
 * The window of one target: the smallest number of calls in flight that gives nearly all of its
 * goodput. It is found by paired probes: calls started at the full window (HI) are compared with
 * calls started in a short dip to half of it (LO). By Little's law the goodput of a window is
 * window / cost, cost = slot time / successes; the elasticity between the two says whether more
 * calls in flight still bring more: 1 linear, 0 saturated, below 0 past the knee. No latency of the
 * past decides anything, so a target that turns slower at every concurrency keeps its window.
 *
 * W1  1 <= limit <= max(1, hiAt) <= max, whatever was published.
 * W2  The window grows only on calls that started with the limit reached, at most 2x per cohort.
 * W3  At most one dip is open, and it ends: it waits for a counted number of calls, no longer.
 *     Where calls take about equally long, the limit moves into it and out of it one by one.
 * W4  A hung call does not stop learning, and every tagged call counts once.
 * W5  The sequence of limits depends on the sequence of events only.
 *
 * It must not know what a message is, why a call failed, or what limits the rate: overload answers
 * are the matter of `overload.ts`, an outage that of `breaker.ts`. The idea of probing downwards is
 * Envoy's minRTT turned round: messages wait, nothing is refused. Times are ms, logarithms natural.
 */
import { assert, SpillwayError } from "../base/index.ts";
import { emptyCohort, learn, variation } from "./evidence.ts";
import {
  complete,
  count,
  counts,
  enter,
  FULL,
  giveUp,
  HI,
  IN_DIP,
  LO,
  OUTLIER,
  stragglesAtMs,
  unbound,
  watch,
} from "./probe.ts";
import type { Outcome, Tag } from "./probe.ts";
import { approach, clamp, fullLimit, probes, startOver } from "./verdict.ts";
import type { Window } from "./verdict.ts";

export type { Outcome, Tag } from "./probe.ts";
export type { Window } from "./verdict.ts";

export interface WindowOptions {
  /** Window at the beginning; 4 by default, which no target minds. */
  readonly start?: number;
  readonly min?: number;
  /** The contract's `maxInFlight`; 1,000 by default. */
  readonly max?: number;
  /** A window that never learns. */
  readonly fixed?: number;
}
export interface WindowView {
  readonly limit: number;
  readonly window: number;
  readonly published: number | null;
  readonly phase: Window["phase"] | "fixed";
  readonly startup: boolean;
  readonly meanMs: number;
  /** Squared coefficient of variation of the latency: 1 is exponential, 8 a heavy tail. */
  readonly variation: number;
  readonly elasticity: number | null;
  readonly error: number | null;
}

const UNBOUND_MS = 60_000;
const HUNG_MIN_MS = 30_000;
/** Clocks stand still between two events: a latency of 0 would have no logarithm. */
const LATENCY_MIN_MS = 0.001;

/** @throws {SpillwayError} option_invalid */
export function init(options: WindowOptions, nowMs: number): Window {
  const { min = 1, fixed } = options;
  const max = Math.floor(fixed ?? options.max ?? 1_000);
  if (!(min >= 1 && max >= (fixed === undefined ? min : 1) && max < Infinity)) {
    throw new SpillwayError("option_invalid", { option: "window", ...options });
  }
  const start = fixed === undefined ? clamp(options.start ?? 4, min, max) : max;
  if (!(start >= 1)) throw new SpillwayError("option_invalid", { option: "window", ...options });
  const w: Window = {
    start,
    min: Math.min(min, max),
    max,
    learns: fixed === undefined && min < max,
    published: Infinity,
    size: start,
    limit: 1,
    aim: 1,
    isOdd: false,
    hiAt: 1,
    loAt: 1,
    phase: "fill",
    order: "pair",
    cohort: 0,
    validFrom: 0,
    toSend: 0,
    sent: 0,
    back: 0,
    hi: emptyCohort(),
    lo: emptyCohort(),
    sentAtMs: nowMs,
    dipAtMs: nowMs,
    restUntilMs: nowMs,
    startup: true,
    ups: 0,
    doubts: 0,
    looks: 1,
    eager: true,
    quick: 0,
    alertUntilMs: nowMs,
    goal: 0,
    limitedAtMs: nowMs,
    peak: 0,
    latency: { count: 0, mean: 0, square: 0 },
    logLatency: { count: 0, mean: 0, square: 0 },
    batch: emptyCohort(),
    batchLogs: 0,
    usualLog: 0,
    usualCount: 0,
    skip: 0,
    elasticity: null,
    error: null,
  };
  startOver(w);
  w.limit = w.aim;
  return w;
}

/** Calls that may be in flight now: an integer of 1 or more. It changes only in the calls below. */
export function limitOf(w: Window): number {
  return w.limit;
}

/** The same outside of a dip. */
export function fullLimitOf(w: Window): number {
  return Math.max(w.limit, Math.min(w.published, fullLimit(w)));
}

/** Mean latency of the successes, 0 before the first. */
export function meanMs(w: Window): number {
  return w.latency.mean;
}

/**
 * A call starts.
 *
 * @param inFlight Calls in flight at the target, this one included.
 * @returns The tag to settle it with.
 */
export function dispatched(w: Window, nowMs: number, inFlight: number): Tag {
  if (!probes(w)) return 0;
  if (inFlight > w.peak) w.peak = inFlight;
  if (nowMs - w.limitedAtMs > UNBOUND_MS) unbound(w, nowMs);
  else if (stragglesAtMs(w) < nowMs) complete(w, nowMs);
  if (inFlight < w.limit) return 0; // W2: what the limit does not hold back says nothing of it.
  w.limitedAtMs = nowMs;
  w.peak = 0;
  if (w.limit === w.aim && isAtRest(w) && nowMs >= w.restUntilMs) enter(w, "hi", nowMs);
  if (w.limit !== w.aim) return 0;
  const dip = w.phase === "lo";
  if (isAtRest(w) || w.sent === w.toSend) return w.cohort * 4 + (dip ? IN_DIP : FULL);
  w.sent++;
  w.sentAtMs = nowMs;
  return w.cohort * 4 + (dip ? LO : HI);
}

/**
 * A call ended. `failed` counts as slot time without a success, and so does `overload`, which says
 * nothing about latency otherwise; `released` was not tried and counts as nothing.
 *
 * @param tag What `dispatched` gave, or what `hung` gave after that.
 */
export function settled(
  w: Window,
  nowMs: number,
  startedAtMs: number,
  tag: Tag,
  outcome: Outcome,
): void {
  const latencyMs = Math.max(nowMs - startedAtMs, LATENCY_MIN_MS);
  approach(w);
  if (outcome === "ok") learn(w.latency, latencyMs);
  if (tag < w.validFrom * 4) return;
  const told = outcome === "ok" || outcome === "failed";
  if (told && (tag & 3) < LO && w.phase !== "lo" && watch(w, nowMs, latencyMs)) return;
  if (counts(w, tag)) {
    count(w, latencyMs, outcome);
    if (w.back === w.toSend) return complete(w, nowMs);
  }
  if (stragglesAtMs(w) < nowMs) complete(w, nowMs);
}

function isAtRest(w: Window): boolean {
  return w.phase === "fill" || w.phase === "rest";
}

/** Age at which a call is hung: callers hand such calls to `hung`, once is enough. */
export function hungAfterMs(w: Window): number {
  return Math.max(HUNG_MIN_MS, OUTLIER * w.latency.mean);
}

/**
 * W4: a tagged call that is older than `hungAfterMs` counts as a failure, so that its cohort can end.
 *
 * @returns The tag to settle the call with when it does end: 0, or the same one if it is not hung.
 */
export function hung(w: Window, nowMs: number, startedAtMs: number, tag: Tag): Tag {
  if (nowMs - startedAtMs < hungAfterMs(w)) return tag;
  w.limit = w.aim; // It is not to wait for calls that may never end.
  if (!counts(w, tag)) return 0;
  giveUp(w);
  if (w.phase === "lo") w.toSend = w.sent; // W3: with every place taken by such calls, none starts.
  if (w.back === w.toSend) complete(w, nowMs);
  return 0;
}

/** The target, or the worker in front of it, says how much it takes; null takes that back. */
export function publish(w: Window, limit: number | null): void {
  const published = limit === null ? Infinity : Math.max(1, Math.floor(limit));
  const before = Math.min(w.size, w.published);
  w.published = published;
  if (Math.min(w.size, published) === before) return;
  startOver(w);
  w.limit = w.aim;
}

/** The target was away: begin again at `at` by doubling. A fixed window stays as it is. */
export function restart(w: Window, nowMs: number, at: number): void {
  if (!w.learns) return;
  w.size = clamp(at, w.min, w.max);
  w.startup = true;
  w.ups = 0;
  w.doubts = 0;
  w.looks = 1;
  w.eager = true;
  w.quick = 0;
  w.alertUntilMs = nowMs;
  w.limitedAtMs = nowMs;
  w.restUntilMs = nowMs;
  w.peak = 0;
  startOver(w);
  w.limit = w.aim;
}

export function view(w: Window): WindowView {
  return {
    limit: w.limit,
    window: w.size,
    published: w.published === Infinity ? null : w.published,
    phase: w.learns ? w.phase : "fixed",
    startup: w.startup,
    meanMs: w.latency.mean,
    variation: variation(w.latency),
    elasticity: w.elasticity,
    error: w.error,
  };
}

/** @throws {SpillwayError} invariant_broken */
export function check(w: Window): void {
  assert(Number.isInteger(w.limit) && w.limit >= 1, "W1 limit is an integer of 1 or more");
  assert(w.limit <= w.hiAt && w.hiAt <= w.max, "W1 limit <= hiAt <= max");
  assert(w.limit <= w.published, "W1 limit <= published");
  assert(w.size >= w.min && w.size <= w.max, "W1 min <= window <= max");
  assert(!probes(w) || w.loAt < w.hiAt, "W3 a dip is lower than the window");
  const full = w.aim === w.hiAt || (w.aim === 1 && w.size < 1.5);
  assert(w.phase === "lo" ? w.aim === w.loAt : full, "W3 the limit is low in a dip only");
  assert(w.back <= w.sent && w.sent <= w.toSend, "W4 back <= sent <= toSend");
  const learnt = w.latency.mean + w.latency.square + w.logLatency.mean + w.logLatency.square;
  assert(Number.isFinite(learnt), "W5 latencies are finite");
}

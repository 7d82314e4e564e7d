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
 * W4  A hung call does not stop learning, and every tagged call counts once.
 * W5  The sequence of limits depends on the sequence of events only.
 *
 * It must not know what a message is, why a call failed, or what limits the rate: overload answers
 * are the matter of `overload.ts`, an outage that of `breaker.ts`. The idea of probing downwards is
 * Envoy's minRTT turned round: messages wait, nothing is refused. Times are ms, logarithms natural.
 */
import { assert, SpillwayError } from "../base/index.ts";
import { add, compare, deviation, emptyCohort, fade, learn, variation } from "./evidence.ts";
import type { Cohort, Moments } from "./evidence.ts";

/** What a call carries from its start to its settle. 0: it is evidence of nothing but its latency. */
export type Tag = number;
export type Outcome = "ok" | "failed" | "overload" | "released";

export interface WindowOptions {
  /** Window at the beginning; 4 by default, which no target minds. */
  readonly start?: number;
  readonly min?: number;
  /** The contract's `maxInFlight`; 1,000 by default. */
  readonly max?: number;
  /** A window that never learns. */
  readonly fixed?: number;
}

export interface Window {
  readonly start: number;
  readonly min: number;
  readonly max: number;
  readonly learns: boolean;
  /** Capacity that the target itself gives; Infinity where it gives none. */
  published: number;
  /** The window as a real number; what is in force is rounded and bounded by `published`. */
  size: number;
  limit: number;
  hiAt: number;
  loAt: number;
  /** "fill": waiting until the limit is reached; "hi", "lo": tagging a cohort; "rest": neither. */
  phase: "fill" | "hi" | "lo" | "rest";
  /** What precedes a decision: HI then a dip; a dip then HI; HI only, LO being the old HI. */
  order: "pair" | "dip_first" | "borrowed";
  /** Number of the cohort: rises with each one and when evidence becomes void. Tags carry it. */
  cohort: number;
  /** Tags of an older cohort are no evidence at all. */
  validFrom: number;
  toSend: number;
  sent: number;
  back: number;
  hi: Cohort;
  lo: Cohort;
  /** When the latest call of the cohort started. */
  sentAtMs: number;
  dipAtMs: number;
  restUntilMs: number;
  /** Doubling instead of creeping, until it is unclear whether more would help. */
  startup: boolean;
  /** Growths in a row. */
  ups: number;
  /** Size of the next cohort, as a multiple of the usual one: doubtful cases get a longer look. */
  looks: number;
  /** Whether growth is likely enough for frequent probes. */
  eager: boolean;
  /** Decisions still to be made without rest, after a jump of the latency. */
  quick: number;
  /** Probes are frequent until then or until the window is back at `goal`: it was cut in a hurry. */
  alertUntilMs: number;
  goal: number;
  limitedAtMs: number;
  /** Most calls in flight since the limit was last reached. */
  peak: number;
  latency: Moments;
  logLatency: Moments;
  /** The latest calls at the full window, and the usual mean of ln latency of such a batch. */
  batch: Cohort;
  batchLogs: number;
  usualLog: number;
  usualCount: number;
  /** Settles at the full window to pass over, because they began under another one. */
  skip: number;
  /** Of the latest decision: elasticity and its standard error. */
  elasticity: number | null;
  error: number | null;
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

const FULL = 0;
const HI = 1;
const LO = 2;
const IN_DIP = 3;
/** Elasticity at which the window is right. 0.55 loses 14 points where work varies, 0.75 up to 6. */
const TARGET = 0.65;
/** Standard errors that make a verdict sure: growing by mistake is cheap, shrinking is not. */
const SURE_UP = 1.2;
const SURE_UP_STARTUP = 0.5;
const SURE_DOWN = 3;
/** Calls per cohort that a verdict needs, for each unit of squared variation. */
const ENOUGH_UP = 3;
const ENOUGH_DOWN = 20;
/** A step is 2^(boldness x gap), within these factors. */
const BOLDNESS = 1.5;
const STEP_UP_MAX = 1.4;
const STEP_DOWN_MIN = 0.5;
const COHORT_MIN = 12;
const COHORT_ROUNDS = 2;
const LOOKS_MAX = 4;
/** A verdict this precise is no longer kept whole: old evidence fades to a tenth. */
const PRECISE = 0.15;
const AGED = 0.1;
/** Share of the time that may be spent in dips: usually, on alert, while growth is likely. */
const DUTY = 0.05;
const DUTY_ALERT = 0.15;
const DUTY_EAGER = 0.33;
const REST_MIN_MS = 50;
const ALERT_MS = 60_000;
const UNBOUND_MS = 60_000;
const QUICK = 3;
const JUMP = Math.log(2);
/** A call is hung, or an outlier, at this many mean latencies. */
const OUTLIER = 20;
const HUNG_MIN_MS = 30_000;
/** Calls not back this long after the last of their cohort began are given up: no dip waits for one. */
const STRAGGLER_MIN_MS = 1_000;
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
  return w;
}

/** Calls that may be in flight now: an integer of 1 or more. It changes only in the calls below. */
export function limitOf(w: Window): number {
  return w.limit;
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
  if (w.phase === "fill" || (w.phase === "rest" && nowMs >= w.restUntilMs)) enter(w, "hi", nowMs);
  const dip = w.phase === "lo";
  if (w.phase === "rest" || w.sent === w.toSend) return w.cohort * 4 + (dip ? IN_DIP : FULL);
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
  const ageMs = nowMs - startedAtMs;
  if (ageMs < hungAfterMs(w)) return tag;
  if (!counts(w, tag)) return 0;
  count(w, ageMs, "failed");
  if (w.phase === "lo") w.toSend = w.sent; // W3: with every place taken by such calls, none starts.
  if (w.back === w.toSend) complete(w, nowMs);
  return 0;
}

/** The target, or the worker in front of it, says how much it takes; null takes that back. */
export function publish(w: Window, limit: number | null): void {
  const published = limit === null ? Infinity : Math.max(1, Math.floor(limit));
  const before = Math.min(w.size, w.published);
  w.published = published;
  if (Math.min(w.size, published) !== before) startOver(w);
}

/** The target was away: begin again at `at` by doubling. A fixed window stays as it is. */
export function restart(w: Window, nowMs: number, at: number): void {
  if (!w.learns) return;
  w.size = clamp(at, w.min, w.max);
  w.startup = true;
  w.ups = 0;
  w.looks = 1;
  w.eager = true;
  w.quick = 0;
  w.alertUntilMs = nowMs;
  w.limitedAtMs = nowMs;
  w.peak = 0;
  startOver(w);
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
  const full = w.limit === w.hiAt || (w.limit === 1 && w.size < 1.5);
  assert(w.phase === "lo" ? w.limit === w.loAt : full, "W3 the limit is low in a dip only");
  assert(w.back <= w.sent && w.sent <= w.toSend, "W4 back <= sent <= toSend");
  assert(Number.isFinite(w.latency.mean + w.latency.square), "W5 latencies are finite");
}

/** Whether there is anything to learn: a window that can only be 1 has no half. */
function probes(w: Window): boolean {
  return w.learns && w.published >= 2;
}

/** Makes all evidence void: measuring begins when the calls in flight have reached the limit. */
function startOver(w: Window): void {
  const size = Math.min(w.size, w.published);
  w.hiAt = Math.max(probes(w) ? 2 : 1, Math.round(size));
  w.loAt = Math.floor(w.hiAt / 2);
  w.limit = fullLimit(w);
  w.validFrom = ++w.cohort;
  w.phase = "fill";
  w.order = "pair";
  w.toSend = 0;
  w.sent = 0;
  w.back = 0;
  fade(w.hi, 0);
  fade(w.lo, 0);
  fade(w.batch, 0);
  w.batchLogs = 0;
  w.usualCount = 0;
  w.skip = w.hiAt;
}

/** A window below 1.5 is 1 between probes, and 2 for the HI cohort: 1 has no half to compare. */
function fullLimit(w: Window): number {
  return w.size < 1.5 ? 1 : w.hiAt;
}

function enter(w: Window, phase: "hi" | "lo", nowMs: number): void {
  w.phase = phase;
  w.cohort++;
  w.sent = 0;
  w.back = 0;
  w.limit = phase === "hi" ? w.hiAt : w.loAt;
  w.toSend = Math.ceil(Math.max(COHORT_MIN, COHORT_ROUNDS * w.limit) * w.looks);
  if (phase === "lo") w.dipAtMs = nowMs;
}

/** The limit was not reached for a minute: twice what was used is kept, and older evidence is void. */
function unbound(w: Window, nowMs: number): void {
  const size = clamp(2 * w.peak, w.start, w.max);
  w.peak = 0;
  w.limitedAtMs = nowMs;
  if (w.size > size) {
    w.size = size;
    w.startup = true;
  }
  startOver(w);
}

/** Whether a call with this tag belongs to the cohort that is open now. */
function counts(w: Window, tag: Tag): boolean {
  const arm = tag & 3;
  return (
    tag - arm === w.cohort * 4 && (w.phase === "hi" ? arm === HI : w.phase === "lo" && arm === LO)
  );
}

/** One more call of the open cohort is back. */
function count(w: Window, latencyMs: number, outcome: Outcome): void {
  assert(w.back < w.sent, "W4 a call counts once");
  w.back++;
  if (outcome === "released") return;
  const most = w.latency.count === 0 ? latencyMs : OUTLIER * w.latency.mean;
  add(w.phase === "hi" ? w.hi : w.lo, Math.min(latencyMs, most), outcome === "ok");
}

/** When the calls of the cohort that are not back by then are given up; Infinity: not yet known. */
function stragglesAtMs(w: Window): number {
  const open = (w.phase === "hi" || w.phase === "lo") && w.sent === w.toSend;
  return open ? w.sentAtMs + Math.max(STRAGGLER_MIN_MS, OUTLIER * w.latency.mean) : Infinity;
}

/** Ends the cohort, and maybe the comparison. Calls that are still out count as failures (W4). */
function complete(w: Window, nowMs: number): void {
  while (w.back < w.sent) count(w, OUTLIER * w.latency.mean, "failed");
  if (w.phase === "hi") {
    if (w.order === "pair") return enter(w, "lo", nowMs);
    if (w.order === "dip_first") w.order = "pair";
    rest(w, nowMs, 0);
  } else {
    w.skip = w.hiAt;
    if (w.order === "dip_first") return enter(w, "hi", nowMs);
    const alert = nowMs < w.alertUntilMs ? DUTY_ALERT : DUTY;
    const dipMs = nowMs - w.dipAtMs;
    const restMs = dipMs * (1 / (w.eager ? DUTY_EAGER : alert) - 1);
    rest(w, nowMs, w.startup ? 0 : Math.max(REST_MIN_MS, restMs));
  }
  decide(w, nowMs);
}

function rest(w: Window, nowMs: number, forMs: number): void {
  w.phase = "rest";
  w.limit = fullLimit(w);
  w.restUntilMs = nowMs + forMs;
}

/**
 * A jump of the mean ln latency at a constant window makes the evidence void and dips at once, to
 * compare. It decides nothing: everything may have become slower, whatever the window.
 *
 * @returns Whether it did.
 */
function watch(w: Window, nowMs: number, latencyMs: number): boolean {
  if (w.skip > 0) {
    w.skip--;
    return false;
  }
  const log = Math.log(latencyMs);
  const { batch } = w;
  add(batch, latencyMs, true);
  w.batchLogs += log;
  learn(w.logLatency, log);
  if (batch.n < Math.max(16, 2 * w.hiAt)) return false;
  const mean = w.batchLogs / batch.n;
  const noise = (5 * deviation(w.logLatency)) / Math.sqrt(batch.n);
  if (w.usualCount >= 3 && mean > w.usualLog + Math.max(JUMP, noise)) {
    w.latency.count = batch.n;
    w.latency.mean = batch.sumMs / batch.n;
    w.latency.square = batch.squares / batch.n;
    w.logLatency.count = 0;
    w.quick = QUICK;
    w.looks = 1;
    startOver(w);
    w.order = "dip_first";
    enter(w, "lo", nowMs);
    return true;
  }
  w.usualLog += Math.max(0.1, 1 / ++w.usualCount) * (mean - w.usualLog);
  fade(batch, 0);
  w.batchLogs = 0;
  return false;
}

/** Both cohorts are complete: moves when the comparison is sure, else looks again. */
function decide(w: Window, nowMs: number): void {
  const { hi, lo } = w;
  if (hi.good === 0 || lo.good === 0) {
    fade(hi, 0); // Nothing succeeds: the breaker's case.
    fade(lo, 0);
    w.order = "pair";
    return;
  }
  const usual = variation(w.latency);
  const { elasticity, error } = compare(hi, lo, w.hiAt / w.loAt, usual);
  const gap = elasticity - TARGET;
  const least = Math.min(hi.n, lo.n) / usual;
  const sureUp = least >= ENOUGH_UP && gap > (w.startup ? SURE_UP_STARTUP : SURE_UP) * error;
  const excess = -gap - SURE_DOWN * error;
  const sureDown = gap <= 0 && least >= ENOUGH_DOWN && excess > 0;
  w.elasticity = elasticity;
  w.error = error;
  w.eager = gap + error > 0.25;
  if (w.quick > 0 && sureDown) {
    if (nowMs >= w.alertUntilMs) w.goal = 0.8 * w.size;
    w.alertUntilMs = nowMs + ALERT_MS;
  } else if (w.size >= w.goal) {
    w.alertUntilMs = nowMs;
  }
  if (w.quick > 0) {
    w.quick--;
    w.restUntilMs = nowMs;
  }
  if (gap > 0 && sureUp) grow(w, gap);
  else if (sureDown) shrink(w, excess + error);
  else lookAgain(w, gap, error);
}

function grow(w: Window, gap: number): void {
  w.looks = 1;
  const { hi, lo, hiAt } = w;
  const inForce = Math.min(w.size, w.published);
  const factor = w.startup ? 2 : Math.min(STEP_UP_MAX, 2 ** (BOLDNESS * gap));
  // What was published bounds the growth: beyond it there is no evidence (W2).
  const most = Math.max(w.size, Math.min(w.max, w.published));
  w.size = Math.max(w.size, Math.min(most, inForce * factor));
  if (!w.startup) {
    w.startup = ++w.ups >= 2;
    return startOver(w);
  }
  // The calls at the old window are the LO cohort of the new one: doubling needs no dip.
  w.hi = lo;
  w.lo = emptyCohort();
  startOver(w);
  if (w.hiAt > hiAt) {
    w.lo = hi;
    w.loAt = hiAt;
    w.order = "borrowed";
  } else if (w.hiAt === Math.min(w.max, w.published)) {
    w.startup = false; // At the top: nothing is left to double.
  }
}

function shrink(w: Window, surplus: number): void {
  w.looks = 1;
  w.ups = 0;
  w.startup = false;
  const factor = Math.max(STEP_DOWN_MIN, 2 ** (-BOLDNESS * surplus));
  w.size = clamp(Math.min(w.size, w.published) * factor, w.min, w.max);
  startOver(w);
}

function lookAgain(w: Window, gap: number, error: number): void {
  w.looks = Math.min(LOOKS_MAX, 2 * w.looks);
  if (error < PRECISE) {
    if (gap < PRECISE) w.startup = false;
    fade(w.hi, AGED);
    fade(w.lo, AGED);
  }
  w.order = "pair";
  if (w.loAt !== Math.floor(w.hiAt / 2)) startOver(w); // The borrowed LO was no half: pair properly.
}

function clamp(value: number, least: number, most: number): number {
  return Math.max(least, Math.min(most, value));
}

/**
 * The verdict of `window.ts`: the record of a window, and what becomes of it once a HI and a LO cohort
 * are complete. It moves when the comparison is sure, else it keeps the evidence and looks again.
 *
 * It must not know how calls come into a cohort: that is the matter of `probe.ts`.
 */
import { compare, emptyCohort, fade, variation } from "./evidence.ts";
import type { Cohort, Moments } from "./evidence.ts";

export interface Window {
  readonly start: number;
  readonly min: number;
  readonly max: number;
  readonly learns: boolean;
  /** Capacity that the target itself gives; Infinity where it gives none. */
  published: number;
  /** The window as a real number; what is in force is rounded and bounded by `published`. */
  size: number;
  /** Calls that may be in flight now: on its way to `aim`, where it is most of the time. */
  limit: number;
  aim: number;
  /** The next call that ends makes the limit smaller, if it is to become smaller. */
  isOdd: boolean;
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
  /** Large growths in a row: two of them, and it doubles again. */
  ups: number;
  /** Comparisons that spoke against doubling since it last grew: the first one is not believed. */
  doubts: number;
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
export const LOOKS_MAX = 4;
/** A verdict this precise is no longer kept whole: old evidence fades to a tenth. */
const PRECISE = 0.15;
const AGED = 0.1;
const ALERT_MS = 60_000;
/** Squared variation of the latency below which calls take about equally long. */
const EVEN = 0.2;
/** A step by more than this factor: the window is far from right, and the next look follows at once. */
const FAR = 1.15;

/** Both cohorts are complete: moves when the comparison is sure, else looks again. */
export function decide(w: Window, nowMs: number): void {
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
  const isAtTop = w.size >= Math.min(w.max, w.published);
  w.eager = gap + error > 0.25 && !isAtTop;
  if (isAtTop) w.startup = false;
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
  if (gap > 0 && sureUp && !isAtTop) grow(w, gap, nowMs);
  else if (sureDown) shrink(w, excess + error, nowMs);
  else lookAgain(w, gap, error);
}

function grow(w: Window, gap: number, nowMs: number): void {
  w.looks = 1;
  w.doubts = 0;
  const { hi, lo, hiAt } = w;
  const inForce = Math.min(w.size, w.published);
  const factor = w.startup ? 2 : Math.min(STEP_UP_MAX, 2 ** (BOLDNESS * gap));
  if (factor > FAR) w.restUntilMs = nowMs;
  // What was published bounds the growth: beyond it there is no evidence (W2).
  const most = Math.max(w.size, Math.min(w.max, w.published));
  w.size = Math.max(w.size, Math.min(most, inForce * factor));
  if (!w.startup) {
    w.ups = factor > FAR ? w.ups + 1 : 0;
    w.startup = w.ups >= 2;
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
  }
}

function shrink(w: Window, surplus: number, nowMs: number): void {
  if (comparesAgain(w)) return;
  w.looks = 1;
  w.ups = 0;
  w.startup = false;
  const factor = Math.max(STEP_DOWN_MIN, 2 ** (-BOLDNESS * surplus));
  if (factor < 1 / FAR) w.restUntilMs = nowMs;
  w.size = clamp(Math.min(w.size, w.published) * factor, w.min, w.max);
  startOver(w);
}

/**
 * While it doubles, one comparison is no proof against more: both ends are young then, and calls of
 * two moments may have met two different targets. It compares once more, on new evidence.
 *
 * @returns Whether it does.
 */
function comparesAgain(w: Window): boolean {
  if (!w.startup || ++w.doubts > 1) return false;
  startOver(w);
  return true;
}

function lookAgain(w: Window, gap: number, error: number): void {
  if (gap < PRECISE && comparesAgain(w)) return;
  w.looks = Math.min(LOOKS_MAX, 2 * w.looks);
  if (error < PRECISE) {
    if (gap < PRECISE) w.startup = false;
    fade(w.hi, AGED);
    fade(w.lo, AGED);
  }
  w.order = "pair";
  if (w.loAt !== Math.floor(w.hiAt / 2)) startOver(w); // The borrowed LO was no half: pair properly.
}

/** Whether there is anything to learn: a window that can only be 1 has no half. */
export function probes(w: Window): boolean {
  return w.learns && w.published >= 2;
}

/** Makes all evidence void: measuring begins when the calls in flight have reached the limit. */
export function startOver(w: Window): void {
  const size = Math.min(w.size, w.published);
  w.hiAt = Math.max(probes(w) ? 2 : 1, Math.round(size));
  w.loAt = Math.floor(w.hiAt / 2);
  aimAt(w, fullLimit(w));
  w.limit = Math.min(w.limit, w.aim);
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
export function fullLimit(w: Window): number {
  return w.size < 1.5 ? 1 : w.hiAt;
}

/** The limit is to become this: at once while calls differ, or while the window doubles. */
export function aimAt(w: Window, limit: number): void {
  w.aim = limit;
  if (w.startup || variation(w.latency) > EVEN) w.limit = limit;
}

/**
 * A call ended: the limit comes closer to its aim. On the way down every second call that ends is
 * replaced, on the way up two for each one: so what is in flight stays spread over the time that a call
 * takes. A jump would leave a gap there or a burst, and calls that take equally long keep such a
 * pattern: the target would idle and be flooded in turn until chance has blurred it.
 */
export function approach(w: Window): void {
  if (w.limit < w.aim) w.limit++;
  else if (w.limit > w.aim) {
    w.isOdd = !w.isOdd;
    if (w.isOdd) w.limit--;
  }
}

export function clamp(value: number, least: number, most: number): number {
  return Math.max(least, Math.min(most, value));
}

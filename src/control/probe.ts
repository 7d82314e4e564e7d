/**
 * The probes of `window.ts`: which calls are evidence, when a dip begins and ends, and when a jump of
 * the latency asks for a new comparison. What a comparison decides is in `verdict.ts`.
 */
import { assert } from "../base/index.ts";
import { add, deviation, fade, learn } from "./evidence.ts";
import { aimAt, clamp, decide, fullLimit, LOOKS_MAX, startOver } from "./verdict.ts";
import type { Window } from "./verdict.ts";

/** What a call carries from its start to its settle. 0: it is evidence of nothing but its latency. */
export type Tag = number;
export type Outcome = "ok" | "failed" | "overload" | "released";
/** What a tag says beside the number of the cohort: at the full window, in HI, in LO, in a dip. */
export const FULL = 0;
export const HI = 1;
export const LO = 2;
export const IN_DIP = 3;
/** A call is hung, or given up by its cohort, at this many mean latencies. */
export const OUTLIER = 20;
/** Calls not back this long after the last of their cohort began are given up: no dip waits for one. */
const STRAGGLER_MIN_MS = 1_000;
const COHORT_MIN = 12;
const COHORT_ROUNDS = 2;
/** Share of the time that may be spent in dips: usually, at rest, on alert, while growth is likely. */
const DUTY = 0.05;
const DUTY_CALM = 0.03;
const DUTY_ALERT = 0.15;
const DUTY_EAGER = 0.33;
const REST_MIN_MS = 50;
const QUICK = 3;
const JUMP = Math.log(2);

export function enter(w: Window, phase: "hi" | "lo", nowMs: number): void {
  w.phase = phase;
  w.cohort++;
  w.sent = 0;
  w.back = 0;
  aimAt(w, phase === "hi" ? w.hiAt : w.loAt);
  w.toSend = Math.ceil(Math.max(COHORT_MIN, COHORT_ROUNDS * w.limit) * w.looks);
  if (phase === "lo") w.dipAtMs = nowMs;
}

/** The limit was not reached for a minute: twice what was used is kept, and older evidence is void. */
export function unbound(w: Window, nowMs: number): void {
  const size = clamp(2 * w.peak, w.start, w.max);
  w.peak = 0;
  w.limitedAtMs = nowMs;
  if (w.size > size) {
    w.size = size;
    w.startup = true;
    w.doubts = 0;
  }
  startOver(w);
}

/** Whether a call with this tag belongs to the cohort that is open now. */
export function counts(w: Window, tag: Tag): boolean {
  const arm = tag & 3;
  return (
    tag - arm === w.cohort * 4 && (w.phase === "hi" ? arm === HI : w.phase === "lo" && arm === LO)
  );
}

/** One more call of the open cohort is back. */
export function count(w: Window, latencyMs: number, outcome: Outcome): void {
  assert(w.back < w.sent, "W4 a call counts once");
  w.back++;
  if (outcome === "released") return;
  add(w.phase === "hi" ? w.hi : w.lo, latencyMs, outcome === "ok");
}

/**
 * A call that does not come back counts as a failure of 20 mean latencies: at its true age, one would
 * outweigh thousands of others and keep the verdict unsure for as long.
 */
export function giveUp(w: Window): void {
  count(w, OUTLIER * w.latency.mean, "failed");
}

/** When the calls of the cohort that are not back by then are given up; Infinity: not yet known. */
export function stragglesAtMs(w: Window): number {
  const open = (w.phase === "hi" || w.phase === "lo") && w.sent === w.toSend;
  return open ? w.sentAtMs + Math.max(STRAGGLER_MIN_MS, OUTLIER * w.latency.mean) : Infinity;
}

/** Ends the cohort, and maybe the comparison. Calls that are still out count as failures (W4). */
export function complete(w: Window, nowMs: number): void {
  while (w.back < w.sent) giveUp(w);
  if (w.phase === "hi") {
    if (w.order === "pair") return enter(w, "lo", nowMs);
    if (w.order === "dip_first") w.order = "pair";
    rest(w, nowMs, 0);
  } else {
    w.skip = w.hiAt;
    if (w.order === "dip_first") return enter(w, "hi", nowMs);
    const usual = w.looks === LOOKS_MAX ? DUTY_CALM : DUTY;
    const duty = w.eager ? DUTY_EAGER : nowMs < w.alertUntilMs ? DUTY_ALERT : usual;
    const restMs = (nowMs - w.dipAtMs) * (1 / duty - 1);
    rest(w, nowMs, w.startup ? 0 : Math.max(REST_MIN_MS, restMs));
  }
  decide(w, nowMs);
}

function rest(w: Window, nowMs: number, forMs: number): void {
  w.phase = "rest";
  aimAt(w, fullLimit(w));
  w.restUntilMs = nowMs + forMs;
}

/**
 * A jump of the mean ln latency at a constant window makes the evidence void and dips at once, to
 * compare. It decides nothing: everything may have become slower, whatever the window.
 *
 * @returns Whether it did.
 */
export function watch(w: Window, nowMs: number, latencyMs: number): boolean {
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

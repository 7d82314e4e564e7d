/**
 * Rate limit by the generic cell rate algorithm: one number of state, no timer, nothing to refill.
 * The number is the theoretical arrival time: the moment at which all that was spent has been
 * earned at the rate. Used for the contracted rate of a flow and of a group.
 *
 * L1  With costs of 1, any span of t seconds passes at most burst + rate t (times the factor).
 * L2  A refusal spends nothing, and the same call succeeds after the wait it names.
 * L3  Nobody is starved by size: a cost above the burst passes once it has no debt, and is paid
 *     afterwards by whoever comes next.
 *
 * Must not know messages, classes or pressure. Source: ITU-T I.371 (GCRA, virtual scheduling).
 */
import { assert } from "../base/index.ts";

export interface Limiter {
  ratePerS: number;
  /** What may pass at once after a rest, in units of cost. */
  burst: number;
  /** Times are kept from here: small numbers keep a microsecond exact. */
  readonly originMs: number;
  /** Theoretical arrival time, in ms after the origin. */
  theoreticalMs: number;
}

export interface RateLimit {
  /** Above 0, finite. */
  readonly ratePerS: number;
  /** At least 1; by default one second of the rate, so that a second's worth may come at once. */
  readonly burst?: number | undefined;
}

/** An announced surge: between `fromMs` and `toMs` the usual rate is multiplied by `factor`. */
export interface Surge {
  readonly fromMs: number;
  readonly toMs: number;
  readonly factor: number;
}

/** How long before and after an announced surge its factor fades in and out. */
export const surgeRampMs: number = 5 * 60_000;
/** Rounding of a time in ms since the epoch; a wait this short is no wait. */
const roundingMs = 0.001;

/** Starts rested: the whole burst may pass. */
export function init(limit: RateLimit, nowMs: number): Limiter {
  assert(limit.ratePerS > 0 && Number.isFinite(limit.ratePerS), "L1 0 < rate < Infinity");
  return {
    ratePerS: limit.ratePerS,
    burst: burstOf(limit),
    originMs: nowMs,
    theoreticalMs: 0,
  };
}

/**
 * Spends `cost` if the rate allows it now.
 *
 * @param factor Multiplies rate and burst for this call, above 0; see `surgeFactor`.
 * @returns 0: allowed and spent. Above 0: refused, nothing spent; try again after so many ms.
 */
export function take(l: Limiter, nowMs: number, cost: number, factor = 1): number {
  const now = nowMs - l.originMs;
  const perUnitMs = 1000 / (l.ratePerS * factor);
  // The unit being asked for takes one place of the burst itself.
  const toleranceMs = Math.max(0, (l.burst * 1000) / l.ratePerS - perUnitMs);
  const waitMs = l.theoreticalMs - toleranceMs - now;
  if (waitMs > roundingMs) return waitMs;
  l.theoreticalMs = Math.max(now, l.theoreticalMs) + cost * perUnitMs;
  return 0;
}

/**
 * Spends what has been used already, whatever is left.
 *
 * @returns 0: more may come now. Above 0: after so many ms.
 */
export function owe(l: Limiter, nowMs: number, cost: number): number {
  const now = nowMs - l.originMs;
  const perUnitMs = 1000 / l.ratePerS;
  l.theoreticalMs = Math.max(now, l.theoreticalMs) + cost * perUnitMs;
  const toleranceMs = Math.max(0, l.burst * perUnitMs - perUnitMs);
  return Math.max(0, l.theoreticalMs - toleranceMs - now);
}

/**
 * Changes the rate from now on. A debt shrinks with a higher rate, for it is earned sooner; with a
 * lower rate it keeps its time, or a lowered rate would close the flow for as long as the old burst
 * lasts at the new rate.
 */
export function setRate(l: Limiter, limit: RateLimit, nowMs: number): void {
  assert(limit.ratePerS > 0 && Number.isFinite(limit.ratePerS), "L1 0 < rate < Infinity");
  const now = nowMs - l.originMs;
  const debtMs = Math.max(0, l.theoreticalMs - now);
  l.theoreticalMs = now + debtMs * Math.min(1, l.ratePerS / limit.ratePerS);
  l.ratePerS = limit.ratePerS;
  l.burst = burstOf(limit);
}

/**
 * What announced surges multiply the rate by at `nowMs`. The factor is whole within [from, to] and
 * fades over 5 minutes on either side, outside, so that a surge of a minute reaches its factor and a
 * late start or end meets no cliff. Where surges overlap, the largest counts. 1 where there is none.
 */
export function surgeFactor(surges: readonly Surge[], nowMs: number): number {
  let largest = 0;
  for (const surge of surges) {
    const outsideMs = Math.max(0, surge.fromMs - nowMs, nowMs - surge.toMs);
    if (outsideMs >= surgeRampMs) continue;
    const factor = 1 + (surge.factor - 1) * (1 - outsideMs / surgeRampMs);
    if (factor > largest) largest = factor;
  }
  return largest === 0 ? 1 : largest;
}

export interface LimiterView {
  readonly ratePerS: number;
  readonly burst: number;
  /** What could pass at once now, in units of cost; below 0 while a large cost is paid off. */
  readonly left: number;
}

export function view(l: Limiter, nowMs: number): LimiterView {
  const debtMs = Math.max(0, l.theoreticalMs - (nowMs - l.originMs));
  return {
    ratePerS: l.ratePerS,
    burst: l.burst,
    left: l.burst - (debtMs * l.ratePerS) / 1000,
  };
}

function burstOf(limit: RateLimit): number {
  return Math.max(1, limit.burst ?? limit.ratePerS);
}

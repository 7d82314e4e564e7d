/**
 * What two groups of calls say about a window: the statistics under `window.ts`. Little's law: the
 * goodput of a window is window / cost, with cost = slot time / successes. Times are ms.
 *
 * It must not know how the groups were chosen nor what is decided from them.
 */

/** Calls that started at one window. A failure counts in the slot time and not in `good`. */
export interface Cohort {
  n: number;
  sumMs: number;
  squares: number;
  good: number;
}

/** A running mean and mean square; each value counts 1/400, or 1/n while there are fewer. */
export interface Moments {
  count: number;
  mean: number;
  square: number;
}

export interface Comparison {
  /** Share of a larger window that becomes goodput: 1 all of it, 0 nothing, below 0 it is harmful. */
  readonly elasticity: number;
  /** Its standard error. */
  readonly error: number;
}

const LONGEST_MEMORY = 400;
/** Constant latencies still have some noise: the squared variation is taken as at least this. */
const VARIATION_MIN = 0.01;

export function emptyCohort(): Cohort {
  return { n: 0, sumMs: 0, squares: 0, good: 0 };
}

export function add(cohort: Cohort, latencyMs: number, ok: boolean): void {
  cohort.n++;
  cohort.sumMs += latencyMs;
  cohort.squares += latencyMs * latencyMs;
  if (ok) cohort.good++;
}

/** Leaves `factor` of the cohort: 0 empties it. */
export function fade(cohort: Cohort, factor: number): void {
  cohort.n *= factor;
  cohort.sumMs *= factor;
  cohort.squares *= factor;
  cohort.good *= factor;
}

export function learn(moments: Moments, value: number): void {
  const gain = 1 / Math.min(++moments.count, LONGEST_MEMORY);
  moments.mean += gain * (value - moments.mean);
  moments.square += gain * (value * value - moments.square);
}

/** Squared coefficient of variation; 1 (exponential) while nothing is known. */
export function variation(moments: Moments): number {
  if (moments.count === 0) return 1;
  return Math.max(VARIATION_MIN, moments.square / (moments.mean * moments.mean) - 1);
}

export function deviation(moments: Moments): number {
  return Math.sqrt(Math.max(0, moments.square - moments.mean * moments.mean));
}

/**
 * e = 1 - ln(costHi / costLo) / ln(hiAt / loAt), at most 1, and its error from the variation of the
 * cohorts' own latencies or of those usual at the target, whichever is larger.
 */
export function compare(hi: Cohort, lo: Cohort, ratio: number, usualVariation: number): Comparison {
  const span = Math.log(ratio);
  const costs = (hi.sumMs / hi.good) * (lo.good / lo.sumMs);
  return {
    elasticity: Math.min(1, 1 - Math.log(costs) / span),
    error: Math.sqrt(varianceOf(hi, usualVariation) + varianceOf(lo, usualVariation)) / span,
  };
}

function varianceOf(cohort: Cohort, usualVariation: number): number {
  const mean = cohort.sumMs / cohort.n;
  const own = cohort.n > 1 ? cohort.squares / cohort.n / (mean * mean) - 1 : 1;
  return Math.max(own, usualVariation) / cohort.n;
}

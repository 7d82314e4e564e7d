/**
 * Signal lag (G9): from a receiver issuing a grant to the sender using it, by the receiver's clock
 * alone. Four buckets per octave from 1/64 ms to four minutes: a percentile is at most 19 % too high.
 * Old samples fade: at 8,192 every bucket is halved, so the percentiles are those of recent sends.
 */
export interface Lag {
  readonly buckets: number[];
  /** Sum of the buckets, faded as they are. */
  weight: number;
  count: number;
  maxMs: number;
}

export interface LagView {
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The longest and the number of samples since init; these do not fade. */
  readonly maxMs: number;
  readonly count: number;
}

const perOctave = 4;
const octaves = 24;
const leastMs = 1 / 64;
const fadeAt = 8192;

export function init(): Lag {
  return {
    buckets: Array.from({ length: perOctave * octaves }, () => 0),
    weight: 0,
    count: 0,
    maxMs: 0,
  };
}

/** @param lagMs From 0; a clock that runs slow at the sender may make it a little too small. */
export function note(lag: Lag, lagMs: number): void {
  const place = Math.ceil(perOctave * Math.log2(Math.max(lagMs, leastMs) / leastMs));
  lag.buckets[Math.min(place, lag.buckets.length - 1)]!++;
  lag.weight++;
  lag.count++;
  lag.maxMs = Math.max(lag.maxMs, lagMs);
  if (lag.weight >= fadeAt) fade(lag);
}

export function view(lag: Lag): LagView {
  return {
    p50Ms: percentile(lag, 0.5),
    p99Ms: percentile(lag, 0.99),
    maxMs: lag.maxMs,
    count: lag.count,
  };
}

function percentile(lag: Lag, share: number): number {
  let rest = share * lag.weight;
  if (rest === 0) return 0;
  for (let place = 0; place < lag.buckets.length; place++) {
    rest -= lag.buckets[place]!;
    if (rest <= 0) return Math.min(lag.maxMs, leastMs * 2 ** (place / perOctave));
  }
  return lag.maxMs;
}

function fade(lag: Lag): void {
  lag.weight = 0;
  for (let place = 0; place < lag.buckets.length; place++) {
    lag.buckets[place] = lag.buckets[place]! / 2;
    lag.weight += lag.buckets[place]!;
  }
}

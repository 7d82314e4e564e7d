/**
 * What a series of counts (messages a slot) will be: the best of three simple forecasters, with a band
 * that is as wide as they were wrong. Time is the number of a slot; a season repeats after a day or a week.
 *
 *   m[i] += max(a, 1 / count[i]) (x - m[i])                      a = 0.3 (week), 0.15 (day)
 *   ln r += 0.2 (ln clamp((x + 1) / (m[i] + 1), 1/4, 4) - ln r)  m before its update
 *   forecast(h) = m[i + h] r^(phi^h)                             phi = 0.9 per 30 min: today's ratio fades
 *   members: last value; slot of day x ratio; slot of week x ratio. At each horizon the one with the
 *   smallest absolute error (EWMA 1/200).
 *   band of the sum over h: S q(alpha / 2) .. S q(1 - alpha / 2), q = quantiles of the last ratios
 *   actual / predicted; alpha += 0.01 (0.1 - missed), kept in 0.005..0.4: adaptive conformal, goal 90 %.
 *
 * F1  A slot teaches once and in order; what was not seen whole is skipped and judges no forecast.
 * F2  Nothing is learnt above `clamp` times what a slot of the season usually has, if that is set.
 * F3  low <= expected <= high is not promised (the ratios may lean), 0 <= low <= high is.
 *
 * Must not know groups, limits or pressure. Sources: Gibbs and Candes 2021 (adaptive conformal
 * inference); measured on the series in data/arrivals.
 */
import { assert } from "../base/index.ts";

export interface ForecastOptions {
  readonly slotMs: number;
  /** Whether the week is a season, too, or the day only. */
  readonly week: boolean;
  /** In slots, rising; the first is 1. */
  readonly horizons: readonly number[];
  /** How many ratios a band is drawn from; 1,000 by default. */
  readonly ratiosMax?: number;
  /** F2; by default everything is learnt as it came. */
  readonly clamp?: number;
}

interface Season {
  readonly gain: number;
  readonly level: Float32Array;
  /** Times learnt, up to where the gain stops falling. */
  readonly count: Uint8Array;
  lnRatio: number;
}

/** What is known of one horizon. */
interface Horizon {
  readonly slots: number;
  /** Mean absolute error of each member; NaN before the first. */
  readonly errors: number[];
  /** Predictions on their way, member by member, each at the place of the slot it is for. */
  readonly due: Float64Array;
  /** Actual / predicted, the oldest at `oldest`; and the same sorted. */
  readonly ratios: number[];
  readonly sorted: number[];
  oldest: number;
  alpha: number;
  /** Sums that were predicted and are not over. */
  readonly sums: Sum[];
}

interface Sum {
  readonly untilSlot: number;
  readonly expected: number;
  readonly low: number;
  readonly high: number;
  actual: number;
}

export interface Forecast {
  readonly options: ForecastOptions;
  /** The day's, then the week's. */
  readonly seasons: readonly Season[];
  readonly horizons: readonly Horizon[];
  /** phi of one slot. */
  readonly fade: number;
  /** The last slot that was learnt or skipped; -1: none. */
  slot: number;
  last: number;
  /** Slots learnt. */
  learnt: number;
}

/** The sum over a horizon. */
export interface Outlook {
  readonly slots: number;
  readonly expected: number;
  readonly low: number;
  readonly high: number;
}

const dayMs = 86_400_000;
const dayGain = 0.15;
const weekGain = 0.3;
const ratioGain = 0.2;
const ratioMax = 4;
const fadePer30Min = 0.9;
const errorGain = 1 / 200;
const missGoal = 0.1;
const missGain = 0.01;
const [alphaMin, alphaMax] = [0.005, 0.4];
/** Fewer ratios than these make no band. */
const ratiosMin = 20;

export function init(options: ForecastOptions): Forecast {
  const ofDay = Math.round(dayMs / options.slotMs);
  const seasons = [seasonOf(ofDay, dayGain)];
  if (options.week) seasons.push(seasonOf(7 * ofDay, weekGain));
  const members = 1 + seasons.length;
  return {
    options,
    seasons,
    horizons: options.horizons.map((slots) => ({
      slots,
      errors: Array.from({ length: members }, () => NaN),
      due: new Float64Array(members * slots).fill(NaN),
      ratios: [],
      sorted: [],
      oldest: 0,
      alpha: missGoal,
      sums: [],
    })),
    fade: fadePer30Min ** (options.slotMs / 1_800_000),
    slot: -1,
    last: 0,
    learnt: 0,
  };
}

function seasonOf(slots: number, gain: number): Season {
  return { gain, level: new Float32Array(slots), count: new Uint8Array(slots), lnRatio: 0 };
}

/**
 * Takes in the count of a slot. Slots between the last one and this are skipped.
 * @param slot Whole slots since some fixed moment; above the last one.
 */
export function learn(f: Forecast, slot: number, found: number): void {
  assert(slot > f.slot, "F1 slots come in order");
  if (f.slot >= 0 && slot > f.slot + 1) skip(f, slot - 1);
  const x = clamped(f, slot, found);
  for (const horizon of f.horizons) judge(f, horizon, slot, x);
  for (const season of f.seasons) learnSeason(season, slot, x);
  f.slot = slot;
  f.last = x;
  f.learnt++;
  for (const horizon of f.horizons) foresee(f, horizon);
}

/** Slots up to `slot` pass without teaching anything: nobody saw them whole, or a surge was announced. */
export function skip(f: Forecast, slot: number): void {
  const from = Math.max(f.slot + 1, slot - longestOf(f) + 1);
  f.slot = Math.max(f.slot, slot);
  for (const { due, slots, sums, errors } of f.horizons) {
    sums.length = 0;
    for (let at = from; at <= slot; at++) {
      for (let member = 0; member < errors.length; member++) {
        due[member * slots + (at % slots)] = NaN;
      }
    }
  }
}

/** What the slot `ahead` slots after the last one will count, 1 or more. */
export function predict(f: Forecast, ahead: number): number {
  const predicted = memberAt(f, bestOf(f, ahead), f.slot, ahead);
  return Number.isNaN(predicted) ? f.last : predicted;
}

/** @param at Place of the horizon in the options. @returns undefined while too little is known. */
export function outlook(f: Forecast, at: number): Outlook | undefined {
  const horizon = f.horizons[at]!;
  if (horizon.ratios.length <= ratiosMin) return undefined;
  let expected = 0;
  for (let ahead = 1; ahead <= horizon.slots; ahead++) expected += predict(f, ahead);
  const { sorted, alpha, slots } = horizon;
  const low = expected * quantile(sorted, alpha / 2);
  return { slots, expected, low, high: expected * quantile(sorted, 1 - alpha / 2) };
}

export function check(f: Forecast): void {
  for (const { ratios, sorted, alpha, sums } of f.horizons) {
    assert(ratios.length === sorted.length, "F3 a band is drawn from all ratios");
    assert(ratios.length <= ratiosMaxOf(f), "F3 ratios are bounded");
    assert(alpha >= alphaMin && alpha <= alphaMax, "F3 alpha in 0.005..0.4");
    for (const { low, high } of sums) assert(low >= 0 && low <= high, "F3 0 <= low <= high");
  }
  for (const { lnRatio } of f.seasons) {
    assert(Math.abs(lnRatio) <= Math.log(ratioMax) + 1e-9, "F2 1/4 <= r <= 4");
  }
}

/** What is kept of a forecast over a restart; the predictions on their way are not. */
export interface SavedForecast {
  readonly slot: number;
  readonly last: number;
  readonly learnt: number;
  /** Levels by slot, -1 where nothing was learnt. */
  readonly seasons: readonly { readonly lnRatio: number; readonly level: readonly number[] }[];
  readonly horizons: readonly {
    readonly errors: readonly (number | null)[];
    readonly ratios: readonly number[];
    readonly alpha: number;
  }[];
}

export function saved(f: Forecast): SavedForecast {
  const { slot, last, learnt } = f;
  return {
    slot,
    last: short(last),
    learnt,
    seasons: f.seasons.map(({ lnRatio, level, count }) => ({
      lnRatio,
      level: Array.from(level, (m, at) => (count[at] === 0 ? -1 : short(m))),
    })),
    horizons: f.horizons.map(({ errors, ratios, oldest, alpha }) => ({
      errors: errors.map((error) => (Number.isNaN(error) ? null : short(error))),
      ratios: [...ratios.slice(oldest), ...ratios.slice(0, oldest)].map(short),
      alpha,
    })),
  };
}

/** @returns undefined when it was saved with other slots or seasons: then learning begins anew. */
export function restore(options: ForecastOptions, from: SavedForecast): Forecast | undefined {
  const f = init(options);
  const fits =
    from.seasons.length === f.seasons.length &&
    from.horizons.length === f.horizons.length &&
    f.seasons.every(({ level }, at) => level.length === from.seasons[at]!.level.length);
  if (!fits) return undefined;
  f.slot = from.slot;
  f.last = from.last;
  f.learnt = from.learnt;
  for (const [at, season] of f.seasons.entries()) {
    const { lnRatio, level } = from.seasons[at]!;
    season.lnRatio = lnRatio;
    for (const [i, m] of level.entries()) {
      season.level[i] = Math.max(0, m);
      season.count[i] = m < 0 ? 0 : Math.ceil(1 / season.gain);
    }
  }
  for (const [at, horizon] of f.horizons.entries()) {
    const { errors, ratios, alpha } = from.horizons[at]!;
    for (const [member, error] of errors.entries()) horizon.errors[member] = error ?? NaN;
    horizon.alpha = alpha;
    for (const ratio of ratios.slice(-ratiosMaxOf(f))) keepRatio(f, horizon, ratio);
  }
  return f;
}

function learnSeason(season: Season, slot: number, x: number): void {
  const { level, count, gain } = season;
  const at = slot % level.length;
  const m = level[at]!;
  if (count[at]! > 0) {
    const ratio = Math.min(ratioMax, Math.max(1 / ratioMax, (x + 1) / (m + 1)));
    season.lnRatio += ratioGain * (Math.log(ratio) - season.lnRatio);
  }
  if (count[at]! * gain < 1) count[at] = count[at]! + 1;
  level[at] = m + Math.max(gain, 1 / count[at]!) * (x - m);
}

/** F2: against the season that knows the slot best. */
function clamped(f: Forecast, slot: number, x: number): number {
  const { clamp } = f.options;
  if (clamp === undefined) return x;
  let most = Infinity;
  for (const { level, count } of f.seasons) {
    const at = slot % level.length;
    if (count[at]! > 0) most = clamp * (level[at]! + 1);
  }
  return Math.min(x, most);
}

/** Holds what was predicted for a slot against what it counted. */
function judge(f: Forecast, horizon: Horizon, slot: number, x: number): void {
  const { slots, errors, due, sums } = horizon;
  const place = slot % slots;
  for (let member = 0; member < errors.length; member++) {
    const error = Math.abs(x - due[member * slots + place]!);
    if (Number.isNaN(error)) continue;
    const before = errors[member]!;
    errors[member] = Number.isNaN(before) ? error : before + errorGain * (error - before);
  }
  for (const sum of sums) sum.actual += x;
  while (sums.length > 0 && sums[0]!.untilSlot <= slot) {
    const { actual, expected, low, high } = sums.shift()!;
    if (high < Infinity) {
      const missed = actual < low || actual > high ? 1 : 0;
      const alpha = horizon.alpha + missGain * (missGoal - missed);
      horizon.alpha = Math.min(alphaMax, Math.max(alphaMin, alpha));
    }
    keepRatio(f, horizon, (actual + 1) / (expected + 1));
  }
}

/** Predicts for later, from the slot that was learnt last. */
function foresee(f: Forecast, horizon: Horizon): void {
  const { slots, errors, due, sums } = horizon;
  const place = f.slot % slots; // Of the slot that comes `slots` later, too.
  for (let member = 0; member < errors.length; member++) {
    due[member * slots + place] = memberAt(f, member, f.slot, slots);
  }
  // Sums overlap: four of them are on their way at a time.
  if (f.slot % Math.max(1, Math.floor(slots / 4)) !== 0) return;
  let expected = 0;
  for (let ahead = 1; ahead <= slots; ahead++) expected += predict(f, ahead);
  const { sorted, alpha } = horizon;
  const isKnown = sorted.length > ratiosMin;
  const low = isKnown ? expected * quantile(sorted, alpha / 2) : 0;
  const high = isKnown ? expected * quantile(sorted, 1 - alpha / 2) : Infinity;
  sums.push({ untilSlot: f.slot + slots, expected, low, high, actual: 0 });
}

/** Member 0 is the last value, the others are seasons. NaN: it does not know. */
function memberAt(f: Forecast, member: number, slot: number, ahead: number): number {
  if (member === 0) return f.last;
  const { level, count, lnRatio } = f.seasons[member - 1]!;
  const at = (slot + ahead) % level.length;
  return count[at] === 0 ? NaN : level[at]! * Math.exp(lnRatio * f.fade ** ahead);
}

/** The member that was least wrong at the horizon nearest to `ahead`. */
function bestOf(f: Forecast, ahead: number): number {
  let nearest = f.horizons[0]!;
  for (const horizon of f.horizons) {
    if (Math.abs(horizon.slots - ahead) < Math.abs(nearest.slots - ahead)) nearest = horizon;
  }
  let best = 0;
  let least = Infinity;
  for (let member = 0; member < nearest.errors.length; member++) {
    const error = nearest.errors[member]!;
    if (error < least) [best, least] = [member, error];
  }
  return best;
}

function keepRatio(f: Forecast, horizon: Horizon, ratio: number): void {
  const { ratios, sorted } = horizon;
  if (ratios.length < ratiosMaxOf(f)) ratios.push(ratio);
  else {
    sorted.splice(placeOf(sorted, ratios[horizon.oldest]!), 1);
    ratios[horizon.oldest] = ratio;
    horizon.oldest = (horizon.oldest + 1) % ratios.length;
  }
  sorted.splice(placeOf(sorted, ratio), 0, ratio);
}

/** The first place whose value is not below `value`. */
function placeOf(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}

function longestOf({ horizons }: Forecast): number {
  return horizons.at(-1)!.slots;
}

function ratiosMaxOf({ options }: Forecast): number {
  return options.ratiosMax ?? 1000;
}

/** Three digits or more: what is saved is short, and nobody forecasts better than that. */
function short(value: number): number {
  return value >= 1000 ? Math.round(value) : Math.round(value * 1000) / 1000;
}

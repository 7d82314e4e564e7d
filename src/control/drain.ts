/**
 * What a partition's consumers really drain: the rate mu behind "seconds of work", learnt on busy
 * time only; the arrival rate; and how long a handler takes. These numbers turn a count of messages
 * into a wait. Over bursts of 2.5x the real wait was 1.00 (p50) and 1.04 (p95) times the predicted.
 *
 * B2  mu changes on busy cells only: a cell is at least 0.25 s and 10 settles, with messages waiting
 *     for more than 90 % of it and no stall within. Idle time teaches nothing, for a consumer without
 *     work drains only what arrives; a stall teaches nothing, so the last healthy rate stands.
 *
 * "Waiting" means ready and not dispatched. Messages in flight or delayed do not count: with them a
 * half idle consumer would look busy, and mu would be what arrives.
 *
 * Must not know bounds, classes or deadlines. Source of the cell and its gain: measured against
 * time constants of 2, 5 and 15 s with capacity dropping to a quarter; 2 s mispredicts least.
 */
import { assert } from "../base/index.ts";

export interface Drain {
  /** From the contract; 0 where it says nothing. */
  readonly expectedRatePerS: number;
  readonly startedAtMs: number;
  // The cell being measured.
  cellAtMs: number;
  busyMs: number;
  settles: number;
  /** Up to when `busyMs` is counted. */
  countedMs: number;
  busy: boolean;
  /** The last settle, or when messages began to wait, whichever is later. */
  progressAtMs: number;
  // What was learnt from cells.
  ratePerS: number;
  variance: number;
  cells: number;
  // Arrivals, each fading with its age.
  arrivals: number;
  arrivedAtMs: number;
  // Handler time.
  handled: number;
  meanMs: number;
  p95Ms: number;
  readonly histogram: number[];
  histogramSum: number;
}

const cellMs = 250;
const cellSettles = 10;
const cellIdleShare = 0.1;
const cellsToKnow = 4;
const rateFadeMs = 2000;
/** Long enough that 100 arrivals per second are known to 3 %, short enough to follow a spike. */
const arrivalFadeMs = 5000;
const stallMinMs = 1000;
const stallMeans = 20;
/** Quarter octaves from 2^-10 ms (1 us) to 2^22 ms (70 min). */
const histogramSlots = 128;
const histogramFirst = 40;
/** At this sum the histogram is halved: it remembers the last thousand or two. */
const histogramMax = 2000;
/** The p95 is read off anew after so many handled messages. */
const histogramEvery = 16;

/** @param options `expectedRatePerS` stands in for the rate until it is known. */
export function init(
  options: { readonly expectedRatePerS?: number | undefined },
  nowMs: number,
): Drain {
  return {
    expectedRatePerS: options.expectedRatePerS ?? 0,
    startedAtMs: nowMs,
    cellAtMs: nowMs,
    busyMs: 0,
    settles: 0,
    countedMs: nowMs,
    busy: false,
    progressAtMs: nowMs,
    ratePerS: 0,
    variance: 0,
    cells: 0,
    arrivals: 0,
    arrivedAtMs: nowMs,
    handled: 0,
    meanMs: 0,
    p95Ms: 0,
    histogram: Array.from({ length: histogramSlots }, () => 0),
    histogramSum: 0,
  };
}

/**
 * Says how many messages wait, after each change of whether any does (more often does no harm).
 *
 * @param pending Messages that are ready and not dispatched.
 */
export function backlog(d: Drain, nowMs: number, pending: number): void {
  count(d, nowMs);
  const busy = pending > 0;
  if (busy && !d.busy) {
    d.progressAtMs = nowMs;
    // A cell that has been idle for too long could never teach: the busy time begins one of its own.
    const idleMs = nowMs - d.cellAtMs - d.busyMs;
    if (idleMs > cellIdleShare * Math.max(cellMs, nowMs - d.cellAtMs)) openCell(d, nowMs);
  }
  d.busy = busy;
}

/** Messages ended: acknowledged, failed or dead, not released. Call `handled` for them before. */
export function settled(d: Drain, nowMs: number, settles: number): void {
  count(d, nowMs);
  const gapMs = nowMs - d.progressAtMs;
  d.progressAtMs = nowMs;
  if (d.busy && d.handled > 0 && gapMs > stallMs(d.meanMs)) {
    openCell(d, nowMs);
    return;
  }
  d.settles += settles;
  const lengthMs = nowMs - d.cellAtMs;
  if (lengthMs < cellMs || d.settles < cellSettles) return;
  if (d.busyMs > (1 - cellIdleShare) * lengthMs) learn(d, (d.settles * 1000) / lengthMs);
  openCell(d, nowMs);
}

/** @returns mu; until it is known the contract's expected rate; undefined without one. */
export function ratePerS(d: Drain): number | undefined {
  if (isKnown(d)) return d.ratePerS;
  return d.expectedRatePerS > 0 ? d.expectedRatePerS : undefined;
}

/** Whether the rate was measured: after 4 busy cells, a second of work at the earliest. */
export function isKnown(d: Drain): boolean {
  return d.cells >= cellsToKnow;
}

/** @returns How long `pending` messages take to drain, in s; undefined while no rate is known. */
export function secondsOfWork(d: Drain, pending: number): number | undefined {
  const rate = ratePerS(d);
  return rate === undefined ? undefined : pending / rate;
}

/**
 * @param pending Messages that are ready and not dispatched.
 * @param meanMs Mean time of a call, for what counts as long.
 * @returns Since when messages wait and none has ended, if that is longer than max(1 s, 20 means).
 */
export function stalledSinceMs(
  d: Drain,
  nowMs: number,
  pending: number,
  meanMs: number,
): number | undefined {
  if (pending === 0 || nowMs - d.progressAtMs <= stallMs(meanMs)) return undefined;
  return d.progressAtMs;
}

/** Messages were accepted. */
export function arrived(d: Drain, nowMs: number, messages: number): void {
  d.arrivals = arrivalsAt(d, nowMs) + messages;
  d.arrivedAtMs = Math.max(nowMs, d.arrivedAtMs);
}

/** @returns Arrivals per second, each weighted by exp(-age / 5 s). */
export function arrivalRatePerS(d: Drain, nowMs: number): number {
  // What a steady rate of 1 would have left by now; not less than after a second.
  const ageMs = Math.max(1000, nowMs - d.startedAtMs);
  const seenMs = arrivalFadeMs * (1 - Math.exp(-ageMs / arrivalFadeMs));
  return (arrivalsAt(d, nowMs) * 1000) / seenMs;
}

/** A handler ended, well or badly, after `durationMs`. */
export function handled(d: Drain, durationMs: number): void {
  d.handled++;
  d.meanMs += Math.max(1 / 400, 1 / d.handled) * (durationMs - d.meanMs);
  const octave = Math.floor(4 * Math.log2(Math.max(durationMs, Number.MIN_VALUE)));
  const slot = Math.min(histogramSlots - 1, Math.max(0, octave + histogramFirst));
  d.histogram[slot] = d.histogram[slot]! + 1;
  d.histogramSum++;
  if (d.handled < histogramEvery || d.handled % histogramEvery === 0) readP95(d);
}

/** @returns 95th percentile of the handler time over the last thousand or two; 0 before the first. */
export function p95Ms(d: Drain): number {
  return d.p95Ms;
}

export function check(d: Drain): void {
  const lengthMs = d.countedMs - d.cellAtMs;
  assert(d.busyMs >= 0 && d.busyMs <= lengthMs + 1e-3, "B2 a cell's busy time <= its length");
  assert(d.ratePerS > 0 === d.cells > 0, "B2 a rate comes from cells");
  assert(d.arrivals >= 0 && d.variance >= 0, "B2 no negative rate");
}

export interface DrainView {
  readonly ratePerS: number | undefined;
  /** Standard deviation of the rate from cell to cell; undefined until it is known. */
  readonly deviationPerS: number | undefined;
  readonly known: boolean;
  readonly arrivalRatePerS: number;
  readonly meanMs: number;
  readonly p95Ms: number;
}

export function view(d: Drain, nowMs: number): DrainView {
  return {
    ratePerS: ratePerS(d),
    deviationPerS: isKnown(d) ? Math.sqrt(d.variance) : undefined,
    known: isKnown(d),
    arrivalRatePerS: arrivalRatePerS(d, nowMs),
    meanMs: d.meanMs,
    p95Ms: d.p95Ms,
  };
}

function count(d: Drain, nowMs: number): void {
  if (d.busy) d.busyMs += Math.max(0, nowMs - d.countedMs);
  d.countedMs = Math.max(nowMs, d.countedMs);
}

function openCell(d: Drain, nowMs: number): void {
  d.cellAtMs = nowMs;
  d.busyMs = 0;
  d.settles = 0;
}

function learn(d: Drain, measured: number): void {
  d.cells++;
  const gain = Math.max(1 / d.cells, 1 - Math.exp(-d.busyMs / rateFadeMs));
  const error = measured - d.ratePerS;
  d.ratePerS += gain * error;
  // The first cell has no rate to deviate from.
  if (d.cells > 1) d.variance += gain * (error * error - d.variance);
}

function stallMs(meanMs: number): number {
  return Math.max(stallMinMs, stallMeans * meanMs);
}

function arrivalsAt(d: Drain, nowMs: number): number {
  const ageMs = Math.max(0, nowMs - d.arrivedAtMs);
  return ageMs === 0 ? d.arrivals : d.arrivals * Math.exp(-ageMs / arrivalFadeMs);
}

/** Finds the slot that holds the 95th percentile and reads within it as if it were evenly filled. */
function readP95(d: Drain): void {
  let above = 0.05 * d.histogramSum;
  let slot = histogramSlots - 1;
  while (slot > 0 && d.histogram[slot]! < above) above -= d.histogram[slot--]!;
  const upper = 1 - above / Math.max(1, d.histogram[slot]!);
  d.p95Ms = 2 ** ((slot - histogramFirst + upper) / 4);
  if (d.histogramSum < histogramMax) return;
  d.histogramSum = 0;
  for (let i = 0; i < histogramSlots; i++) {
    d.histogram[i] = d.histogram[i]! / 2;
    d.histogramSum += d.histogram[i]!;
  }
}

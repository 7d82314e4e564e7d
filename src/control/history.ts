/**
 * What a flow and each of its groups usually send: counts in slots of time, forecasts made of them, and
 * the envelope of a group, which is what it may be expected to send at most.
 *
 * Y1  Only slots that were seen nearly whole and lie outside of announced surges teach anything.
 * Y2  A slot in which a group was held teaches nothing of it, for what it would have sent is unknown; and
 *     no slot teaches a group more than 4 times its usual count: an attack is not a season.
 * Y3  A group has no envelope in its first day.
 * Y4  Memory and what is saved are bounded: 1,000 groups have a history, 100 keep it over a restart.
 *
 * Must not know pressure, classes or credit. Time is an input, and so is the offset of the zone.
 */
import { assert } from "../base/index.ts";
import * as forecast from "./forecast.ts";
import type { Forecast, ForecastOptions, Outlook, SavedForecast } from "./forecast.ts";
import { surgeRampMs } from "./limiter.ts";
import type { Surge } from "./limiter.ts";

/** What is counted of one group. */
export interface Learner {
  readonly name: string;
  /** Messages accepted in the slot at hand. */
  count: number;
  wasHeld: boolean;
  seenMs: number;
  series: Forecast | undefined;
}

export interface History {
  readonly learn: "day" | "week";
  readonly slotMs: number;
  readonly zoneOffsetMs: number;
  flow: Forecast;
  count: number;
  /** The slot at hand, its end, and how much of it was seen before `seenFromMs`. */
  slot: number;
  slotEndMs: number;
  seenMs: number;
  seenFromMs: number;
  /** When learning began. */
  sinceMs: number;
}

export interface HistoryOptions {
  readonly learn: "day" | "week";
  /** Of the zone whose days and weeks are the seasons; 0 by default: UTC. */
  readonly zoneOffsetMs?: number;
}

const slotsMs = { day: 5 * 60_000, week: 30 * 60_000 } as const;
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** Learnt from slots of which so much was seen. */
const seenShareMin = 0.8;
const groupClamp = 4;
const groupRatiosMax = 96;
/** A weekly job is remembered over a holiday. */
const forgetMs = 15 * dayMs;
export const groupsMax = 1000;
const groupsSavedMax = 100;
const envelopeMargin = 1.25;
const floorShare = 0.1;

export function init(options: HistoryOptions, nowMs: number): History {
  const { learn, zoneOffsetMs = 0 } = options;
  const slotMs = slotsMs[learn];
  const slot = Math.floor((nowMs + zoneOffsetMs) / slotMs);
  return {
    learn,
    slotMs,
    zoneOffsetMs,
    flow: forecast.init(flowOptions(learn)),
    count: 0,
    slot,
    slotEndMs: (slot + 1) * slotMs - zoneOffsetMs,
    seenMs: 0,
    seenFromMs: nowMs,
    sinceMs: nowMs,
  };
}

/** The next slot, 6 hours and a day. */
function flowOptions(learn: "day" | "week"): ForecastOptions {
  const slotMs = slotsMs[learn];
  const horizons = [1, (6 * hourMs) / slotMs, dayMs / slotMs];
  return { slotMs, week: learn === "week", horizons };
}

function groupOptions(learn: "day" | "week"): ForecastOptions {
  const week = learn === "week";
  return {
    slotMs: slotsMs[learn],
    week,
    horizons: [1],
    ratiosMax: groupRatiosMax,
    clamp: groupClamp,
  };
}

export function learner(name: string): Learner {
  return { name, count: 0, wasHeld: false, seenMs: -Infinity, series: undefined };
}

/**
 * Ends the slots that are over by now. To be called before anything is counted at `nowMs`.
 * @returns Whether one was.
 */
export function advance(
  h: History,
  groups: ReadonlyMap<string, Learner>,
  surges: readonly Surge[],
  nowMs: number,
): boolean {
  if (nowMs < h.slotEndMs) return false;
  while (nowMs >= h.slotEndMs) {
    const startMs = h.slotEndMs - h.slotMs;
    const share = (h.seenMs + h.slotEndMs - h.seenFromMs) / h.slotMs;
    const teaches = share >= seenShareMin && !isInSurge(surges, startMs, h.slotEndMs); // Y1
    if (teaches) forecast.learn(h.flow, h.slot, h.count / Math.min(1, share));
    else forecast.skip(h.flow, h.slot);
    h.count = 0;
    for (const group of groups.values()) endSlot(h, group, teaches, share);
    h.slot++;
    h.seenMs = 0;
    h.seenFromMs = h.slotEndMs;
    h.slotEndMs += h.slotMs;
  }
  return true;
}

function endSlot(h: History, group: Learner, teaches: boolean, share: number): void {
  if (group.series === undefined) {
    if (!teaches) return reset(group);
    group.series = forecast.init(groupOptions(h.learn));
  }
  const { series } = group;
  if (teaches && !group.wasHeld) {
    forecast.learn(series, h.slot, group.count / Math.min(1, share)); // Y2: with a clamp
  } else forecast.skip(series, h.slot);
  reset(group);
}

function reset(group: Learner): void {
  group.count = 0;
  group.wasHeld = false;
}

function isInSurge(surges: readonly Surge[], fromMs: number, toMs: number): boolean {
  return surges.some(
    (surge) => surge.fromMs - surgeRampMs < toMs && surge.toMs + surgeRampMs > fromMs,
  );
}

/** Whether a group that was last seen then is forgotten; sooner where there is no place for others. */
export function isForgotten(group: Learner, nowMs: number, isCrowded: boolean): boolean {
  return nowMs - group.seenMs > (isCrowded ? dayMs : forgetMs);
}

/**
 * What a group may be expected to send at most in the slot at hand, without surges.
 *
 * @param groups How many share the drain rate.
 * @returns Messages per second; undefined while it is not known (Y3).
 */
export function envelopePerS(
  h: History,
  group: Learner,
  drainPerS: number,
  groups: number,
): number | undefined {
  const { series } = group;
  if (series === undefined || series.learnt * h.slotMs < dayMs) return undefined;
  const next = forecast.outlook(series, 0);
  if (next === undefined) return undefined;
  const usual = (envelopeMargin * next.high * 1000) / h.slotMs;
  return Math.max(usual, (floorShare * drainPerS) / Math.max(1, groups));
}

export interface ForecastView extends Omit<Outlook, "slots"> {
  readonly spanMs: number;
}

/** What arrivals are forecast to be, from the end of the last slot on; empty while too little is known. */
export function outlooks(h: History, factor: number): ForecastView[] {
  const views: ForecastView[] = [];
  for (const [at, { slots }] of h.flow.horizons.entries()) {
    const outlook = forecast.outlook(h.flow, at);
    if (outlook === undefined) continue;
    const { expected, low, high } = outlook;
    views.push({
      spanMs: slots * h.slotMs,
      expected: expected * factor,
      low: low * factor,
      high: high * factor,
    });
  }
  return views;
}

/** What is kept of a history over a restart. */
export interface SavedHistory {
  readonly version: 1;
  readonly learn: "day" | "week";
  readonly zoneOffsetMs: number;
  readonly sinceMs: number;
  readonly slot: number;
  readonly seenMs: number;
  readonly count: number;
  readonly flow: SavedForecast;
  readonly groups: readonly {
    readonly name: string;
    readonly count: number;
    readonly wasHeld: boolean;
    readonly seenMs: number;
    readonly series: SavedForecast | undefined;
  }[];
}

/** Y4: of the busiest groups. */
export function saved(
  h: History,
  groups: ReadonlyMap<string, Learner>,
  nowMs: number,
): SavedHistory {
  const busiest = [...groups.values()]
    .map((group) => ({ group, usual: usualOf(group) }))
    .toSorted((a, b) => b.usual - a.usual || (a.group.name < b.group.name ? -1 : 1))
    .slice(0, groupsSavedMax);
  return {
    version: 1,
    learn: h.learn,
    zoneOffsetMs: h.zoneOffsetMs,
    sinceMs: h.sinceMs,
    slot: h.slot,
    seenMs: h.seenMs + Math.max(0, nowMs - h.seenFromMs),
    count: h.count,
    flow: forecast.saved(h.flow),
    groups: busiest.map(({ group: { name, count, wasHeld, seenMs, series } }) => ({
      name,
      count,
      wasHeld,
      seenMs,
      series: series === undefined ? undefined : forecast.saved(series),
    })),
  };
}

/**
 * Goes on from what was saved. The time between is unknown: its slots teach nothing.
 * @returns The groups that have a history; undefined: it does not fit, and learning begins anew.
 */
export function restore(h: History, from: SavedHistory, nowMs: number): Learner[] | undefined {
  if (from.version !== 1 || from.learn !== h.learn) return undefined;
  if (from.zoneOffsetMs !== h.zoneOffsetMs || from.slot > h.slot) return undefined;
  const flow = forecast.restore(flowOptions(h.learn), from.flow);
  if (flow === undefined) return undefined;
  const isSameSlot = from.slot === h.slot;
  h.flow = flow;
  h.sinceMs = from.sinceMs;
  h.seenFromMs = nowMs;
  if (isSameSlot) {
    h.count += from.count;
    h.seenMs = from.seenMs;
  } else forecast.skip(flow, h.slot - 1);
  const groups: Learner[] = [];
  for (const { name, count, wasHeld, seenMs, series } of from.groups) {
    const own = series === undefined ? undefined : forecast.restore(groupOptions(h.learn), series);
    if (own !== undefined && own.slot < h.slot - 1) forecast.skip(own, h.slot - 1);
    const group = { ...learner(name), seenMs, series: own };
    if (isSameSlot) Object.assign(group, { count, wasHeld });
    groups.push(group);
  }
  return groups;
}

export function check(h: History, groups: ReadonlyMap<string, Learner>): void {
  forecast.check(h.flow);
  assert(groups.size <= groupsMax, "Y4 groups are bounded");
  assert(h.flow.slot < h.slot, "Y1 the slot at hand has taught nothing yet");
  for (const { series } of groups.values()) {
    if (series !== undefined) assert(series.slot < h.slot, "Y1 nor of a group");
  }
}

function usualOf({ series, count }: Learner): number {
  if (series === undefined) return count;
  let sum = 0;
  for (const level of series.seasons[0]!.level) sum += level;
  return sum;
}

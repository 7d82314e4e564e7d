/**
 * The boundary of a flow: which groups are held back while there is too much, to what, and why.
 *
 * V1  While the pressure is below a quarter nobody is held: a queue is there to take bursts. The same
 *     holds while the consumers keep up, and for a group that is alone: there is nobody to protect.
 * V2  From a quarter on (a step of degradation, `pressure.ts`) a group that is above its envelope is held
 *     to it, and all are held together to the drain rate, divided max-min fair by weight: a flood of one
 *     group finds its own part and what the others leave, not theirs.
 *     The flow's contracted rate is divided in the same way when it is nearly used up, at any pressure.
 * V3  A refusal names its bound, what the group came with, what it is held to, and when to come back.
 * V4  Nothing here touches what was accepted.
 *
 * The rate that is divided falls from the drain rate at a quarter to 4/5 of it at a half, so that the
 * pressure comes back to where holding begins instead of staying where a class is closed.
 *
 * Must not know credit, classes or bytes.
 */
import * as history from "./history.ts";
import type { ForecastView, History, Learner, SavedHistory } from "./history.ts";
import * as limiter from "./limiter.ts";
import type { Limiter, Surge } from "./limiter.ts";
import * as shares from "./shares.ts";
import type { Share } from "./shares.ts";

export interface EnvelopeOptions {
  readonly learn: "day" | "week" | "off";
  readonly weights: Readonly<Record<string, number>>;
  readonly zoneOffsetMs?: number;
}

interface Group extends Learner, Share {
  /** Its envelope as of `envelopeMs`; undefined: unknown. */
  limiter: Limiter | undefined;
  envelopeMs: number;
  /** Messages that came in this second and in the one before. */
  came: number;
  cameBefore: number;
  cameMs: number;
  refused: number;
  held: { readonly by: HeldBy; readonly toPerS: number; readonly atMs: number } | undefined;
}

type HeldBy = "envelope" | "share";

export interface Envelope {
  options: EnvelopeOptions;
  history: History | undefined;
  readonly groups: Map<string, Group>;
  /** All groups for which there is no place. */
  readonly rest: Group;
  isHolding: boolean;
  pressure: number;
  steps: number;
  drainPerS: number;
  /** What those who are held share, in messages per second. */
  dividedPerS: number;
  /** Whether history holds, too. */
  isPressed: boolean;
  /** Seen lately: they share. Looked for anew at `activeMs`. */
  readonly active: Group[];
  activeMs: number;
  /** Of those that are active. */
  weights: number;
  earnedMs: number;
  forgotMs: number;
  readonly refused: Record<HeldBy, number>;
}

export interface Situation {
  /** Steps of degradation taken, and the pressure that they come from. */
  readonly steps: number;
  readonly pressure: number;
  readonly drainPerS: number;
  /** Messages wait that could be handed out if there were room at a consumer. */
  readonly waits: boolean;
  /** The contracted rate of the flow, while it is nearly used up. */
  readonly ratePerS: number | undefined;
}

/** Why a message is not taken; `found` and `allowed` are in messages per second. */
export interface Held {
  readonly code: "group_limited";
  readonly bound: HeldBy;
  readonly found: number;
  readonly allowed: number;
  readonly retryAfterMs: number;
}

/** A group counts as there so long: rare messages need a place, too. */
const activeForMs = 10 * 60_000;
const activeEveryMs = 250;
const earnEveryMs = 5;
/** What a pause earns at most. */
const earnSpanMaxMs = 1000;
const forgetEveryMs = 60_000;
const [holdAt, slowestAt, slowest] = [0.25, 0.5, 0.8];
/** What an envelope lets through at once, as a share of what it allows in a slot: groups come in bursts. */
const envelopeBurst = 1 / 20;
const envelopeEveryMs = 1000;
const retryMinMs = 50;
const heldForMs = 1000;
const restName = "(others)";
const heldShownMax = 10;

export function init(options: EnvelopeOptions, nowMs: number): Envelope {
  return {
    options,
    history: historyOf(options, nowMs),
    groups: new Map(),
    rest: groupOf(restName, 1),
    isHolding: false,
    pressure: 0,
    steps: 0,
    drainPerS: 0,
    dividedPerS: 0,
    isPressed: false,
    active: [],
    activeMs: -Infinity,
    weights: 0,
    earnedMs: nowMs,
    forgotMs: nowMs,
    refused: { envelope: 0, share: 0 },
  };
}

function historyOf({ learn, zoneOffsetMs }: EnvelopeOptions, nowMs: number): History | undefined {
  if (learn === "off") return undefined;
  return history.init({ learn, ...(zoneOffsetMs === undefined ? {} : { zoneOffsetMs }) }, nowMs);
}

/** New options: what was learnt stays while the season is the same. */
export function setOptions(e: Envelope, options: EnvelopeOptions, nowMs: number): void {
  const isSame = options.learn === e.options.learn;
  e.options = options;
  if (isSame) return;
  e.history = historyOf(options, nowMs);
  e.groups.clear();
  e.activeMs = -Infinity;
}

/** Ends what is over by now; cheap, to be called with each event. */
export function advance(e: Envelope, surges: readonly Surge[], nowMs: number): void {
  const { history: known } = e;
  if (known === undefined || nowMs < known.slotEndMs) return;
  history.advance(known, e.groups, surges, nowMs);
  forget(e, nowMs);
}

/** When `advance` has something to do, though nothing happens. */
export function dueAtMs(e: Envelope): number {
  return e.history?.slotEndMs ?? Infinity;
}

export function observe(e: Envelope, now: Situation): void {
  e.steps = now.steps;
  e.pressure = now.pressure;
  e.drainPerS = now.drainPerS;
  e.isPressed = now.steps >= 1 && now.waits; // V1
  e.isHolding = e.isPressed || now.ratePerS !== undefined;
  e.dividedPerS = Math.min(e.isPressed ? pressedPerS(e) : Infinity, now.ratePerS ?? Infinity);
}

/** Messages of the flow were accepted. */
export function accepted(e: Envelope, messages: number): void {
  if (e.history !== undefined) e.history.count += messages;
}

/** One, or several without a group ("") that came together. */
export function acceptedOf(e: Envelope, name: string, nowMs: number, messages = 1): void {
  const group = find(e, name, nowMs);
  group.count += messages;
  group.seenMs = nowMs;
}

/**
 * Whether a group may send one more message now; if so, it is paid for.
 *
 * @param factor Of announced surges, which lift envelopes.
 */
export function admit(e: Envelope, name: string, nowMs: number, factor: number): Held | undefined {
  if (!e.isHolding) return undefined;
  const group = find(e, name, nowMs);
  group.seenMs = nowMs;
  came(group, nowMs);
  earn(e, nowMs);
  if (e.active.length < 2) return undefined; // V1
  const partPerS = partOf(e, group);
  const lacking = shares.lacking(group, partPerS);
  if (lacking > 0) {
    const toPerS = Math.max(group.earnedPerS, partPerS);
    return refuse(e, group, "share", toPerS, (lacking * 1000) / toPerS, nowMs);
  }
  const known = e.isPressed ? withEnvelope(e, group, nowMs).limiter : undefined;
  const waitMs = known === undefined ? 0 : limiter.take(known, nowMs, 1, factor);
  if (waitMs > 0) {
    return refuse(e, group, "envelope", known!.ratePerS * factor, waitMs, nowMs);
  }
  shares.spend(group);
  return undefined;
}

function refuse(
  e: Envelope,
  group: Group,
  by: HeldBy,
  toPerS: number,
  waitMs: number,
  nowMs: number,
): Held {
  group.wasHeld = true;
  group.refused++;
  group.held = { by, toPerS, atMs: nowMs };
  e.refused[by]++;
  return {
    code: "group_limited",
    bound: by,
    found: rounded(cameRatePerS(group, nowMs)),
    allowed: rounded(toPerS),
    retryAfterMs: Math.max(retryMinMs, Math.ceil(waitMs)),
  };
}

/** What is divided under pressure: V2. */
function pressedPerS(e: Envelope): number {
  const depth = Math.min(1, Math.max(0, (e.pressure - holdAt) / (slowestAt - holdAt)));
  return e.drainPerS * (1 - (1 - slowest) * depth);
}

function partOf(e: Envelope, { weight }: Group): number {
  return (e.dividedPerS * weight) / Math.max(weight, e.weights);
}

function earn(e: Envelope, nowMs: number): void {
  if (nowMs - e.activeMs >= activeEveryMs) {
    e.activeMs = nowMs;
    e.active.length = 0;
    for (const group of e.groups.values()) if (isActive(group, nowMs)) e.active.push(group);
    if (isActive(e.rest, nowMs)) e.active.push(e.rest);
    e.weights = 0;
    for (const { weight } of e.active) e.weights += weight;
  }
  const spanMs = nowMs - e.earnedMs;
  if (spanMs < earnEveryMs) return;
  e.earnedMs = nowMs;
  shares.earn(e.active, e.dividedPerS, Math.min(earnSpanMaxMs, spanMs));
}

function isActive({ seenMs }: Group, nowMs: number): boolean {
  return nowMs - seenMs < activeForMs;
}

function withEnvelope(e: Envelope, group: Group, nowMs: number): Group {
  if (e.history === undefined || nowMs - group.envelopeMs < envelopeEveryMs) return group;
  group.envelopeMs = nowMs;
  const ratePerS = history.envelopePerS(e.history, group, e.drainPerS, e.active.length);
  if (ratePerS === undefined) group.limiter = undefined;
  else {
    const burst = (ratePerS * e.history.slotMs * envelopeBurst) / 1000;
    const limit = { ratePerS, burst };
    if (group.limiter === undefined) group.limiter = limiter.init(limit, nowMs);
    else limiter.setRate(group.limiter, limit, nowMs);
  }
  return group;
}

function find(e: Envelope, name: string, nowMs: number): Group {
  const known = e.groups.get(name);
  if (known !== undefined) return known;
  if (e.groups.size >= history.groupsMax) {
    if (nowMs - e.forgotMs >= forgetEveryMs) forget(e, nowMs);
    if (e.groups.size >= history.groupsMax) return e.rest;
  }
  const group = groupOf(name, e.options.weights[name] ?? 1);
  e.groups.set(name, group);
  e.activeMs = -Infinity;
  return group;
}

function forget(e: Envelope, nowMs: number): void {
  e.forgotMs = nowMs;
  const isCrowded = e.groups.size >= history.groupsMax;
  for (const group of e.groups.values()) {
    const isGone =
      e.history === undefined
        ? !isActive(group, nowMs)
        : history.isForgotten(group, nowMs, isCrowded);
    if (isGone) e.groups.delete(group.name);
  }
  e.activeMs = -Infinity;
}

function groupOf(name: string, weight: number): Group {
  return {
    ...history.learner(name),
    ...shares.init(weight),
    limiter: undefined,
    envelopeMs: -Infinity,
    came: 0,
    cameBefore: 0,
    cameMs: -Infinity,
    refused: 0,
    held: undefined,
  };
}

function came(group: Group, nowMs: number): void {
  const ageMs = nowMs - group.cameMs;
  if (ageMs >= 1000) {
    group.cameBefore = ageMs < 2000 ? group.came : 0;
    group.came = 0;
    group.cameMs = nowMs;
  }
  group.came++;
}

function cameRatePerS({ came, cameBefore, cameMs }: Group, nowMs: number): number {
  const spanMs = nowMs - cameMs + (cameBefore > 0 ? 1000 : 0);
  return ((came + cameBefore) * 1000) / Math.max(100, spanMs);
}

function rounded(perS: number): number {
  return Number(perS.toPrecision(3));
}

export interface EnvelopeView {
  /** What is closed by now; each step reopens 0.05 lower than where it closed. */
  readonly level: "open" | "groups_held" | "bulk_stopped" | "normal_stopped" | "full";
  readonly pressure: number;
  /** Of announced surges; forecasts and envelopes are multiplied by it. */
  readonly surgeFactor: number;
  readonly learn: "day" | "week" | "off";
  /** Since when history is kept, in ms since the epoch, and how many of its slots taught something. */
  readonly learntSinceMs: number | undefined;
  readonly learntSlots: number;
  readonly slotMs: number | undefined;
  /** Arrivals of the next slot first; `low` to `high` holds nine of ten. */
  readonly forecast: readonly ForecastView[];
  /** Groups seen in the last 10 minutes. */
  readonly groups: number;
  /** Messages refused so far, by their reason. */
  readonly refused: Readonly<Record<HeldBy, number>>;
  /** Held in the last second, at most 10 of them, the most refused first. */
  readonly held: readonly HeldView[];
}

interface HeldView {
  readonly group: string;
  readonly by: HeldBy;
  readonly toPerS: number;
  readonly cameRatePerS: number;
  readonly refused: number;
}

const levels = ["open", "groups_held", "bulk_stopped", "normal_stopped", "full"] as const;

export function view(e: Envelope, surges: readonly Surge[], nowMs: number): EnvelopeView {
  const surgeFactor = limiter.surgeFactor(surges, nowMs);
  const { history: known } = e;
  let groups = 0;
  const held: HeldView[] = [];
  for (const group of [...e.groups.values(), e.rest]) {
    if (isActive(group, nowMs)) groups++;
    if (group.held === undefined || nowMs - group.held.atMs > heldForMs) continue;
    const { by, toPerS } = group.held;
    held.push({
      group: group.name,
      by,
      toPerS: rounded(toPerS),
      cameRatePerS: rounded(cameRatePerS(group, nowMs)),
      refused: group.refused,
    });
  }
  return {
    level: levels[e.steps]!,
    pressure: e.pressure,
    surgeFactor,
    learn: e.options.learn,
    learntSinceMs: known?.sinceMs,
    learntSlots: known?.flow.learnt ?? 0,
    slotMs: known?.slotMs,
    forecast: known === undefined ? [] : history.outlooks(known, surgeFactor),
    groups,
    refused: { ...e.refused },
    held: held.toSorted((a, b) => b.refused - a.refused).slice(0, heldShownMax),
  };
}

/** What is kept over a restart; undefined: nothing is learnt. */
export function saved(e: Envelope, nowMs: number): SavedHistory | undefined {
  return e.history === undefined ? undefined : history.saved(e.history, e.groups, nowMs);
}

/** Goes on from what was saved, if it fits. */
export function restore(e: Envelope, from: SavedHistory, nowMs: number): void {
  if (e.history === undefined) return;
  for (const learner of history.restore(e.history, from, nowMs) ?? []) {
    const { name } = learner;
    const group = e.groups.get(name) ?? groupOf(name, e.options.weights[name] ?? 1);
    learner.count += group.count;
    learner.seenMs = Math.max(learner.seenMs, group.seenMs);
    e.groups.set(name, Object.assign(group, learner));
  }
}

export function check(e: Envelope): void {
  shares.check(e.active);
  if (e.history !== undefined) history.check(e.history, e.groups);
}

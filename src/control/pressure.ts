/**
 * How full a partition is, and what that closes: classes stop one after the other, and steps of
 * degradation are taken, each with hysteresis.
 *
 * B1  Pending messages and bytes never rise above their limits.
 * B4  A class or a step that closed at a share s reopens at s - 0.05, so that nothing flaps.
 * B5  Promised credit counts against what is granted next, never against a message that arrives, for
 *     that spends its promise: a class is open for arrivals by what is stored, for grants by stored +
 *     promised. Otherwise the credit of a class alone could close the class to its own messages.
 *
 * Steps by pressure p, the largest share of a bound that is stored: below 0.25 nobody is limited by
 * history, for a queue is there to take bursts; from 0.25 groups are held to their envelope; from 0.5
 * bulk stops; from 0.8 normal stops and all else is held to the drain rate; at 1 everything waits.
 * (Where a class stops is its share in the contract; these are the defaults.)
 *
 * Must not know credit, keys, groups or deadlines. What is accepted is never shed here.
 */
import { assert } from "../base/index.ts";

export type ClassName = "critical" | "normal" | "bulk";

export interface AdmissionLimits {
  readonly messages: number;
  readonly bytes: number;
  /** Bound in seconds of work; it holds once a drain rate is known. */
  readonly seconds?: number | undefined;
  /** Share of the bounds at which each class stops, above 0 up to 1; the better class no lower. */
  readonly classes: Readonly<Record<ClassName, number>>;
  /** Factor on the predicted wait, for the edge of a prediction is late half of the time; 1.2. */
  readonly safety?: number | undefined;
}

/** What the partition holds now. */
export interface Occupancy {
  /** Accepted and not ended, in any state, with those being appended. */
  readonly pending: number;
  readonly bytes: number;
  /** Messages that credit given out still allows. */
  readonly promised: number;
  /** Undefined while unknown: then messages and bytes bound alone, and no deadline is predicted. */
  readonly ratePerS: number | undefined;
  /** How long nothing has ended though messages wait, in ms; 0 unless stalled. */
  readonly stalledMs?: number | undefined;
}

/** Steps of degradation, in order; the number is how many of them are taken. */
const stepsAt = [0.25, 0.5, 0.8, 1] as const;

export interface Admission {
  limits: AdmissionLimits;
  pending: number;
  bytes: number;
  promised: number;
  ratePerS: number;
  stalledMs: number;
  /** Largest share of a bound that is stored, and with what is promised. */
  pressure: number;
  promisedPressure: number;
  /** Steps of degradation taken, 0 to 4. */
  steps: number;
  /** Closed for messages that arrive, and for new grants. */
  readonly closed: Record<ClassName, boolean>;
  readonly closedToGrants: Record<ClassName, boolean>;
  /** B1 as it stands: the limits, or what was stored when they were lowered below it. */
  messagesMax: number;
  bytesMax: number;
}

const hysteresis = 0.05;
const lowestFirst: readonly ClassName[] = ["bulk", "normal", "critical"];

/** Starts empty. The first `observe` may find more than the limits: they may have been lowered. */
export function init(limits: AdmissionLimits): Admission {
  return {
    limits: checked(limits),
    pending: 0,
    bytes: 0,
    promised: 0,
    ratePerS: 0,
    stalledMs: 0,
    pressure: 0,
    promisedPressure: 0,
    steps: 0,
    closed: { critical: false, normal: false, bulk: false },
    closedToGrants: { critical: false, normal: false, bulk: false },
    messagesMax: Infinity,
    bytesMax: Infinity,
  };
}

/** Takes in what the partition holds; call it after each change, before the next `admit`. */
export function observe(a: Admission, o: Occupancy): void {
  // A lowered limit follows down what was stored above it, and a breach of B1 stays to be seen.
  if (o.pending <= a.messagesMax) a.messagesMax = Math.max(a.limits.messages, o.pending);
  if (o.bytes <= a.bytesMax) a.bytesMax = Math.max(a.limits.bytes, o.bytes);
  a.pending = o.pending;
  a.bytes = o.bytes;
  a.promised = o.promised;
  a.ratePerS = o.ratePerS ?? 0;
  a.stalledMs = o.stalledMs ?? 0;
  weigh(a);
}

/** One more message is held, and nothing else has changed since the last `observe`. */
export function grew(a: Admission, bytes: number): void {
  a.pending++;
  a.bytes += bytes;
  weigh(a);
}

/** Limits as of now. What is stored above a lowered limit stays, and drains below it. */
export function setLimits(a: Admission, limits: AdmissionLimits): void {
  a.limits = checked(limits);
  a.messagesMax = Math.max(a.messagesMax, limits.messages);
  a.bytesMax = Math.max(a.bytesMax, limits.bytes);
  weigh(a);
}

/** Whether nothing but the bound stops the class: critical, and those that share its level. */
export function stopsAtBound(a: Admission, name: ClassName): boolean {
  return a.limits.classes[name] >= a.limits.classes.critical;
}

/** @returns The lowest class that may be granted credit now; null: none, everything waits. */
export function lowestOpenClass(a: Admission): ClassName | null {
  for (const name of lowestFirst) if (!a.closed[name] && !a.closedToGrants[name]) return name;
  return null;
}

/**
 * The rate to which a group is held by its own history: its envelope, from step 1 on.
 *
 * @param envelopeRatePerS What the group may be expected to send at most; undefined while unknown.
 * @returns undefined: history does not limit it.
 */
export function groupRatePerS(a: Admission, envelopeRatePerS?: number): number | undefined {
  return a.steps >= 1 ? envelopeRatePerS : undefined;
}

/** The rate to which all that is still admitted is held together: the drain rate, from step 3. */
export function flowRatePerS(a: Admission): number | undefined {
  return a.steps >= 3 && a.ratePerS > 0 ? a.ratePerS : undefined;
}

export function check(a: Admission): void {
  assert(a.pending <= a.messagesMax, "B1 pending <= limit in messages");
  assert(a.bytes <= a.bytesMax, "B1 bytes <= limit in bytes");
  for (let step = 0; step < stepsAt.length; step++) {
    assert(isHysteretic(a.steps > step, a.pressure, stepsAt[step]!), "B4 steps");
  }
  for (const name of lowestFirst) {
    assert(isHysteretic(a.closed[name], a.pressure, a.limits.classes[name]), "B4 classes");
  }
  assert(a.closed.normal || !a.closed.critical, "B4 critical stops after normal");
  assert(a.closed.bulk || !a.closed.normal, "B4 normal stops after bulk");
}

export interface AdmissionView {
  readonly pending: number;
  readonly bytes: number;
  readonly promised: number;
  /** Largest share of a bound that is stored. */
  readonly pressure: number;
  /** Steps of degradation taken, 0 to 4. */
  readonly steps: number;
  /** The lowest class that may be granted credit. */
  readonly lowestOpenClass: ClassName | null;
}

export function view(a: Admission): AdmissionView {
  return {
    pending: a.pending,
    bytes: a.bytes,
    promised: a.promised,
    pressure: a.pressure,
    steps: a.steps,
    lowestOpenClass: lowestOpenClass(a),
  };
}

/** Works out the pressure and what it opens and closes. */
function weigh(a: Admission): void {
  a.pressure = pressureOf(a, a.pending);
  a.promisedPressure = pressureOf(a, a.pending + a.promised);
  while (a.steps < 4 && a.pressure >= stepsAt[a.steps]!) a.steps++;
  while (a.steps > 0 && a.pressure <= stepsAt[a.steps - 1]! - hysteresis) a.steps--;
  weighClass(a, "critical");
  weighClass(a, "normal");
  weighClass(a, "bulk");
}

function weighClass(a: Admission, name: ClassName): void {
  const share = a.limits.classes[name];
  a.closed[name] = isClosed(a.closed[name], a.pressure, share);
  // The bound itself is granted to the last message: there is no step to flap at.
  const wasClosed = !stopsAtBound(a, name) && a.closedToGrants[name];
  a.closedToGrants[name] = isClosed(wasClosed, a.promisedPressure, share);
}

function pressureOf(a: Admission, messages: number): number {
  const { limits } = a;
  const stored = Math.max(messages / limits.messages, a.bytes / limits.bytes);
  if (limits.seconds === undefined || a.ratePerS === 0) return stored;
  return Math.max(stored, messages / (a.ratePerS * limits.seconds));
}

function isClosed(wasClosed: boolean, pressure: number, share: number): boolean {
  return wasClosed ? pressure > reopensAt(share) : pressure >= share;
}

function isHysteretic(closed: boolean, pressure: number, share: number): boolean {
  return closed ? pressure > reopensAt(share) : pressure < share;
}

/** Pressure down to which something that closed at `share` stays closed. */
export function reopensAt(share: number): number {
  return Math.max(0, share - hysteresis);
}

function checked(limits: AdmissionLimits): AdmissionLimits {
  const { critical, normal, bulk } = limits.classes;
  assert(limits.messages >= 1 && limits.bytes >= 1, "B1 a bound holds one message");
  assert(critical <= 1 && normal <= critical && bulk <= normal && bulk > 0, "B4 shares fall");
  return limits;
}

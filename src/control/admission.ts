/**
 * Whether a partition takes one more message: classes stop one after the other as the buffer fills,
 * a message that would miss its deadline is refused now instead of after the wait, and the bounds in
 * messages, bytes and seconds of work hold for whatever is left.
 *
 * B1  Pending messages and bytes never rise above their limits.
 * B3  A refusal names the bound, what was found, what is allowed, and when to come back:
 *     max(50 ms, (pending - 0.95 bound) / drain rate).
 * B4  Hysteresis: a class or a step that closed at s reopens below s - 0.05.
 * B5  Promised credit counts against what is granted next, never against a message that arrives, for
 *     it spends its promise: a class is open for arrivals by what is stored, for grants by stored +
 *     promised. Otherwise the credit of a class alone could close the class to its own messages.
 *
 * Steps of degradation by pressure p, the largest share of a bound that is stored: below 0.25 nobody
 * is limited by history, for a queue is there to take bursts; from 0.25 groups are held to their
 * envelope; from 0.5 bulk stops; from 0.8 normal stops and all else is held to the drain rate; at 1
 * everything waits. (Where a class stops is its share in the contract; these are the defaults.)
 *
 * With a deadline of 2 s and bursts of 2.5x capacity 76 % are late without this; with the factor 1.2
 * none of the accepted; with 1.0 it admits to the very edge and 30 % are late. The bound in seconds
 * is a promise about admission: a consumer that slows down afterwards makes the wait longer.
 *
 * Must not know credit, keys or groups. What is accepted is never shed here.
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

export interface Candidate {
  readonly class: ClassName;
  readonly bytes: number;
  readonly deadlineAtMs?: number | undefined;
  /** A delayed message is not handled before. */
  readonly dueAtMs?: number | undefined;
}

/** Why a message is refused. `found` and `allowed` are in the unit of the bound: see `Bound`. */
export interface Refusal {
  readonly code: "buffer_full" | "class_closed" | "deadline_infeasible" | "deadline_passed";
  readonly bound: Bound;
  readonly found: number;
  readonly allowed: number;
  readonly retryAfterMs: number;
}

/**
 * Units of `found` and `allowed`: messages, bytes, seconds of work; `class`: the fullest bound's
 * share, 0 to 1; `deadline`: ms until the message would be handled, and ms until its deadline.
 */
export type Bound = "messages" | "bytes" | "seconds" | "class" | "deadline";

/** Steps of degradation, in order; the number is how many of them are taken. */
export const stepsAt = [0.25, 0.5, 0.8, 1] as const;

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
  /** Closed for messages that arrive, and for new grants; by class, critical first. */
  readonly closed: boolean[];
  readonly closedToGrants: boolean[];
  /** B1 as it stands: the limits, or what was stored when they were lowered below it. */
  messagesMax: number;
  bytesMax: number;
}

const hysteresis = 0.05;
const retryMinMs = 50;
/** When to come back while no drain rate tells. */
const retryUnknownMs = 1000;
const safetyDefault = 1.2;
const classes: readonly ClassName[] = ["critical", "normal", "bulk"];
const rankOf: Readonly<Record<ClassName, number>> = { critical: 0, normal: 1, bulk: 2 };

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
    closed: [false, false, false],
    closedToGrants: [false, false, false],
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

/** Limits as of now. What is stored above a lowered limit stays, and drains below it. */
export function setLimits(a: Admission, limits: AdmissionLimits): void {
  a.limits = checked(limits);
  a.messagesMax = Math.max(a.messagesMax, limits.messages);
  a.bytesMax = Math.max(a.bytesMax, limits.bytes);
  weigh(a);
}

/** @returns The lowest class that may be granted credit now; null: none, everything waits. */
export function lowestOpenClass(a: Admission): ClassName | null {
  for (let rank = classes.length - 1; rank >= 0; rank--) {
    if (!a.closed[rank]! && !a.closedToGrants[rank]!) return classes[rank]!;
  }
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

/**
 * Decides one message, against what was observed last.
 *
 * @param ahead What the drain will dispatch before it, in messages of the partition: those ahead in
 *   its own lane, divided by the share of dispatches its class is guaranteed among the classes that
 *   have work now (16 / 4 / 1 of their sum; 1 if the others are empty).
 * @param p95Ms 95th percentile of the handler time, or 0.
 * @returns undefined: take it.
 */
export function admit(
  a: Admission,
  m: Candidate,
  nowMs: number,
  ahead: number,
  p95Ms: number,
): Refusal | undefined {
  if (m.deadlineAtMs !== undefined && m.deadlineAtMs <= nowMs) {
    return {
      code: "deadline_passed",
      bound: "deadline",
      found: 0,
      allowed: m.deadlineAtMs - nowMs,
      retryAfterMs: retryMinMs,
    };
  }
  const rank = rankOf[m.class];
  // At full, critical is told which bound is full; a closed class is told when it reopens.
  if (a.closed[rank]! && !(rank === 0 && a.steps === 4)) return classClosed(a, m.class);
  if (m.deadlineAtMs !== undefined) {
    const refusal = infeasible(a, m, m.deadlineAtMs, nowMs, ahead, p95Ms);
    if (refusal !== undefined) return refusal;
  }
  if (a.steps < 4 && a.bytes + m.bytes <= a.limits.bytes) return undefined;
  return full(a, m.bytes);
}

export function check(a: Admission): void {
  assert(a.pending <= a.messagesMax, "B1 pending <= limit in messages");
  assert(a.bytes <= a.bytesMax, "B1 bytes <= limit in bytes");
  for (let step = 0; step < stepsAt.length; step++) {
    assert(isHysteretic(a.steps > step, a.pressure, stepsAt[step]!), "B4 steps");
  }
  for (let rank = 0; rank < classes.length; rank++) {
    const share = a.limits.classes[classes[rank]!];
    assert(isHysteretic(a.closed[rank]!, a.pressure, share), "B4 classes");
    assert(
      rank === 0 || a.closed[rank]! || !a.closed[rank - 1]!,
      "B4 the better class stops later",
    );
  }
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
  for (let rank = 0; rank < classes.length; rank++) {
    const share = a.limits.classes[classes[rank]!];
    a.closed[rank] = isClosed(a.closed[rank]!, a.pressure, share);
    // The best class is granted whatever room is left, to the last message: no step, no flapping.
    a.closedToGrants[rank] = isClosed(
      rank > 0 && a.closedToGrants[rank]!,
      a.promisedPressure,
      share,
    );
  }
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

function reopensAt(share: number): number {
  return Math.max(0, share - hysteresis);
}

function classClosed(a: Admission, name: ClassName): Refusal {
  const share = a.limits.classes[name];
  return {
    code: "class_closed",
    bound: "class",
    found: a.pressure,
    allowed: share,
    retryAfterMs: retryAfterMs(a, a.pending * (1 - reopensAt(share) / a.pressure)),
  };
}

function infeasible(
  a: Admission,
  m: Candidate,
  deadlineAtMs: number,
  nowMs: number,
  ahead: number,
  p95Ms: number,
): Refusal | undefined {
  const remainingMs = deadlineAtMs - nowMs;
  const safety = a.limits.safety ?? safetyDefault;
  // Without a rate the wait is unknown, and only what is certain counts.
  const waitMs = a.stalledMs + (a.ratePerS > 0 ? (safety * ahead * 1000) / a.ratePerS : 0);
  const delayMs = m.dueAtMs === undefined ? 0 : m.dueAtMs - nowMs;
  const estimateMs = Math.max(waitMs, delayMs) + p95Ms;
  if (estimateMs <= remainingMs) return undefined;
  const feasibleMs = Math.max(0, remainingMs - p95Ms - a.stalledMs);
  const feasibleAhead = (feasibleMs * a.ratePerS) / (1000 * safety);
  return {
    code: "deadline_infeasible",
    bound: "deadline",
    found: estimateMs,
    allowed: remainingMs,
    retryAfterMs: retryAfterMs(a, ahead - reopensAt(1) * feasibleAhead),
  };
}

/** The refusal by the fullest bound; by bytes, if it is only this message that does not fit. */
function full(a: Admission, bytes: number): Refusal {
  const { limits } = a;
  const share = (limit: number): number => Math.min(reopensAt(1), limit);
  if (a.steps < 4 || a.pressure === a.bytes / limits.bytes) {
    const target = share(1 - bytes / limits.bytes);
    const excess = a.bytes > 0 ? 1 - (target * limits.bytes) / a.bytes : 0;
    return {
      code: "buffer_full",
      bound: "bytes",
      found: a.bytes + bytes,
      allowed: limits.bytes,
      retryAfterMs: retryAfterMs(a, a.pending * excess),
    };
  }
  const retry = retryAfterMs(a, a.pending * (1 - reopensAt(1) / a.pressure));
  const byMessages = a.pressure === a.pending / limits.messages;
  return {
    code: "buffer_full",
    bound: byMessages ? "messages" : "seconds",
    found: byMessages ? a.pending : a.pending / a.ratePerS,
    allowed: byMessages ? limits.messages : limits.seconds!,
    retryAfterMs: retry,
  };
}

/** B3: how long the drain takes for `messages`. */
function retryAfterMs(a: Admission, messages: number): number {
  if (a.ratePerS === 0) return retryUnknownMs;
  return Math.max(retryMinMs, Math.ceil((messages * 1000) / a.ratePerS));
}

function checked(limits: AdmissionLimits): AdmissionLimits {
  const { critical, normal, bulk } = limits.classes;
  assert(limits.messages >= 1 && limits.bytes >= 1, "B1 a bound holds one message");
  assert(critical <= 1 && normal <= critical && bulk <= normal && bulk > 0, "B4 shares fall");
  return limits;
}

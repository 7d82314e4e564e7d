/**
 * Whether a partition takes one more message. In order: its class may be closed (`pressure.ts`); a
 * message that would miss its deadline is refused now instead of after the wait; and the bounds in
 * messages, bytes and seconds of work hold for whatever is left.
 *
 * B3  A refusal names the bound, what was found, what is allowed, and when to come back:
 *     max(50 ms, (pending - 0.95 bound) / drain rate); for a class the share at which it reopens.
 *
 * A deadline is infeasible when 1.2 x ahead / drain rate + p95 of the handler time is more than the
 * time that remains. With 2 s and bursts of 2.5x capacity 76 % are late without this rule and none of
 * the accepted with it; with a factor of 1.0 it admits to the very edge and 30 % are late. The bound
 * in seconds is a promise about admission: a consumer that slows down later makes the wait longer.
 *
 * Must not know credit, keys or groups.
 */
import { reopensAt, stopsAtBound } from "./pressure.ts";
import type { Admission, ClassName } from "./pressure.ts";

export {
  check,
  flowRatePerS,
  groupRatePerS,
  grew,
  init,
  lowestOpenClass,
  observe,
  setLimits,
  view,
} from "./pressure.ts";
export type {
  Admission,
  AdmissionLimits,
  AdmissionView,
  ClassName,
  Occupancy,
} from "./pressure.ts";

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

const retryMinMs = 50;
/** When to come back while no drain rate tells. */
const retryUnknownMs = 1000;
/** Rounding of a time in ms, so that a whole number of them stays one. */
const roundingMs = 1e-6;
const safetyDefault = 1.2;

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
  // A closed class is told when it reopens; what stops at the bound only, which bound is full.
  if (a.closed[m.class] && !(stopsAtBound(a, m.class) && a.steps === 4)) {
    return classClosed(a, m.class);
  }
  if (m.deadlineAtMs !== undefined) {
    const refusal = infeasible(a, m, m.deadlineAtMs, nowMs, ahead, p95Ms);
    if (refusal !== undefined) return refusal;
  }
  if (a.steps < 4 && a.bytes + m.bytes <= a.limits.bytes) return undefined;
  return full(a, m.bytes);
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
  if (a.steps < 4 || a.pressure === a.bytes / limits.bytes) {
    const target = Math.min(reopensAt(1), 1 - bytes / limits.bytes);
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
  return Math.max(retryMinMs, Math.ceil((messages * 1000) / a.ratePerS - roundingMs));
}

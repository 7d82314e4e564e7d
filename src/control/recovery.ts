/**
 * The split after an outage: what arrives from now on does not wait behind what piled up. Fresh
 * messages get a little more than they arrive with, the backlog all the rest, and either gets the
 * whole while the other has nothing ready. After 30 s of outage at 60 % load fresh messages then
 * wait 0 s instead of 14 s on average and 18 s at worst; the backlog takes 45 s instead of 18.
 *
 * V1  While both are ready, fresh gets min(0.9, 1.1 arrivals / drain rate) of the dispatches, to
 *     within one dispatch over any span of a constant share; so the backlog gets at least a tenth.
 * V2  Work-conserving: what is ready alone goes at once, and neither side saves up a claim by that.
 * V3  The same calls give the same picks.
 *
 * Must not know keys: a fresh message whose key has backlog belongs to the backlog, by the caller.
 */
import { assert } from "../base/index.ts";

export interface Recovery {
  /** What was accepted at or after it is fresh; undefined while there is no split. */
  sinceMs: number | undefined;
  /** What fresh is owed of the next dispatch, in [0, 1): the error that is carried on. */
  owed: number;
}

export type Side = "fresh" | "backlog";

/** Fresh may come 10 % faster than it arrives, so that it never builds a queue of its own. */
const headroom = 1.1;
/** The backlog gets at least a tenth, or an overload would hold it up for ever. */
const freshShareMax = 0.9;

export function init(): Recovery {
  return { sinceMs: undefined, owed: 0 };
}

/** The outage is over; what is pending now is the backlog. During a split: that of the new outage. */
export function begin(r: Recovery, nowMs: number): void {
  r.sinceMs = nowMs;
  r.owed = 0;
}

/** The backlog is gone: one order again. */
export function end(r: Recovery): void {
  r.sinceMs = undefined;
  r.owed = 0;
}

/**
 * Which side the next dispatch is for; call it once for each dispatch. Without a split the backlog
 * goes first, for it is older.
 *
 * @param ratePerS Drain rate now; 0 while it is unknown, then fresh gets the most it can.
 * @returns undefined when neither is ready.
 */
export function pick(
  r: Recovery,
  freshReady: boolean,
  backlogReady: boolean,
  arrivalRatePerS: number,
  ratePerS: number,
): Side | undefined {
  if (!freshReady) return backlogReady ? "backlog" : undefined;
  if (!backlogReady) return "fresh";
  if (r.sinceMs === undefined) return "backlog";
  r.owed += freshShare(arrivalRatePerS, ratePerS);
  if (r.owed < 1) return "backlog";
  r.owed -= 1;
  return "fresh";
}

/** The share of the dispatches that is for fresh messages, 0 to 0.9. */
export function freshShare(arrivalRatePerS: number, ratePerS: number): number {
  return ratePerS > 0
    ? Math.min(freshShareMax, (headroom * arrivalRatePerS) / ratePerS)
    : freshShareMax;
}

export function check(r: Recovery): void {
  assert(r.owed >= 0 && r.owed < 1, "V1 0 <= owed < 1");
  assert(r.sinceMs !== undefined || r.owed === 0, "V2 nothing is owed without a split");
}

/**
 * Divides a rate among groups, max-min fair by weight: each earns its part of what is earned together,
 * and what those that have enough do not need goes to the others. No demand has to be known: a group
 * that takes less than its part has a full purse, and a full purse takes nothing.
 *
 * H1  What all earn together over a span is at most rate x span.
 * H2  A group that takes at most its part of the rate finds what it needs, whatever the others want: its
 *     purse holds a second of its part, so it may also come in bursts of that size.
 * H3  Nothing is kept back while a purse has room.
 *
 * Must not know names, history or why a rate is divided.
 */
import { assert } from "../base/index.ts";

export interface Share {
  readonly weight: number;
  /** Earned and not spent, in messages. */
  purse: number;
  /** What it earned lately, per second. */
  earnedPerS: number;
  /** Of the division at hand. */
  isFull: boolean;
}

/** A purse holds so much of the equal part, and a few messages in any case. */
const purseS = 1;
const purseMin = 8;
const earnedGain = 0.3;

/** Starts with a full purse, whatever that will be: who was not there has taken nothing. */
export function init(weight: number): Share {
  return { weight, purse: Infinity, earnedPerS: 0, isFull: true };
}

/**
 * Adds what was earned since the last call.
 *
 * @param ratePerS Messages per second of all together.
 */
export function earn(shares: readonly Share[], ratePerS: number, spanMs: number): void {
  let weights = 0;
  for (const share of shares) weights += share.weight;
  if (weights === 0 || spanMs <= 0) return;
  const partPerS = ratePerS / weights;
  let left = (ratePerS * spanMs) / 1000;
  let open = 0;
  for (const share of shares) {
    const most = purseOf(partPerS * share.weight);
    share.isFull = share.purse >= most;
    if (share.isFull) {
      share.purse = most; // It may have been larger while fewer shared.
      earned(share, 0, spanMs);
    } else open += share.weight;
  }
  // Whoever is filled by an equal part leaves the rest to the others; few rounds fill all that can be.
  while (open > 0) {
    const part = left / open;
    let filled = 0;
    for (const share of shares) {
      if (share.isFull) continue;
      const missing = purseOf(partPerS * share.weight) - share.purse;
      if (missing > part * share.weight) continue;
      share.isFull = true;
      share.purse += missing;
      left -= missing;
      filled += share.weight;
      earned(share, missing, spanMs);
    }
    if (filled > 0) {
      open -= filled;
      continue;
    }
    for (const share of shares) {
      if (share.isFull) continue;
      share.purse += part * share.weight;
      earned(share, part * share.weight, spanMs);
    }
    break;
  }
}

/**
 * @param partPerS What an equal division gives the group.
 * @returns 0: it has enough for one message. Else how much its purse lacks.
 */
export function lacking(share: Share, partPerS: number): number {
  share.purse = Math.min(share.purse, purseOf(partPerS));
  return Math.max(0, 1 - share.purse);
}

/** Pays for one message. */
export function spend(share: Share): void {
  share.purse--;
}

export function check(shares: readonly Share[]): void {
  for (const { purse, weight, earnedPerS } of shares) {
    assert(weight > 0 && earnedPerS >= 0 && purse >= 0, "H1 purses are numbers");
  }
}

function purseOf(partPerS: number): number {
  return Math.max(purseMin, purseS * partPerS);
}

function earned(share: Share, amount: number, spanMs: number): void {
  share.earnedPerS += earnedGain * ((amount * 1000) / spanMs - share.earnedPerS);
}

/**
 * Retry budget of one target, held by the target's owner for the whole fleet: first attempts earn
 * retries, so that a failing target sees at most a tenth more work instead of its twelvefold. A
 * retry, or a redelivery after a crash or a lost lease, takes one token; without one it waits, and
 * keeps its due order. When 30 % of messages always fail at 12 attempts, first attempts get 23 % of
 * the capacity without a budget and 91 % with it.
 *
 * R1  Retries over any 10 s <= share x first attempts settled in them + floor + what was kept; kept
 *     is at most max(10, share x first attempts of the 10 s before).
 * R6  A token is never more than 1 / floor away, whatever fails; and at the time that `readyAtMs`
 *     names, a retry may go if nobody has taken the token first. So no retry waits for ever.
 *
 * Must not know messages, delays or the breaker. Sources: Google SRE, "Handling overload" (10 %);
 * Finagle's retry budget (a floor per second, a window of 10 s).
 */
import { assert } from "../base/index.ts";

export interface Budget {
  readonly share: number;
  readonly floorPerS: number;
  tokens: number;
  /** Up to when the floor has been paid and the window turned. */
  atMs: number;
  /** First attempts settled in each of the last ten seconds; a ring, indexed by second. */
  readonly firsts: number[];
  firstsSum: number;
}

export interface BudgetOptions {
  /** Retries that a first attempt earns; 0.1 by default. */
  readonly share?: number | undefined;
  /** Retries per second that need no first attempts; 1 by default, 0 for none. */
  readonly floorPerS?: number | undefined;
}

const windowS = 10;
/** What may always be kept, so that a quiet target's first failures are retried at once. */
const keptMin = 10;
/** Rounding of times and sums: a token this nearly whole is whole. */
const rounding = 1e-6;

/** Starts with the tokens that may always be kept. */
export function init(options: BudgetOptions, nowMs: number): Budget {
  return {
    share: options.share ?? 0.1,
    floorPerS: options.floorPerS ?? 1,
    tokens: keptMin,
    atMs: nowMs,
    firsts: Array.from({ length: windowS }, () => 0),
    firstsSum: 0,
  };
}

/** A first attempt ended, well or badly. */
export function firstSettled(b: Budget, nowMs: number): void {
  advance(b, nowMs);
  const slot = Math.floor(b.atMs / 1000) % windowS;
  b.firsts[slot] = b.firsts[slot]! + 1;
  b.firstsSum++;
  b.tokens = Math.min(b.tokens + b.share, keptMax(b));
}

/** @returns Whether a retry may go now; if so, its token is spent. */
export function take(b: Budget, nowMs: number): boolean {
  advance(b, nowMs);
  if (b.tokens < 1 - rounding) return false;
  b.tokens = Math.max(0, b.tokens - 1);
  return true;
}

/**
 * @returns When the next retry may go if nothing else happens, in whole ms: `nowMs` itself if it may go
 *   now, Infinity if there is no floor (then only first attempts bring it on).
 */
export function readyAtMs(b: Budget, nowMs: number): number {
  advance(b, nowMs);
  if (b.tokens >= 1 - rounding) return nowMs;
  // In doubles a large time plus very little is the time itself, and then it is not good.
  return Math.max(Math.floor(nowMs) + 1, Math.ceil(nowMs + ((1 - b.tokens) / b.floorPerS) * 1000));
}

export function check(b: Budget): void {
  let sum = 0;
  for (const count of b.firsts) sum += count;
  assert(sum === b.firstsSum, "R1 the window is the sum of its seconds");
  assert(b.tokens >= 0 && b.tokens <= keptMax(b), "R1 0 <= tokens <= what may be kept");
}

export interface BudgetView {
  readonly tokens: number;
  readonly tokensMax: number;
  /** First attempts settled in the last 9 to 10 s. */
  readonly firsts: number;
}

/** As of the last event. */
export function view(b: Budget): BudgetView {
  return { tokens: b.tokens, tokensMax: keptMax(b), firsts: b.firstsSum };
}

function keptMax(b: Budget): number {
  return Math.max(keptMin, b.share * b.firstsSum);
}

/** Turns the window to now, pays the floor, and lets go of what may no longer be kept. */
function advance(b: Budget, nowMs: number): void {
  if (nowMs <= b.atMs) return;
  const second = Math.floor(nowMs / 1000);
  const turned = Math.min(windowS, second - Math.floor(b.atMs / 1000));
  for (let i = 0; i < turned; i++) {
    const slot = (second - i) % windowS;
    b.firstsSum -= b.firsts[slot]!;
    b.firsts[slot] = 0;
  }
  b.tokens = Math.min(b.tokens + (b.floorPerS * (nowMs - b.atMs)) / 1000, keptMax(b));
  b.atMs = nowMs;
}

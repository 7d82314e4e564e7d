/**
 * The rate that one target takes. Overload answers (429, and 503 with `Retry-After`) are a signal
 * about the rate, not about the latency: they cap the rate and leave the window alone. A contracted
 * rate and one that the target publishes are ceilings of the same token bucket.
 *
 * O1  Over any t seconds at most rate x t + burst is started (for one call dearer than the burst,
 *     its cost instead), with rate the contracted one or less, if every call waits for `readyAtMs`.
 * O2  A learned cap is 1/s or more and ends when a minute brought no overload: no throttle for ever.
 * O3  A pause ends: at most 5.5 minutes after it was asked for.
 *
 * It must not know latencies, windows or messages. Rule: every >= 0.1 s with >= 8 settles, served
 * = fine / dt; overload above 2 %: cap = max(1, 0.98 min(cap, served)), else cap grows by 4 % per s.
 */
import { assert, chance, SpillwayError } from "../base/index.ts";

export interface OverloadOptions {
  /** Contracted ceiling of the target. */
  readonly ratePerS?: number;
  /** What may start at once under the contracted rate; max(1, 2 % of a second) by default. */
  readonly burst?: number;
  readonly seed: number;
}

export interface Overload {
  readonly seed: number;
  readonly contractedPerS: number;
  readonly burst: number | undefined;
  /** What the target publishes, Infinity where it does not. */
  policyPerS: number;
  /** What overload answers taught, Infinity while there are none. */
  capPerS: number;
  overloadedAtMs: number;
  /** The settles since `cellAtMs`, of which the next step is made. */
  cellAtMs: number;
  fine: number;
  overloaded: number;
  settledAtMs: number;
  /** May be negative: a call dearer than the burst leaves a debt. */
  tokens: number;
  tokensAtMs: number;
  pauseAskedAtMs: number;
  pausedUntilMs: number;
  pauses: number;
}

export interface OverloadView {
  /** The rate in force, null where nothing limits it. */
  readonly ratePerS: number | null;
  readonly because: "contract" | "policy" | "overload" | null;
  readonly pausedUntilMs: number | null;
}

const CELL_MS = 100;
const CELL_SETTLES = 8;
/** Share of overload answers that is tolerated: about as many as a 4 % rise per second provokes. */
const TOLERATED = 0.02;
const FALL = 0.98;
const RISE_PER_S = 0.04;
const FORGET_MS = 60_000;
/** After such a gap a cell begins anew, or idle time would pass for a low rate of the target. */
const IDLE_MS = 2_000;
const PAUSE_MAX_MS = 300_000;
const PAUSE_SPREAD = 0.1;
const BURST_S = 0.02;
/** Tokens are sums of fractions: a call may start when this little is missing. */
const ROUNDING = 1e-6;

/** @throws {SpillwayError} option_invalid */
export function init(options: OverloadOptions): Overload {
  const { ratePerS = Infinity, burst, seed } = options;
  if (!(ratePerS > 0) || (burst !== undefined && !(burst >= 1 && burst < Infinity))) {
    throw new SpillwayError("option_invalid", { option: "rate", ...options });
  }
  const o: Overload = {
    seed,
    contractedPerS: ratePerS,
    burst,
    policyPerS: Infinity,
    capPerS: Infinity,
    overloadedAtMs: -Infinity,
    cellAtMs: -Infinity,
    fine: 0,
    overloaded: 0,
    settledAtMs: -Infinity,
    tokens: 0,
    tokensAtMs: 0,
    pauseAskedAtMs: -Infinity,
    pausedUntilMs: -Infinity,
    pauses: 0,
  };
  o.tokens = burstOf(o, rateOf(o));
  return o;
}

/**
 * Another contracted rate. What overload answers taught is learnt again; what the target itself has
 * said, its rate and its pause, is still so.
 * @throws {SpillwayError} option_invalid
 */
export function changed(o: Overload, nowMs: number, options: OverloadOptions): Overload {
  const { pauseAskedAtMs, pausedUntilMs, pauses } = o;
  const next: Overload = { ...init(options), pauseAskedAtMs, pausedUntilMs, pauses };
  if (o.policyPerS < Infinity) setCap(next, nowMs, o.policyPerS);
  return next;
}

/** A call that reached the target ended: with an overload answer, or otherwise, well or badly. */
export function settled(o: Overload, nowMs: number, overload: boolean): void {
  const idle = nowMs - o.settledAtMs > IDLE_MS;
  o.settledAtMs = nowMs;
  if (idle) {
    // This settle only opens the cell: how long it took to come is not known.
    o.cellAtMs = Math.max(nowMs, o.pausedUntilMs);
    o.fine = 0;
    o.overloaded = 0;
    return;
  }
  if (overload) o.overloaded++;
  else o.fine++;
  const all = o.fine + o.overloaded;
  if (nowMs - o.cellAtMs < CELL_MS || all < CELL_SETTLES) return;
  refill(o, nowMs);
  const seconds = (nowMs - o.cellAtMs) / 1_000;
  if (o.overloaded > TOLERATED * all) {
    o.capPerS = Math.max(1, FALL * Math.min(o.capPerS, o.fine / seconds));
    o.overloadedAtMs = nowMs;
    o.tokens = Math.min(o.tokens, burstOf(o, rateOf(o)));
  } else {
    o.capPerS *= 1 + RISE_PER_S * Math.min(seconds, 1);
  }
  o.cellAtMs = nowMs;
  o.fine = 0;
  o.overloaded = 0;
}

/** `Retry-After`: nothing starts for that long, plus 0 to 10 % so that callers do not come in step. */
export function pauseUntil(o: Overload, nowMs: number, retryAfterMs: number): void {
  const spread = 1 + PAUSE_SPREAD * chance(o.seed, "pause", ++o.pauses);
  const until = nowMs + Math.min(Math.max(0, retryAfterMs), PAUSE_MAX_MS) * spread;
  if (until <= o.pausedUntilMs) return;
  o.cellAtMs += until - Math.max(nowMs, o.pausedUntilMs); // A pause says nothing of the rate served.
  o.pauseAskedAtMs = nowMs;
  o.pausedUntilMs = until;
}

/**
 * `RateLimit-Policy`: the target itself says the rate, in force until it says another; null: none.
 * What overload answers taught before is forgotten, for this is better knowledge.
 */
export function setCap(o: Overload, nowMs: number, ratePerS: number | null): void {
  refill(o, nowMs);
  o.policyPerS = ratePerS ?? Infinity;
  o.capPerS = Infinity;
  o.tokens = Math.min(o.tokens, burstOf(o, rateOf(o)));
}

/** @returns `nowMs` if a call of this cost may start, else when to ask again; Infinity: never. */
export function readyAtMs(o: Overload, nowMs: number, cost: number): number {
  const from = Math.max(nowMs, o.pausedUntilMs);
  refill(o, nowMs);
  const rate = rateOf(o);
  if (rate === Infinity) return from;
  if (rate === 0) return Infinity;
  const missing = Math.min(cost, burstOf(o, rate)) - o.tokens;
  if (missing <= ROUNDING) return from;
  return Math.max(from, nowMs + (missing / rate) * 1_000);
}

/** A call starts. */
export function spend(o: Overload, nowMs: number, cost: number): void {
  refill(o, nowMs);
  if (rateOf(o) < Infinity) o.tokens -= cost;
}

export function view(o: Overload): OverloadView {
  const rate = rateOf(o);
  const reasons = { contract: o.contractedPerS, policy: o.policyPerS, overload: o.capPerS };
  const because = (["contract", "policy", "overload"] as const).find((by) => reasons[by] === rate);
  return {
    ratePerS: rate === Infinity ? null : rate,
    because: rate === Infinity ? null : (because ?? null),
    pausedUntilMs: o.pausedUntilMs === -Infinity ? null : o.pausedUntilMs,
  };
}

/** @throws {SpillwayError} invariant_broken */
export function check(o: Overload): void {
  const rate = rateOf(o);
  assert(rate <= o.contractedPerS, "O1 rate <= contract");
  assert(o.tokens <= burstOf(o, rate) + ROUNDING, "O1 tokens <= burst");
  assert(o.capPerS >= 1, "O2 cap >= 1/s");
  const longestMs = PAUSE_MAX_MS * (1 + PAUSE_SPREAD) + 1; // Clocks have a grain.
  const paused = o.pausedUntilMs > -Infinity;
  assert(!paused || o.pausedUntilMs - o.pauseAskedAtMs <= longestMs, "O3 a pause ends");
}

function rateOf(o: Overload): number {
  return Math.min(o.contractedPerS, o.policyPerS, o.capPerS);
}

function burstOf(o: Overload, ratePerS: number): number {
  const usual = Math.max(1, BURST_S * ratePerS);
  if (o.burst === undefined) return usual;
  return ratePerS === o.contractedPerS ? o.burst : Math.min(o.burst, usual);
}

/** Adds what the time has brought, at the rate of that time, and forgets a cap that is too old. */
function refill(o: Overload, nowMs: number): void {
  const rate = rateOf(o);
  const burst = burstOf(o, rate);
  const gained = rate === Infinity ? burst : (Math.max(0, nowMs - o.tokensAtMs) / 1_000) * rate;
  o.tokens = Math.min(burst, o.tokens + gained);
  o.tokensAtMs = nowMs;
  if (nowMs - o.overloadedAtMs > FORGET_MS) o.capPerS = Infinity;
}

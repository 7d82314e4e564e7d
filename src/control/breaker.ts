/**
 * The breaker of one target: when the target is away, calls stop for a short cool-down, then single
 * probes ask whether it is back, then the rate rises from a tenth of its last healthy one.
 *
 * K1 (R3)  At most one half-open probe is out. One that never returns fails after `probeMaxMs`.
 * K2       No state lasts for ever: open ends within 12 s, recovering within 6 s, a probe expires.
 * K3       While recovering at most cap(t) = max(10/s, 10 % of healthy) x 1.5^t starts per second.
 * K4 (R4)  The same seed, target and events give the same cool-downs.
 *
 * It must not know what a failure is: overload answers and releases are "neutral", a refused
 * connection, a timeout and 502 to 504 without `Retry-After` are "failed". The short cool-down is
 * chosen: a fixed minute, as is usual, notices a recovery half a minute late.
 */
import { assert, chance } from "../base/index.ts";

export type BreakerState = "closed" | "open" | "half_open" | "recovering";
export type BreakerOutcome = "ok" | "failed" | "neutral";

export interface Transition {
  readonly from: BreakerState;
  readonly to: BreakerState;
}

/** What outlives a restart. */
export interface SavedBreaker {
  readonly state: BreakerState;
  readonly k: number;
  readonly openUntilMs: number;
}

export interface BreakerOptions {
  readonly seed: number;
  readonly target: string;
  /** Age at which a probe counts as failed; 30 s by default. */
  readonly probeMaxMs?: number;
}

export interface Breaker {
  readonly seed: number;
  readonly target: string;
  readonly probeMaxMs: number;
  state: BreakerState;
  /** Openings and failed recoveries since the target was last closed for a minute. */
  k: number;
  opened: number;
  openUntilMs: number;
  /** When the state was entered. */
  sinceMs: number;
  /** Ten seconds of settles: one cell per second, `second` being the newest. */
  second: number;
  readonly settles: number[];
  readonly failures: number[];
  failedInRow: number;
  okAtMs: number;
  /** Start of the probe that is out, null when none is. */
  probeAtMs: number | null;
  okInRow: number;
  /** While recovering: rate at its beginning, tokens, and the last ten settles as bits, 1 failed. */
  basePerS: number;
  tokens: number;
  tokensAtMs: number;
  seen: number;
  bits: number;
}

export interface BreakerView {
  readonly state: BreakerState;
  readonly k: number;
  readonly openUntilMs: number | null;
  readonly settles: number;
  readonly failures: number;
  readonly probeOut: boolean;
  /** Calls per second that may start, null where the breaker does not limit them. */
  readonly ratePerS: number | null;
}

const CELLS = 10;
const CELL_MS = 1_000;
const SHARE_FAILED = 0.5;
const SETTLES_MIN = 20;
const FAILED_IN_ROW = 5;
const OK_WITHIN_MS = 10_000;
const COOL_DOWN_MAX_MS = 10_000;
const PROBES_OK = 3;
const PROBE_MAX_MS = 30_000;
const RECOVERY_MS = 6_000;
const RECOVERY_RISE = 1.5;
const RECOVERY_SETTLES = 10;
const RECOVERY_MIN_PER_S = 10;
const RECOVERY_SHARE = 0.1;
const BURST_S = 0.02;
const FORGIVEN_MS = 60_000;
const ROUNDING = 1e-6;

/** A restart while open goes on until `openUntilMs`; half-open and recovering begin with probes. */
export function init(options: BreakerOptions, nowMs: number, saved?: SavedBreaker): Breaker {
  const state = saved?.state === "recovering" ? "half_open" : (saved?.state ?? "closed");
  return {
    seed: options.seed,
    target: options.target,
    probeMaxMs: options.probeMaxMs ?? PROBE_MAX_MS,
    state,
    k: saved?.k ?? 0,
    opened: 0,
    // A clock that went back must not keep the target shut: K2.
    openUntilMs: Math.min(saved?.openUntilMs ?? nowMs, nowMs + 1.2 * COOL_DOWN_MAX_MS),
    sinceMs: nowMs,
    second: Math.floor(nowMs / CELL_MS),
    settles: Array.from({ length: CELLS }, () => 0),
    failures: Array.from({ length: CELLS }, () => 0),
    failedInRow: 0,
    okAtMs: -Infinity,
    probeAtMs: null,
    okInRow: 0,
    basePerS: RECOVERY_MIN_PER_S,
    tokens: 0,
    tokensAtMs: nowMs,
    seen: 0,
    bits: 0,
  };
}

/**
 * A call ended.
 *
 * @param healthyRatePerS Settles per second of the target when it was last well, if known.
 * @param startedAtMs Start of the call. Given, calls that began before the breaker's present state
 *   say nothing, and half-open only the probe itself does.
 */
export function settled(
  b: Breaker,
  nowMs: number,
  outcome: BreakerOutcome,
  healthyRatePerS: number | undefined,
  startedAtMs?: number,
): Transition | undefined {
  const due = tick(b, nowMs);
  const next = settle(b, nowMs, outcome, healthyRatePerS, startedAtMs);
  if (due === undefined || next === undefined) return due ?? next;
  return { from: due.from, to: next.to };
}

function settle(
  b: Breaker,
  nowMs: number,
  outcome: BreakerOutcome,
  healthyRatePerS: number | undefined,
  startedAtMs: number | undefined,
): Transition | undefined {
  switch (b.state) {
    case "closed":
      return outcome === "neutral" ? undefined : countClosed(b, nowMs, outcome === "failed");
    case "open":
      return undefined;
    case "half_open": {
      if (b.probeAtMs === null || (startedAtMs ?? b.probeAtMs) !== b.probeAtMs) return undefined;
      b.probeAtMs = null;
      if (outcome === "neutral") return undefined;
      if (outcome === "failed") return reopen(b, nowMs);
      return ++b.okInRow < PROBES_OK ? undefined : recover(b, nowMs, healthyRatePerS);
    }
    case "recovering":
      if (outcome === "neutral" || (startedAtMs ?? nowMs) < b.sinceMs) return undefined;
      return countRecovering(b, nowMs, outcome === "failed");
    default:
      return b.state satisfies never;
  }
}

/** A call starts; half-open it is the probe. */
export function started(b: Breaker, nowMs: number): Transition | undefined {
  const due = tick(b, nowMs);
  if (b.state === "half_open") b.probeAtMs = nowMs;
  if (b.state === "recovering") {
    refill(b, nowMs);
    b.tokens -= 1;
  }
  return due;
}

/**
 * @param inFlight Calls in flight at the target: with none, no probe can be out.
 * @returns `nowMs` if one more call may start, else when to ask again; call `tick` then.
 */
export function readyAtMs(b: Breaker, nowMs: number, inFlight: number): number {
  switch (b.state) {
    case "closed":
      return nowMs;
    case "open":
      return Math.max(nowMs, b.openUntilMs);
    case "half_open":
      if (b.probeAtMs === null || inFlight === 0) return nowMs;
      return Math.max(nowMs, b.probeAtMs + b.probeMaxMs);
    case "recovering": {
      refill(b, nowMs);
      if (b.tokens >= 1 - ROUNDING) return nowMs;
      return nowMs + ((1 - b.tokens) / recoveryPerS(b, nowMs)) * 1_000;
    }
    default:
      return b.state satisfies never;
  }
}

/** What time alone does: a cool-down or a recovery ends, a probe expires, a failure is forgiven. */
export function tick(b: Breaker, nowMs: number): Transition | undefined {
  switch (b.state) {
    case "closed":
      if (nowMs - b.sinceMs >= FORGIVEN_MS) b.k = 0;
      return undefined;
    case "open":
      return nowMs < b.openUntilMs ? undefined : enter(b, nowMs, "half_open");
    case "half_open": {
      const out = b.probeAtMs !== null && nowMs - b.probeAtMs >= b.probeMaxMs;
      return out ? reopen(b, nowMs) : undefined;
    }
    case "recovering":
      return nowMs - b.sinceMs < RECOVERY_MS ? undefined : enter(b, nowMs, "closed");
    default:
      return b.state satisfies never;
  }
}

/** Whether a failure of the target costs the message an attempt: an outage must not dead-letter. */
export function burnsAttempts(b: Breaker): boolean {
  return b.state === "closed";
}

export function save(b: Breaker): SavedBreaker {
  return { state: b.state, k: b.k, openUntilMs: b.openUntilMs };
}

export function view(b: Breaker): BreakerView {
  return {
    state: b.state,
    k: b.k,
    openUntilMs: b.state === "open" ? b.openUntilMs : null,
    settles: sum(b.settles),
    failures: sum(b.failures),
    probeOut: b.probeAtMs !== null,
    ratePerS: b.state === "recovering" ? recoveryPerS(b, b.tokensAtMs) : null,
  };
}

/** @throws {SpillwayError} invariant_broken */
export function check(b: Breaker): void {
  assert(b.probeAtMs === null || b.state === "half_open", "K1 a probe is out half-open only");
  assert(b.okInRow < PROBES_OK, "K1 three successes end the probing");
  const coolDownMs = b.state === "open" ? b.openUntilMs - b.sinceMs : 0;
  assert(coolDownMs <= 1.2 * COOL_DOWN_MAX_MS + 1, "K2 open ends");
  const burst = Math.max(1, BURST_S * recoveryPerS(b, b.tokensAtMs));
  assert(b.state !== "recovering" || b.tokens <= burst, "K3 tokens <= burst");
  assert(b.k >= 0 && sum(b.failures) <= sum(b.settles), "K4 failures <= settles");
}

function countClosed(b: Breaker, nowMs: number, failed: boolean): Transition | undefined {
  const second = Math.floor(nowMs / CELL_MS);
  for (let empty = Math.max(b.second + 1, second - CELLS + 1); empty <= second; empty++) {
    b.settles[empty % CELLS] = 0;
    b.failures[empty % CELLS] = 0;
  }
  b.second = Math.max(b.second, second);
  const cell = b.second % CELLS;
  b.settles[cell]! += 1;
  if (failed) {
    b.failures[cell]! += 1;
    b.failedInRow++;
  } else {
    b.failedInRow = 0;
    b.okAtMs = nowMs;
  }
  const settles = sum(b.settles);
  const dead = b.failedInRow >= FAILED_IN_ROW && nowMs - b.okAtMs > OK_WITHIN_MS;
  const ill = settles >= SETTLES_MIN && sum(b.failures) >= SHARE_FAILED * settles;
  return dead || ill ? open(b, nowMs) : undefined;
}

function countRecovering(b: Breaker, nowMs: number, failed: boolean): Transition | undefined {
  if (!failed) b.okAtMs = nowMs;
  b.bits = ((b.bits << 1) | (failed ? 1 : 0)) & (2 ** RECOVERY_SETTLES - 1);
  const enough = ++b.seen >= RECOVERY_SETTLES;
  const bad = ones(b.bits) >= SHARE_FAILED * RECOVERY_SETTLES;
  return enough && bad ? reopen(b, nowMs) : undefined;
}

/** Cool-down: min(10, 2^k) s x (0.8 + 0.4 u), u by hash. */
function open(b: Breaker, nowMs: number): Transition {
  const u = chance(b.seed, "breaker", b.target, ++b.opened, b.k);
  const coolDownMs = Math.min(COOL_DOWN_MAX_MS, 1_000 * 2 ** b.k) * (0.8 + 0.4 * u);
  b.openUntilMs = nowMs + coolDownMs;
  return enter(b, nowMs, "open");
}

function reopen(b: Breaker, nowMs: number): Transition {
  b.k++;
  return open(b, nowMs);
}

function recover(b: Breaker, nowMs: number, healthyRatePerS: number | undefined): Transition {
  b.basePerS = Math.max(RECOVERY_MIN_PER_S, RECOVERY_SHARE * (healthyRatePerS ?? 0));
  b.okAtMs = nowMs;
  b.tokens = 1;
  b.tokensAtMs = nowMs;
  return enter(b, nowMs, "recovering");
}

function enter(b: Breaker, nowMs: number, to: BreakerState): Transition {
  const from = b.state;
  b.state = to;
  b.sinceMs = nowMs;
  b.probeAtMs = null;
  b.okInRow = 0;
  b.failedInRow = 0;
  b.seen = 0;
  b.bits = 0;
  b.settles.fill(0);
  b.failures.fill(0);
  return { from, to };
}

function recoveryPerS(b: Breaker, nowMs: number): number {
  return b.basePerS * RECOVERY_RISE ** (Math.min(RECOVERY_MS, nowMs - b.sinceMs) / 1_000);
}

/** The rate of the moment when the span began: it rises, so this never gives too much (K3). */
function refill(b: Breaker, nowMs: number): void {
  const gained = (Math.max(0, nowMs - b.tokensAtMs) / 1_000) * recoveryPerS(b, b.tokensAtMs);
  b.tokensAtMs = nowMs;
  b.tokens = Math.min(Math.max(1, BURST_S * recoveryPerS(b, nowMs)), b.tokens + gained);
}

function ones(bits: number): number {
  let count = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) count++;
  return count;
}

function sum(values: readonly number[]): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/**
 * Credit spender: the sending end of one hop, one stream. It holds what the receiver granted and says
 * what may be sent now. Positions count the messages and bytes sent since the epoch began.
 *
 * P1  position <= limit, in messages and in bytes: nothing is sent beyond what was granted.
 * C2  No credit is usable later than the lease after a heartbeat of its own, on its own clock: the
 *     lease runs from the heartbeat that a grant echoes, never from the grant's arrival.
 * C4  Replaying any grant changes nothing; within an epoch the limit only rises.
 * It must not know: queues, windows, the receiver's clock, why credit is short.
 *
 * The link keeps sends in order and loses none until its connection ends; then call `reset`.
 * Source: QUIC's MAX_DATA (absolute limits, lower ones ignored) with a lease.
 */
import { assert } from "../base/index.ts";
import type { Grant, Heartbeat, Stamp } from "./frames.ts";

export interface Spender {
  epoch: number;
  limit: number;
  limitBytes: number;
  position: number;
  positionBytes: number;
  /** On the own clock. Credit is usable strictly before. */
  leaseEndMs: number;
  leaseMs: number;
  /** Latest grant heard in this epoch, and when. */
  grantId: number;
  grantedMs: number;
  /** When the last heartbeat went. */
  heartbeatMs: number;
  /** When one last asked for credit, and how many did in a row without getting any. */
  askedMs: number;
  asks: number;
  /** Grants that answer a heartbeat of this time or older belong to an earlier connection. */
  voidMs: number;
  /** Size of the message that could not be sent when last asked; 0 once something was sent. */
  headBytes: number;
}

export interface SpenderOptions {
  /** Until the first grant says what the receiver uses. Default 2,000. */
  readonly ttlMs?: number;
}

/** A heartbeat with what lets the receiver read it exactly; both may be missing on an old wire. */
export interface Beat extends Heartbeat {
  /** The epoch that `position` counts in. */
  readonly epoch?: number;
  /** Size of the first message that waits for credit; 0 when none is known to. */
  readonly headBytes?: number;
}

export interface Credit {
  readonly messages: number;
  readonly bytes: number;
}

export interface SpenderView extends Credit {
  readonly epoch: number;
  readonly position: number;
  readonly positionBytes: number;
  readonly leaseLeftMs: number;
}

/** At once when blocked, but not more often: a fast loop would flood the receiver with heartbeats. */
const gapMinMs = 20;

export function init(options: SpenderOptions = {}): Spender {
  return {
    epoch: -1,
    limit: 0,
    limitBytes: 0,
    position: 0,
    positionBytes: 0,
    leaseEndMs: -Infinity,
    leaseMs: options.ttlMs ?? 2_000,
    grantId: -1,
    grantedMs: 0,
    heartbeatMs: -Infinity,
    askedMs: -Infinity,
    asks: 0,
    voidMs: -Infinity,
    headBytes: 0,
  };
}

/**
 * A new connection: what was granted on the old one is void, and so are its grants still under way,
 * which are told by the heartbeat they echo. Positions start at 0.
 */
export function reset(s: Spender): void {
  s.voidMs = Math.max(s.voidMs, s.heartbeatMs);
  s.epoch = -1;
  s.limit = 0;
  s.limitBytes = 0;
  s.position = 0;
  s.positionBytes = 0;
  s.leaseEndMs = -Infinity;
  s.grantId = -1;
  s.heartbeatMs = -Infinity;
  s.askedMs = -Infinity;
  s.asks = 0;
  s.headBytes = 0;
}

/** @returns Whether there is more to spend than before. */
export function granted(s: Spender, nowMs: number, grant: Grant): boolean {
  if (grant.epoch < s.epoch || grant.echoHeartbeatMs <= s.voidMs) return false;
  const live = nowMs < s.leaseEndMs;
  const messages = live ? s.limit - s.position : 0;
  const bytes = live ? s.limitBytes - s.positionBytes : 0;
  if (grant.epoch > s.epoch) {
    s.epoch = grant.epoch;
    s.limit = grant.limitMessages;
    s.limitBytes = grant.limitBytes;
    s.position = 0;
    s.positionBytes = 0;
    s.grantId = -1;
  } else {
    s.limit = Math.max(s.limit, grant.limitMessages);
    s.limitBytes = Math.max(s.limitBytes, grant.limitBytes);
  }
  s.leaseMs = grant.leaseMs;
  s.leaseEndMs = Math.max(s.leaseEndMs, grant.echoHeartbeatMs + grant.leaseMs);
  if (grant.grantId > s.grantId) {
    s.grantId = grant.grantId;
    s.grantedMs = nowMs;
  }
  if (nowMs >= s.leaseEndMs || s.limit === s.position) return false;
  const more = s.limit - s.position > messages || s.limitBytes - s.positionBytes > bytes;
  if (more) s.asks = 0;
  return more;
}

export function available(s: Spender, nowMs: number): Credit {
  if (nowMs >= s.leaseEndMs) return { messages: 0, bytes: 0 };
  return { messages: s.limit - s.position, bytes: s.limitBytes - s.positionBytes };
}

/** Messages that may be sent now, as far as bytes allow. */
export function messagesLeft(s: Spender, nowMs: number): number {
  return nowMs < s.leaseEndMs ? s.limit - s.position : 0;
}

/** Whether a message of this size may be sent now. If not, its size goes into the next heartbeat. */
export function canSpend(s: Spender, nowMs: number, bytes: number): boolean {
  const can =
    nowMs < s.leaseEndMs && s.position < s.limit && s.positionBytes + bytes <= s.limitBytes;
  if (!can) s.headBytes = bytes;
  return can;
}

/** Call only when `canSpend`. */
export function spend(s: Spender, nowMs: number, bytes: number): void {
  assert(canSpend(s, nowMs, bytes), "P1 position <= limit");
  s.position++;
  s.positionBytes += bytes;
  s.headBytes = 0;
}

/** @returns How many messages of the batch, from `from` on, may be sent now. */
export function fits(s: Spender, nowMs: number, sizes: readonly number[], from = 0): number {
  if (from >= sizes.length || !canSpend(s, nowMs, sizes[from]!)) return 0;
  const end = Math.min(sizes.length, from + s.limit - s.position);
  let left = s.limitBytes - s.positionBytes - sizes[from]!;
  for (let k = from + 1; k < end; k++) {
    left -= sizes[k]!;
    if (left < 0) return k - from;
  }
  return end - from;
}

/**
 * What a send carries. Spend and stamp belong to one step: a grant heard between them may begin a new
 * epoch, and what was spent in the old one must not be counted in the new one.
 */
export function stamp(s: Spender, nowMs: number): Stamp {
  return { epoch: s.epoch, grantId: s.grantId, heldMs: nowMs - s.grantedMs };
}

export function leaseEndMs(s: Spender): number {
  return s.leaseEndMs;
}

/**
 * When the next heartbeat should go: at a quarter of the lease, or at once when work waits without
 * credit, but then 20 ms after the last that asked for credit at the earliest. While none comes the
 * gap doubles up to a quarter of the lease: a lost heartbeat is soon repeated, a long wait is no flood.
 *
 * @param wanting Whether a message waits.
 * @returns A time on the own clock, `nowMs` if it is due.
 */
export function heartbeatDue(s: Spender, nowMs: number, wanting: boolean): number {
  const restMs = s.leaseMs / 4;
  if (!wanting || !blocked(s, nowMs)) return Math.max(nowMs, s.heartbeatMs + restMs);
  const gapMs = Math.min(restMs, gapMinMs * 2 ** Math.max(0, s.asks - 1));
  return Math.max(nowMs, s.askedMs + gapMs);
}

/**
 * @param want Messages that wait here and were not spent for.
 * @param wantBytes Their bytes together: without it only the toe-hold of bytes is granted.
 */
export function heartbeat(s: Spender, nowMs: number, want: number, wantBytes: number): Beat {
  if (want > 0 && blocked(s, nowMs)) {
    s.asks++;
    s.askedMs = nowMs;
  } else s.asks = 0;
  s.heartbeatMs = nowMs;
  return {
    heartbeatMs: nowMs,
    position: s.position,
    positionBytes: s.positionBytes,
    want,
    wantBytes,
    epoch: s.epoch,
    headBytes: want > 0 ? s.headBytes : 0,
  };
}

export function check(s: Spender): void {
  assert(s.position <= s.limit, "P1 position <= limit");
  assert(s.positionBytes <= s.limitBytes, "P1 position <= limit, bytes");
  assert(s.leaseEndMs <= s.heartbeatMs + s.leaseMs, "C2 a lease runs from an own heartbeat");
}

export function view(s: Spender, nowMs: number): SpenderView {
  return {
    epoch: s.epoch,
    position: s.position,
    positionBytes: s.positionBytes,
    leaseLeftMs: Math.max(0, s.leaseEndMs - nowMs),
    ...available(s, nowMs),
  };
}

function blocked(s: Spender, nowMs: number): boolean {
  if (nowMs >= s.leaseEndMs || s.position >= s.limit) return true;
  return s.positionBytes + s.headBytes > s.limitBytes;
}

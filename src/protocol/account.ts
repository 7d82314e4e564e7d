/**
 * What a receiver knows of one sender: what it promised, what has come, what is wanted. Counts run
 * from 0 in each epoch. A new epoch voids whatever the sender still holds of the old one.
 *
 * I1  The limit never falls within an epoch: a late or repeated grant does no harm.
 * I3  got <= limit, whatever the sender believes: what lies beyond is refused and not counted.
 * It must not know: other senders, and what room there is.
 */
import { assert } from "../base/index.ts";
import type { Stamp } from "./frames.ts";
import type { Beat } from "./spender.ts";

export interface Account {
  readonly id: string;
  epoch: number;
  /** Arrived in this epoch within the limit, accepted by the caller or not. */
  got: number;
  gotBytes: number;
  limit: number;
  /** Infinity: bytes are not limited, and not counted. */
  limitBytes: number;
  /** Highest limit that went out in this epoch; -1 while the sender was not told of the epoch. */
  told: number;
  toldBytes: number;
  /** A heartbeat or a send showed that the sender has not heard of this epoch. */
  behind: boolean;
  /** The position that the sender would reach if it could. */
  wantTo: number;
  wantToBytes: number;
  /** Size of the first waiting message; 0 when unknown. */
  headBytes: number;
  /** Latest heartbeat, on the sender's clock and on the own one. */
  heartbeatMs: number;
  heardMs: number;
  /** When the latest lease ends on the sender's clock: a heartbeat of then proves it over. */
  leaseEndMs: number;
  /** Until when what was promised stays reserved, on the own clock. */
  untilMs: number;
  sentMs: number;
  /** Reserved for an earlier connection that may not know that it is over. */
  ghost: number;
  ghostBytes: number;
  ghostUntilMs: number;
  gone: boolean;
  /** Has a part in the rounds of the issuer; see book.ts. */
  isActive: boolean;
  /** What the issuer's totals count for this account. */
  held: number;
  heldBytes: number;
}

export interface Arrival {
  /** How many of the messages, from the first, are covered by credit. */
  accepted: number;
  /** Sent in another epoch (or by nobody known): all are refused and none is counted. */
  readonly stale: boolean;
  /** Absent when the grant is not one of this epoch. */
  readonly lagMs?: number;
}

export function open(id: string, epoch: number): Account {
  return {
    id,
    epoch,
    got: 0,
    gotBytes: 0,
    limit: 0,
    limitBytes: 0,
    told: -1,
    toldBytes: -1,
    behind: false,
    wantTo: 0,
    wantToBytes: 0,
    headBytes: 0,
    heartbeatMs: -Infinity,
    heardMs: -Infinity,
    leaseEndMs: -Infinity,
    untilMs: -Infinity,
    sentMs: -Infinity,
    ghost: 0,
    ghostBytes: 0,
    ghostUntilMs: -Infinity,
    gone: false,
    isActive: false,
    held: 0,
    heldBytes: 0,
  };
}

/** Voids the epoch: nothing of it can be spent any more. What is wanted still is. */
export function renew(a: Account, epoch: number): void {
  a.wantTo = Math.max(0, a.wantTo - a.got);
  a.wantToBytes = Math.max(0, a.wantToBytes - a.gotBytes);
  a.epoch = epoch;
  a.got = 0;
  a.gotBytes = 0;
  a.limit = 0;
  a.limitBytes = 0;
  a.told = -1;
  a.toldBytes = -1;
  a.behind = false;
}

/** Voids the epoch, but for so many messages that may still come, in a new one. */
export function restart(a: Account, epoch: number, messages: number): void {
  const bytes = messages === 0 ? 0 : a.limitBytes - a.gotBytes;
  renew(a, epoch);
  a.limit = messages;
  a.limitBytes = bytes;
}

/** Takes a heartbeat that is not older than the last one. */
export function hear(a: Account, nowMs: number, beat: Beat): void {
  const same = beat.epoch === a.epoch;
  a.behind = beat.epoch !== undefined && !same;
  a.heartbeatMs = beat.heartbeatMs;
  a.heardMs = nowMs;
  // By position, sends under way count as wanted no second time. Without an epoch they may.
  a.wantTo = (same ? beat.position : a.got) + Math.floor(Math.max(0, beat.want));
  a.wantToBytes = (same ? beat.positionBytes : a.gotBytes) + Math.ceil(Math.max(0, beat.wantBytes));
  a.headBytes = Math.ceil(Math.max(0, beat.headBytes ?? 0));
}

/**
 * Counts messages of the account's epoch against its limit, in order. Behind the first that lacks
 * credit none is accepted, so a stream is never torn.
 *
 * @param sizes Bytes of each; without it they count no bytes.
 * @returns How many are covered, from the first.
 */
export function take(a: Account, messages: number, sizes: readonly number[] | undefined): number {
  a.headBytes = 0;
  let accepted = Math.min(messages, a.limit - a.got);
  if (sizes !== undefined && a.limitBytes !== Infinity) {
    let bytes = a.gotBytes;
    for (let k = 0; k < messages; k++) {
      bytes += sizes[k]!;
      if (bytes > a.limitBytes) accepted = Math.min(accepted, k);
    }
    a.gotBytes = Math.min(bytes, a.limitBytes); // I3
  }
  a.got = Math.min(a.got + messages, a.limit); // I3: a refused message uses up its position, too.
  return accepted;
}

/** Whether a stamp belongs to the account's epoch; if not, the sender has to be told. */
export function current(a: Account, stamp: Stamp): boolean {
  if (stamp.epoch !== a.epoch) a.behind = true;
  return stamp.epoch === a.epoch;
}

export function credit(a: Account): number {
  return a.limit - a.got;
}

/** Unlimited bytes reserve nothing. */
export function creditBytes(a: Account): number {
  return a.limitBytes === Infinity ? 0 : a.limitBytes - a.gotBytes;
}

export function check(a: Account): void {
  assert(a.told <= a.limit && a.toldBytes <= a.limitBytes, "I1 the limit never falls in an epoch");
  assert(a.got >= 0 && a.got <= a.limit, "I3 got <= limit");
  assert(a.gotBytes >= 0 && a.gotBytes <= a.limitBytes, "I3 got <= limit, bytes");
  assert(a.held === credit(a) + a.ghost, "C1 the total counts every promise");
  assert(a.heldBytes === creditBytes(a) + a.ghostBytes, "C1 the total counts every promise, bytes");
}

/**
 * Credit issuer: the receiving end of one hop, for all its senders. It divides the room there is among
 * those that want it and checks every arrival against what it promised.
 *
 * I1  The limit never falls within an epoch: a late or repeated grant does no harm.
 * I2  A grant promises only what fits: what is outstanding is never raised past the room.
 * I3  got <= limit, whatever the sender believes. The bound is held here.
 * C1  occupied + outstanding <= bound, in messages and in bytes.
 * C2  Nobody is given credit without a heartbeat younger than the lease, which the grant echoes.
 * C3  Who wants, while there is room, has its turn within an eighth of the lease.
 * C4  Credit that lies idle is not renewed while somebody waits for his first: it comes back by C2.
 * C5  Every arrival beyond credit is told by `arrived`: the caller reports the refusal.
 * It must not know: queues, windows, why room is short, what a message is.
 *
 * A sender is one stream over one connection, which keeps sends in order and loses none before it
 * ends. Grants and heartbeats may be lost, doubled, late or out of order.
 * Sources: QUIC's MAX_DATA (absolute limits), Homa (credit by demand), Gray and Cheriton 1989
 * (leases), max-min fair division (share.ts).
 */
import { assert } from "../base/index.ts";
import { credit, creditBytes, current, hear, restart, take } from "./account.ts";
import type { Account, Arrival } from "./account.ts";
import {
  activate,
  check as checkBook,
  enter,
  holds,
  lapse,
  reclaim,
  reserve,
  strike,
  tally,
} from "./book.ts";
import { init as initBook } from "./book.ts";
import type { Book } from "./book.ts";
import type { Grant, Stamp } from "./frames.ts";
import { init as initLag, note, view as viewLag } from "./lag.ts";
import type { Lag, LagView } from "./lag.ts";
import { divideRoom, init as initPlan, live, rests, rotate, step } from "./plan.ts";
import type { Plan } from "./plan.ts";
import type { Beat, Credit } from "./spender.ts";

export interface IssuerOptions {
  /** Above every epoch of an earlier issuer to the same senders, e.g. from the owner's fence. */
  readonly firstEpoch: number;
  /** Lease of a grant. Default 2,000: a silent receiver stops its senders within it (G9). */
  readonly ttlMs?: number;
  /** Default 500: a reservation outlives its lease by a quarter and this, for slow clocks. */
  readonly marginMs?: number;
  /** Held by a sender that wants nothing, so that a first message need not ask. Default 8. */
  readonly toeMessages?: number;
  /** Default 64 KiB. */
  readonly toeBytes?: number;
}

/** A grant and who is to get it. */
export interface IssuedGrant extends Grant {
  readonly senderId: string;
}

export interface Issuer {
  readonly ttlMs: number;
  /** How long a promise stays reserved: the lease, a quarter more for a slow clock, and a margin. */
  readonly holdMs: number;
  readonly startMs: number;
  readonly book: Book;
  readonly plan: Plan;
  readonly lag: Lag;
  /** What `issue` returned last. */
  readonly out: IssuedGrant[];
  grantId: number;
  /** Nothing is to be done before `dueMs` while nothing changes and the room does not grow. */
  changed: boolean;
  dueMs: number;
  roomMessages: number;
  roomBytes: number;
  grants: number;
  stale: number;
  uncovered: number;
}

export interface IssuerView extends Credit {
  readonly senders: number;
  readonly epoch: number;
  /** Since init: grants sent, reservations taken back, messages refused by epoch and by limit. */
  readonly grants: number;
  readonly reclaims: number;
  readonly stale: number;
  readonly uncovered: number;
  readonly lag: LagView;
}

export function init(options: IssuerOptions, nowMs: number): Issuer {
  const ttlMs = options.ttlMs ?? 2_000;
  return {
    ttlMs,
    holdMs: 1.25 * ttlMs + (options.marginMs ?? 500),
    startMs: nowMs,
    book: initBook(options.firstEpoch),
    plan: initPlan(ttlMs, options.toeMessages ?? 8, options.toeBytes ?? 65_536),
    lag: initLag(),
    out: [],
    grantId: -1,
    changed: true,
    dueMs: -Infinity,
    roomMessages: 0,
    roomBytes: 0,
    grants: 0,
    stale: 0,
    uncovered: 0,
  };
}

/**
 * A sender connects, or connects again: its positions start at 0 in a new epoch, so sends of an
 * earlier connection are refused. What that one still holds stays reserved until its lease is over,
 * unless `leave` said that it is surely dead.
 */
export function join(i: Issuer, senderId: string, _nowMs: number): void {
  enter(i.book, senderId);
  i.changed = true;
}

/**
 * A sender's connection ended.
 *
 * @param sure Nothing can arrive from it any more: its credit is free at once. Else it stays reserved
 *   until its lease is over, and what still arrives is covered.
 */
export function leave(i: Issuer, senderId: string, _nowMs: number, sure: boolean): void {
  const a = i.book.accounts.get(senderId);
  if (a === undefined) return;
  i.changed = true;
  a.gone = true;
  a.heardMs = -Infinity;
  if (sure || (a.held === 0 && a.heldBytes === 0)) strike(i.book, a);
}

/** Takes a heartbeat. Older ones than the last, and those of unknown senders, are ignored. */
export function heard(i: Issuer, senderId: string, nowMs: number, beat: Beat): void {
  const a = i.book.accounts.get(senderId);
  if (a === undefined || a.gone || beat.heartbeatMs < a.heartbeatMs) return;
  // The sender's own clock says that its lease is over, and by its position nothing is under way that
  // was sent before: no need to wait for the own clock.
  const quiet = beat.epoch !== a.epoch || beat.position === a.got;
  if (beat.heartbeatMs >= a.leaseEndMs && quiet && holds(a)) reclaim(i.book, a);
  hear(a, nowMs, beat);
  activate(i.book, a);
  i.changed = true;
}

/**
 * Checks a batch of one sender against its epoch and limit.
 *
 * @param sizes Bytes of each message; leave it out where bytes are unlimited.
 * @returns How many are covered, from the first. The caller refuses the others, and any it refuses
 *   for its own reasons, and says so to the sender (C5). A refused message used its position up.
 */
export function arrived(
  i: Issuer,
  senderId: string,
  nowMs: number,
  stamp: Stamp,
  messages: number,
  sizes?: readonly number[],
): Arrival {
  const a = i.book.accounts.get(senderId);
  i.changed = true;
  if (a === undefined || !current(a, stamp)) {
    i.stale += messages;
    return { accepted: 0, stale: true };
  }
  const accepted = take(a, messages, sizes);
  i.uncovered += messages - accepted;
  tally(i.book, a);
  if (stamp.grantId < 0 || stamp.grantId > i.grantId) return { accepted, stale: false };
  const lagMs = Math.max(0, nowMs - issuedMs(i, stamp.grantId) - stamp.heldMs);
  note(i.lag, lagMs);
  return { accepted, stale: false, lagMs };
}

/**
 * Takes unspent credit back at once, where the sender is a function call away. A remote sender that
 * has not heard of it sends in the old epoch and is refused, which does no harm. The next `issue`
 * tells it.
 *
 * @param messagesKept How many messages it may still send; never more than it had.
 */
export function contract(i: Issuer, senderId: string, _nowMs: number, messagesKept: number): void {
  const a = i.book.accounts.get(senderId);
  const kept = Math.max(0, Math.floor(messagesKept));
  if (a === undefined || credit(a) <= kept) return;
  restart(a, ++i.book.epoch, kept);
  tally(i.book, a);
  i.changed = true;
}

/**
 * Gives what can be given: to be called when something has arrived, was heard or has left the buffer,
 * and at `issueDue`. Credit whose reservation ran out is taken back first.
 *
 * A sender's goal is what it has, or what it wants, or the toe-hold. What is free goes to the smallest
 * holding first, ties to the least recently raised. A grant goes out when the limit rises by at least
 * max(1, min(16, want / 4, room / 8N)), or an eighth of the lease after the last one; it is repeated
 * at that pace until its credit is used, and renews the lease. A sender that holds more than a
 * toe-hold and wants nothing is not renewed: what it holds comes back when its lease is over.
 *
 * @param room What may be outstanding in all, counting what is outstanding already: the least of
 *   bound - occupied, of the same in seconds of work, and of the most that may be promised at once.
 *   Bytes may be Infinity. A room smaller than what is outstanding takes nothing back.
 * @param force Send every `rise`, however small; or to `all` who want something, though they have no more
 *   than before: what comes along with the grant has changed.
 * @returns The grants to send, each to its `senderId`; the array is reused by the next call.
 */
export function issue(
  i: Issuer,
  nowMs: number,
  room: Credit,
  force?: "rise" | "all",
): readonly IssuedGrant[] {
  i.out.length = 0;
  const limits = room.bytes !== Infinity && i.roomBytes === Infinity;
  const grown = room.messages > i.roomMessages || room.bytes > i.roomBytes || limits;
  i.roomMessages = room.messages;
  i.roomBytes = room.bytes;
  if (!i.changed && !grown && force === undefined && nowMs < i.dueMs) return i.out;
  const b = i.book;
  if (nowMs >= b.lapseMs) lapse(b, nowMs);
  for (;;) {
    const victim = divideRoom(i.plan, b, nowMs, room);
    if (victim === undefined) break;
    reclaim(b, victim);
  }
  i.changed = false;
  i.dueMs = Infinity;
  for (let k = 0; k < b.order.length; k++) {
    const a = b.order[k]!;
    offer(i, a, k, nowMs, force);
    if (rests(i.plan, a, k, nowMs)) a.isActive = false;
  }
  i.dueMs = Math.min(i.dueMs, b.lapseMs);
  rotate(i.plan, b.order);
  return i.out;
}

/** When to call `issue` if nothing happens before; in the past if something has. */
export function issueDue(i: Issuer): number {
  return i.changed ? -Infinity : i.dueMs;
}

/** What is promised and has not come, all senders together. Unlimited bytes count as none. */
export function outstanding(i: Issuer): Credit {
  return { messages: i.book.held, bytes: i.book.heldBytes };
}

export function outstandingOf(i: Issuer, senderId: string): Credit {
  const a = i.book.accounts.get(senderId);
  return { messages: a?.held ?? 0, bytes: a?.heldBytes ?? 0 };
}

export function lag(i: Issuer): LagView {
  return viewLag(i.lag);
}

/** @param room The hard part only, bound - occupied: what else makes room short may come later. */
export function check(i: Issuer, room: Credit): void {
  checkBook(i.book);
  assert(i.book.held <= room.messages, "C1 occupied + outstanding <= bound");
  assert(i.book.heldBytes <= room.bytes, "C1 occupied + outstanding <= bound, bytes");
}

export function view(i: Issuer): IssuerView {
  return {
    senders: i.book.accounts.size,
    ...outstanding(i),
    epoch: i.book.epoch,
    grants: i.grants,
    reclaims: i.book.reclaims,
    stale: i.stale,
    uncovered: i.uncovered,
    lag: lag(i),
  };
}

/** Raises one sender to its share and sends the grant, if that is worth one or one is due. */
function offer(
  i: Issuer,
  a: Account,
  k: number,
  nowMs: number,
  force: "rise" | "all" | undefined,
): void {
  const p = i.plan;
  if (!live(p, a, nowMs)) return; // C2
  const unlimited = i.roomBytes === Infinity;
  const rise = p.share[k]! - credit(a);
  const riseBytes = unlimited ? 0 : p.shareBytes[k]! - creditBytes(a);
  const rises = rise > 0 || riseBytes > 0;
  const worth =
    a.told < a.limit ||
    (rises && force !== undefined) ||
    (p.need[k]! > 0 && force === "all") ||
    rise >= step(p.stepMax, p.need[k]!) ||
    riseBytes >= step(p.stepBytesMax, a.wantToBytes - a.gotBytes) ||
    (unlimited ? a.limitBytes !== Infinity && credit(a) > 0 : unblocks(a, p.shareBytes[k]!));
  if (!worth) {
    const wanted =
      p.need[k]! > 0 || (!p.waits && credit(a) <= p.toe && creditBytes(a) <= p.toeBytes); // C4
    const renews = credit(a) > 0 ? a.behind || wanted : a.behind && p.need[k]! > 0;
    if (!rises && !(renews && nowMs - a.heardMs < i.ttlMs / 2)) return;
    const nextMs = a.sentMs + i.ttlMs / 8; // C3
    if (nowMs < nextMs) {
      i.dueMs = Math.min(i.dueMs, nextMs);
      return;
    }
  }
  if (rise > 0 || unblocks(a, p.shareBytes[k]!)) p.raised.push(a);
  a.limit += rise; // I1: a share is never below what is held.
  a.limitBytes = unlimited ? Infinity : a.limitBytes + riseBytes;
  send(i, a, nowMs);
}

/** Whether a first message that lacked bytes could be sent with these. */
function unblocks(a: Account, bytes: number): boolean {
  return a.headBytes > creditBytes(a) && bytes >= a.headBytes;
}

function send(i: Issuer, a: Account, nowMs: number): void {
  tally(i.book, a);
  reserve(i.book, a, nowMs + i.holdMs);
  a.told = a.limit;
  a.toldBytes = a.limitBytes;
  a.sentMs = nowMs;
  a.leaseEndMs = Math.max(a.leaseEndMs, a.heartbeatMs + i.ttlMs);
  i.dueMs = Math.min(i.dueMs, nowMs + i.ttlMs / 8);
  i.grantId = Math.max(i.grantId + 1, Math.floor((nowMs - i.startMs) * 1000));
  i.grants++;
  i.out.push({
    senderId: a.id,
    epoch: a.epoch,
    grantId: i.grantId,
    limitMessages: a.limit,
    limitBytes: a.limitBytes,
    echoHeartbeatMs: a.heartbeatMs,
    leaseMs: i.ttlMs,
  });
}

/** A grant's id is its time of issue, in microseconds since init and made unique: no table is kept. */
function issuedMs(i: Issuer, grantId: number): number {
  return i.startMs + grantId / 1000;
}

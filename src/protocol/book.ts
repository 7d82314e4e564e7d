/**
 * The accounts of all senders, their sum, and the end of their reservations.
 *
 * C1  The totals are the sums over the accounts at every moment.
 * C2  What was promised stays reserved until its lease is surely over, and then comes back with a
 *     new epoch: else a stale higher limit would revive with the sender's next lease.
 * C3  Who holds or wants has a part in the rounds; who rests costs them nothing, so that ten thousand
 *     idle senders do not slow down an active one.
 */
import { assert } from "../base/index.ts";
import { check as checkAccount, credit, creditBytes, open, renew } from "./account.ts";
import type { Account } from "./account.ts";

export interface Book {
  readonly accounts: Map<string, Account>;
  /** The active ones, least recently raised first. */
  readonly order: Account[];
  epoch: number;
  held: number;
  heldBytes: number;
  /** No reservation ends before. */
  lapseMs: number;
  reclaims: number;
}

export function init(firstEpoch: number): Book {
  return {
    accounts: new Map(),
    order: [],
    epoch: firstEpoch,
    held: 0,
    heldBytes: 0,
    lapseMs: Infinity,
    reclaims: 0,
  };
}

/** Opens an account in a new epoch. What an earlier one of the same id held stays reserved. */
export function enter(b: Book, id: string): void {
  const a = open(id, ++b.epoch);
  const old = b.accounts.get(id);
  if (old !== undefined) {
    a.ghost = old.held;
    a.ghostBytes = old.heldBytes;
    a.ghostUntilMs = Math.max(old.untilMs, old.ghostUntilMs);
    b.lapseMs = Math.min(b.lapseMs, a.ghostUntilMs);
    strike(b, old);
  }
  b.accounts.set(id, a);
  tally(b, a);
  if (a.held > 0 || a.heldBytes > 0) activate(b, a);
}

/** Gives an account a part in the rounds; `rotate` of plan.ts takes it from those that rest again. */
export function activate(b: Book, a: Account): void {
  if (a.isActive) return;
  a.isActive = true;
  b.order.push(a);
}

export function strike(b: Book, a: Account): void {
  b.accounts.delete(a.id);
  if (a.isActive) b.order.splice(b.order.indexOf(a), 1);
  a.isActive = false;
  b.held -= a.held;
  b.heldBytes -= a.heldBytes;
}

/** Brings the totals up to date with one account. */
export function tally(b: Book, a: Account): void {
  const held = credit(a) + a.ghost;
  const heldBytes = creditBytes(a) + a.ghostBytes;
  b.held += held - a.held;
  b.heldBytes += heldBytes - a.heldBytes;
  a.held = held;
  a.heldBytes = heldBytes;
}

/** Keeps an account's promises reserved until `untilMs` at least. */
export function reserve(b: Book, a: Account, untilMs: number): void {
  a.untilMs = Math.max(a.untilMs, untilMs);
  b.lapseMs = Math.min(b.lapseMs, a.untilMs);
}

/** Voids what an account holds. */
export function reclaim(b: Book, a: Account): void {
  renew(a, ++b.epoch);
  b.reclaims++;
  tally(b, a);
}

/** Takes back what ran out, and finds when the next does. */
export function lapse(b: Book, nowMs: number): void {
  b.lapseMs = Infinity;
  for (const a of b.order.slice()) {
    if (nowMs >= a.ghostUntilMs) {
      a.ghost = 0;
      a.ghostBytes = 0;
      a.ghostUntilMs = -Infinity;
    } else b.lapseMs = Math.min(b.lapseMs, a.ghostUntilMs);
    if (!holds(a)) tally(b, a);
    else if (nowMs >= a.untilMs) reclaim(b, a);
    else {
      tally(b, a);
      b.lapseMs = Math.min(b.lapseMs, a.untilMs);
    }
    if (a.gone && a.held === 0 && a.heldBytes === 0) strike(b, a);
  }
}

/** Whether the sender could still send something, as far as the receiver knows. */
export function holds(a: Account): boolean {
  return credit(a) > 0 || creditBytes(a) > 0;
}

export function check(b: Book): void {
  let held = 0;
  let heldBytes = 0;
  let active = 0;
  for (const a of b.accounts.values()) {
    checkAccount(a);
    assert(a.epoch <= b.epoch, "I1 epochs rise");
    assert(!holds(a) || b.lapseMs <= a.untilMs, "C2 every reservation has an end");
    assert(a.isActive || (a.held === 0 && a.heldBytes === 0), "C3 who rests holds nothing");
    if (a.isActive) active++;
    held += a.held;
    heldBytes += a.heldBytes;
  }
  assert(held === b.held && heldBytes === b.heldBytes, "C1 the totals are the sums");
  assert(b.order.length === active, "C3 every active sender has its turn");
}

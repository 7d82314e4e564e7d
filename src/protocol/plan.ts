/**
 * Who should hold how much: the goals of all senders and the max-min fair division of the room among
 * them, in messages and in bytes, each for itself (share.ts).
 *
 *   goal = max(what it holds, what it wants, toe-hold)    the sum of toe-holds is at most a quarter
 *
 * N1  Shares never fall below what is held: credit is taken back by a new epoch only.
 * N2  A first message that waits for bytes is served whole, in order, before the rest is divided:
 *     else equal parts too small for anybody's message would fill the room for good. Bytes in the
 *     hands of those behind it, too few for their own first messages, are taken back for it.
 */
import { credit, creditBytes } from "./account.ts";
import type { Account } from "./account.ts";
import type { Book } from "./book.ts";
import { divide } from "./share.ts";
import type { Credit } from "./spender.ts";

export interface Plan {
  readonly ttlMs: number;
  readonly toeMessagesMax: number;
  readonly toeBytesMax: number;
  /** Raised since the last `rotate`, in the order of the book. */
  readonly raised: Account[];
  /** These run along the order of the book. */
  readonly need: number[];
  /** Messages and bytes held; after `divideRoom`, what each should hold. */
  readonly share: number[];
  readonly shareBytes: number[];
  readonly goal: number[];
  readonly goalBytes: number[];
  toe: number;
  /** Rises below these are put off; see `step`. */
  stepMax: number;
  stepBytesMax: number;
  /** A first message larger than any room so far is not waited for. */
  roomBytesMax: number;
}

const stepMessages = 16;
const stepBytes = 65_536;

export function init(ttlMs: number, toeMessagesMax: number, toeBytesMax: number): Plan {
  return {
    ttlMs,
    toeMessagesMax,
    toeBytesMax,
    raised: [],
    need: [],
    share: [],
    shareBytes: [],
    goal: [],
    goalBytes: [],
    toe: 0,
    stepMax: 0,
    stepBytesMax: 0,
    roomBytesMax: 0,
  };
}

/** Whether a sender was heard so lately that a grant would find a lease. */
export function live(p: Plan, a: Account, nowMs: number): boolean {
  return nowMs - a.heardMs < p.ttlMs;
}

/**
 * Fills the shares. Whatever is given fits: the room, less what is held (I2).
 *
 * @returns An account whose credit has to be taken back first; then divide again.
 */
export function divideRoom(p: Plan, b: Book, nowMs: number, room: Credit): Account | undefined {
  const { need, share, goal } = p;
  const count = b.order.length;
  const free = Math.max(0, Math.floor(room.messages) - b.held);
  p.toe = Math.min(p.toeMessagesMax, Math.floor(room.messages / (4 * count)));
  p.stepMax = Math.min(stepMessages, room.messages / (8 * count));
  for (let k = 0; k < count; k++) {
    const a = b.order[k]!;
    const held = credit(a);
    const isLive = live(p, a, nowMs);
    need[k] = isLive ? Math.max(0, a.wantTo - a.got) : 0;
    share[k] = held;
    goal[k] = isLive ? Math.min(Math.max(held, need[k]!, p.toe), held + free) : held;
  }
  const victim = room.bytes === Infinity ? undefined : divideBytes(p, b, nowMs, room.bytes);
  if (victim === undefined) divide(share, goal, count, free);
  return victim;
}

/** The same for bytes, the first messages before all (N2). */
function divideBytes(p: Plan, b: Book, nowMs: number, room: number): Account | undefined {
  const { need, shareBytes, goalBytes } = p;
  const count = b.order.length;
  const free = Math.max(0, Math.floor(room) - b.heldBytes);
  const toe = Math.min(p.toeBytesMax, Math.floor(room / (4 * count)));
  p.stepBytesMax = Math.min(stepBytes, room / (8 * count));
  p.roomBytesMax = Math.max(p.roomBytesMax, room);
  for (let k = 0; k < count; k++) {
    const a = b.order[k]!;
    if (a.limitBytes === Infinity) return a; // Bytes were not limited before.
    const held = creditBytes(a);
    const wish = Math.max(held, need[k] === 0 ? 0 : a.wantToBytes - a.gotBytes, toe);
    shareBytes[k] = held;
    goalBytes[k] = live(p, a, nowMs) ? Math.min(wish, held + free) : held;
  }
  const left = serveHeads(p, b.order, free);
  if (typeof left !== "number") return left;
  divide(shareBytes, goalBytes, count, left);
  return undefined;
}

/** The least rise that is worth a grant: a sender's want / 4, within what the room allows. */
export function step(stepMax: number, need: number): number {
  return Math.max(1, Math.min(stepMax, need / 4));
}

/** Puts those that were raised behind the others, so that ties rotate. */
export function rotate(p: Plan, order: Account[]): void {
  const { raised } = p;
  if (raised.length === 0) return;
  if (order.length > 1) {
    let kept = 0;
    let next = 0; // `raised` runs along the order, too.
    for (let k = 0; k < order.length; k++) {
      if (order[k] === raised[next]) next++;
      else order[kept++] = order[k]!;
    }
    for (let k = 0; k < raised.length; k++) order[kept++] = raised[k]!;
  }
  raised.length = 0;
}

/** N2. @returns The bytes left for all, or the account to take bytes back from. */
function serveHeads(p: Plan, order: readonly Account[], free: number): number | Account {
  let left = free;
  for (let k = 0; k < order.length; k++) {
    const lacking = lackingBytes(p, order[k]!, k);
    if (lacking <= 0) continue;
    if (lacking > left) return scraps(p, order, k) ?? 0;
    p.shareBytes[k] = p.shareBytes[k]! + lacking;
    left -= lacking;
  }
  return left;
}

/** The last of those behind `front` that hold too few bytes for their own first messages. */
function scraps(p: Plan, order: readonly Account[], front: number): Account | undefined {
  for (let k = order.length - 1; k > front; k--) {
    if (p.shareBytes[k]! > 0 && lackingBytes(p, order[k]!, k) > 0) return order[k]!;
  }
  return undefined;
}

function lackingBytes(p: Plan, a: Account, k: number): number {
  if (p.need[k] === 0 || a.headBytes > p.roomBytesMax) return 0;
  return a.headBytes - p.shareBytes[k]!;
}

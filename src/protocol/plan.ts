/**
 * Who should hold how much: the goals of all senders and the max-min fair division of the room among
 * them, in messages and in bytes, each for itself (share.ts).
 *
 *   goal = max(what it holds, what it wants, toe-hold)    the sum of toe-holds is at most a quarter
 *
 * Who wants something is served first: an idle sender's toe-hold comes from what is left then.
 *
 * N1  Shares never fall below what is held: credit is taken back by a new epoch only.
 * N2  Where bytes are limited, every sender's first message is served whole, in order, before the rest
 *     is divided: else parts too small for anybody's message, or messages in one hand and bytes in
 *     another, would fill the room for good. What those behind cannot use as it is, is taken back: a
 *     send that crosses it is refused, which does no harm.
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
  toeBytes: number;
  free: number;
  freeBytes: number;
  /** Rises below these are put off; see `step`. */
  stepMax: number;
  stepBytesMax: number;
  /** Somebody has to wait for his first message's credit. */
  waits: boolean;
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
    toeBytes: Infinity,
    free: 0,
    freeBytes: 0,
    stepMax: 0,
    stepBytesMax: 0,
    waits: false,
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
  const { order } = b;
  const limited = room.bytes !== Infinity;
  measure(p, b, room);
  for (let k = 0; k < order.length; k++) {
    const a = order[k]!;
    if (limited && a.limitBytes === Infinity) return a; // Bytes were not limited before.
    p.need[k] = live(p, a, nowMs) ? Math.max(0, a.wantTo - a.got) : 0;
    p.share[k] = credit(a);
    p.shareBytes[k] = creditBytes(a);
  }
  const victim = limited ? serveFirst(p, order) : undefined;
  if (victim !== undefined) return victim;
  for (const wants of [true, false]) {
    for (let k = 0; k < order.length; k++) aim(p, order[k]!, k, nowMs, limited, wants);
    p.free = divide(p.share, p.goal, order.length, p.free);
    if (limited) p.freeBytes = divide(p.shareBytes, p.goalBytes, order.length, p.freeBytes);
    if (p.free === 0 || p.toe === 0) break;
  }
  p.waits = false;
  for (let k = 0; k < order.length && !p.waits; k++) {
    p.waits = live(p, order[k]!, nowMs) && !canSend(p, order[k]!, k);
  }
  return undefined;
}

/** What the room allows each sender at least and at most. */
function measure(p: Plan, b: Book, room: Credit): void {
  const count = b.order.length;
  p.free = Math.max(0, Math.floor(room.messages) - b.held);
  p.freeBytes = Math.max(0, Math.floor(room.bytes) - b.heldBytes);
  p.toe = Math.min(p.toeMessagesMax, Math.floor(room.messages / (4 * count)));
  p.toeBytes = Math.min(p.toeBytesMax, Math.floor(room.bytes / (4 * count)));
  p.stepMax = Math.min(stepMessages, room.messages / (8 * count));
  p.stepBytesMax = Math.min(stepBytes, room.bytes / (8 * count));
  p.roomBytesMax = Math.max(p.roomBytesMax, room.bytes);
}

/**
 * Sets a sender's goals. One that waits for its first message (N2) could not use more.
 *
 * @param wants Which senders: those that want something, or the others.
 */
function aim(
  p: Plan,
  a: Account,
  k: number,
  nowMs: number,
  limited: boolean,
  wants: boolean,
): void {
  const need = p.need[k]!;
  const held = p.share[k]!;
  const heldBytes = p.shareBytes[k]!;
  p.goal[k] = held;
  p.goalBytes[k] = heldBytes;
  if (need > 0 !== wants || !live(p, a, nowMs) || (limited && !canSend(p, a, k))) return;
  p.goal[k] = Math.min(Math.max(held, need, p.toe), held + p.free);
  if (!limited) return;
  const needBytes = need === 0 ? 0 : a.wantToBytes - a.gotBytes;
  const toeBytes = p.goal[k] === 0 ? 0 : p.toeBytes; // No use without a message.
  p.goalBytes[k] = Math.min(Math.max(heldBytes, needBytes, toeBytes), heldBytes + p.freeBytes);
}

/** The least rise that is worth a grant: a sender's want / 4, within what the room allows. */
export function step(stepMax: number, need: number): number {
  return Math.max(1, Math.min(stepMax, need / 4));
}

/**
 * Whether a sender has no part in the rounds until it is heard again: it holds nothing, and either it
 * has been silent for a lease, or for half of one while it wants nothing and there is no toe-hold for
 * it. Not sooner: who comes back stands behind all others, which would be unfair between two sends.
 */
export function rests(p: Plan, a: Account, k: number, nowMs: number): boolean {
  if (a.held > 0 || a.heldBytes > 0) return false;
  const wantsNothing = p.need[k] === 0 && p.toe === 0;
  return nowMs - a.heardMs >= (wantsNothing ? p.ttlMs / 2 : p.ttlMs);
}

/** Puts those that were raised behind the others, so that ties rotate, and leaves out those that rest. */
export function rotate(p: Plan, order: Account[]): void {
  const { raised } = p;
  let kept = 0;
  let next = 0; // `raised` runs along the order, too.
  for (let k = 0; k < order.length; k++) {
    const a = order[k]!;
    if (a === raised[next]) next++;
    else if (a.isActive) order[kept++] = a;
  }
  for (let k = 0; k < raised.length; k++) order[kept++] = raised[k]!;
  order.length = kept;
  raised.length = 0;
}

/**
 * N2. Whoever cannot be served keeps what is free waiting for it, so that no stream of small messages
 * starves a large one.
 */
function serveFirst(p: Plan, order: readonly Account[]): Account | undefined {
  for (let k = 0; k < order.length; k++) {
    if (canSend(p, order[k]!, k)) continue;
    const lacking = p.share[k] === 0 ? 1 : 0;
    const lackingBytes = Math.max(0, order[k]!.headBytes - p.shareBytes[k]!);
    const fits = lacking <= p.free && lackingBytes <= p.freeBytes;
    if (!fits) {
      const victim = holdsInVain(p, order, k);
      if (victim !== undefined) return victim;
    }
    p.free -= Math.min(lacking, p.free);
    p.freeBytes -= Math.min(lackingBytes, p.freeBytes);
    if (!fits) return undefined;
    p.share[k] = p.share[k]! + lacking;
    p.shareBytes[k] = p.shareBytes[k]! + lackingBytes;
  }
  return undefined;
}

/** The last of those behind `front` that hold something and cannot send their first message. */
function holdsInVain(p: Plan, order: readonly Account[], front: number): Account | undefined {
  for (let k = order.length - 1; k > front; k--) {
    const holds = p.share[k]! > 0 || p.shareBytes[k]! > 0;
    if (holds && !canSend(p, order[k]!, k)) return order[k]!;
  }
  return undefined;
}

/** Whether a sender that wants holds enough for its first message, as far as is known. */
function canSend(p: Plan, a: Account, k: number): boolean {
  if (p.need[k] === 0 || a.headBytes > p.roomBytesMax) return true;
  return p.share[k]! > 0 && p.shareBytes[k]! >= a.headBytes;
}

/**
 * Groups that the queue holds back under pressure, each to its pace: what exceeds it waits here instead
 * of going there to be refused. A hold ends by itself soon after the last refusal; what leaves then finds
 * out whether it is over.
 *
 * Every refusal leads to a wait, whatever it said: what was refused never leaves again at once.
 *
 * It must not know streams or credit.
 */
import { limiter } from "../control/index.ts";
import type { Limiter } from "../control/index.ts";

interface Hold {
  readonly pace: Limiter;
  untilMs: number;
}

const holdMs = 250;
/** What may go at once after a pause: the receiver earns in steps, too. */
const burstS = 0.02;
const paceMinPerS = 0.1;
const holdsMax = 10_000;
const rounding = 1e-6;

export class Holds {
  readonly #holds = new Map<string, Hold>();
  /** Of all groups for which there is no place, together. */
  #rest: Hold | undefined;

  get isEmpty(): boolean {
    return this.#holds.size === 0 && this.#rest === undefined;
  }

  /** @param perS Messages per second that the group may send. */
  hold(group: string, perS: number, nowMs: number): void {
    const ratePerS = Math.max(paceMinPerS, perS);
    const limit = { ratePerS, burst: burstS * ratePerS };
    if (this.#holds.size >= holdsMax && !this.#holds.has(group)) this.#forget(nowMs);
    const known = this.#of(group);
    if (known === undefined) {
      const hold = { pace: limiter.init(limit, nowMs), untilMs: 0 };
      if (this.#holds.size < holdsMax) this.#holds.set(group, hold);
      else this.#rest = hold;
      restart(hold, nowMs);
    } else {
      limiter.setRate(known.pace, limit, nowMs);
      restart(known, nowMs);
    }
  }

  /** @returns How long the group has to wait for its next message, in ms; 0: it may go now. */
  waitMs(group: string, nowMs: number): number {
    const hold = this.#of(group);
    if (hold === undefined) return 0;
    if (nowMs >= hold.untilMs) {
      if (hold === this.#rest) this.#rest = undefined;
      else this.#holds.delete(group);
      return 0;
    }
    const { left, ratePerS } = limiter.view(hold.pace, nowMs);
    if (left >= 1 - rounding) return 0;
    return Math.min(((1 - left) * 1000) / ratePerS, hold.untilMs - nowMs);
  }

  /** What a held group may send, in messages per second. */
  paceOf(group: string): number | undefined {
    return this.#of(group)?.pace.ratePerS;
  }

  spend(group: string, nowMs: number): void {
    const hold = this.#of(group);
    if (hold !== undefined) limiter.take(hold.pace, nowMs, 1);
  }

  #of(group: string): Hold | undefined {
    return this.#holds.get(group) ?? this.#rest;
  }

  #forget(nowMs: number): void {
    for (const [group, { untilMs }] of this.#holds) if (untilMs <= nowMs) this.#holds.delete(group);
  }
}

/** The next message goes when it is earned from now on. */
function restart(hold: Hold, nowMs: number): void {
  const { left } = limiter.view(hold.pace, nowMs);
  if (left > 0) limiter.take(hold.pace, nowMs, left);
  hold.untilMs = nowMs + holdMs;
}

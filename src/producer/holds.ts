/**
 * Groups that the queue holds back under pressure, each to its pace: what exceeds it waits here instead
 * of going there to be refused. A hold ends by itself soon after the last refusal; what leaves then finds
 * out whether it is over.
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
/** What may go at once: the receiver earns in steps, too. */
const burstS = 0.02;
const paceMinPerS = 0.1;
const holdsMax = 1000;

export class Holds {
  readonly #holds = new Map<string, Hold>();

  get isEmpty(): boolean {
    return this.#holds.size === 0;
  }

  /** @param perS Messages per second that the group may send. */
  hold(group: string, perS: number, nowMs: number): void {
    const ratePerS = Math.max(paceMinPerS, perS);
    const limit = { ratePerS, burst: burstS * ratePerS };
    const known = this.#holds.get(group);
    if (known !== undefined) {
      limiter.setRate(known.pace, limit, nowMs);
      known.untilMs = nowMs + holdMs;
      return;
    }
    if (this.#holds.size >= holdsMax) this.#forget(nowMs);
    const pace = limiter.init(limit, nowMs);
    limiter.take(pace, nowMs, 1); // The one that was refused.
    this.#holds.set(group, { pace, untilMs: nowMs + holdMs });
  }

  /** @returns How long the group has to wait for its next message, in ms; 0: it may go now. */
  waitMs(group: string, nowMs: number): number {
    const hold = this.#holds.get(group);
    if (hold === undefined) return 0;
    if (nowMs >= hold.untilMs) {
      this.#holds.delete(group);
      return 0;
    }
    const { left, ratePerS } = limiter.view(hold.pace, nowMs);
    if (left >= 1 - 1e-6) return 0;
    return Math.min(((1 - left) * 1000) / ratePerS, hold.untilMs - nowMs);
  }

  /** What a held group may send, in messages per second. */
  paceOf(group: string): number | undefined {
    return this.#holds.get(group)?.pace.ratePerS;
  }

  spend(group: string, nowMs: number): void {
    const hold = this.#holds.get(group);
    if (hold !== undefined) limiter.take(hold.pace, nowMs, 1);
  }

  /** Those that are over; if none is, all: they would come back with the next refusal. */
  #forget(nowMs: number): void {
    for (const [group, { untilMs }] of this.#holds) if (untilMs <= nowMs) this.#holds.delete(group);
    if (this.#holds.size >= holdsMax) this.#holds.clear();
  }
}

/**
 * The knee consumer: a model of a service that scales up to a knee and collapses beyond it, as
 * services with a pool, a lock and a cache do. With n calls in progress all the time, a call takes
 *
 *   n <= 8        5 ms                          scales: 1,600/s at 8
 *   8 < n <= 12   5 ms x (n / 8) ^ 0.911        saturates: the best rate, 1,659/s at 12
 *   n > 12        7.23 ms x (n / 12) ^ 2.678    collapses: 100/s and 640 ms a call at 64
 *
 * Calls share the service: each advances through its 5 ms of work by 5 / serviceMs(n) ms per ms, so a
 * change of n is felt by the calls in progress. Timers fire late by up to some ms; what a call
 * advanced past its end is credited to the next call that begins within 5 ms, or their lateness would
 * lower the capacity below the formula. A credit is at most two ms of the service.
 *
 * N1  n calls that are replaced as they end are served at n x 1000 / serviceMs(n) per second.
 * N2  No call ends before it has advanced through its work, credit included.
 * N3  Calls end in the order in which they will have finished; one that is dropped never ends.
 *
 * The model has no clock: times come in, in ms.
 */
const workMs = 5;
const kneeCalls = 8;
const best = { calls: 12, ratePerS: 1659 };
const collapsed = { calls: 64, serviceMs: 640 };

const bestServiceMs = (best.calls * 1000) / best.ratePerS;
// The exponents that lead through the three points.
const saturation = Math.log(bestServiceMs / workMs) / Math.log(best.calls / kneeCalls);
const collapse =
  Math.log(collapsed.serviceMs / bestServiceMs) / Math.log(collapsed.calls / best.calls);

const creditLifeMs = 5;
const creditMaxMs = 2;

/** How long a call takes, in ms, while `calls` of them are in progress all the time. */
export function serviceMs(calls: number): number {
  if (calls <= kneeCalls) return workMs;
  if (calls <= best.calls) return workMs * (calls / kneeCalls) ** saturation;
  return bestServiceMs * (calls / best.calls) ** collapse;
}

/** A call in progress; `end` is called once, when it has done its work. */
export interface KneeCall {
  readonly end: () => void;
  /** The state of `advanced` at which it has done its work. */
  readonly endsAt: number;
}

interface Credit {
  readonly work: number;
  readonly untilMs: number;
}

export class KneeModel {
  parallelMax = 0;
  served = 0;
  /** Work, in ms, that a call in progress since the beginning would have done. */
  #advanced = 0;
  #syncedAtMs = 0;
  /** By `endsAt`. All calls bring the same work, so a new one goes to the end, or near it. */
  readonly #calls: KneeCall[] = [];
  readonly #credits: Credit[] = [];

  get parallel(): number {
    return this.#calls.length;
  }

  begin(nowMs: number, end: () => void): KneeCall {
    this.#advance(nowMs);
    while (this.#credits.length > 0 && this.#credits[0]!.untilMs < nowMs) this.#credits.shift();
    const credit = this.#credits.shift()?.work ?? 0;
    const call = { end, endsAt: this.#advanced + workMs - credit };
    let at = this.#calls.length;
    while (at > 0 && this.#calls[at - 1]!.endsAt > call.endsAt) at--;
    this.#calls.splice(at, 0, call);
    this.parallelMax = Math.max(this.parallelMax, this.#calls.length);
    return call;
  }

  /** The caller has gone: its call leaves, and the others go on faster. False if it had ended. */
  drop(nowMs: number, call: KneeCall): boolean {
    const at = this.#calls.indexOf(call);
    if (at < 0) return false;
    this.#advance(nowMs);
    this.#calls.splice(at, 1);
    return true;
  }

  /** Ends the calls that have done their work. */
  run(nowMs: number): void {
    this.#advance(nowMs);
    const creditMax = (creditMaxMs * workMs) / serviceMs(this.#calls.length);
    let ended = 0;
    while (ended < this.#calls.length && this.#calls[ended]!.endsAt <= this.#advanced + 1e-9) {
      ended++;
    }
    for (const call of this.#calls.splice(0, ended)) {
      const work = Math.max(0, Math.min(this.#advanced - call.endsAt, creditMax));
      this.#credits.push({ work, untilMs: nowMs + creditLifeMs });
      this.served++;
      call.end();
    }
  }

  /** In how many ms the next call will end if no other begins; undefined while there is none. */
  dueInMs(): number | undefined {
    const next = this.#calls[0];
    if (next === undefined) return undefined;
    return Math.max(0, ((next.endsAt - this.#advanced) * serviceMs(this.#calls.length)) / workMs);
  }

  #advance(nowMs: number): void {
    if (this.#calls.length > 0) {
      this.#advanced += ((nowMs - this.#syncedAtMs) * workMs) / serviceMs(this.#calls.length);
    }
    this.#syncedAtMs = nowMs;
  }
}

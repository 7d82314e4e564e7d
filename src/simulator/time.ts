/**
 * Virtual time: one heap of events for everything that happens in a run. Between two events all that
 * needs no time happens, to the last promise; then time jumps to the next event.
 *
 * T1  Events run in the order of their time, ties in the order in which they were set.
 * T2  A dead process runs nothing any more; a stalled one runs nothing until it wakes, then all of it.
 * T3  No event runs while a promise that could go on does not: each event is a macrotask of its own.
 */
import { Heap } from "../base/index.ts";
import type { Clock, Timer } from "../base/index.ts";

interface Event {
  call: (() => void) | undefined;
}

/** Events in one turn of the event loop; Node drains promises between any two of them (T3). */
const perTurn = 64;

export class VirtualTime {
  readonly #events = new Heap<Event>();
  #nowMs = 0;
  #count = 0;
  /** What an event throws would end a real process. */
  onError: (error: unknown) => void = () => {};

  /** Since the run began. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Events so far. */
  get count(): number {
    return this.#count;
  }

  after(delayMs: number, call: () => void): Timer {
    const event: Event = { call };
    this.#events.push(this.#nowMs + Math.max(0, delayMs), event);
    return { cancel: () => (event.call = undefined) };
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, resolve));
  }

  /** Runs events until `isDone`, which is asked after each, or until there are none. */
  run(isDone: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      let ended = false;
      const step = (): void => {
        if (ended) return;
        try {
          if (isDone() || !this.#next()) {
            ended = true;
            resolve();
          }
        } catch (error) {
          ended = true;
          reject(error);
        }
      };
      const pump = (): void => {
        if (ended) return;
        for (let i = 0; i < perTurn; i++) setImmediate(step);
        setImmediate(pump);
      };
      pump();
    });
  }

  /** @returns False when there are no events. */
  #next(): boolean {
    for (;;) {
      const atMs = this.#events.least;
      const event = this.#events.pop();
      if (event === undefined) return false;
      if (event.call === undefined) continue;
      this.#nowMs = Math.max(this.#nowMs, atMs);
      this.#count++;
      try {
        event.call();
      } catch (error) {
        this.onError(error);
      }
      return true;
    }
  }
}

/** One life of one process: from its start to its end. What belongs to it passes through `pass`. */
export class Life {
  readonly name: string;
  readonly #time: VirtualTime;
  /** Of the partitions that it claimed, by "flow/partition". */
  readonly fences: Map<string, number> = new Map();
  isAlive: boolean = true;
  /** It waits for what never comes, and will be ended. */
  isHung: boolean = false;
  /** When its last stall ended. */
  wokenAtMs: number = -Infinity;
  #isStalled = false;
  #held: (() => void)[] = [];
  /** Resolves at its end. */
  readonly ended: Promise<void>;
  readonly #tellEnd: () => void;

  constructor(name: string, time: VirtualTime) {
    this.name = name;
    this.#time = time;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#tellEnd = resolve;
  }

  get isStalled(): boolean {
    return this.#isStalled;
  }

  pass(call: () => void): void {
    if (!this.isAlive) return; // T2
    if (this.#isStalled) this.#held.push(call);
    else call();
  }

  stall(): void {
    this.#isStalled = true;
  }

  /** What came meanwhile happens now, one after the other. */
  wake(): void {
    this.#isStalled = false;
    this.wokenAtMs = this.#time.nowMs;
    for (const call of this.#held.splice(0)) this.#time.after(0, () => this.pass(call));
  }

  end(): void {
    this.isAlive = false;
    this.#held = [];
    this.#tellEnd();
  }
}

/** When virtual time 0 is, on a wall that is right. */
const wallMs: number = Date.UTC(2030, 0, 1);

/** The clock of one process: its wall may be off, and it may run too fast or too slow. */
export class LifeClock implements Clock {
  readonly #life: Life;
  readonly #time: VirtualTime;
  readonly #offsetMs: number;
  readonly #rate: number;

  constructor(life: Life, time: VirtualTime, offsetMs: number, rate: number) {
    this.#life = life;
    this.#time = time;
    this.#rate = rate;
    this.#offsetMs = offsetMs + wallMs - (rate - 1) * time.nowMs;
  }

  now(): number {
    return this.#offsetMs + this.#rate * this.#time.nowMs;
  }

  after(delayMs: number, call: () => void): Timer {
    let current: (() => void) | undefined = call;
    const timer = this.#time.after(delayMs / this.#rate, () => this.#life.pass(() => current?.()));
    return {
      cancel: () => {
        current = undefined;
        timer.cancel();
      },
    };
  }

  defer(call: () => void): void {
    queueMicrotask(() => {
      if (this.#life.isAlive) call();
    });
  }

  /** Virtual time of an instant on this clock. */
  virtualMs(atMs: number): number {
    return (atMs - this.#offsetMs) / this.#rate;
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, resolve));
  }
}

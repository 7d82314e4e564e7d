/**
 * Time that a test moves. Timers fire in order of their due time, at exactly that time; between two of
 * them everything that can happen without time happens: promises, turns of the event loop, and calls
 * of the engine that are on their way.
 */
import { setImmediate as turn } from "node:timers/promises";
import type { Clock, Timer } from "../../src/base/index.ts";
import { Heap } from "../../src/base/index.ts";

interface Alarm {
  call: (() => void) | undefined;
}

const startMs = Date.UTC(2030, 0, 1);

export class VirtualClock implements Clock {
  readonly #alarms = new Heap<Alarm>();
  #nowMs = startMs;
  readonly #isBusy: () => boolean;

  /** @param isBusy Whether something is on its way that needs real time, e.g. a call of the engine. */
  constructor(isBusy: () => boolean = () => false) {
    this.#isBusy = isBusy;
  }

  now(): number {
    return this.#nowMs;
  }

  after(delayMs: number, call: () => void): Timer {
    const alarm: Alarm = { call };
    this.#alarms.push(this.#nowMs + Math.max(0, delayMs), alarm);
    return { cancel: () => (alarm.call = undefined) };
  }

  defer(call: () => void): void {
    queueMicrotask(call);
  }

  /** Lets everything happen that needs no time. */
  async settle(): Promise<void> {
    do await turn();
    while (this.#isBusy());
    await turn();
  }

  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await this.settle();
    while (this.#alarms.least <= untilMs) await this.#fire();
    this.#nowMs = untilMs;
  }

  /** Time passes and nothing happens: the event loop is blocked. */
  stall(ms: number): void {
    this.#nowMs += ms;
  }

  /** Moves on until something holds. @throws When it does not within this time. */
  async until(holds: () => boolean, withinMs = 60_000): Promise<void> {
    const untilMs = this.#nowMs + withinMs;
    await this.settle();
    while (!holds()) {
      if (this.#alarms.least > untilMs) {
        throw new Error(`not within ${withinMs} ms of virtual time: ${String(holds)}`);
      }
      await this.#fire();
    }
  }

  /** Moves on until the promise is settled. */
  async run<T>(promise: Promise<T>, withinMs = 60_000): Promise<T> {
    let isDone = false;
    const end = (): void => {
      isDone = true;
    };
    promise.then(end, end);
    await this.until(() => isDone, withinMs);
    return promise;
  }

  /** Moves to the next alarm; whoever set the same time later comes after it. */
  async #fire(): Promise<void> {
    const atMs = this.#alarms.least;
    const { call } = this.#alarms.pop()!;
    if (call === undefined) return;
    this.#nowMs = Math.max(this.#nowMs, atMs);
    call();
    await this.settle();
  }
}

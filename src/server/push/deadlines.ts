/**
 * The time limits of calls that all have the same: who began first ends first, so one timer serves all,
 * and it is set again only when it fires.
 */
import { Line } from "../../base/index.ts";
import type { Member } from "../../base/index.ts";

export interface Limited<T> extends Member<T> {
  deadlineAtMs: number;
  /** The time is up; it has left the line. */
  expire(): void;
}

export class Deadlines<T extends Limited<T>> implements Disposable {
  readonly #timeoutMs: number;
  readonly #line = new Line<T>();
  #timer: NodeJS.Timeout | undefined;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  begin(call: T): void {
    call.deadlineAtMs = performance.now() + this.#timeoutMs;
    this.#line.join(call);
    this.#timer ??= setTimeout(this.#onTimer, this.#timeoutMs);
  }

  /** Call once for each that began and has not expired. */
  end(call: T): void {
    this.#line.leave(call);
  }

  readonly #onTimer = (): void => {
    const nowMs = performance.now();
    let { first } = this.#line;
    while (first !== undefined && first.deadlineAtMs <= nowMs) {
      this.#line.leave(first);
      first.expire();
      ({ first } = this.#line);
    }
    this.#timer =
      first === undefined
        ? undefined
        : setTimeout(this.#onTimer, Math.max(1, first.deadlineAtMs - nowMs));
  };

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}

/** Seeded draws. Each concern of a run has a sequence of its own, so that taking one away moves no other. */
import { hash32, sequence } from "../base/index.ts";

export class Draw {
  readonly #next: () => number;

  constructor(seed: number, concern: string) {
    this.#next = sequence(hash32(seed, concern));
  }

  /** In [0, 1). */
  share(): number {
    return this.#next();
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.#next() < probability;
  }

  between(low: number, high: number): number {
    return low + (high - low) * this.#next();
  }

  /** A whole number, both ends included. */
  whole(low: number, high: number): number {
    return Math.floor(low + (high - low + 1) * this.#next());
  }

  /** Spread evenly over the orders of magnitude. */
  log(low: number, high: number): number {
    return low * (high / low) ** this.#next();
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(list.length * this.#next())]!;
  }
}

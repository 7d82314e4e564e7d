const capacityMin = 8;

/** A queue with both ends open, on a ring that doubles: O(1) at either end, nothing shifted. */
export class Deque<T> {
  #ring: (T | undefined)[] = [];
  #head = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  pushBack(value: T): void {
    if (this.#size === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.#size) & (this.#ring.length - 1)] = value;
    this.#size++;
  }

  pushFront(value: T): void {
    if (this.#size === this.#ring.length) this.#grow();
    this.#head = (this.#head - 1) & (this.#ring.length - 1);
    this.#ring[this.#head] = value;
    this.#size++;
  }

  popFront(): T | undefined {
    if (this.#size === 0) return undefined;
    const value = this.#ring[this.#head];
    this.#ring[this.#head] = undefined;
    this.#head = (this.#head + 1) & (this.#ring.length - 1);
    this.#size--;
    return value;
  }

  front(): T | undefined {
    return this.#size === 0 ? undefined : this.#ring[this.#head];
  }

  *[Symbol.iterator](): Generator<T, void, undefined> {
    for (let i = 0; i < this.#size; i++) {
      yield this.#ring[(this.#head + i) & (this.#ring.length - 1)] as T;
    }
  }

  #grow(): void {
    const length = Math.max(capacityMin, 2 * this.#ring.length);
    const ring: (T | undefined)[] = Array.from({ length });
    for (let i = 0; i < this.#size; i++) {
      ring[i] = this.#ring[(this.#head + i) & (this.#ring.length - 1)];
    }
    this.#ring = ring;
    this.#head = 0;
  }
}

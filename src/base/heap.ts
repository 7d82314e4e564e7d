/** A binary heap of values by a number, smallest first; ties leave in the order they came. */
export class Heap<T> {
  readonly #keys: number[] = [];
  readonly #ticks: number[] = [];
  readonly #values: T[] = [];
  #tick = 0;

  get size(): number {
    return this.#keys.length;
  }

  /** The smallest number in the heap, Infinity when it is empty. */
  get least(): number {
    return this.#keys[0] ?? Infinity;
  }

  peek(): T | undefined {
    return this.#values[0];
  }

  push(key: number, value: T): void {
    this.#keys.push(key);
    this.#ticks.push(this.#tick++);
    this.#values.push(value);
    let at = this.#keys.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#before(parent, at)) break;
      this.#swap(parent, at);
      at = parent;
    }
  }

  pop(): T | undefined {
    if (this.#keys.length === 0) return undefined;
    this.#swap(0, this.#keys.length - 1);
    this.#keys.pop();
    this.#ticks.pop();
    const top = this.#values.pop();
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#keys.length) break;
      if (child + 1 < this.#keys.length && this.#before(child + 1, child)) child++;
      if (this.#before(at, child)) break;
      this.#swap(at, child);
      at = child;
    }
    return top;
  }

  #before(a: number, b: number): boolean {
    const difference = this.#keys[a]! - this.#keys[b]!;
    return difference < 0 || (difference === 0 && this.#ticks[a]! < this.#ticks[b]!);
  }

  #swap(a: number, b: number): void {
    const [key, tick, value] = [this.#keys[a]!, this.#ticks[a]!, this.#values[a]!];
    this.#keys[a] = this.#keys[b]!;
    this.#ticks[a] = this.#ticks[b]!;
    this.#values[a] = this.#values[b]!;
    this.#keys[b] = key;
    this.#ticks[b] = tick;
    this.#values[b] = value;
  }
}

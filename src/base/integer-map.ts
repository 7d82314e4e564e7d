/**
 * A map from safe integers, for what comes and goes with every message.
 *
 * V8's own `Map` leaves a dead table behind at every rehash, each one linked to the next: once one of
 * them has grown old, all that stood in any of them stays alive until the next full collection. Here a
 * deletion clears its place, and while the size stays in bounds nothing is allocated at all. Open
 * addressing with linear probing, deletion by backward shift (Knuth, TAOCP 6.4, algorithm R).
 */
const capacityMin = 16;
/** Up to here a table keeps its size when it empties: what fills and empties in turn is not resized. */
const capacityKept = 4096;

export class IntegerMap<T extends object | number> {
  #keys = new Float64Array(capacityMin);
  #values: (T | undefined)[] = emptied(capacityMin);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: number): T | undefined {
    return this.#values[this.#find(key)];
  }

  has(key: number): boolean {
    return this.#values[this.#find(key)] !== undefined;
  }

  set(key: number, value: T): void {
    const at = this.#find(key);
    if (this.#values[at] === undefined) {
      if (++this.#size * 2 > this.#values.length) {
        this.#resize(this.#values.length * 2);
        return this.#put(key, value);
      }
      this.#keys[at] = key;
    }
    this.#values[at] = value;
  }

  /** @returns What stood there. */
  delete(key: number): T | undefined {
    const values = this.#values;
    const keys = this.#keys;
    const mask = values.length - 1;
    let hole = this.#find(key);
    const value = values[hole];
    if (value === undefined) return undefined;
    for (let at = (hole + 1) & mask; values[at] !== undefined; at = (at + 1) & mask) {
      // What would not be found any more behind the hole moves into it.
      if (((at - homeOf(keys[at]!, mask)) & mask) < ((at - hole) & mask)) continue;
      keys[hole] = keys[at]!;
      values[hole] = values[at];
      hole = at;
    }
    values[hole] = undefined;
    this.#size--;
    if (values.length > capacityKept && this.#size * 16 < values.length) {
      this.#resize(values.length / 4);
    }
    return value;
  }

  clear(): void {
    this.#size = 0;
    this.#keys = new Float64Array(capacityMin);
    this.#values = emptied(capacityMin);
  }

  /** In no order, but in the same one after the same calls. The map must not change meanwhile. */
  *[Symbol.iterator](): Generator<[number, T], void, undefined> {
    for (let at = 0; at < this.#values.length; at++) {
      const value = this.#values[at];
      if (value !== undefined) yield [this.#keys[at]!, value];
    }
  }

  /** As the iterator, and ten times as fast. */
  forEach(call: (value: T) => void): void {
    const values = this.#values;
    for (let at = 0; at < values.length; at++) {
      const value = values[at];
      if (value !== undefined) call(value);
    }
  }

  /** Where the key stands, or the free place where it would. */
  #find(key: number): number {
    const values = this.#values;
    const keys = this.#keys;
    const mask = values.length - 1;
    let at = homeOf(key, mask);
    while (values[at] !== undefined && keys[at] !== key) at = (at + 1) & mask;
    return at;
  }

  #put(key: number, value: T): void {
    const at = this.#find(key);
    this.#keys[at] = key;
    this.#values[at] = value;
  }

  #resize(capacity: number): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#keys = new Float64Array(capacity);
    this.#values = emptied(capacity);
    for (let at = 0; at < values.length; at++) {
      const value = values[at];
      if (value !== undefined) this.#put(keys[at]!, value);
    }
  }
}

function emptied<T>(capacity: number): (T | undefined)[] {
  return Array.from({ length: capacity });
}

/** Fibonacci hashing: neighbours are spread, so that runs of them do not pile up. */
function homeOf(key: number, mask: number): number {
  const mixed = Math.imul(key ^ Math.imul(key / 4294967296, 0x85ebca6b), 0x9e3779b1);
  return (mixed ^ (mixed >>> 15)) & mask;
}

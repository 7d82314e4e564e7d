/**
 * A sorted set in chunks: insert, delete and lookup cost O(log n) comparisons and move at most one
 * chunk, wherever in the order they fall; a walk costs what it yields.
 *
 * S1  Values ascend strictly by `compare`, within and across chunks.
 * S2  No chunk is empty, none is longer than `chunkMax`.
 */
import { assert } from "../../base/index.ts";

const chunkMax = 512;

export class Sorted<T> {
  readonly #compare: (a: T, b: T) => number;
  readonly #chunks: T[][] = [];
  #size = 0;

  constructor(compare: (a: T, b: T) => number) {
    this.#compare = compare;
  }

  get size(): number {
    return this.#size;
  }

  first(): T | undefined {
    return this.#chunks[0]?.[0];
  }

  /** Adding what is there changes nothing. */
  add(value: T): void {
    const at = this.#chunkOf(value);
    const chunk = this.#chunks[at] ?? this.#chunks.at(-1);
    if (chunk === undefined) {
      this.#chunks.push([value]);
      this.#size++;
      return;
    }
    const index = this.#indexIn(chunk, value);
    if (index < chunk.length && this.#compare(chunk[index]!, value) === 0) return;
    if (index === chunk.length) chunk.push(value);
    else chunk.splice(index, 0, value);
    this.#size++;
    if (chunk.length > chunkMax) this.#split(Math.min(at, this.#chunks.length - 1));
  }

  delete(value: T): void {
    const at = this.#chunkOf(value);
    const chunk = this.#chunks[at];
    if (chunk === undefined) return;
    const index = this.#indexIn(chunk, value);
    if (this.#compare(chunk[index]!, value) !== 0) return;
    if (index === 0) chunk.shift();
    else chunk.splice(index, 1);
    if (chunk.length === 0) this.#chunks.splice(at, 1);
    this.#size--;
  }

  /** The values after one, ascending; all of them after null. Changing the set ends the walk's worth. */
  *after(value: T | null): Generator<T, void, undefined> {
    let at = value === null ? 0 : this.#chunkOf(value);
    let index = 0;
    if (value !== null && at < this.#chunks.length) {
      index = this.#indexIn(this.#chunks[at]!, value);
      if (this.#compare(this.#chunks[at]![index]!, value) === 0) index++;
    }
    for (; at < this.#chunks.length; at++, index = 0) {
      const chunk = this.#chunks[at]!;
      for (; index < chunk.length; index++) yield chunk[index]!;
    }
  }

  check(): void {
    let before: T | undefined;
    let size = 0;
    for (const chunk of this.#chunks) {
      assert(chunk.length > 0 && chunk.length <= chunkMax, "S2 chunk sizes");
      for (const value of chunk) {
        assert(before === undefined || this.#compare(before, value) < 0, "S1 strictly ascending");
        before = value;
        size++;
      }
    }
    assert(size === this.#size, "S1 size");
  }

  /** A chunk filled by appends at the end stays full: ascending values cost no half-empty chunks. */
  #split(at: number): void {
    const chunk = this.#chunks[at]!;
    const last = at === this.#chunks.length - 1;
    this.#chunks.splice(at + 1, 0, chunk.splice(last ? chunkMax : chunk.length >> 1));
  }

  /** The first chunk whose last value is not below; the number of chunks when there is none. */
  #chunkOf(value: T): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(this.#chunks[middle]!.at(-1)!, value) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #indexIn(chunk: readonly T[], value: T): number {
    let low = 0;
    let high = chunk.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(chunk[middle]!, value) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

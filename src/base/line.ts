/**
 * A line: members join at its end and leave from anywhere, each in O(1) and without garbage. The links
 * are the members' own, so a member stands in one line at a time. Why not a `Set`: `integer-map.ts`.
 */
export interface Member<T> {
  before: T | undefined;
  after: T | undefined;
}

export class Line<T extends Member<T>> {
  #first: T | undefined;
  #last: T | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get first(): T | undefined {
    return this.#first;
  }

  join(member: T): void {
    member.before = this.#last;
    if (this.#last === undefined) this.#first = member;
    else this.#last.after = member;
    this.#last = member;
    this.#size++;
  }

  /** Call only for who stands in this line. */
  leave(member: T): void {
    const { before, after } = member;
    if (before === undefined) this.#first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
    member.before = undefined;
    member.after = undefined;
    this.#size--;
  }

  /** From the first on. The member at hand may leave meanwhile, and others may join. */
  *[Symbol.iterator](): Generator<T, void, undefined> {
    for (let at = this.#first; at !== undefined;) {
      const next = at.after;
      yield at;
      at = next ?? at.after;
    }
  }
}

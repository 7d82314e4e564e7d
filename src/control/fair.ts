/**
 * Deficit round robin over whatever has work: classes by 16 / 4 / 1, groups by their weights. Each
 * round a key earns its weight, and it sends while it has earned the cost of its head.
 *
 * F1  With unit costs, G keys of weight 1 inside a class of weight w wait at most
 *     (ceil(G / w) + 1) x (sum of the class weights) dispatches for their turn.
 * F2  Work-conserving: while any key has something to send, a pick succeeds. What a key does not use
 *     goes to the others at once: a key without work leaves and takes nothing along.
 * F3  A pick costs O(1) on average: a key is looked at twice for each message at most, and once for
 *     each 31 rounds that it must earn first (a large message, a small weight). Such a key is set down
 *     in the round in which it can pay; rounds in which nobody can are skipped, not walked.
 * F4  A key that returns stands behind all that have work already, so leaving gains nothing.
 *
 * Two levels are two rings: the cost of a class is the cost of what its ring of groups would pick,
 *
 *     const head = (c) => { const g = groups[c].peek(cost); return g === undefined ? 0 : cost(g); };
 *     const c = classes.next(head);  const g = c === undefined ? undefined : groups[c].next(cost);
 *
 * Must not know messages. Source: Shreedhar and Varghese, "Efficient Fair Queuing using Deficit
 * Round Robin"; the wheel of rounds: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels".
 */
import { assert } from "../base/index.ts";

interface Entry<K> {
  key: K | undefined;
  weight: number;
  /** Earned and not spent, up to and with `round`. */
  deficit: number;
  round: number;
  /** Where it stands in the wheel; -1 while it is being served. */
  slot: number;
  before: Entry<K>;
  after: Entry<K>;
}

/** Rounds ahead that the wheel can tell apart, one bit of a word each; later ones look in again. */
const wheelSlots = 32;
/** Sums of fractional weights are not exact; this little is not worth a round. */
const rounding = 1e-9;

export class Ring<K> {
  readonly #entries = new Map<K, Entry<K>>();
  /** For each round ahead the keys to visit in it, first come first; the ring's own head closes it. */
  readonly #wheel: Entry<K>[] = Array.from({ length: wheelSlots }, () => headOf<K>());
  /** A bit for each slot with keys in it. */
  #filled = 0;
  #round = 0;
  #serving: Entry<K> | undefined;
  /** Entries of keys that left, chained by `after`: coming and going allocates nothing. */
  #spare: Entry<K> | undefined;

  /** Keys that have work. */
  get size(): number {
    return this.#entries.size;
  }

  has(key: K): boolean {
    return this.#entries.has(key);
  }

  /** Keys that have work, in the order in which they came. */
  [Symbol.iterator](): MapIterator<K> {
    return this.#entries.keys();
  }

  /**
   * The key has work from now on. For a key that is here already only its weight changes.
   *
   * @param weight Above 0; only its proportion to the others counts.
   */
  activate(key: K, weight: number): void {
    const present = this.#entries.get(key);
    if (present === undefined) {
      const entry = this.#newEntry();
      entry.key = key;
      entry.weight = weight;
      entry.deficit = 0;
      entry.round = this.#round;
      this.#entries.set(key, entry);
      this.#place(entry, 1);
    } else if (present.weight !== weight) {
      earn(present, this.#round);
      present.weight = weight;
      // What it was set down for was worked out with the old weight: look again in the next round.
      if (
        present.slot >= 0 &&
        (present.slot - (this.#round % wheelSlots) + wheelSlots) % wheelSlots > 1
      ) {
        this.#unlink(present);
        this.#place(present, 1);
      }
    }
  }

  /** The key has no work any more; its turn and what it earned are gone. */
  deactivate(key: K): void {
    const entry = this.#entries.get(key);
    if (entry !== undefined) this.#leave(entry);
  }

  /**
   * The key whose turn it is, charged with the cost of its head.
   *
   * @param cost Cost of what the key would send next, above 0; 0 if it has nothing, and then the key
   *   leaves. It must give the same until the key is picked, and must not change this ring.
   * @returns undefined when no key has work.
   */
  next(cost: (key: K) => number): K | undefined {
    const price = this.#turn(cost);
    if (price === 0) return undefined;
    const entry = this.#serving!;
    entry.deficit -= price;
    return entry.key;
  }

  /** The key that `next` would pick, not charged. */
  peek(cost: (key: K) => number): K | undefined {
    return this.#turn(cost) === 0 ? undefined : this.#serving!.key;
  }

  /** @throws {SpillwayError} invariant_broken */
  check(): void {
    let placed = 0;
    for (let slot = 0; slot < wheelSlots; slot++) {
      const head = this.#wheel[slot]!;
      for (let entry = head.after; entry !== head; entry = entry.after) {
        assert(entry.slot === slot && entry.after.before === entry, "F3 an entry is where it says");
        assert(this.#entries.get(entry.key as K) === entry, "F2 who left has no turn");
        assert(entry.round <= this.#round, "F3 nothing is earned ahead");
        placed++;
      }
      const marked = (this.#filled & (1 << slot)) !== 0;
      assert(marked === (head.after !== head), "F3 the bit of a slot says whether it has keys");
    }
    if (this.#serving !== undefined) placed++;
    assert(placed === this.#entries.size, "F2 every key with work has a place");
  }

  /** Finds whose turn it is and leaves it in `#serving`. Returns the cost of its head, or 0. */
  #turn(cost: (key: K) => number): number {
    for (;;) {
      const entry = this.#serving ?? this.#advance();
      if (entry === undefined) return 0;
      const price = cost(entry.key as K);
      if (price <= 0) {
        this.#leave(entry);
      } else if (entry.deficit + rounding >= price) {
        return price;
      } else {
        this.#serving = undefined;
        this.#place(entry, Math.ceil((price - rounding - entry.deficit) / entry.weight));
      }
    }
  }

  /** Goes on to the next key, in this round or the next one that has any, and lets it earn. */
  #advance(): Entry<K> | undefined {
    if (this.#filled === 0) return undefined;
    const slot = this.#round % wheelSlots;
    // The slots ahead as bits, this round's lowest; then the distance to the first that is filled.
    const ahead = (this.#filled >>> slot) | (slot === 0 ? 0 : this.#filled << (wheelSlots - slot));
    this.#round += 31 - Math.clz32(ahead & -ahead);
    const entry = this.#wheel[this.#round % wheelSlots]!.after;
    this.#unlink(entry);
    earn(entry, this.#round);
    this.#serving = entry;
    return entry;
  }

  /** Puts an entry behind those that are due in the same round. */
  #place(entry: Entry<K>, rounds: number): void {
    const slot = (this.#round + Math.min(wheelSlots - 1, rounds)) % wheelSlots;
    const head = this.#wheel[slot]!;
    entry.slot = slot;
    entry.before = head.before;
    entry.after = head;
    head.before.after = entry;
    head.before = entry;
    this.#filled |= 1 << slot;
  }

  #unlink(entry: Entry<K>): void {
    const { slot, before, after } = entry;
    before.after = after;
    after.before = before;
    entry.slot = -1;
    // Only the head of a slot stands on both sides of an entry that was alone.
    if (before === after) this.#filled &= ~(1 << slot);
  }

  #leave(entry: Entry<K>): void {
    if (entry === this.#serving) this.#serving = undefined;
    else this.#unlink(entry);
    this.#entries.delete(entry.key as K);
    entry.key = undefined;
    entry.after = this.#spare ?? entry;
    this.#spare = entry;
  }

  #newEntry(): Entry<K> {
    const entry = this.#spare;
    if (entry === undefined) return headOf<K>();
    // The last of the chain points at itself.
    this.#spare = entry.after === entry ? undefined : entry.after;
    return entry;
  }
}

function earn<K>(entry: Entry<K>, round: number): void {
  entry.deficit += entry.weight * (round - entry.round);
  entry.round = round;
}

function headOf<K>(): Entry<K> {
  const head = { key: undefined, weight: 0, deficit: 0, round: 0, slot: -1 } as Entry<K>;
  head.before = head;
  head.after = head;
  return head;
}

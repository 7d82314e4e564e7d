/**
 * Messages that wait for a time: delayed ones for theirs, retries for theirs and for a token of the
 * retry budget, suspects for the one before them.
 *
 * R1  A retry, and a suspect's next attempt, take a token of the budget; without one they wait, the
 *     order of their due times kept.
 * M3  One suspect at a time is out.
 * G6  At most `delayedMax` are kept, those that are due first; the store keeps the others. So a
 *     flood of messages for tomorrow holds up no retry of now.
 */
import { Deque, Heap } from "../base/index.ts";
import { budget } from "../control/index.ts";
import type { Budget } from "../control/index.ts";
import type { Entry } from "./entry.ts";

/** Over all partitions of the flow; at that many the later half goes back to the store. */
const delayedMax = 8192;
const stays: readonly Entry[] = [];

export class Waits {
  budget: Budget;
  readonly #delayed = new Heap<Entry>();
  readonly #retries = new Heap<Entry>();
  readonly #suspects = new Deque<Entry>();
  #suspectOut: Entry | undefined;
  /** Whatever is due from then on is in the store, while much is kept here. */
  #horizonMs = Infinity;

  constructor(share: number, nowMs: number) {
    this.budget = budget.init({ share }, nowMs);
  }

  /** Retries as a share of first attempts, from now on. */
  setShare(share: number): void {
    this.budget = { ...this.budget, share };
  }

  get size(): number {
    return this.#delayed.size + this.#retries.size + this.#suspects.size;
  }

  /** Whether what the store knows to be due at a time would be kept. */
  hasRoomFor(dueAtMs: number): boolean {
    if (this.#delayed.size + this.#retries.size < delayedMax / 2) this.#horizonMs = Infinity;
    return dueAtMs < this.#horizonMs;
  }

  /** @returns What the store has to keep instead: itself, or those that are due last. */
  delay(entry: Entry): readonly Entry[] {
    if (!this.hasRoomFor(entry.dueAtMs)) return [entry];
    entry.state = "delayed";
    (entry.isRetry ? this.#retries : this.#delayed).push(entry.dueAtMs, entry);
    return this.#delayed.size + this.#retries.size > delayedMax ? this.#shed() : stays;
  }

  /** Keeps the half that is due first. */
  #shed(): Entry[] {
    const kept: Entry[] = [];
    const shed: Entry[] = [];
    for (;;) {
      drop(this.#delayed);
      drop(this.#retries);
      const heap = this.#delayed.least <= this.#retries.least ? this.#delayed : this.#retries;
      const entry = heap.pop();
      if (entry === undefined) break;
      (kept.length < delayedMax / 2 ? kept : shed).push(entry);
    }
    for (const entry of kept) {
      (entry.isRetry ? this.#retries : this.#delayed).push(entry.dueAtMs, entry);
    }
    this.#horizonMs = shed[0]?.dueAtMs ?? Infinity;
    return shed;
  }

  suspect(entry: Entry): void {
    this.#suspects.pushBack(entry);
  }

  /** Calls for each message whose wait is over. */
  release(nowMs: number, ready: (entry: Entry) => void): void {
    for (;;) {
      drop(this.#delayed);
      if (this.#delayed.least > nowMs) break;
      ready(this.#delayed.pop()!);
    }
    for (;;) {
      drop(this.#retries);
      if (this.#retries.least > nowMs || !budget.take(this.budget, nowMs)) break;
      ready(this.#retries.pop()!);
    }
    if (this.#suspectOut !== undefined || this.#suspects.size === 0) return;
    if (this.#suspects.front()!.state !== "suspect") this.#suspects.popFront();
    else if (budget.take(this.budget, nowMs)) {
      this.#suspectOut = this.#suspects.popFront()!;
      ready(this.#suspectOut);
    }
  }

  /** An attempt ended, whichever way: if it was a suspect's, the next one may start. */
  ended(entry: Entry): void {
    if (entry === this.#suspectOut) this.#suspectOut = undefined;
  }

  /** Everything of a partition is void. */
  drop(partition: number): void {
    if (this.#suspectOut?.partition === partition) this.#suspectOut = undefined;
    const others = [...this.#suspects].filter((entry) => entry.partition !== partition);
    while (this.#suspects.popFront() !== undefined);
    for (const entry of others) this.#suspects.pushBack(entry);
  }

  nextAtMs(nowMs: number): number {
    drop(this.#delayed);
    drop(this.#retries);
    const suspectWaits = this.#suspects.size > 0 && this.#suspectOut === undefined;
    const needsToken = suspectWaits || this.#retries.least <= nowMs;
    return Math.min(
      this.#delayed.least,
      needsToken ? budget.readyAtMs(this.budget, nowMs) : this.#retries.least,
    );
  }
}

/** What left meanwhile (settled by an operator, evicted, delayed anew) is no longer at its place. */
function drop(heap: Heap<Entry>): void {
  for (let entry = heap.peek(); entry !== undefined; entry = heap.peek()) {
    if (entry.state === "delayed" && entry.dueAtMs === heap.least) return;
    heap.pop();
  }
}

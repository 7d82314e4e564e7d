/**
 * What stands on the shelves of one flow, and how dead letters leave them. The machine decides what may
 * come back; here the store is asked page by page.
 */
import { isSpillwayError } from "../base/index.ts";
import type { SpillwayError } from "../base/index.ts";
import type { Engine, Shelf, ShelfEntry, StoredMessage } from "../engines/engine.ts";
import type { QueueMachine } from "./machine.ts";

export interface ShelvesDeps {
  readonly engine: Pick<Engine, "list" | "payloads">;
  /** The machine has something to do. */
  readonly onChange: () => void;
  /** A damaged entry was passed over. */
  readonly onError: (error: SpillwayError) => void;
}

interface Shelved {
  readonly shelf: Shelf;
  readonly message: ShelfEntry;
}

/** Where a message lies, and what is known of it. */
export type Looked = Shelved | { readonly shelf: "pending"; readonly message: StoredMessage };

const shelfPage = 256;

export class Shelves {
  readonly #flow: string;
  readonly #machine: QueueMachine;
  readonly #deps: ShelvesDeps;

  constructor(flow: string, machine: QueueMachine, deps: ShelvesDeps) {
    this.#flow = flow;
    this.#machine = machine;
    this.#deps = deps;
  }

  /** A message as the store has it; undefined: it was acked, or is not there (yet). */
  async look(partition: number, seq: number): Promise<Looked | undefined> {
    const ref = { flow: this.#flow, partition };
    const [message] = await this.#deps.engine.payloads(ref, [seq]);
    if (message !== null && message !== undefined) return { shelf: "pending", message };
    return this.find(partition, seq);
  }

  /** Where a message that has ended stands. */
  async find(partition: number, seq: number): Promise<Shelved | undefined> {
    for (const shelf of ["dead", "discarded"] as const) {
      const [message] = await this.#list(partition, shelf, seq - 1, 1);
      if (message?.seq === seq) return { shelf, message };
    }
    return undefined;
  }

  async list(
    shelf: Shelf,
    options: { partition: number; afterSeq: number; limit: number },
  ): Promise<ShelfEntry[]> {
    const { partition, afterSeq, limit } = options;
    try {
      return await this.#list(partition, shelf, afterSeq, limit);
    } catch (error) {
      if (!isSpillwayError(error, "store_corrupt")) throw error;
      return this.#listAround(shelf, options);
    }
  }

  /** A damaged entry is told of and passed over, one by one: it must not hide the others (G13). */
  async #listAround(
    shelf: Shelf,
    { partition, afterSeq, limit }: { partition: number; afterSeq: number; limit: number },
  ): Promise<ShelfEntry[]> {
    const entries: ShelfEntry[] = [];
    for (let after = afterSeq; entries.length < limit;) {
      try {
        const [entry] = await this.#list(partition, shelf, after, 1);
        if (entry === undefined) break;
        entries.push(entry);
        after = entry.seq;
      } catch (cause) {
        if (!isSpillwayError(cause, "store_corrupt")) throw cause;
        const { seq } = cause.details as { seq?: number };
        if (seq === undefined || seq <= after) throw cause;
        after = seq;
        this.#deps.onError(cause);
      }
    }
    return entries;
  }

  /**
   * Brings dead letters back, oldest first, as the buffer has room for them.
   * @returns How many are on their way back.
   */
  async redrive(options: {
    seqs?: ReadonlyMap<number, readonly number[]>;
    max: number;
  }): Promise<number> {
    let count = 0;
    for (const { index } of this.#machine.partitions) {
      const wanted = options.seqs?.get(index);
      if (options.seqs !== undefined) {
        const seqs = (wanted ?? []).slice(0, options.max - count);
        for (let at = 0; at < seqs.length; at += shelfPage) {
          const letters = await this.#entriesAmong(index, seqs.slice(at, at + shelfPage));
          const taken = this.#machine.redrive(index, letters);
          count += taken;
          this.#deps.onChange();
          if (taken < letters.length) return count; // The buffer is full.
        }
        continue;
      }
      let afterSeq = 0;
      for (let more = true; more && count < options.max;) {
        const page = await this.list("dead", { partition: index, afterSeq, limit: shelfPage });
        more = page.length === shelfPage;
        afterSeq = page.at(-1)?.seq ?? 0;
        const letters = page.slice(0, options.max - count);
        const taken = this.#machine.redrive(index, letters);
        count += taken;
        this.#deps.onChange();
        if (taken < letters.length) return count; // The buffer is full.
      }
    }
    return count;
  }

  /** Discards dead letters; what is not one is left alone. @returns How many are on their way. */
  async purge(partition: number, seqs: readonly number[], reason: string): Promise<number> {
    const owned = this.#machine.partitions[partition];
    if (owned === undefined) return 0;
    let letters: number[];
    let redrives: number;
    do {
      // What is redriven while it is looked at is a letter no more: look again.
      ({ redrives } = owned);
      letters = (await this.#entriesAmong(partition, seqs)).map(({ seq }) => seq);
    } while (owned.isOpen && (owned.isRedriving || owned.redrives !== redrives));
    this.#machine.purge(partition, letters, reason);
    this.#deps.onChange();
    return letters.length;
  }

  /** One by one: they may lie far apart on a long shelf. */
  async #entriesAmong(partition: number, seqs: readonly number[]): Promise<ShelfEntry[]> {
    const letters: ShelfEntry[] = [];
    for (const seq of new Set(seqs)) {
      const [letter] = await this.list("dead", { partition, afterSeq: seq - 1, limit: 1 });
      if (letter?.seq === seq) letters.push(letter);
    }
    return letters;
  }

  #list(partition: number, shelf: Shelf, afterSeq: number, limit: number): Promise<ShelfEntry[]> {
    return this.#deps.engine.list({ flow: this.#flow, partition }, shelf, afterSeq, limit);
  }
}

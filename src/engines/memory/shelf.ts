/** Messages that ended without success, ascending by seq. */
import type { Seq } from "../../flow/index.ts";
import type { ShelfEntry } from "../engine.ts";
import { bySeq } from "./lane.ts";
import { showShelved } from "./rows.ts";
import type { ShelfRow } from "./rows.ts";
import { Sorted } from "./sorted.ts";

export class ShelfRows {
  readonly #rows = new Map<Seq, ShelfRow>();
  readonly #order = new Sorted(bySeq);

  get size(): number {
    return this.#rows.size;
  }

  get(seq: Seq): ShelfRow | undefined {
    return this.#rows.get(seq);
  }

  put(row: ShelfRow): void {
    this.#rows.set(row.seq, row);
    this.#order.add(row.seq);
  }

  remove(seq: Seq): void {
    this.#rows.delete(seq);
    this.#order.delete(seq);
  }

  list(afterSeq: Seq, limit: number): ShelfEntry[] {
    const seqs = this.#order.after(afterSeq).take(limit);
    return Array.from(seqs, (seq) => showShelved(this.#rows.get(seq)!));
  }
}

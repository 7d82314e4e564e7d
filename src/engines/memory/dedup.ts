/**
 * Idempotency ids of a partition. An id is known while `nowMs` <= its first append's `untilMs`; a
 * repeat does not prolong it (E8).
 */
import type { Seq } from "../../flow/index.ts";
import type { Append } from "../engine.ts";

export interface Known {
  readonly seq: Seq;
  readonly content: string;
  readonly untilMs: number;
}

export class Dedup {
  readonly #known = new Map<string, Known>();

  /** What a repeat at `nowMs` repeats. */
  find(id: string, nowMs: number): Known | undefined {
    const known = this.#known.get(id);
    return known !== undefined && nowMs <= known.untilMs ? known : undefined;
  }

  remember(id: string, known: Known): void {
    this.#known.delete(id); // A new one goes last: the walk of `expire` is by age.
    this.#known.set(id, known);
  }

  /** Forgets ids whose window is over, in the order of their appends, `limit` at the most. */
  expire(nowMs: number, limit: number): { readonly bytes: number; readonly more: boolean } {
    let [seen, bytes] = [0, 0];
    for (const [id, known] of this.#known) {
      if (known.untilMs >= nowMs) break;
      if (seen++ >= limit) return { bytes, more: true };
      this.#known.delete(id);
      bytes += id.length + known.content.length;
    }
    return { bytes, more: false };
  }
}

/** Bytes as a string of char codes, equal exactly where the bytes are. */
export function textOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

export function knownOf(idempotency: NonNullable<Append["idempotency"]>, seq: Seq): Known {
  return { seq, content: textOf(idempotency.content), untilMs: idempotency.untilMs };
}

/**
 * The results of one element of a write, as they travel and as they are kept for a repeat (E17):
 * counters, then runs of append results. Freshly stored messages rise by one, so a batch is one run.
 */
import { SpillwayError } from "../../base/index.ts";
import type { AppendResult, Counters, WriteResult } from "../engine.ts";
import { ByteWriter } from "./bytes.ts";
import type { ByteReader } from "./bytes.ts";
import type { Part } from "./partition.ts";

const kinds = ["stored", "duplicate", "conflict"] as const;

export class Results {
  readonly #runs = new ByteWriter(256);
  #count = 0;
  #first = 0;
  #length = 0;

  begin(): void {
    this.#runs.at = 0;
    this.#count = 0;
    this.#length = 0;
  }

  stored(seq: number): void {
    if (this.#length > 0 && this.#first + this.#length === seq) {
      this.#length++;
      return;
    }
    this.#endRun();
    this.#first = seq;
    this.#length = 1;
  }

  repeated(same: boolean, seq: number): void {
    this.#endRun();
    this.#put(same ? 1 : 2, seq, 1);
  }

  /** @returns A copy of its own. */
  end(part: Part): Uint8Array {
    this.#endRun();
    const to = new ByteWriter(52 + this.#runs.at);
    to.f64(part.accepted);
    to.f64(part.acked);
    to.f64(part.dead);
    to.f64(part.discarded);
    to.f64(part.pending);
    to.f64(part.bytes);
    to.u32(this.#count);
    to.raw(this.#runs.bytes.subarray(0, this.#runs.at));
    return to.bytes;
  }

  #endRun(): void {
    if (this.#length > 0) this.#put(0, this.#first, this.#length);
    this.#length = 0;
  }

  #put(kind: number, seq: number, length: number): void {
    this.#runs.u8(kind);
    this.#runs.f64(seq);
    this.#runs.u32(length);
    this.#count++;
  }
}

export function readResult(from: ByteReader): WriteResult {
  const counters: Counters = {
    accepted: from.f64(),
    acked: from.f64(),
    dead: from.f64(),
    discarded: from.f64(),
    pending: from.f64(),
    bytes: from.f64(),
  };
  const appended: AppendResult[] = [];
  for (let runs = from.u32(); runs > 0; runs--) {
    const kind = kinds[from.u8()];
    if (kind === undefined) throw new SpillwayError("invariant_broken", { invariant: "result" });
    const first = from.f64();
    const length = from.u32();
    for (let i = 0; i < length; i++) appended.push({ kind, seq: first + i });
  }
  return { appended, counters };
}

/**
 * A partition as the writer's thread holds it: the row of `part`, the seqs in flight, and what it
 * remembers of messages so that settling one needs no look-up.
 *
 * P1  `started` and `known` name pending messages only, and never the same one. `started` is the set
 *     in flight, whole; `known` is a cache that may forget.
 * P2  Between two transactions this record equals the row; a rolled back transaction reads it again.
 * P3  A claim lives as long as the process that gave it: `claimId` is not stored. The fence is.
 */
import type { Seq } from "../../flow/index.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { placeSeed } from "./checksum.ts";
import type { Statements } from "./statements.ts";
import { SpillwayError } from "../../base/index.ts";
import { partitionsMax } from "./schema.ts";

/** What settling needs to know of a message, in one number: bytes, lane, and where its rows are. */
export type Entry = number;
export const inBody = 8;
export const inSide = 16;
const entrySpan = 32;

export function entry(lane: number, bytes: number, body: boolean, side: boolean): Entry {
  return bytes * entrySpan + lane + (body ? inBody : 0) + (side ? inSide : 0);
}
export function laneOf(value: Entry): number {
  return value % 8;
}
export function bytesOf(value: Entry): number {
  return Math.floor(value / entrySpan);
}
/** Flags stand in the low bits; `bytes` may pass 32 bits, so they are cut off before the test. */
export function has(value: Entry, flag: number): boolean {
  return ((value % entrySpan) & flag) !== 0;
}
export function withSide(value: Entry): Entry {
  return has(value, inSide) ? value : value + inSide;
}

/**
 * Two generations of this size, about 400 kB: enough to cover what is scanned ahead of the window. A
 * map that drops its oldest entry one by one walks over all that it dropped before.
 */
const knownMax = 4096;

export interface Part {
  readonly p: number;
  readonly flow: string;
  readonly partition: number;
  readonly placeSeed: number;
  fence: number;
  claimId: string;
  /** The claim that a rolled back transaction returns to. */
  savedClaimId: string;
  lastWrite: string;
  lastResult: Uint8Array;
  nextSeq: Seq;
  accepted: number;
  acked: number;
  dead: number;
  discarded: number;
  pending: number;
  bytes: number;
  readonly started: Map<Seq, Entry>;
  known: Map<Seq, Entry>;
  knownBefore: Map<Seq, Entry>;
  dirty: boolean;
}

export function remember(part: Part, seq: Seq, value: Entry): void {
  if (part.known.size >= knownMax) {
    part.knownBefore = part.known;
    part.known = new Map();
  }
  part.known.set(seq, value);
}

/** @returns undefined when the message is not remembered, pending or not. */
export function recall(part: Part, seq: Seq): Entry | undefined {
  return part.started.get(seq) ?? part.known.get(seq) ?? part.knownBefore.get(seq);
}

export function forget(part: Part, seq: Seq): void {
  part.known.delete(seq);
  part.knownBefore.delete(seq);
}

/** @returns undefined when the message is not pending. */
export function find(part: Part, seq: Seq, statements: Statements): Entry | undefined {
  return recall(part, seq) ?? lookUp(part.p, seq, statements);
}

function lookUp(p: number, seq: Seq, statements: Statements): Entry | undefined {
  const row = statements.messageEntry.get(p, seq);
  if (row === undefined) return undefined;
  const { lane, bytes, body, side } = row;
  return entry(lane as number, bytes as number, body === 1, side !== null);
}

export class Partitions {
  readonly #statements: Statements;
  readonly #byName = new Map<string, Part>();
  readonly #dirty: Part[] = [];

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  /** @returns undefined when the store does not know it. */
  get(flow: string, partition: number): Part | undefined {
    const name = `${partition}/${flow}`;
    const held = this.#byName.get(name);
    if (held !== undefined) return held;
    const row = this.#statements.partByName.get(flow, partition);
    if (row === undefined) return undefined;
    const part = newPart(row["p"] as number, flow, partition);
    fill(part, row, this.#statements);
    this.#byName.set(name, part);
    return part;
  }

  /** Within a transaction. @throws {SpillwayError} option_invalid when there are too many. */
  create(flow: string, partition: number): Part {
    const last = this.#statements.partLast.get()!["last"] as number;
    if (last >= partitionsMax) {
      throw new SpillwayError("option_invalid", { partitions: last, limit: partitionsMax });
    }
    this.#statements.partInsert.run(last + 1, flow, partition);
    const part = this.get(flow, partition)!;
    this.touch(part); // A roll back takes its row away.
    return part;
  }

  touch(part: Part): void {
    if (part.dirty) return;
    part.dirty = true;
    this.#dirty.push(part);
  }

  /** Writes the rows of what was touched; it stays touched until `committed` or `rolledBack`. */
  save(): void {
    for (const part of this.#dirty) {
      this.#statements.partSave.run(
        part.fence,
        part.lastWrite,
        part.lastResult,
        part.nextSeq,
        part.accepted,
        part.acked,
        part.dead,
        part.discarded,
        part.pending,
        part.bytes,
        encodeSeqs(part.started.keys()),
        part.p,
      );
    }
  }

  committed(): void {
    for (const part of this.#dirty) {
      part.dirty = false;
      part.savedClaimId = part.claimId;
    }
    this.#dirty.length = 0;
  }

  rolledBack(): void {
    for (const part of this.#dirty) {
      part.dirty = false;
      part.claimId = part.savedClaimId;
      if (!this.reload(part)) this.#byName.delete(`${part.partition}/${part.flow}`);
    }
    this.#dirty.length = 0;
  }

  /** @returns false when its row is gone. */
  reload(part: Part): boolean {
    const row = this.#statements.partByName.get(part.flow, part.partition);
    if (row !== undefined) fill(part, row, this.#statements);
    return row !== undefined;
  }
}

function newPart(p: number, flow: string, partition: number): Part {
  return {
    p,
    flow,
    partition,
    placeSeed: placeSeed(flow, partition),
    fence: 0,
    claimId: "",
    savedClaimId: "",
    lastWrite: "",
    lastResult: new Uint8Array(0),
    nextSeq: 1,
    accepted: 0,
    acked: 0,
    dead: 0,
    discarded: 0,
    pending: 0,
    bytes: 0,
    started: new Map(),
    known: new Map(),
    knownBefore: new Map(),
    dirty: false,
  };
}

function fill(part: Part, row: Record<string, unknown>, statements: Statements): void {
  part.fence = row["fence"] as number;
  part.lastWrite = row["last_write"] as string;
  part.lastResult = row["last_result"] as Uint8Array;
  part.nextSeq = row["next_seq"] as number;
  part.accepted = row["accepted"] as number;
  part.acked = row["acked"] as number;
  part.dead = row["dead"] as number;
  part.discarded = row["discarded"] as number;
  part.pending = row["pending"] as number;
  part.bytes = row["bytes"] as number;
  part.known.clear();
  part.knownBefore.clear();
  part.started.clear();
  for (const seq of decodeSeqs(row["started"] as Uint8Array)) {
    const value = lookUp(part.p, seq, statements);
    if (value !== undefined) part.started.set(seq, value);
  }
}

const scratch = new ByteWriter(4096);

/** Differences as variable-length integers: a dense window costs a byte a seq. */
export function encodeSeqs(seqs: Iterable<Seq>): Uint8Array {
  scratch.at = 0;
  let before = 0;
  for (const seq of seqs) {
    const step = seq - before;
    let rest = step < 0 ? -step * 2 - 1 : step * 2;
    for (scratch.need(8); rest > 127; rest = Math.floor(rest / 128)) scratch.u8(128 + (rest % 128));
    scratch.u8(rest);
    before = seq;
  }
  return scratch.copy();
}

export function decodeSeqs(bytes: Uint8Array): Seq[] {
  const reader = new ByteReader(bytes);
  const seqs: Seq[] = [];
  let before = 0;
  while (reader.at < bytes.length) {
    let rest = 0;
    for (let weight = 1; ; weight *= 128) {
      const byte = reader.u8();
      rest += (byte % 128) * weight;
      if (byte < 128) break;
    }
    before += rest % 2 === 1 ? -(rest + 1) / 2 : rest / 2;
    seqs.push(before);
  }
  return seqs;
}

/**
 * Reads, as generators: each stops after a page, so that commits come in between, and ends with the
 * bytes of its reply. A read that fits in a page never stops. Between pages the store may change: a
 * read goes on from its cursor, so that it shows every message that was there all the time (E12).
 */
import type { KeyHash, MessageClass, Seq } from "../../flow/index.ts";
import type { DueCursor, ScanQuery, Shelf } from "../engine.ts";
import { ByteWriter } from "./bytes.ts";
import { entry, find, laneOf, recall, remember } from "./partition.ts";
import type { Part } from "./partition.ts";
import { needIntact, putAbsent, putDescriptor, putMessage, putShelved } from "./rows.ts";
import type { Row } from "./rows.ts";
import { idSpan } from "./schema.ts";
import type { Statements } from "./statements.ts";
import { classIndex } from "./wire.ts";

/** About a millisecond of descriptors. */
const pageRows = 1000;
/** Messages with their content are read until this much is at hand. */
const pageBytesMax = 4 * 1024 ** 2;
const inGroup = 4;
/** Before every due time. */
const first: DueCursor = { dueAtMs: -Number.MAX_SAFE_INTEGER, seq: 0 };

export type Read<T> = Generator<void, T, void>;

/** Writes a count and that many messages. */
class Page {
  readonly #to = new ByteWriter(4096);
  count = 0;

  constructor() {
    this.#to.u32(0);
  }

  next(): ByteWriter {
    this.count++;
    return this.#to;
  }

  get bytes(): number {
    return this.#to.at;
  }

  end(): Uint8Array {
    this.#to.view.setUint32(0, this.count, true);
    return this.#to.bytes.subarray(0, this.#to.at);
  }
}

export function* scan(part: Part, query: ScanQuery, statements: Statements): Read<Uint8Array> {
  const { limit, nowMs, group } = query;
  const lane = classIndex(query.lane);
  const page = new Page();
  let after = query.afterSeq;
  while (page.count < limit) {
    const size = Math.min(pageRows, Math.max(limit - page.count, 64));
    const rows =
      group === undefined
        ? bothLanes(part.p, lane, after, size, statements)
        : group === null
          ? (statements.scan.all(part.p, lane, after, size) as Row[])
          : (statements.scanGroup.all(part.p, lane + inGroup, group, after, size) as Row[]);
    for (const row of rows) {
      if (page.count >= limit) break;
      if (((row["due"] as number | null) ?? nowMs) > nowMs) continue;
      putRow(page, part, row);
    }
    if (rows.length < size) break;
    after = rows.at(-1)!["seq"] as number;
    if (page.count < limit) yield;
  }
  return page.end();
}

const bySeq = (a: Row, b: Row): number => (a["seq"] as number) - (b["seq"] as number);

/** The next `size` of a class, with and without a group, ascending. */
function bothLanes(
  p: number,
  lane: number,
  after: Seq,
  size: number,
  statements: Statements,
): readonly Row[] {
  const loose = statements.scan.all(p, lane, after, size) as Row[];
  const grouped = statements.scan.all(p, lane + inGroup, after, size) as Row[];
  if (grouped.length === 0) return loose;
  if (loose.length === 0) return grouped;
  return [...loose, ...grouped].toSorted(bySeq).slice(0, size);
}

function putRow(page: Page, part: Part, row: Row): void {
  const seq = row["seq"] as number;
  const started = part.started.has(seq);
  putDescriptor(page.next(), row, started ? 1 : 0);
  if (recall(part, seq) !== undefined) return;
  const { lane, bytes, body, side } = row;
  remember(part, seq, entry(lane as number, bytes as number, body === 1, side !== null));
}

export function* groups(
  part: Part,
  lane: MessageClass,
  after: string | null,
  limit: number,
  statements: Statements,
): Read<string[]> {
  const found: string[] = [];
  const number = classIndex(lane) + inGroup;
  let last = after;
  while (found.length < limit) {
    const row =
      last === null
        ? statements.groupFirst.get(part.p, number)
        : statements.groupNext.get(part.p, number, last);
    if (row === undefined) break;
    last = row["grp"] as string;
    found.push(last);
    if (found.length % pageRows === 0) yield;
  }
  return found;
}

export function* due(
  part: Part,
  untilMs: number,
  after: DueCursor | null,
  limit: number,
  statements: Statements,
): Read<Uint8Array> {
  const page = new Page();
  let cursor = after ?? first;
  while (page.count < limit) {
    const size = Math.min(pageRows, limit - page.count);
    const rows = statements.due.all(part.p, cursor.dueAtMs, cursor.seq, untilMs, size) as Row[];
    for (const row of rows) putRow(page, part, row);
    const last = rows.at(-1);
    if (last === undefined || rows.length < size) break;
    cursor = { dueAtMs: last["due"] as number, seq: last["seq"] as number };
    if (page.count < limit) yield;
  }
  return page.end();
}

export function* keyHeads(
  part: Part,
  keyHashes: readonly KeyHash[],
  statements: Statements,
): Read<Seq[]> {
  const heads: Seq[] = [];
  for (const hash of keyHashes) {
    heads.push((statements.keyHead.get(part.p, hash)?.["seq"] as number | undefined) ?? 0);
    if (heads.length % pageRows === 0) yield;
  }
  return heads;
}

export function* readKey(
  part: Part,
  keyHash: KeyHash,
  afterSeq: Seq,
  limit: number,
  statements: Statements,
): Read<Uint8Array> {
  const page = new Page();
  let after = afterSeq;
  while (page.count < limit) {
    const size = Math.min(pageRows, limit - page.count);
    const rows = statements.readKey.all(part.p, keyHash, after, size) as Row[];
    for (const row of rows) putRow(page, part, row);
    if (rows.length < size) break;
    after = rows.at(-1)!["seq"] as number;
    if (page.count < limit) yield;
  }
  return page.end();
}

/** @throws {SpillwayError} store_corrupt */
export function* payloads(
  part: Part | undefined,
  seqs: readonly Seq[],
  statements: Statements,
): Read<Uint8Array> {
  const page = new Page();
  let stopAt = pageBytesMax;
  for (const seq of seqs) {
    putPayload(page, part, seq, statements);
    if (page.bytes < stopAt) continue;
    stopAt += pageBytesMax;
    yield;
  }
  return page.end();
}

function putPayload(page: Page, part: Part | undefined, seq: Seq, statements: Statements): void {
  const value = part === undefined ? undefined : find(part, seq, statements);
  if (part === undefined || value === undefined) {
    putAbsent(page.next());
    return;
  }
  const row = statements.message.get(part.p * idSpan + seq, part.p, laneOf(value), seq) as Row;
  needIntact(row, part);
  putMessage(page.next(), row, part.started.has(seq) ? 1 : 0);
}

/** @throws {SpillwayError} store_corrupt */
export function* list(
  part: Part,
  shelf: Shelf,
  afterSeq: Seq,
  limit: number,
  statements: Statements,
): Read<Uint8Array> {
  const page = new Page();
  const kind = shelf === "dead" ? 0 : 1;
  let after = afterSeq;
  while (page.count < limit) {
    const size = Math.min(100, limit - page.count);
    const rows = statements.list.all(part.p, kind, after, size) as Row[];
    for (const row of rows) {
      if (kind === 0) needIntact(row, part);
      putShelved(page.next(), row);
    }
    if (rows.length < size) break;
    after = rows.at(-1)!["seq"] as number;
    if (page.count < limit) yield;
  }
  return page.end();
}

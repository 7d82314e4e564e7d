/**
 * Stores the appends of one element, reading them where they lie in the request's buffer: no object is
 * made for a message.
 *
 * A1  Seqs are given in order and only to what is stored (E6).
 * A2  An id within its window stores nothing: `duplicate`, or `conflict` if the content differs (E8).
 */
import type { ByteReader } from "./bytes.ts";
import { checksumOf } from "./checksum.ts";
import { entry, remember } from "./partition.ts";
import type { Part } from "./partition.ts";
import type { Results } from "./results.ts";
import { idSpan, inlineBytesMax } from "./schema.ts";
import type { Statements } from "./statements.ts";
import { contentHeadBytes, flag } from "./wire.ts";

/** Reads `count` appends from the reader's place; the caller checks the bound. */
export function applyAppends(
  part: Part,
  from: ByteReader,
  count: number,
  nowMs: number,
  statements: Statements,
  results: Results,
): void {
  for (let i = 0; i < count; i++) applyAppend(part, from, nowMs, statements, results);
}

function applyAppend(
  part: Part,
  from: ByteReader,
  nowMs: number,
  statements: Statements,
  results: Results,
): void {
  const { view } = from;
  const flags = view.getUint16(from.at, true);
  const bytes = view.getFloat64(from.at + 2, true);
  from.at += 10;
  const cost = (flags & flag.cost) === 0 ? null : from.f64();
  const due = (flags & flag.due) === 0 ? null : from.f64();
  const deadline = (flags & flag.deadline) === 0 ? null : from.f64();
  const idempotencyAt = from.at;
  if ((flags & flag.idempotency) !== 0) from.at += 32;
  const group = (flags & flag.group) === 0 ? null : from.text();
  const contentAt = from.at + 8;
  const crc = view.getUint32(from.at + 4, true);
  const headersLength = view.getUint32(contentAt + 8, true);
  const keyLength = view.getUint32(contentAt + 12, true);
  const dataLength = headersLength + view.getUint32(from.at, true);
  const dataAt = contentAt + contentHeadBytes + keyLength;
  from.at = dataAt + dataLength;

  const { p, nextSeq: seq } = part;
  const id = p * idSpan + seq;
  if ((flags & flag.idempotency) !== 0) {
    const until = view.getFloat64(idempotencyAt + 24, true);
    if (!isNew(part, from, idempotencyAt, id, until, nowMs, statements, results)) return;
  }
  const data = from.slice(dataAt, dataLength);
  const body = dataLength + keyLength > inlineBytesMax;
  const lane = (flags & flag.classMask) + (group === null ? 0 : 4);
  const blob = body ? null : data;
  if ((flags & flag.columns) === 0) {
    const checksum = checksumOf(crc, part.placeSeed, seq, headersLength, null, null);
    statements.plainInsert.run(p, lane, seq, nowMs, checksum, bytes, headersLength, blob);
  } else {
    const keyHash = (flags & flag.keyHash) === 0 ? null : view.getFloat64(contentAt, true);
    const key =
      (flags & flag.key) === 0 ? null : from.bytes.toString("utf8", dataAt - keyLength, dataAt);
    statements.messageInsert.run(
      p,
      lane,
      seq,
      keyHash,
      group,
      cost,
      deadline,
      nowMs,
      checksumOf(crc, part.placeSeed, seq, headersLength, keyHash, key),
      bytes,
      headersLength,
      key,
      blob,
    );
  }
  if (body) statements.bodyInsert.run(id, data);
  if (due !== null) statements.sideDelay.run(p, seq, lane, due);
  part.nextSeq = seq + 1;
  part.accepted++;
  part.pending++;
  part.bytes += bytes;
  const value = entry(lane, bytes, body, due !== null);
  if ((flags & flag.started) === 0) remember(part, seq, value);
  else part.started.set(seq, value);
  results.stored(seq);
}

const hash = new Uint8Array(16);
const hashView = new DataView(hash.buffer);

/** Claims an id for a seq; false when it is a repeat, and then its result is given. */
function isNew(
  part: Part,
  from: ByteReader,
  at: number,
  id: number,
  untilMs: number,
  nowMs: number,
  statements: Statements,
  results: Results,
): boolean {
  hash.set(from.slice(at, 16));
  // One index for all partitions: the partition's number is mixed into the hash.
  hashView.setUint32(0, (hashView.getUint32(0) ^ Math.imul(part.p, 0x9e3779b1)) >>> 0);
  const content = from.slice(at + 16, 8);
  if (statements.dedupInsert.run(id, untilMs, hash, content).changes === 1) return true;
  const known = statements.dedupFind.get(hash)!;
  if (nowMs > (known["until"] as number)) {
    statements.dedupReplace.run(id, untilMs, content, hash);
    return true;
  }
  const same = Buffer.compare(known["content"] as Uint8Array, content) === 0;
  results.repeated(same, (known["id"] as number) - part.p * idSpan);
  return false;
}

/**
 * What the two threads say to each other. A message is one transferred buffer of frames: requests of
 * one turn of the caller's loop one way, the replies of one transaction the other way. A write is
 * binary, for its messages are many; other requests are JSON, for they are few. Replies that carry
 * messages are binary.
 *
 * Request: op u8, id u32, length u32, then for `write` the elements (below), for the others JSON.
 * Reply:   kind u8, id u32, then as `reply` says. Before the first one a u8: 1 where they answer a whole
 *          request message, 0 where they come from work that went on after it.
 * Append:  flags u16, bytes f64, [cost f64] [due f64] [deadline f64] [idempotency 16 + 8 bytes, until
 *          f64] [group text], payload length u32, CRC of headers and payload u32, key hash f64, headers
 *          length u32, key length u32, key, headers, payload.
 */
import { SpillwayError } from "../../base/index.ts";
import type { ErrorCode } from "../../base/index.ts";
import { messageClasses } from "../../flow/index.ts";
import type { KeyHash, MessageClass, Seq } from "../../flow/index.ts";
import { appendBytes } from "../engine.ts";
import type {
  Append,
  Change,
  Claim,
  DueCursor,
  PartitionRef,
  PartitionWrite,
  ScanQuery,
  Shelf,
} from "../engine.ts";
import type { ByteReader, ByteWriter } from "./bytes.ts";
import { crcOf } from "./checksum.ts";

export const op = {
  write: 1,
  claim: 2,
  renew: 3,
  release: 4,
  scan: 5,
  groups: 6,
  due: 7,
  keyHeads: 8,
  readKey: 9,
  payloads: 10,
  list: 11,
  audit: 12,
  maintain: 13,
  metaGet: 14,
  metaList: 15,
  metaSet: 16,
} as const;
export type Op = (typeof op)[keyof typeof op];

/** What follows the id of each request but `write`, as a JSON array. */
export interface Requests {
  readonly claim: readonly [ref: PartitionRef];
  readonly held: readonly [claim: Pick<Claim, "ref" | "fence" | "claimId">];
  readonly scan: readonly [ref: PartitionRef, query: ScanQuery];
  readonly groups: readonly [
    ref: PartitionRef,
    lane: MessageClass,
    after: string | null,
    limit: number,
  ];
  readonly due: readonly [
    ref: PartitionRef,
    untilMs: number,
    after: DueCursor | null,
    limit: number,
  ];
  readonly keyHeads: readonly [ref: PartitionRef, keyHashes: readonly KeyHash[]];
  readonly readKey: readonly [ref: PartitionRef, keyHash: KeyHash, afterSeq: Seq, limit: number];
  readonly payloads: readonly [ref: PartitionRef, seqs: readonly Seq[]];
  readonly list: readonly [ref: PartitionRef, shelf: Shelf, afterSeq: Seq, limit: number];
  readonly audit: readonly [ref: PartitionRef];
  readonly maintain: readonly [
    claim: Pick<Claim, "ref" | "fence" | "claimId">,
    nowMs: number,
    budgetMs: number,
  ];
  readonly meta: readonly [key: string];
  readonly metaSet: readonly [key: string, base64: string | null, expectedRevision: number];
}

/** An entry of `meta` as JSON. */
export interface WireEntry {
  readonly key: string;
  readonly base64: string;
  readonly revision: number;
}

export const reply = { json: 1, error: 2, written: 3, messages: 4 } as const;
export type ReplyKind = (typeof reply)[keyof typeof reply];

export const flag = {
  classMask: 3,
  keyHash: 4,
  key: 8,
  group: 16,
  cost: 32,
  due: 64,
  deadline: 128,
  idempotency: 256,
  started: 512,
  /** Any of those that have a column of their own in `msg`. */
  columns: 188,
} as const;

/** Bytes of content before the key. */
export const contentHeadBytes = 16;

export const changeKind = {
  started: 0,
  released: 1,
  retry: 2,
  ack: 3,
  dead: 4,
  discard: 5,
  redrive: 6,
} as const;

export function classIndex(name: MessageClass): number {
  return name === "normal" ? 1 : name === "critical" ? 0 : 2;
}

export function className(index: number): MessageClass {
  return messageClasses[index % 4]!;
}

export interface SizeLimits {
  readonly maxMessageBytes: number;
  readonly maxBatchBytes: number;
}

/** @throws {SpillwayError} message_too_large, invariant_broken: two elements for one partition */
export function encodeWrite(
  to: ByteWriter,
  batch: readonly PartitionWrite[],
  limits: SizeLimits,
): void {
  to.u32(batch.length);
  let total = 0;
  for (let i = 0; i < batch.length; i++) {
    const write = batch[i]!;
    for (let j = 0; j < i; j++) needOther(batch[j]!, write);
    const { claim, changes, appends } = write;
    const lengthAt = to.at;
    to.u32(0);
    to.text(claim.ref.flow);
    to.u32(claim.ref.partition);
    to.f64(claim.fence);
    to.text(claim.claimId);
    to.text(write.writeId);
    to.f64(write.nowMs);
    to.f64(write.limits.messages);
    to.f64(write.limits.bytes);
    to.u32(changes.length);
    to.u32(appends.length);
    const bytesAt = to.at;
    to.f64(0);
    let redrives = 0;
    to.u8(0);
    for (let j = 0; j < changes.length; j++) {
      encodeChange(to, changes[j]!);
      if (changes[j]!.kind === "redrive") redrives = 1;
    }
    let bytes = 0;
    for (let j = 0; j < appends.length; j++) {
      const size = encodeAppend(to, appends[j]!);
      if (size > limits.maxMessageBytes) {
        const limit = limits.maxMessageBytes;
        throw new SpillwayError("message_too_large", { bytes: size, limit });
      }
      bytes += size;
      if (total + bytes > limits.maxBatchBytes) {
        const limit = limits.maxBatchBytes;
        throw new SpillwayError("message_too_large", { batchBytes: total + bytes, limit });
      }
    }
    total += bytes;
    to.view.setUint32(lengthAt, to.at - lengthAt - 4, true);
    to.view.setFloat64(bytesAt, bytes, true);
    to.view.setUint8(bytesAt + 8, redrives);
  }
}

function needOther(a: PartitionWrite, b: PartitionWrite): void {
  const [one, other] = [a.claim.ref, b.claim.ref];
  if (one.partition === other.partition && one.flow === other.flow) {
    throw new SpillwayError("invariant_broken", { invariant: "one write per partition" });
  }
}

function encodeChange(to: ByteWriter, change: Change): void {
  to.need(25);
  to.view.setUint8(to.at, changeKind[change.kind]);
  to.view.setFloat64(to.at + 1, change.seq, true);
  to.at += 9;
  switch (change.kind) {
    case "released":
      to.f64(change.dueAtMs ?? NaN);
      break;
    case "retry":
      to.f64(change.dueAtMs);
      to.text(change.error);
      break;
    case "dead":
    case "discard":
      to.text(change.reason);
      break;
    case "started":
    case "ack":
    case "redrive":
      break;
  }
}

/** @returns What it counts against the bound in bytes. */
function encodeAppend(to: ByteWriter, append: Append): number {
  const { key, group, cost, dueAtMs, deadlineAtMs, idempotency, headers, payload } = append;
  const bytes = appendBytes(append);
  to.need(128 + headers.length + payload.length);
  const { view } = to;
  let flags = classIndex(append.class);
  view.setFloat64(to.at + 2, bytes, true);
  const flagsAt = to.at;
  let at = to.at + 10;
  if (cost !== undefined) {
    flags |= flag.cost;
    view.setFloat64(at, cost, true);
    at += 8;
  }
  if (dueAtMs !== undefined) {
    flags |= flag.due;
    view.setFloat64(at, dueAtMs, true);
    at += 8;
  }
  if (deadlineAtMs !== undefined) {
    flags |= flag.deadline;
    view.setFloat64(at, deadlineAtMs, true);
    at += 8;
  }
  if (idempotency !== undefined) {
    flags |= flag.idempotency;
    needBytes(idempotency.id, 16);
    needBytes(idempotency.content, 8);
    to.bytes.set(idempotency.id, at);
    to.bytes.set(idempotency.content, at + 16);
    view.setFloat64(at + 24, idempotency.untilMs, true);
    at += 32;
  }
  to.at = at;
  if (group !== undefined) {
    flags |= flag.group;
    to.text(group);
  }
  if (append.keyHash !== undefined) flags |= flag.keyHash;
  if (key !== undefined) flags |= flag.key;
  if (append.started === true) flags |= flag.started;
  to.view.setUint16(flagsAt, flags, true);
  encodeContent(to, append.keyHash ?? 0, key ?? "", headers, payload);
  return bytes;
}

function encodeContent(
  to: ByteWriter,
  keyHash: number,
  key: string,
  headers: Uint8Array,
  payload: Uint8Array,
): void {
  to.need(32 + key.length * 3 + headers.length + payload.length);
  to.view.setUint32(to.at, payload.length, true);
  to.view.setUint32(to.at + 4, crcOf(headers, payload), true);
  to.view.setFloat64(to.at + 8, keyHash, true);
  to.view.setUint32(to.at + 16, headers.length, true);
  to.at += 20; // The key's length and the key follow, as a text.
  to.text(key);
  to.bytes.set(headers, to.at);
  to.bytes.set(payload, to.at + headers.length);
  to.at += headers.length + payload.length;
}

function needBytes(bytes: Uint8Array, count: number): void {
  if (bytes.length !== count) {
    throw new SpillwayError("option_invalid", { idempotencyBytes: bytes.length, needed: count });
  }
}

export function encodeError(to: ByteWriter, error: SpillwayError): void {
  to.text(JSON.stringify({ code: error.code, details: error.details }));
}

export function decodeError(from: ByteReader): SpillwayError {
  const { code, details } = JSON.parse(from.text()) as {
    code: ErrorCode;
    details: Record<string, unknown>;
  };
  return new SpillwayError(code, details);
}

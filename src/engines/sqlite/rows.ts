/**
 * Messages on their way from rows to callers. In a reply each is: form u8 (0 absent, 1 descriptor,
 * 2 message, 3 shelf entry), flags u8, class u8, seq f64, bytes f64, attempts u32, crashes u32,
 * accepted f64, then what the flags say, then key, error, headers, payload and the shelf's columns.
 */
import { SpillwayError } from "../../base/index.ts";
import type { Descriptor, ShelfEntry, StoredMessage } from "../engine.ts";
import type { ByteReader, ByteWriter } from "./bytes.ts";
import { checksumOf, crcOfData } from "./checksum.ts";
import type { Part } from "./partition.ts";
import { className } from "./wire.ts";

export type Row = Readonly<Record<string, unknown>>;

const bit = { keyHash: 1, group: 2, cost: 4, due: 8, deadline: 16, key: 32, error: 64 } as const;
const nothing = new Uint8Array(0);

export function putAbsent(to: ByteWriter): void {
  to.u8(0);
}

export function putDescriptor(to: ByteWriter, row: Row, attempt: 0 | 1): void {
  to.u8(1);
  putCommon(to, row, attempt);
}

/** The CRC is checked by the caller. */
export function putMessage(to: ByteWriter, row: Row, attempt: 0 | 1): void {
  to.u8(2);
  putCommon(to, row, attempt);
  putContent(to, row);
}

export function putShelved(to: ByteWriter, row: Row): void {
  to.u8(3);
  putCommon(to, row, 0);
  putContent(to, row);
  to.text(row["reason"] as string);
  to.f64(row["shelved"] as number);
}

function putCommon(to: ByteWriter, row: Row, attempt: 0 | 1): void {
  const { key, grp, cost, due, deadline } = row;
  to.need(80);
  to.u8(
    (key === null ? 0 : bit.keyHash) |
      (grp === null ? 0 : bit.group) |
      (cost === null ? 0 : bit.cost) |
      (due === null ? 0 : bit.due) |
      (deadline === null ? 0 : bit.deadline) |
      (row["ktext"] === null || row["ktext"] === undefined ? 0 : bit.key) |
      (row["error"] === null || row["error"] === undefined ? 0 : bit.error),
  );
  to.u8(row["lane"] as number);
  to.f64(row["seq"] as number);
  to.f64(row["bytes"] as number);
  to.u32(((row["attempts"] as number | null) ?? 0) + attempt);
  to.u32((row["crashes"] as number | null) ?? 0);
  to.f64(row["at"] as number);
  if (key !== null) to.f64(key as number);
  if (cost !== null) to.f64(cost as number);
  if (due !== null) to.f64(due as number);
  if (deadline !== null) to.f64(deadline as number);
  if (grp !== null) to.text(grp as string);
}

function putContent(to: ByteWriter, row: Row): void {
  if (row["ktext"] !== null) to.text(row["ktext"] as string);
  if (row["error"] !== null) to.text(row["error"] as string);
  const data = (row["data"] as Uint8Array | null) ?? nothing;
  to.u32(row["hlen"] as number);
  to.u32(data.length);
  to.raw(data);
}

/** Whether a row's content is what was stored. A discarded message has no CRC: its payload is gone. */
export function isIntact(row: Row, placeSeed: number): boolean {
  const { seq, key, ktext, hlen, data, crc } = row;
  if (crc === null) return true;
  if (!(data instanceof Uint8Array)) return false;
  const found = checksumOf(
    crcOfData(data),
    placeSeed,
    seq as number,
    hlen as number,
    key as number | null,
    ktext as string | null,
  );
  return found === crc;
}

/** @throws {SpillwayError} store_corrupt */
export function needIntact(row: Row, part: Part): void {
  if (isIntact(row, part.placeSeed)) return;
  const { flow, partition } = part;
  throw new SpillwayError("store_corrupt", { flow, partition, seq: row["seq"] });
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** Headers and payload are views into the reply. */
export function readMessage(from: ByteReader): Descriptor | StoredMessage | ShelfEntry | null {
  const form = from.u8();
  if (form === 0) return null;
  const flags = from.u8();
  const lane = from.u8();
  const message: Writable<Descriptor> = {
    seq: from.f64(),
    class: className(lane),
    bytes: from.f64(),
    attempts: from.u32(),
    crashes: from.u32(),
    acceptedAtMs: from.f64(),
  };
  if ((flags & bit.keyHash) !== 0) message.keyHash = from.f64();
  if ((flags & bit.cost) !== 0) message.cost = from.f64();
  if ((flags & bit.due) !== 0) message.dueAtMs = from.f64();
  if ((flags & bit.deadline) !== 0) message.deadlineAtMs = from.f64();
  if ((flags & bit.group) !== 0) message.group = from.text();
  if (form === 1) return message;
  const stored = message as Writable<StoredMessage>;
  if ((flags & bit.key) !== 0) stored.key = from.text();
  if ((flags & bit.error) !== 0) stored.error = from.text();
  const headersLength = from.u32();
  const dataLength = from.u32();
  stored.headers = from.raw(headersLength);
  stored.payload = from.raw(dataLength - headersLength);
  if (form === 2) return stored;
  const shelved = stored as Writable<ShelfEntry>;
  shelved.reason = from.text();
  shelved.shelvedAtMs = from.f64();
  return shelved;
}

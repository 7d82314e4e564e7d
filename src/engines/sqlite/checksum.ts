/**
 * What tells a damaged row from a sound one: a CRC over headers and payload, mixed with the length of
 * the headers, the key and the message's place, so that a row which was moved does not fit either. The
 * CRC is made where a message is encoded, beside the thread that writes: it covers the way there, and
 * the writer has the least to do.
 */
import { crc32 } from "node:zlib";
import { hash32, hashNumber } from "../../base/index.ts";

/** Of a partition: what its seqs are mixed with. */
export function placeSeed(flow: string, partition: number): number {
  return crc32(`${flow}/${partition}/`);
}

/** Of headers and payload. */
export function crcOf(headers: Uint8Array, payload: Uint8Array): number {
  return headers.length === 0 ? crc32(payload) : crc32(payload, crc32(headers));
}

/** Of both as they are stored, in one. */
export function crcOfData(data: Uint8Array): number {
  return crc32(data);
}

/** What is stored of a message: its CRC at its place. */
export function checksumOf(
  crc: number,
  seed: number,
  seq: number,
  headersLength: number,
  keyHash: number | null,
  key: string | null,
): number {
  const place =
    keyHash === null && key === null
      ? hashNumber(seed + headersLength, seq)
      : hash32(seed + headersLength, seq, keyHash ?? 0, key ?? "");
  return (crc ^ place) >>> 0;
}

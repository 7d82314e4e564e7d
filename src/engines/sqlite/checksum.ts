/**
 * What tells a damaged row from a sound one: a CRC over the content of a message (the hash of its key,
 * the length of its headers, key, headers and payload), mixed with its place, so that a row which was
 * moved does not fit either. The CRC is made where the message is encoded, beside the thread that
 * writes: it covers the way there, and the writer has the least to do.
 */
import { crc32 } from "node:zlib";
import { hash32 } from "../../base/index.ts";
import type { ByteWriter } from "./bytes.ts";

/** Of a partition: what its seqs are mixed with. */
export function placeSeed(flow: string, partition: number): number {
  return crc32(`${flow}/${partition}/`);
}

/** What is stored of a message whose content has this CRC. */
export function checksumAt(contentCrc: number, seed: number, seq: number): number {
  return (contentCrc ^ hash32(seed, seq)) >>> 0;
}

/** Of content as it lies in a request. */
export function crcOfContent(encoded: Uint8Array): number {
  return crc32(encoded);
}

/** Of content read back: the same bytes in the same order as in a request. */
export function crcOfParts(
  keyHash: number | null,
  key: string | null,
  headersLength: number,
  data: Uint8Array,
  scratch: ByteWriter,
): number {
  scratch.at = 0;
  scratch.f64(keyHash ?? 0);
  scratch.u32(headersLength);
  scratch.text(key ?? "");
  return crc32(data, crc32(scratch.bytes.subarray(0, scratch.at)));
}

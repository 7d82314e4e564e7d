/** Input as messages: a whole file or pipe as one, or each of its lines. */
import { createReadStream } from "node:fs";
import { addAbortSignal } from "node:stream";
import type { Readable } from "node:stream";
import { SpillwayError, textOf } from "../base/index.ts";

/** More than any flow takes. */
const bytesMax = 64 * 1024 ** 2;
const lineFeed = 10;
const carriageReturn = 13;

/** @param file Undefined: standard input. @param signal Ends the reading, which then throws. */
export function openInput(file: string | undefined, signal: AbortSignal): Readable {
  const input = file === undefined ? process.stdin : createReadStream(file);
  return addAbortSignal(signal, input);
}

/** @throws {SpillwayError} not_found: the file cannot be read; message_too_large */
export async function readWhole(input: Readable, name: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of chunksOf(input, name)) {
    bytes += part.length;
    checkSize(bytes, name);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** Lines without their ends; empty ones are left out. @throws As `readWhole` */
export async function* linesOf(input: Readable, name: string): AsyncGenerator<Uint8Array> {
  let rest: Uint8Array[] = [];
  let restBytes = 0;
  for await (const chunk of chunksOf(input, name)) {
    let from = 0;
    for (let at = chunk.indexOf(lineFeed); at >= 0; at = chunk.indexOf(lineFeed, from)) {
      const end = chunk.subarray(from, at);
      const line = restBytes === 0 ? end : Buffer.concat([...rest, end]);
      [rest, restBytes, from] = [[], 0, at + 1];
      const whole = line.at(-1) === carriageReturn ? line.subarray(0, -1) : line;
      if (whole.length > 0) yield whole;
    }
    if (from === chunk.length) continue;
    rest.push(chunk.subarray(from));
    restBytes += chunk.length - from;
    checkSize(restBytes, `a line of ${name}`);
  }
  if (restBytes > 0) yield Buffer.concat(rest);
}

async function* chunksOf(input: Readable, name: string): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of input) yield chunk as Uint8Array;
  } catch (cause) {
    if (cause instanceof SpillwayError || (cause as Error).name === "AbortError") throw cause;
    throw new SpillwayError("not_found", { file: name, found: textOf(cause) }, { cause });
  }
}

function checkSize(bytes: number, name: string): void {
  if (bytes <= bytesMax) return;
  throw new SpillwayError("message_too_large", { input: name, allowed: bytesMax });
}

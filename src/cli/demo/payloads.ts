/**
 * Lines of a file as messages. A line of a web server's log (common or combined format) has its
 * client's address as key: real traffic, with a real skew. Any other line has no key.
 *
 * P1  Memory is bounded whatever the file's size: the first 16 MiB are read, the last whole line in
 *     them ends it, and lines longer than 64 KiB are left out.
 */
import { open } from "node:fs/promises";
import { SpillwayError } from "../../base/index.ts";

export interface Payload {
  readonly key?: string;
  readonly text: string;
}

export interface Payloads {
  readonly file: string;
  /** At least one; without blank lines. */
  readonly lines: readonly Payload[];
  /** The file is longer than what was read. */
  readonly cut: boolean;
  /** Lines left out for their length. */
  readonly tooLong: number;
}

const readBytesMax = 16 * 1024 ** 2;
const lineCharsMax = 64 * 1024;

/**
 * @throws {SpillwayError} not_found; option_invalid when it holds no line that can be sent
 */
export async function readPayloads(file: string): Promise<Payloads> {
  const allowed = "a text file with a message on each line";
  const { text, cut } = await readHead(file).catch((cause: unknown) => {
    throw new SpillwayError("not_found", { file, allowed }, { cause });
  });
  const all = text.split(/\r?\n/);
  if (cut && all.length > 1) all.pop(); // The cap fell inside it.
  const filled = all.filter((line) => line.trim() !== "");
  const fitting = filled.filter((line) => line.length <= lineCharsMax);
  const tooLong = filled.length - fitting.length;
  if (fitting.length === 0) {
    const found = tooLong === 0 ? "no lines" : `only lines above ${lineCharsMax} characters`;
    throw new SpillwayError("option_invalid", { file, found, allowed });
  }
  return { file, lines: fitting.map(toPayload), cut, tooLong };
}

function toPayload(text: string): Payload {
  const key = /^([A-Za-z0-9.:_-]{1,255}) \S+ \S+ \[/.exec(text)?.[1];
  return key === undefined ? { text } : { key, text };
}

async function readHead(file: string): Promise<{ text: string; cut: boolean }> {
  await using handle = await open(file);
  const { size } = await handle.stat();
  const buffer = Buffer.alloc(Math.min(size, readBytesMax));
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return { text: buffer.toString("utf8", 0, filled), cut: size > readBytesMax };
}

/**
 * Messages of a WebSocket: several frames in one. Without bodies it is text, the list of heads as JSON;
 * with bodies it is bytes, the length of that text in four bytes (big end first), the text in UTF-8, and
 * the bodies in the order of the heads.
 */
import { violation } from "./fields.ts";
import type { Head } from "./pack.ts";
import type { Numbered } from "./session.ts";
import type { Take, Unpacked } from "./unpack.ts";
import { wireLimits } from "./wire.ts";

export type Message = string | Uint8Array;

const lengthBytes = 4;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

export interface Encoding<F> {
  readonly pack: (frame: F, bodies: Uint8Array[]) => Head;
  /** Of one message, with all that is in it. */
  readonly bytesMax: number;
}

/** @param ack What to acknowledge: it goes first. */
export function encode<F>(
  frames: readonly Numbered<F>[],
  ack: number | undefined,
  { pack, bytesMax }: Encoding<F>,
): Message[] {
  const messages: Message[] = [];
  let heads: string[] = [];
  let headBytes = 0;
  let bodies: Uint8Array[] = [];
  let bodyBytes = 0;
  const end = (): void => {
    if (heads.length > 0) messages.push(join(heads, bodies, bodyBytes));
    heads = [];
    headBytes = 0;
    bodies = [];
    bodyBytes = 0;
  };
  if (ack !== undefined) {
    heads.push(JSON.stringify({ kind: "ack", received: ack }));
    headBytes += heads[0]!.length;
  }
  for (const { n, frame } of frames) {
    const own: Uint8Array[] = [];
    const head = pack(frame, own);
    const text = JSON.stringify(n === undefined ? head : { n, ...head });
    const ownHeadBytes = bytesOf(text);
    let bytes = 0;
    for (const body of own) bytes += body.length;
    const isFull =
      heads.length === wireLimits.framesMax ||
      headBytes + ownHeadBytes > wireLimits.headBytes / 2 ||
      headBytes + ownHeadBytes + bodyBytes + bytes > bytesMax / 2;
    if (isFull) end();
    heads.push(text);
    headBytes += ownHeadBytes;
    for (const body of own) bodies.push(body);
    bodyBytes += bytes;
  }
  end();
  return messages;
}

/** At most: what is not ASCII takes two or three bytes, or four for two characters. */
function bytesOf(json: string): number {
  return /[^ -~]/.test(json) ? 3 * json.length : json.length;
}

function join(heads: readonly string[], bodies: readonly Uint8Array[], bodyBytes: number): Message {
  const text = `[${heads.join(",")}]`;
  if (bodyBytes === 0) return text;
  const head = encoder.encode(text);
  const message = new Uint8Array(lengthBytes + head.length + bodyBytes);
  new DataView(message.buffer).setUint32(0, head.length);
  message.set(head, lengthBytes);
  let at = lengthBytes + head.length;
  for (const body of bodies) {
    message.set(body, at);
    at += body.length;
  }
  return message;
}

/**
 * @returns The frames of a message, in order; they share no memory with it.
 * @throws {SpillwayError} protocol_violated
 */
export function decode<F>(
  message: Message,
  unpack: (head: unknown, take: Take) => Unpacked<F>,
): Unpacked<F>[] {
  let text: string;
  let body: Uint8Array = none;
  if (typeof message === "string") text = message;
  else {
    // Of a Buffer `slice` would be a view, and a small payload would hold its whole message in memory.
    const { buffer, byteOffset, length } = message;
    const bytes = new Uint8Array(buffer, byteOffset, length);
    if (length < lengthBytes) throw violation("message", `${length} bytes`, "at least 4 bytes");
    const headBytes = new DataView(buffer, byteOffset, length).getUint32(0);
    const bodyAt = lengthBytes + headBytes;
    if (headBytes > wireLimits.headBytes || bodyAt > length) {
      const allowed = `at most ${wireLimits.headBytes}, within the message`;
      throw violation("message.headBytes", headBytes, allowed);
    }
    text = textOf(bytes.subarray(lengthBytes, bodyAt));
    body = bytes.subarray(bodyAt);
  }
  if (text.length > wireLimits.headBytes) {
    throw violation("message", `${text.length} characters`, `at most ${wireLimits.headBytes}`);
  }
  const heads = headsOf(text);
  let at = 0;
  const take: Take = (bytes) => {
    if (at + bytes > body.length) return undefined;
    at += bytes;
    return bytes === 0 ? none : body.slice(at - bytes, at);
  };
  const frames = heads.map((head) => unpack(head, take));
  if (at < body.length) throw violation("message", `${body.length - at} bytes too many`, "no rest");
  return frames;
}

const none = new Uint8Array(0);

function textOf(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw violation("message", "bytes that are no UTF-8", "UTF-8");
  }
}

function headsOf(text: string): readonly unknown[] {
  let heads: unknown;
  try {
    heads = JSON.parse(text);
  } catch {
    throw violation("message", "text that is not JSON", "a list of frames in JSON");
  }
  if (Array.isArray(heads) && heads.length <= wireLimits.framesMax) return heads;
  throw violation("message", heads, `a list of at most ${wireLimits.framesMax} frames`);
}

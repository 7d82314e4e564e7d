/** HTTP as bytes on a socket: what no client library would send. */
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { onTestFinished } from "vitest";

export interface RawAnswer {
  readonly status: number;
  /** Lower case; the last of fields that stand twice. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

/** An open socket to a server, gone after the test. */
export async function openSocket(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => void socket.destroy());
  socket.on("error", () => undefined); // A server may cut what it refuses.
  await once(socket, "connect");
  return socket;
}

/** All that comes until the other end closes. */
export async function readAll(socket: Socket): Promise<string> {
  const parts: Buffer[] = [];
  socket.on("data", (part: Buffer) => parts.push(part));
  if (!socket.closed) await once(socket, "close");
  return Buffer.concat(parts).toString("latin1");
}

/** Sends a request that closes its connection, and gives every answer that came. */
export async function exchange(url: string, request: string): Promise<RawAnswer[]> {
  const socket = await openSocket(url);
  const read = readAll(socket);
  const closing = request.replace("HTTP/1.1\r\n", "HTTP/1.1\r\nconnection: close\r\n");
  socket.write(Buffer.from(closing, "latin1"));
  return answersOf(await read);
}

/** Answers with a declared length, as all of ours are; what follows them in the text. */
export function answersOf(text: string): RawAnswer[] {
  const answers: RawAnswer[] = [];
  let rest = text;
  while (rest !== "") {
    const end = rest.indexOf("\r\n\r\n");
    const [first = "", ...lines] = rest.slice(0, end).split("\r\n");
    const match = /^HTTP\/1\.1 (\d{3}) /.exec(first);
    if (end < 0 || match === null)
      throw new Error(`no answer: ${JSON.stringify(rest.slice(0, 200))}`);
    const headers = new Map(
      lines.map((line): [string, string] => {
        const at = line.indexOf(":");
        return [line.slice(0, at).toLowerCase(), line.slice(at + 1).trim()];
      }),
    );
    const status = Number(match[1]);
    const length = status === 100 ? 0 : Number(headers.get("content-length") ?? 0);
    answers.push({ status, headers, body: rest.slice(end + 4, end + 4 + length) });
    rest = rest.slice(end + 4 + length);
  }
  return answers;
}

/** "POST /path HTTP/1.1" with its fields and a body of its length. */
export function requestText(
  line: string,
  headers: Readonly<Record<string, string>> = {},
  body = "",
): string {
  const all = { host: "localhost", "content-length": String(body.length), ...headers };
  const fields = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${line} HTTP/1.1\r\n${fields.join("")}\r\n${body}`;
}

/**
 * A client that says what a test wants it to say, right or wrong, and the WebSocket face of a server with
 * limits of the test's own.
 */
import { createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { once } from "node:events";
import { WebSocket } from "ws";
import type { ClientOptions, RawData } from "ws";
import { expect, onTestFinished } from "vitest";
import { SpillwayError } from "../../src/base/index.ts";
import type { ConfigOptions } from "../../src/config/index.ts";
import { decode } from "../../src/protocol/index.ts";
import type { Access, Principal } from "../../src/server/access.ts";
import { Sockets } from "../../src/server/socket/index.ts";
import type { SocketLimits } from "../../src/server/socket/connection.ts";
import type { Flow, Spillway } from "../../src/spillway.ts";
import { openContext } from "./context.ts";

const limits: SocketLimits = {
  silenceMs: 30_000,
  graceMs: 15_000,
  stuckMs: 10_000,
  checkEveryMs: 20,
  lostSessionsMax: 10_000,
};

const principalOf = (id: string): Principal => ({
  id,
  allows: () => true,
  allowsSome: () => true,
});
const anyone = principalOf("anyone");

/** Tokens "alice" and "bob", or none. */
const named: Partial<Access> = {
  principalOf: () => anyone,
  principalOfToken: (token) => {
    if (token === "alice" || token === "bob") return principalOf(token);
    throw new SpillwayError("unauthenticated");
  },
  attach: () => undefined,
  charge: () => undefined,
};

export interface Face {
  readonly url: string;
  readonly sockets: Sockets;
  readonly spillway: Spillway;
  flow(name: string): Flow<Uint8Array>;
}

/** The WebSocket face alone, on a port of its own, with flows of a real server behind it. */
export async function openSockets(
  options: ConfigOptions,
  own: Partial<SocketLimits> = {},
): Promise<Face> {
  const { context } = await openContext(options, { access: named });
  const { spillway } = context;
  await Promise.all([...context.flows.values()].map((each) => each.opened()));
  const http = createServer();
  const sockets = new Sockets(http, context, { ...limits, ...own });
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  onTestFinished(async () => {
    await sockets[Symbol.asyncDispose]();
    http.close();
  });
  const { port } = http.address() as AddressInfo;
  return {
    url: `ws://127.0.0.1:${port}/v1/connect`,
    sockets,
    spillway,
    flow: (name) => context.flow(name),
  };
}

export type Head = Record<string, unknown> & { readonly kind: string };

export const beat = { heartbeatMs: 1, position: 0, positionBytes: 0, want: 1, wantBytes: 1000 };

export class RawClient {
  readonly socket: WebSocket;
  /** Everything that came, as it came, without bodies. */
  readonly came: Head[] = [];
  /** Every message that was sent, to be sent again. */
  readonly sent: (string | Uint8Array)[] = [];
  readonly closed: Promise<number>;
  /** The number of the last numbered frame that came. */
  received = 0;
  isAcknowledging = true;
  #n = 0;
  #onFrame: (() => void)[] = [];

  private constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("message", (data, isBinary) => this.#came(data, isBinary));
    socket.on("error", () => undefined);
    this.closed = new Promise((resolve) => {
      socket.on("close", (code) => {
        resolve(code);
        for (const wake of this.#onFrame.splice(0)) wake();
      });
    });
    onTestFinished(() => socket.terminate());
  }

  /** A connection on which nothing was said. */
  static async connect(url: string, options: ClientOptions = {}): Promise<RawClient> {
    const socket = new WebSocket(url, "spillway.v1", { perMessageDeflate: false, ...options });
    const client = new RawClient(socket);
    await once(socket, "open");
    return client;
  }

  /** A connection that has begun or resumed a session. */
  static async greet(url: string, hello: object = {}): Promise<RawClient> {
    const client = await RawClient.connect(url);
    client.say({ kind: "hello", client: "test", ...hello });
    await client.next("welcome");
    return client;
  }

  #came(data: RawData, isBinary: boolean): void {
    const bytes = data as Buffer;
    const message = isBinary ? new Uint8Array(bytes) : bytes.toString();
    // Bodies are left out: what is tested here is what the heads say.
    const heads = decode(message, (head, take) => {
      const frame = head as Head;
      const messages = (frame["messages"] ?? []) as { bytes: number; headerBytes?: number }[];
      for (const { bytes: size, headerBytes = 0 } of messages) take(size + headerBytes);
      return { frame };
    });
    for (const { frame } of heads) {
      this.came.push(frame);
      if (typeof frame["n"] === "number") this.received = frame["n"];
    }
    const last = heads.at(-1)?.frame["n"];
    if (this.isAcknowledging && last !== undefined) {
      this.say({ kind: "ack", received: this.received });
    }
    for (const wake of this.#onFrame.splice(0)) wake();
  }

  /** Frames in one message, as they are. */
  say(...heads: readonly Head[]): void {
    this.send(JSON.stringify(heads));
  }

  /** Frames that are numbered as they should be. */
  tell(...heads: readonly Head[]): void {
    this.say(...heads.map((head) => ({ n: ++this.#n, ...head })));
  }

  /** Frames and the bodies that follow them. */
  tellWith(body: Uint8Array, ...heads: readonly Head[]): void {
    const text = Buffer.from(JSON.stringify(heads.map((head) => ({ n: ++this.#n, ...head }))));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    this.send(Buffer.concat([length, text, body]));
  }

  send(message: string | Uint8Array): void {
    this.sent.push(message);
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(message);
  }

  /** The first frame of this kind that has come, or will; it is taken out. */
  async next(kind: string, matches: (head: Head) => boolean = () => true): Promise<Head> {
    for (;;) {
      const at = this.came.findIndex((head) => head.kind === kind && matches(head));
      if (at >= 0) return this.came.splice(at, 1)[0]!;
      if (this.socket.readyState === WebSocket.CLOSED) {
        throw new Error(`the connection ended before ${kind}: ${JSON.stringify(this.came)}`);
      }
      await new Promise<void>((resolve) => this.#onFrame.push(resolve));
    }
  }

  /** A channel on which a flow's messages can be sent, with credit. */
  async producer(flow: string, channel = 0): Promise<Head & { readonly grant: Grant }> {
    this.tell({ kind: "attach", channel, role: "produce", flow });
    await this.next("opened");
    this.say({ kind: "beat", channel, partition: 0, beat });
    return (await this.next("grant")) as Head & { readonly grant: Grant };
  }

  /** The TCP connection, for what no client would write. */
  get tcp(): Socket {
    return Reflect.get(this.socket, "_socket") as Socket;
  }

  /** The last words of the server, and the code with which it closed. */
  async end(): Promise<{ readonly code: number; readonly bye: unknown }> {
    const code = await this.closed;
    return { code, bye: this.came.find(({ kind }) => kind === "bye")?.["code"] };
  }
}

export interface Grant {
  readonly epoch: number;
  readonly grantId: number;
  readonly limitMessages: number;
  readonly echoHeartbeatMs: number;
}

/** The server says that the client does not keep to the protocol, and closes. */
export async function expectViolation(client: RawClient): Promise<void> {
  expect(await client.end()).toEqual({ code: 1008, bye: "protocol_violated" });
}

/** A frame of WebSocket as a client sends it, masked with zeros. */
export function wsFrame(first: number, payload: Uint8Array): Buffer {
  const length = payload.length;
  const head =
    length < 126
      ? Buffer.from([first, 0x80 | length])
      : Buffer.from([first, 0x80 | 126, length >> 8, length & 0xff]);
  return Buffer.concat([head, Buffer.alloc(4), payload]);
}

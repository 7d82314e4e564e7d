/** A real HTTP endpoint on a free port of loopback, which keeps what it was sent. */
import { createServer } from "node:http";
import type { IncomingHttpHeaders, RequestListener, Server, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createServer as createTcpServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { onTestFinished, vi } from "vitest";
import type { FlowOptions, PushOptions } from "../../src/config/index.ts";

export interface Got {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly url: string;
  /** Of the connection on the target's side, from 1 in order of their coming. */
  readonly connection: number;
  /** Of the target's own clock. */
  readonly atMs: number;
}

/** @returns The status, unless it has answered by itself. */
export type Answers = (got: Got, response: ServerResponse) => number | undefined | Promise<number>;

export class PushTarget {
  readonly got: Got[] = [];
  connections = 0;
  /** Requests that are not answered yet, and the most at once. */
  parallel = 0;
  parallelMax = 0;
  answers: Answers;
  readonly #server: Server;
  readonly #scheme: "http" | "https";

  constructor(answers: Answers = () => 200, tls?: { readonly cert: string; readonly key: string }) {
    this.answers = answers;
    const listener: RequestListener = (request, response) => {
      const chunks: Buffer[] = [];
      this.parallelMax = Math.max(this.parallelMax, ++this.parallel);
      response.once("close", () => this.parallel--);
      request.on("error", () => undefined);
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const { headers, url = "" } = request;
        const connection = this.#numbers.get(request.socket) ?? 0;
        const atMs = performance.now();
        const got = { headers, url, connection, atMs, body: Buffer.concat(chunks) };
        this.got.push(got);
        void Promise.resolve(this.answers(got, response)).then((status) => {
          if (status !== undefined) response.writeHead(status).end();
        });
      });
    };
    this.#scheme = tls === undefined ? "http" : "https";
    this.#server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
    this.#server.keepAliveTimeout = 60_000;
    const event = tls === undefined ? "connection" : "secureConnection";
    this.#server.on(event, (socket: object) => this.#numbers.set(socket, ++this.connections));
    onTestFinished(() => this.close());
  }

  readonly #numbers = new WeakMap<object, number>();

  async listen(port = 0, host = "127.0.0.1"): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(port, host, resolve));
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  url(host = "127.0.0.1"): string {
    return `${this.#scheme}://${host}:${this.port}/hook`;
  }

  /** Connections that are open now. */
  async open(): Promise<number> {
    return new Promise((resolve, reject) =>
      this.#server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
    );
  }

  /** The contract's part, allowed to go to loopback. */
  deliver(options: Partial<PushOptions> = {}): Pick<FlowOptions, "deliver"> {
    const { port } = this;
    const allow = this.#scheme === "http" ? ["http", "loopback"] : ["loopback"];
    return { deliver: { kind: "push", url: this.url(), allow, ports: [port], ...options } };
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }
}

/**
 * A port of loopback that speaks no HTTP by itself. @param onSocket For each connection.
 * @returns The contract's part that leads there.
 */
export async function rawTarget(
  onSocket: (socket: Socket) => void,
  options: Partial<PushOptions> = {},
): Promise<PushOptions> {
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}/`;
  return { kind: "push", url, allow: ["http", "loopback"], ports: [port], ...options };
}

/** Polls, for as long as a busy machine may need. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  await vi.waitUntil(condition, { timeout: 18_000, interval: 10 });
}

/** Of the bodies, in order of arrival. */
export function texts(got: readonly Got[]): string[] {
  return got.map(({ body }) => body.toString());
}

/** The credit protocol over WebSocket: `GET /v1/connect`, subprotocol "spillway.v1". */
import type { IncomingMessage, Server as HttpServer } from "node:http";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import { SpillwayError } from "../../base/index.ts";
import { subprotocol, wireLimits } from "../../protocol/index.ts";
import type { ClientFrame } from "../../protocol/index.ts";
import { systemClock } from "../../system-clock.ts";
import type { Principal } from "../access.ts";
import type { Context } from "../app.ts";
import { isHostAllowed, isOriginAllowed } from "../guard.ts";
import { problemOf } from "../problem.ts";
import { Connection } from "./connection.ts";
import type { ConnectionHost, SocketLimits } from "./connection.ts";
import { ClientSession } from "./session.ts";

const path = "/v1/connect";
const limitsDefault: SocketLimits = {
  silenceMs: 30_000,
  graceMs: 15_000,
  stuckMs: 10_000,
  checkEveryMs: 1000,
  lostSessionsMax: 10_000,
};
/** Fragments and pieces of one message: each costs memory beside its bytes (S8). */
const fragmentsMax = 64;
/** The least that a piece brings, but for the last ones: less than any network's. */
const pieceBytesMin = 512;
const keptBytes = 16 * 1024 ** 2;
const goodbyeMs = 1000;

export class Sockets implements AsyncDisposable {
  readonly #context: Context;
  readonly #wss: WebSocketServer;
  readonly #connections = new Set<Connection>();
  readonly #sessions = new Map<string, ClientSession>();
  readonly #connectionOf = new Map<ClientSession, Connection>();
  readonly #graces = new Map<ClientSession, NodeJS.Timeout>();
  readonly #timer: NodeJS.Timeout;
  readonly #forget: () => void;
  readonly #host: ConnectionHost;
  #isClosing = false;

  constructor(server: HttpServer, context: Context, limits: SocketLimits = limitsDefault) {
    this.#context = context;
    const messageBytes = messageBytesOf(context);
    this.#wss = new WebSocketServer({
      noServer: true,
      perMessageDeflate: false,
      clientTracking: false,
      maxPayload: messageBytes,
      maxFragments: fragmentsMax,
      maxBufferedChunks: fragmentsMax + Math.ceil(messageBytes / pieceBytesMin),
      handleProtocols: (offered) => (offered.has(subprotocol) ? subprotocol : false),
    });
    this.#host = {
      messageBytes,
      unreadBytes: context.config.limits.unreadBytes,
      limits,
      now: () => systemClock.now(),
      principalOf: (request, token) => {
        const { access } = context;
        const principal =
          token === undefined ? access.principalOf(request) : access.principalOfToken(token);
        access.attach(principal, request.socket);
        access.charge(principal, 0);
        return principal;
      },
      owe: (principal, messages, bytes) => context.access.owe(principal, messages, bytes),
      sessionOf: (connection, hello, principal) => {
        const found = this.#sessionOf(hello, principal);
        this.#connectionOf.set(found.session, connection);
        return found;
      },
      left: (connection, session, isOver) => this.#left(connection, session, isOver),
    };
    server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
    this.#forget = context.access.onRevoked((id) => this.#revoked(id));
    this.#timer = setInterval(() => this.#check(), limits.checkEveryMs);
    this.#timer.unref();
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    const refusal = this.#refusal(request);
    if (refusal !== undefined) return refuse(socket, refusal);
    this.#wss.handleUpgrade(request, socket, head, (webSocket) => {
      this.#connections.add(new Connection(webSocket, request, this.#host));
    });
  }

  #refusal(request: IncomingMessage): SpillwayError | undefined {
    if (this.#isClosing) return new SpillwayError("closed", { retryAfterMs: 1000 });
    if (request.url?.split("?", 1)[0] !== path) {
      return new SpillwayError("not_found", { allowed: path });
    }
    const offered = request.headers["sec-websocket-protocol"]?.split(",") ?? [];
    if (!offered.some((each) => each.trim() === subprotocol)) {
      const found = offered.join(",").slice(0, 100);
      return new SpillwayError("request_invalid", {
        header: "sec-websocket-protocol",
        found,
        allowed: subprotocol,
      });
    }
    const { config } = this.#context;
    const { origin, host } = request.headers;
    if (!isHostAllowed(host, config)) {
      return new SpillwayError("forbidden", { needed: "a host name that listen.hosts names" });
    }
    if (!isOriginAllowed(origin, config, host)) {
      return new SpillwayError("forbidden", { needed: "an origin that listen.origins names" });
    }
    return undefined;
  }

  #sessionOf(
    hello: Extract<ClientFrame, { kind: "hello" }>,
    principal: Principal,
  ): ReturnType<ConnectionHost["sessionOf"]> {
    const { resume } = hello;
    const known = resume === undefined ? undefined : this.#sessions.get(resume.session);
    if (known?.takeSecret(resume!.secret, principal) === true) {
      clearTimeout(this.#graces.get(known));
      this.#graces.delete(known);
      this.#connectionOf.get(known)?.replace();
      return { session: known, isResumed: true };
    }
    const { messageBytes } = this.#host;
    const limits = { messageBytes, keptBytes: Math.max(keptBytes, 4 * messageBytes) };
    const onOverflow = (over: ClientSession): void => this.#overflow(over);
    const session = new ClientSession(this.#context, principal, limits, onOverflow);
    this.#sessions.set(session.id, session);
    return { session, isResumed: false };
  }

  /** Not within the call: it comes from the middle of a flow's turn. */
  #overflow(session: ClientSession): void {
    queueMicrotask(() => {
      if (!this.#sessions.has(session.id)) return;
      const error = new SpillwayError("protocol_violated", { found: "nothing is acknowledged" });
      this.#connectionOf.get(session)?.close(error);
      this.#end(session);
    });
  }

  #left(connection: Connection, session: ClientSession | undefined, isOver: boolean): void {
    this.#connections.delete(connection);
    if (session === undefined) return;
    this.#connectionOf.delete(session);
    if (isOver || this.#isClosing || session.isEmpty) return this.#end(session);
    const { graceMs, lostSessionsMax } = this.#host.limits;
    this.#graces.set(
      session,
      setTimeout(() => this.#end(session), graceMs),
    );
    if (this.#graces.size > lostSessionsMax) this.#end(this.#graces.keys().next().value!);
  }

  /** A token is void: its connections and sessions end at once. */
  #revoked(principalId: string): void {
    const error = new SpillwayError("unauthenticated");
    for (const connection of this.#connections) {
      if (connection.principal?.id === principalId) connection.close(error);
    }
    for (const session of this.#sessions.values()) {
      if (session.principal.id === principalId) this.#end(session);
    }
  }

  #end(session: ClientSession): void {
    clearTimeout(this.#graces.get(session));
    this.#graces.delete(session);
    this.#sessions.delete(session.id);
    session.end();
  }

  #check(): void {
    const nowMs = systemClock.now();
    for (const connection of this.#connections) connection.check(nowMs);
  }

  /** Connections and sessions now, and what is kept for clients that have not acknowledged it. */
  view(): { readonly connections: number; readonly sessions: number; readonly keptBytes: number } {
    let keptBytes = 0;
    for (const { session } of this.#sessions.values()) keptBytes += session.keptBytes;
    return { connections: this.#connections.size, sessions: this.#sessions.size, keptBytes };
  }

  /** Takes no new client; those that are there get no more credit, and end what they have. */
  drain(): void {
    this.#isClosing = true;
    for (const session of this.#sessions.values()) session.isClosing = true;
  }

  /** Tells every client that the server goes, and ends their sessions: what workers had goes back. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.drain();
    clearInterval(this.#timer);
    this.#forget();
    const goodbye = new SpillwayError("closed", { retryAfterMs: 500 });
    const connections = [...this.#connections];
    for (const connection of connections) connection.close(goodbye);
    for (const session of this.#sessions.values()) this.#end(session);
    // What was said last is still on its way: a socket that is destroyed may take it along.
    let timer: NodeJS.Timeout | undefined;
    const timeUp = new Promise((resolve) => {
      timer = setTimeout(resolve, goodbyeMs);
    });
    await Promise.race([Promise.all(connections.map(({ gone }) => gone)), timeUp]);
    clearTimeout(timer);
    for (const connection of connections) connection.terminate();
  }
}

/** The largest message of any flow fits, with its head. */
function messageBytesOf({ config }: Context): number {
  const largest = Object.values(config.contracts).map(({ messageBytesMax }) => messageBytesMax);
  return Math.max(1024 ** 2, ...largest) + 2 * wireLimits.headBytes;
}

function refuse(socket: Duplex, error: SpillwayError): void {
  const problem = problemOf(error);
  const body = JSON.stringify(problem);
  socket.once("finish", () => socket.destroy()); // Whoever does not hang up is not waited for.
  socket.end(
    `HTTP/1.1 ${problem.status} Refused\r\ncontent-type: application/problem+json\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}

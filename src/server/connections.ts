/**
 * The sockets under HTTP: how many there may be, how slowly they may bring what they announce, and what
 * they hear when what came was no HTTP.
 *
 * C1  At most `limits.connections` at once, and of one address `limits.connectionsPerAddress`.
 * C2  A request's header comes within `headersTimeoutMs`, all of it within `requestTimeoutMs`, and its body
 *     at `bodyBytesPerSMin` at least, once `headersTimeoutMs` have passed. Time in which this side did
 *     not read does not count against the other.
 * C3  Nothing that a client sent stands in what is answered here: no answer can be split.
 */
import { randomBytes } from "node:crypto";
import { createServer as createHttp, STATUS_CODES } from "node:http";
import type {
  IncomingMessage,
  RequestListener,
  Server as HttpServer,
  ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { SpillwayError } from "../base/index.ts";
import type { ErrorCode } from "../base/index.ts";
import type { Config } from "../config/index.ts";
import type { Log } from "./log.ts";
import { problemOf } from "./problem.ts";
import type { Certificates } from "./tls.ts";

const headerBytesMax = 16 * 1024;
/** Beyond what is allowed, so that a request with more is seen and refused: Node drops the rest in silence. */
const headersSeenMax = 128;
const bodyBytesPerSMin = 1024;
const checkGapMaxMs = 5000;
const busyRetryMs = 1000;
const keepAliveBufferMs = 1000;

export interface ConnectionsDeps {
  readonly log: Log;
  readonly certificates: Certificates | undefined;
}

/** A body that is on its way. */
interface Body {
  readonly request: IncomingMessage;
  sinceMs: number;
  sinceBytes: number;
}

export class Connections implements Disposable {
  readonly #limits: Config["limits"];
  readonly #deps: ConnectionsDeps;
  readonly #servers: HttpServer[] = [];
  readonly #byAddress = new Map<string, number>();
  /** The latest of each connection; one that has come is forgotten at the next look. */
  readonly #bodies = new Map<Socket, Body>();
  readonly #checkGapMs: number;
  readonly #life = randomBytes(6).toString("base64url");
  #requests = 0;
  #checking: NodeJS.Timeout | undefined;
  #ending: NodeJS.Timeout | undefined;

  constructor({ limits }: Config, deps: ConnectionsDeps) {
    this.#limits = limits;
    this.#deps = deps;
    this.#checkGapMs = Math.max(10, Math.min(checkGapMaxMs, limits.headersTimeoutMs / 2));
  }

  /** Ids that tell two requests apart, also of two lives of a server; nothing that a client sends. */
  readonly requestId = (): string => `${this.#life}-${(this.#requests += 1).toString(36)}`;

  /** For Fastify, which wants one for each address that a name stands for. */
  readonly createServer = (handler: RequestListener): HttpServer => {
    const { connections, headersTimeoutMs, requestTimeoutMs, idleTimeoutMs } = this.#limits;
    const options = {
      maxHeaderSize: headerBytesMax,
      // Node demands that a header's time is not above the whole request's.
      headersTimeout: Math.min(headersTimeoutMs, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: idleTimeoutMs,
      // What a client is not told, so that its next request does not meet the end of its connection.
      keepAliveTimeoutBuffer: Math.min(keepAliveBufferMs, idleTimeoutMs),
      connectionsCheckingInterval: this.#checkGapMs,
      noDelay: true,
      // Some clients offer HTTP/2 with every request; that is not taken up.
      shouldUpgradeCallback: ({ headers }: IncomingMessage) =>
        headers.upgrade?.toLowerCase() === "websocket",
    };
    const { certificates } = this.#deps;
    const server = certificates?.serve(options, handler) ?? createHttp(options, handler);
    server.maxHeadersCount = headersSeenMax;
    server.maxConnections = connections; // C1
    server.on("connection", (socket: Socket) => this.#admit(socket));
    server.on("clientError", (error: Error & { code?: string }, socket) => {
      if (error.code === "ECONNRESET" || !socket.writable) socket.destroy();
      else this.#refuse(socket, codeOfClientError(error.code));
    });
    // A client that asks before it sends is told to go on when its body is read, and not if it is refused.
    server.on("checkContinue", (request, response) => {
      request.once("resume", () => {
        if (!response.headersSent) response.writeContinue();
      });
      server.emit("request", request, response);
    });
    this.#servers.push(server);
    return server;
  };

  /**
   * A server that closes waits for its requests, but Node no longer limits their time then: what has
   * not ended after `timeMs` is cut.
   */
  endWithin(timeMs: number): void {
    this.#ending = setTimeout(() => {
      for (const server of this.#servers) server.closeAllConnections();
    }, timeMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#checking);
    clearTimeout(this.#ending);
  }

  /** Call it when a request was let in: it is watched how fast its body comes (C2). */
  expectBody(request: IncomingMessage): void {
    const { headers, socket } = request;
    if (headers["content-length"] === undefined && headers["transfer-encoding"] === undefined) {
      return;
    }
    if (request.complete) return;
    this.#bodies.set(socket, {
      request,
      sinceMs: performance.now(),
      sinceBytes: socket.bytesRead,
    });
    this.#checking ??= this.#checkLater();
  }

  #admit(socket: Socket): void {
    const { remoteAddress } = socket;
    const { connectionsPerAddress } = this.#limits;
    if (remoteAddress === undefined || connectionsPerAddress === Infinity) return;
    const count = (this.#byAddress.get(remoteAddress) ?? 0) + 1;
    this.#byAddress.set(remoteAddress, count);
    socket.once("close", () => {
      const left = this.#byAddress.get(remoteAddress)! - 1;
      if (left === 0) this.#byAddress.delete(remoteAddress);
      else this.#byAddress.set(remoteAddress, left);
    });
    if (count <= connectionsPerAddress) return;
    this.#deps.log.warn("connection.refused", { code: "too_many_connections" });
    // Under TLS nothing could be said without the handshake that is refused here.
    if (this.#deps.certificates === undefined) this.#refuse(socket, "too_many_connections");
    else socket.destroy();
  }

  #checkLater(): NodeJS.Timeout {
    const gapMs = Math.min(this.#checkGapMs, this.#limits.headersTimeoutMs);
    return setTimeout(() => {
      this.#checking = undefined;
      this.#checkBodies();
      if (this.#bodies.size > 0) this.#checking = this.#checkLater();
    }, gapMs).unref();
  }

  #checkBodies(): void {
    const nowMs = performance.now();
    for (const body of this.#bodies.values()) {
      const { request, sinceMs, sinceBytes } = body;
      const { socket } = request;
      if (request.complete || request.destroyed) {
        this.#bodies.delete(socket);
        continue;
      }
      if (request.readableLength > 0) {
        body.sinceMs = nowMs;
        body.sinceBytes = socket.bytesRead;
        continue;
      }
      const takenMs = nowMs - sinceMs;
      if (takenMs < this.#limits.headersTimeoutMs) continue;
      if (socket.bytesRead - sinceBytes >= (bodyBytesPerSMin * takenMs) / 1000) continue;
      this.#bodies.delete(socket);
      this.#refuse(socket, "request_too_slow");
    }
  }

  /**
   * An answer on the bare socket, then the connection ends. Where a request that has come whole still waits
   * for its answer, nothing is said: it would take this for its own, and may have been accepted.
   */
  #refuse(socket: Duplex, code: ErrorCode): void {
    const { _httpMessage: pending } = socket as { _httpMessage?: ServerResponse | null };
    if (pending?.headersSent === true || pending?.req.complete === true || !socket.writable) {
      socket.destroy();
      return;
    }
    const retryAfterMs = code === "too_many_connections" ? { retryAfterMs: busyRetryMs } : {};
    const problem = problemOf(new SpillwayError(code, retryAfterMs));
    const body = JSON.stringify(problem);
    const retry = "retryAfterMs" in problem ? `retry-after: ${busyRetryMs / 1000}\r\n` : "";
    socket.end(
      `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\n` +
        "content-type: application/problem+json\r\n" +
        `content-length: ${Buffer.byteLength(body)}\r\n` +
        `spillway-request-id: ${this.requestId()}\r\n${retry}connection: close\r\n\r\n${body}`,
      () => socket.destroy(),
    );
  }
}

function codeOfClientError(code: string | undefined): ErrorCode {
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return "request_too_slow";
  if (code === "HPE_HEADER_OVERFLOW") return "headers_too_large";
  return "request_invalid";
}

/**
 * One WebSocket: says who it is, begins or resumes a session, and carries its frames. What one turn
 * brings leaves in one message; who does not read is given nothing more, and is cut off after a while.
 */
import type { IncomingMessage } from "node:http";
import type { RawData, WebSocket } from "ws";
import { SpillwayError, textOf } from "../../base/index.ts";
import {
  decode,
  encode,
  isNumbered,
  packServer,
  unpackClient,
  wireLimits,
} from "../../protocol/index.ts";
import type { ClientFrame, Message, ServerFrame } from "../../protocol/index.ts";
import type { Principal } from "../access.ts";
import { violation } from "./session.ts";
import type { ClientSession } from "./session.ts";

export interface ConnectionHost {
  readonly messageBytes: number;
  readonly unreadBytes: number;
  readonly limits: SocketLimits;
  now(): number;
  /** @throws {SpillwayError} unauthenticated, quota_exceeded */
  principalOf(request: IncomingMessage, token: string | undefined): Principal;
  /**
   * Counts what has come against the quota of its principal.
   * @returns How long nothing more is to be read, in ms.
   */
  owe(principal: Principal, messages: number, bytes: number): number;
  /** The session to go on with, if it is there and the secret is right; else a new one. */
  sessionOf(
    connection: Connection,
    hello: Extract<ClientFrame, { kind: "hello" }>,
    principal: Principal,
  ): { readonly session: ClientSession; readonly isResumed: boolean };
  /** @param isOver The client has ended it: it will not come back. */
  left(connection: Connection, session: ClientSession | undefined, isOver: boolean): void;
}

export interface SocketLimits {
  /** Silence after which the other end is held for gone; a third of it without a hello is enough. */
  readonly silenceMs: number;
  /** How long a session without a connection is kept. */
  readonly graceMs: number;
  /** A client that takes nothing for this long is cut off. */
  readonly stuckMs: number;
  /** How often these are looked at. */
  readonly checkEveryMs: number;
  /** Sessions without a connection, each with what its channels hold; the oldest makes room. */
  readonly lostSessionsMax: number;
}

const normalClosure = 1000;
const goingAway = 1001;
const policyClosure = 1008;
const ackDelayMs = 100;
/** A longer wait is looked at again then: timers do not count beyond 24 days. */
const readWaitMaxMs = 60_000;

export class Connection {
  readonly #socket: WebSocket;
  readonly #request: IncomingMessage;
  readonly #host: ConnectionHost;
  #session: ClientSession | undefined;
  #isScheduled = false;
  #isClosed = false;
  readonly #openedAtMs: number;
  #heardAtMs: number;
  #heardBytes = 0;
  #saidAtMs: number;
  /** Since when more is unread than may be. */
  #stuckSinceMs: number | undefined;
  #ackTimer: NodeJS.Timeout | undefined;
  /** While the quota is used up. */
  #readTimer: NodeJS.Timeout | undefined;
  /** Resolves when the socket is gone. */
  readonly gone: Promise<void>;

  constructor(socket: WebSocket, request: IncomingMessage, host: ConnectionHost) {
    this.#socket = socket;
    this.#request = request;
    this.#host = host;
    this.#openedAtMs = host.now();
    this.#heardAtMs = this.#openedAtMs;
    this.#saidAtMs = this.#openedAtMs;
    const { promise: gone, resolve: onGone } = Promise.withResolvers<void>();
    this.gone = gone;
    socket.binaryType = "nodebuffer";
    socket.on("message", (data, isBinary) => this.#came(data, isBinary));
    socket.on("close", (code) => {
      this.#end(code === normalClosure);
      onGone();
    });
    socket.on("error", () => undefined); // `close` follows, and says what is to be done.
  }

  get principal(): Principal | undefined {
    return this.#session?.principal;
  }

  #came(data: RawData, isBinary: boolean): void {
    if (this.#isClosed) return;
    this.#heardAtMs = this.#host.now();
    try {
      const bytes = data as Buffer;
      if (!isBinary && bytes.length > wireLimits.headBytes) {
        throw violation("message", `${bytes.length} bytes`, `at most ${wireLimits.headBytes}`);
      }
      const message: Message = isBinary ? bytes : bytes.toString("utf8");
      this.#pay(1, bytes.length);
      for (const { n, frame } of decode(message, unpackClient)) this.#frame(n, frame);
    } catch (error) {
      return this.#fail(error);
    }
    if (this.#session?.session.isAckDue === true) this.wake();
    else if (this.#session?.session.hasUntold === true) this.#ackLater();
  }

  /** Beyond its quota a client is read no further until it is earned: what it sends waits with it. */
  #pay(messages: number, bytes: number): void {
    const { principal } = this;
    if (principal === undefined) return; // The hello is charged as a request.
    const waitMs = this.#host.owe(principal, messages, bytes);
    if (waitMs === 0 || this.#readTimer !== undefined) return;
    this.#socket.pause();
    this.#readTimer = setTimeout(
      () => {
        this.#readTimer = undefined;
        this.#heardAtMs = this.#host.now(); // It was not listened to.
        this.#pay(0, 0); // Another connection of the same token may have used it up.
        if (this.#readTimer === undefined) this.#socket.resume();
      },
      Math.min(Math.ceil(waitMs), readWaitMaxMs),
    );
  }

  /** Most often something leaves before, and takes the acknowledgement along. */
  #ackLater(): void {
    this.#ackTimer ??= setTimeout(() => {
      this.#ackTimer = undefined;
      this.wake();
    }, ackDelayMs);
  }

  #frame(n: number | undefined, frame: ClientFrame): void {
    if (frame.kind === "hello") return this.#greet(frame);
    const session = this.#session;
    if (session === undefined) throw violation("frame.kind", frame.kind, "hello first");
    session.hasSecret();
    switch (frame.kind) {
      case "ack":
        if (session.acknowledged(frame.received)) return;
        throw violation("frame.received", frame.received, "what was sent");
      case "ping":
        return session.push({ kind: "pong", id: frame.id });
      case "pong":
        return;
      default:
        return this.#pass(n, frame, session);
    }
  }

  #pass(n: number | undefined, frame: ClientFrame, session: ClientSession): void {
    if (n !== undefined) {
      const arrival = session.session.accept(n);
      if (arrival === "repeat") return;
      if (arrival === "gap") {
        throw violation("frame.n", n, `at most ${session.session.received + 1}`);
      }
    } else if (isNumbered(frame)) {
      throw violation("frame.n", "none", "a number: this kind of frame must not be lost");
    }
    session.receive(frame);
  }

  #greet(hello: Extract<ClientFrame, { kind: "hello" }>): void {
    if (this.#session !== undefined) throw violation("frame.kind", "hello", "one hello");
    const principal = this.#host.principalOf(this.#request, hello.token);
    const { session, isResumed } = this.#host.sessionOf(this, hello, principal);
    this.#session = session;
    session.bind(
      () => this.wake(),
      () => this.#isStuck,
    );
    const { messageBytes, limits } = this.#host;
    this.#write({
      kind: "welcome",
      session: session.id,
      secret: session.newSecret(),
      isResumed,
      received: session.session.received,
      messageBytes,
      silenceMs: limits.silenceMs,
      graceMs: limits.graceMs,
    });
    if (!session.session.connected(isResumed ? hello.resume!.received : 0)) {
      throw violation("frame.resume.received", hello.resume?.received, "what was sent");
    }
    this.wake();
  }

  /** Something is to leave: at the end of this turn, with all that it brings. */
  wake(): void {
    if (this.#isScheduled || this.#isClosed) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#flush();
    });
  }

  get #isStuck(): boolean {
    return this.#socket.bufferedAmount > this.#host.unreadBytes;
  }

  #flush(): void {
    if (this.#isClosed || this.#session === undefined) return;
    if (this.#isStuck) return; // What has left calls back when it is written.
    const { session } = this.#session;
    const frames = session.take();
    const ack = session.takeAck();
    if (frames.length === 0 && ack === undefined) return;
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    const nowMs = this.#host.now();
    this.#saidAtMs = nowMs;
    const pack = (frame: ServerFrame, bodies: Uint8Array[]) => packServer(frame, nowMs, bodies);
    for (const message of encode(frames, ack, { pack, bytesMax: this.#host.messageBytes })) {
      this.#send(message);
    }
  }

  #write(frame: ServerFrame): void {
    const nowMs = this.#host.now();
    this.#saidAtMs = nowMs;
    const pack = (each: ServerFrame, bodies: Uint8Array[]) => packServer(each, nowMs, bodies);
    const encoding = { pack, bytesMax: this.#host.messageBytes };
    for (const message of encode([{ frame, bytes: 0 }], undefined, encoding)) this.#send(message);
  }

  #send(message: Message): void {
    this.#socket.send(message, () => {
      if (this.#isStuck) return;
      this.#stuckSinceMs = undefined;
      this.wake();
    });
    if (this.#isStuck) this.#stuckSinceMs ??= this.#host.now();
  }

  /** To be called now and then: who is silent is asked, who stays silent or does not read is cut off. */
  check(nowMs: number): void {
    const { silenceMs, stuckMs } = this.#host.limits;
    // A large message may be long under way.
    const { bytesRead } = this.#request.socket;
    if (bytesRead > this.#heardBytes || this.#readTimer !== undefined) this.#heardAtMs = nowMs;
    this.#heardBytes = bytesRead;
    const silentMs = nowMs - this.#heardAtMs;
    if (this.#stuckSinceMs !== undefined && nowMs - this.#stuckSinceMs > stuckMs) {
      this.#socket.terminate(); // Nothing that is said now would be read.
    } else if (silentMs > silenceMs) this.#socket.terminate();
    else if (this.#session === undefined) {
      if (nowMs - this.#openedAtMs > silenceMs / 3) this.#socket.terminate();
    } else if (Math.max(silentMs, nowMs - this.#saidAtMs) > silenceMs / 3) {
      this.#write({ kind: "ping", id: 0 });
    }
  }

  /** Says why, and ends; what comes after it is not read. */
  close(error: SpillwayError): void {
    if (this.#isClosed) return;
    const { code, message: text, retryAfterMs } = error;
    this.#flush();
    this.#write({
      kind: "bye",
      code,
      text,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
    this.#socket.close(code === "closed" ? goingAway : policyClosure, code);
    this.#end(code === "protocol_violated");
  }

  #fail(error: unknown): void {
    this.close(
      error instanceof SpillwayError
        ? error
        : new SpillwayError("invariant_broken", { found: textOf(error) }, { cause: error }),
    );
  }

  #end(isOver: boolean): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#ackTimer);
    clearTimeout(this.#readTimer);
    this.#socket.resume(); // To hear that the other end has closed.
    this.#session?.unbind();
    this.#host.left(this, this.#session, isOver);
  }

  /** Its client has come back on another connection before this one was known to be dead. */
  replace(): void {
    this.#session?.unbind();
    this.#session = undefined;
    this.#end(false);
    this.#socket.terminate();
  }

  /** Ends without a word. */
  terminate(): void {
    this.#socket.terminate();
  }
}

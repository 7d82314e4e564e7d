/**
 * A conversation with a server over as many WebSockets as it takes: it reconnects with growing, scattered
 * pauses, resumes where it was, and says to the channels' owners when that was not possible.
 *
 * A connection on which nothing comes is asked; one that stays silent is given up. While answers are
 * awaited that happens within seconds, else within the silence that the server allows.
 */
import { catalogue, SpillwayError } from "../base/index.ts";
import type { Clock, ErrorCode, Timer } from "../base/index.ts";
import {
  decode,
  encode,
  isNumbered,
  packClient,
  Session,
  sizeOf,
  split,
  subprotocol,
  unpackServer,
  wireLimits,
} from "../protocol/index.ts";
import type { Attached, ClientFrame, Message, Role, ServerFrame } from "../protocol/index.ts";

/** An end of one flow's protocol on this connection. */
export interface Channel {
  readonly role: Role;
  readonly flow: string;
  /** The server knows the channel: at first, and whenever a session begins anew. */
  onAttached(attached: Attached): void;
  onRejected(error: SpillwayError): void;
  /** What the server knew of the channel is gone; it is attached again. */
  onReset(): void;
  onFrame(frame: Extract<ServerFrame, { kind: "produce" | "consume" }>["frame"]): void;
}

export interface ConnectionOptions {
  readonly url: string;
  readonly token?: string | undefined;
  readonly name: string;
}

export interface ConnectionDeps {
  readonly clock: Clock;
  /** 0 to 1: scatters the pauses between attempts. */
  readonly random: () => number;
  readonly openSocket: (url: string, protocol: string) => WebSocket;
  readonly onState: (state: "connected" | "disconnected", error?: SpillwayError) => void;
}

type ChannelFrame = Exclude<ServerFrame, { kind: "welcome" | "bye" | "ack" | "ping" | "pong" }>;

interface Hold {
  readonly channel: Channel;
  isAttached: boolean;
}

const pauseMinMs = 50;
/** Times 0.5 to 1.5: work goes on within five seconds of a server that is there again. */
const pauseMaxMs = 2000;
const greetingMs = 4000;
/** Longest that a server can ask a client to stay away. */
const awayMaxMs = 60_000;
/** While something is awaited: how long nothing may come before the server is asked, and then given up. */
const askAfterMs = 1000;
const giveUpAfterMs = 3000;
const checkEveryMs = 250;
const ackDelayMs = 100;
/** More than credit lets leave: what is kept beyond it, nobody acknowledges. */
const keptBytesMax = 256 * 1024 ** 2;
/** Codes after which another attempt would end the same way. */
const final: ReadonlySet<string> = new Set(["unauthenticated", "forbidden", "protocol_violated"]);

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #deps: ConnectionDeps;
  readonly #channels = new Map<number, Hold>();
  #session = new Session<ClientFrame>({ keptBytesMax });
  #resume: { readonly session: string; readonly secret: string } | undefined;
  #socket: WebSocket | undefined;
  #isReady = false;
  #isClosed = false;
  #isScheduled = false;
  #isAwaited = false;
  #messageBytes = 1024 ** 2;
  #silenceMs = 30_000;
  #heardAtMs = 0;
  #readyAtMs = 0;
  #unsentBytes = 0;
  /** Connections in a row on which nothing was achieved, and those that ended because of what came. */
  #attempts = 0;
  #misunderstood = 0;
  #pauseMs = 0;
  #nextChannel = 0;
  #retry: Timer | undefined;
  #check: Timer | undefined;
  #ack: Timer | undefined;
  #failure: SpillwayError | undefined;

  constructor(options: ConnectionOptions, deps: ConnectionDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#open();
  }

  get isConnected(): boolean {
    return this.#isReady;
  }

  /** Why there is no connection. */
  get failure(): SpillwayError | undefined {
    return this.#failure;
  }

  // Channels.

  attach(channel: Channel): number {
    const id = this.#freeChannel();
    if (this.#isClosed) {
      const error = this.#failure ?? new SpillwayError("closed", { flow: channel.flow });
      this.#deps.clock.defer(() => channel.onRejected(error));
      return id;
    }
    this.#channels.set(id, { channel, isAttached: false });
    const { role, flow } = channel;
    this.#push({ kind: "attach", channel: id, role, flow });
    return id;
  }

  #freeChannel(): number {
    for (let tries = 0; tries < wireLimits.channelsMax; tries++) {
      const id = this.#nextChannel++ % wireLimits.channelsMax;
      if (!this.#channels.has(id)) return id;
    }
    throw new SpillwayError("option_invalid", {
      option: "flow",
      found: `${this.#channels.size} channels`,
      allowed: `at most ${wireLimits.channelsMax} of one client`,
    });
  }

  detach(id: number): void {
    if (this.#channels.delete(id)) this.#push({ kind: "detach", channel: id });
  }

  send(frame: Extract<ClientFrame, { kind: "produce" | "consume" }>): void {
    this.#push(frame);
  }

  /** Whether the server has had everything that was sent, and said so. */
  get isSettled(): boolean {
    return this.#session.keptBytes === 0;
  }

  #push(frame: ClientFrame): void {
    const isKept = isNumbered(frame);
    for (const part of split(frame, this.#messageBytes / 4)) {
      this.#session.push(part, isKept, isKept ? sizeOf(part) : 0);
    }
    if (isKept) this.#isAwaited = true;
    if (this.#session.hasFailed) this.#restart(disconnected("nothing is acknowledged"));
    this.#schedule();
  }

  // Connecting.

  #open(): void {
    if (this.#isClosed) return;
    const { clock, openSocket } = this.#deps;
    let socket: WebSocket;
    try {
      socket = openSocket(addressOf(this.#options.url), subprotocol);
    } catch (cause) {
      return this.#lost(undefined, disconnected("the WebSocket cannot be opened", cause));
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    this.#heardAtMs = clock.now();
    // An error is followed by `close`; of a socket that was given up nothing is heard any more.
    const isCurrent = (): boolean => socket === this.#socket;
    socket.addEventListener("open", () => isCurrent() && this.#greet());
    socket.addEventListener("message", ({ data }) => {
      if (isCurrent()) this.#came(socket, data as string | ArrayBuffer);
    });
    socket.addEventListener("close", ({ code, reason }) => {
      this.#lost(socket, disconnected(`the connection ended (${code} ${reason})`));
    });
    this.#arm();
  }

  #greet(): void {
    const { token, name: client } = this.#options;
    const received = this.#session.received;
    const resume = this.#resume === undefined ? undefined : { ...this.#resume, received };
    const frame: ClientFrame = {
      kind: "hello",
      client,
      ...(token === undefined ? {} : { token }),
      ...(resume === undefined ? {} : { resume }),
    };
    this.#write([{ frame, bytes: 0 }], undefined);
  }

  #came(socket: WebSocket, data: string | ArrayBuffer): void {
    const nowMs = this.#deps.clock.now();
    this.#heardAtMs = nowMs;
    try {
      const message: Message = typeof data === "string" ? data : new Uint8Array(data);
      const unpack: Parameters<typeof decode<ServerFrame>>[1] = (head, take) =>
        unpackServer(head, take, nowMs);
      for (const { n, frame } of decode<ServerFrame>(message, unpack)) {
        this.#frame(n, frame);
        if (socket !== this.#socket) return;
      }
    } catch (error) {
      if (!(error instanceof SpillwayError)) throw error;
      this.#misunderstood++;
      return this.#restart(error); // It cannot be known what else was misunderstood.
    }
    if (this.#session.isAckDue) this.#schedule();
    else if (this.#session.hasUntold) this.#ackLater();
  }

  #ackLater(): void {
    this.#ack ??= this.#deps.clock.after(ackDelayMs, () => {
      this.#ack = undefined;
      this.#schedule();
    });
  }

  #frame(n: number | undefined, frame: ServerFrame): void {
    if (this.#isReady === (frame.kind === "welcome") && frame.kind !== "bye") {
      throw violation("frame.kind", frame.kind); // One welcome, before everything else.
    }
    switch (frame.kind) {
      case "welcome":
        return this.#welcome(frame);
      case "bye":
        this.#pauseMs = Math.min(awayMaxMs, frame.retryAfterMs ?? 0);
        this.#failure = new SpillwayError("disconnected", { found: frame.code, text: frame.text });
        if (final.has(frame.code)) this.#refused(frame.code, frame.text);
        return;
      case "ack":
        if (!this.#session.acknowledged(frame.received)) throw violation("ack", frame.received);
        this.#isAwaited = !this.isSettled;
        return;
      case "ping":
        return this.#push({ kind: "pong", id: frame.id });
      case "pong":
        return;
      default:
        return this.#numbered(n, frame);
    }
  }

  #numbered(n: number | undefined, frame: ChannelFrame): void {
    if (n !== undefined) {
      const arrival = this.#session.accept(n);
      if (arrival === "repeat") return;
      if (arrival === "gap") throw violation("frame.n", n);
      this.#attempts = 0;
    } else if (isNumbered(frame)) throw violation("frame.n", "none");
    this.#pass(frame);
  }

  #pass(frame: ChannelFrame): void {
    const hold = this.#channels.get(frame.channel);
    if (hold === undefined) return; // It was detached meanwhile.
    switch (frame.kind) {
      case "attached":
        hold.isAttached = true;
        return hold.channel.onAttached(frame);
      case "rejected": {
        this.#channels.delete(frame.channel);
        const { flow } = hold.channel;
        return hold.channel.onRejected(errorOf(frame.code, frame.text, { flow }));
      }
      case "detached":
        return;
      default:
        return hold.channel.onFrame(frame.frame);
    }
  }

  #welcome(frame: Extract<ServerFrame, { kind: "welcome" }>): void {
    const { session, secret, isResumed, received, messageBytes, silenceMs } = frame;
    if (!isResumed && this.#resume !== undefined) this.#begin();
    this.#resume = { session, secret };
    this.#messageBytes = messageBytes;
    this.#silenceMs = silenceMs;
    if (!this.#session.connected(received)) throw violation("welcome.received", received);
    this.#isReady = true;
    this.#readyAtMs = this.#deps.clock.now();
    this.#pauseMs = 0;
    this.#failure = undefined;
    this.#deps.onState("connected");
    // By whatever comes the server learns that the secret has come; the one before is void then.
    this.#push({ kind: "ping", id: 0 });
  }

  #restart(error: SpillwayError): void {
    const socket = this.#socket;
    this.#begin();
    if (socket !== undefined) this.#lost(socket, error);
  }

  /** The session cannot go on: what was sent may have come or not, and all channels begin anew. */
  #begin(): void {
    this.#session = new Session({ keptBytesMax });
    this.#resume = undefined;
    this.#isAwaited = false;
    for (const [id, hold] of this.#channels) {
      const { role, flow } = hold.channel;
      this.#session.push({ kind: "attach", channel: id, role, flow }, true, 0);
      hold.isAttached = false;
      hold.channel.onReset();
    }
  }

  /** No attempt will do better: who waits is told. */
  #refused(code: string, text: string): void {
    const error = errorOf(code, text);
    for (const { channel } of this.#channels.values()) channel.onRejected(error);
    this.#channels.clear();
    this.#failure = error;
    this.#isClosed = true;
  }

  #lost(socket: WebSocket | undefined, error: SpillwayError): void {
    if (socket !== this.#socket) return;
    const wasReady = this.#isReady;
    this.#isReady = false;
    this.#socket = undefined;
    this.#session.disconnected();
    this.#check?.cancel();
    this.#ack?.cancel();
    this.#ack = undefined;
    socket?.close();
    this.#failure ??= error;
    if (wasReady || this.#attempts === 0) this.#deps.onState("disconnected", this.#failure);
    if (this.#isClosed) return;
    const { clock, random } = this.#deps;
    const tries = Math.max(this.#attempts++, this.#misunderstood);
    const growing = Math.min(pauseMaxMs, pauseMinMs * 2 ** tries);
    const pauseMs = this.#pauseMs + growing * (0.5 + random());
    this.#retry = clock.after(pauseMs, () => this.#open());
  }

  // Liveness.

  #arm(): void {
    this.#check?.cancel();
    this.#check = this.#deps.clock.after(checkEveryMs, () => {
      this.#isAlive();
      if (this.#socket !== undefined) this.#arm();
    });
  }

  #isAlive(): void {
    const nowMs = this.#deps.clock.now();
    // A large message may be long under way: while it gets on, the connection lives.
    const unsentBytes = this.#socket?.bufferedAmount ?? 0;
    if (unsentBytes < this.#unsentBytes) this.#heardAtMs = nowMs;
    this.#unsentBytes = unsentBytes;
    const silentMs = nowMs - this.#heardAtMs;
    if (!this.#isReady) {
      if (silentMs > greetingMs) this.#lost(this.#socket, disconnected("no welcome came"));
      return;
    }
    if (nowMs - this.#readyAtMs > pauseMaxMs) this.#attempts = 0;
    const isGone = silentMs > (this.#isAwaited ? giveUpAfterMs : this.#silenceMs);
    if (isGone) this.#lost(this.#socket, disconnected(`nothing came for ${silentMs} ms`));
    else if (silentMs > (this.#isAwaited ? askAfterMs : this.#silenceMs / 2)) {
      this.#push({ kind: "ping", id: 0 });
    }
  }

  // Writing.

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#deps.clock.defer(() => {
      this.#isScheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (!this.#isReady) return;
    const frames = this.#session.take();
    const ack = this.#session.takeAck();
    if (frames.length === 0 && ack === undefined) return;
    this.#ack?.cancel();
    this.#ack = undefined;
    this.#write(frames, ack);
  }

  #write(frames: Parameters<typeof encode<ClientFrame>>[0], ack: number | undefined): void {
    const encoding = { pack: packClient, bytesMax: this.#messageBytes };
    for (const message of encode(frames, ack, encoding)) {
      this.#socket?.send(message as string | Uint8Array<ArrayBuffer>);
    }
  }

  /** Ends for good. */
  close(): void {
    this.#isClosed = true;
    this.#retry?.cancel();
    this.#flush();
    const socket = this.#socket;
    this.#socket = undefined;
    this.#isReady = false;
    this.#check?.cancel();
    this.#ack?.cancel();
    socket?.close(1000);
  }
}

/** @throws {SpillwayError} option_invalid */
export function addressOf(url: string): string {
  const match = /^(http|ws)(s?):\/\/([^/?#@\s]+)(\/[^?#\s]*)?$/.exec(url);
  if (match === null) {
    const allowed = 'the server\'s address, such as "https://queue.example.com"';
    throw new SpillwayError("option_invalid", { option: "url", found: url.slice(0, 200), allowed });
  }
  const [, , secure, host, path = ""] = match;
  return `ws${secure}://${host}${path.replace(/\/$/, "")}/v1/connect`;
}

function disconnected(found: string, cause?: unknown): SpillwayError {
  return new SpillwayError("disconnected", { found }, { cause });
}

function violation(path: string, found: unknown): SpillwayError {
  return new SpillwayError("protocol_violated", { path, found });
}

/**
 * What the server said, once: its text begins with what the code says anyway.
 * A code that is newer than this client counts as a lost connection.
 */
function errorOf(
  code: string,
  text: string,
  details: { readonly flow?: string } = {},
): SpillwayError {
  if (!isCode(code)) return new SpillwayError("disconnected", { ...details, found: text });
  const known = catalogue[code].text;
  const found = text.startsWith(known) ? text.slice(known.length).trim() : text;
  const inner = /^\((.*)\)$/s.exec(found)?.[1] ?? found;
  const isKnown = Object.entries(details).some(([name, value]) => inner === `${name}: ${value}`);
  return new SpillwayError(code, inner === "" || isKnown ? details : { ...details, found: inner });
}

function isCode(code: string): code is ErrorCode {
  return Object.hasOwn(catalogue, code);
}

/**
 * A session of one client: its channels, each an end of a flow's protocol, over as many connections as
 * it takes. While there is none, everything stays as it was for `graceMs`; then its credit is free again,
 * and what its workers had counts as failed attempts.
 *
 * W1  What is kept for a client is bounded: a worker is given no more bytes than it acknowledges (G6),
 *     and a client that acknowledges nothing loses its session.
 * W2  A secret resumes once: it is void as soon as the client has shown that it has the next one (S7).
 *
 * It must not know sockets: a connection takes what is to leave, and gives what came.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { SpillwayError } from "../../base/index.ts";
import { steering } from "../../control/index.ts";
import { draftOf } from "../../producer/index.ts";
import { deliveryBytes, isNumbered, Session, sizeOf, split } from "../../protocol/index.ts";
import type {
  ClientFrame,
  ConsumerFrame,
  Draft,
  Grant,
  Heartbeat,
  Link,
  ProducerFrame,
  Role,
  ServerFrame,
  ToConsumerFrame,
  ToProducerFrame,
} from "../../protocol/index.ts";
import type { Flow } from "../../spillway.ts";
import type { Principal } from "../access.ts";
import type { Context } from "../app.ts";

export interface SessionLimits {
  /** Largest message that goes either way. */
  readonly messageBytes: number;
  /** What may be kept for a client that does not acknowledge; its workers get no more at a quarter. */
  readonly keptBytes: number;
}

type Consume = Extract<Channel, { role: "consume" }>;

type Channel =
  | {
      readonly role: "produce";
      readonly flow: Flow<Uint8Array>;
      readonly shards: number;
      readonly link: Link<ToProducerFrame, ProducerFrame>;
      readonly detach: () => void;
    }
  | {
      readonly role: "consume";
      readonly flow: Flow<Uint8Array>;
      readonly link: Link<ToConsumerFrame, ConsumerFrame>;
      readonly detach: () => void;
      /** What the worker granted last, and how far the queue has come in it. */
      grant: Grant | undefined;
      beat: Heartbeat | undefined;
      /** W1: of the bytes that the worker granted, what the queue was told. */
      limitBytes: number;
    };

const headersBytesMax = 65_536;

export class ClientSession {
  readonly id: string = randomBytes(12).toString("base64url");
  readonly principal: Principal;
  readonly session: Session<ServerFrame>;
  readonly #context: Context;
  readonly #limits: SessionLimits;
  readonly #channels = new Map<number, Channel>();
  #secret: Buffer = randomBytes(24);
  /** The one that was used last: it may be used again until the client has the next. */
  #usedSecret: Buffer | undefined;
  #workers = 0;
  #wake: () => void = () => undefined;
  /** The connection does not take what it is sent. */
  #isSlow: () => boolean = () => false;
  readonly #onOverflow: (session: ClientSession) => void;
  /** The server goes: producers wait for the next one, workers end what they have. */
  isClosing = false;

  /** @param onOverflow Called while more is kept than may be: the session is to end, but not at once (W1). */
  constructor(
    context: Context,
    principal: Principal,
    limits: SessionLimits,
    onOverflow: (session: ClientSession) => void,
  ) {
    this.#context = context;
    this.principal = principal;
    this.#limits = limits;
    this.#onOverflow = onOverflow;
    this.session = new Session({ keptBytesMax: limits.keptBytes });
  }

  /** Only who began the session may go on with it, with a secret of each connection (W2). */
  takeSecret(secret: string, principal: Principal): boolean {
    const given = Buffer.from(secret, "base64url");
    const isNew = isSame(given, this.#secret);
    // The answer to it may have been lost with its connection.
    const isRight = isSame(given, this.#usedSecret ?? this.#secret) || isNew;
    if (!isRight || principal.id !== this.principal.id) return false;
    if (isNew) this.#usedSecret = this.#secret;
    return true;
  }

  newSecret(): string {
    this.#secret = randomBytes(24);
    return this.#secret.toString("base64url");
  }

  /** The client has had the newest secret. */
  hasSecret(): void {
    this.#usedSecret = undefined;
  }

  /** Whether there is anything to come back for. */
  get isEmpty(): boolean {
    return this.#channels.size === 0;
  }

  /** A connection is there. @param wake Called when something is to leave. */
  bind(wake: () => void, isSlow: () => boolean): void {
    this.#wake = wake;
    this.#isSlow = isSlow;
  }

  unbind(): void {
    this.session.disconnected();
    this.#wake = () => undefined;
    this.#isSlow = () => false;
  }

  push(given: ServerFrame): void {
    const frame = this.isClosing ? beforeTheEnd(given) : given;
    if (frame === undefined) return;
    const isKept = isNumbered(frame);
    // How things stand is said again when it can be read.
    if (!isKept && this.#isSlow()) return;
    for (const part of split(frame, this.#limits.messageBytes / 4)) {
      this.session.push(part, isKept, isKept ? sizeOf(part) : 0);
    }
    if (this.session.hasFailed) this.#onOverflow(this);
    this.#wake();
  }

  /**
   * The client has all up to there: its workers may be given more.
   * @returns False: that was never sent.
   */
  acknowledged(received: number): boolean {
    if (!this.session.acknowledged(received)) return false;
    for (const channel of this.#channels.values()) {
      if (channel.role !== "consume" || channel.grant === undefined) continue;
      if (this.#raise(channel, channel.grant)) this.#give(channel, channel.grant);
    }
    return true;
  }

  /** @throws {SpillwayError} protocol_violated, or what the flow throws */
  receive(frame: ClientFrame): void {
    switch (frame.kind) {
      case "attach":
        this.#attach(frame.channel, frame.role, frame.flow);
        break;
      case "detach":
        this.#detach(frame.channel);
        this.push({ kind: "detached", channel: frame.channel });
        break;
      case "produce":
      case "consume":
        this.#pass(frame);
        break;
      default:
        throw violation("frame.kind", frame.kind, "a frame of a channel");
    }
  }

  #pass(frame: Extract<ClientFrame, { kind: "produce" | "consume" }>): void {
    const channel = this.#channels.get(frame.channel);
    // A frame may be under way while its channel ends.
    if (channel === undefined) return;
    if (frame.kind === "produce" && channel.role === "produce") {
      const inner = frame.frame;
      if (inner.partition >= channel.flow.contract.partitions) {
        const allowed = `below ${channel.flow.contract.partitions}`;
        throw violation("frame.partition", inner.partition, allowed);
      }
      if (inner.kind === "send") this.#checkGroup(inner.drafts);
      channel.link.onFrame(inner.kind === "send" ? checkedSend(inner, channel) : inner);
    } else if (frame.kind === "consume" && channel.role === "consume") {
      if (frame.frame.kind === "credit") this.#granted(channel, frame.frame.grant);
      else channel.link.onFrame(frame.frame);
    } else throw violation("frame.kind", frame.frame.kind, `a frame to ${channel.role}`);
  }

  /** A token of a group sends for that group only. */
  #checkGroup(drafts: readonly Draft[]): void {
    const { group } = this.principal;
    if (group === undefined || drafts.every((draft) => draft.group === group)) return;
    throw new SpillwayError("forbidden", { needed: "messages of its group", allowed: group });
  }

  /** A worker's promise, within what its contract allows: credit is live for a lease and no longer (W1). */
  #granted(channel: Consume, grant: Grant): void {
    const { window, credit } = channel.flow.contract;
    const { beat } = channel;
    const position = beat?.epoch === grant.epoch ? beat.position : 0;
    if (grant.epoch !== channel.grant?.epoch) channel.limitBytes = 0;
    const inFlightMax = Math.max(window.max, window.fixed ?? 0);
    channel.grant = {
      ...grant,
      limitMessages: Math.min(grant.limitMessages, position + inFlightMax),
      leaseMs: Math.min(grant.leaseMs, credit.leaseMs),
      echoHeartbeatMs: Math.min(grant.echoHeartbeatMs, beat?.heartbeatMs ?? 0),
    };
    this.#raise(channel, channel.grant);
    this.#give(channel, channel.grant);
  }

  /** Lets a worker have more bytes, as far as the client acknowledges them. @returns Whether it has more. */
  #raise(channel: Consume, { epoch }: Grant): boolean {
    const bytesMax = this.#limits.keptBytes / 4;
    const free = bytesMax - this.session.keptBytes;
    if (free <= 0) return false;
    // The largest message must go out, however many workers share what is free.
    const largest = largestOf(channel.flow);
    const room = Math.max(Math.min(free, bytesMax / this.#workers), largest);
    const position = channel.beat?.epoch === epoch ? channel.beat.positionBytes : 0;
    if (channel.limitBytes - position >= Math.max(room / 2, largest)) return false;
    channel.limitBytes = Math.max(channel.limitBytes, position + room);
    return true;
  }

  #give({ link, limitBytes }: Consume, grant: Grant): void {
    const bytes = Math.min(grant.limitBytes, limitBytes);
    link.onFrame({ kind: "credit", grant: { ...grant, limitBytes: bytes } });
  }

  #attach(channel: number, role: Role, name: string): void {
    if (this.#channels.has(channel)) throw violation("frame.channel", channel, "a new channel");
    try {
      const { group } = this.principal;
      // What a worker gets cannot be held to one group, so a token of a group may only send (S2).
      if (!this.principal.allows(role, name) || (group !== undefined && role === "consume")) {
        throw new SpillwayError("forbidden", { needed: role, flow: name });
      }
      const flow = this.#context.flow(name);
      if (role === "consume" && flow.contract.deliver !== undefined) {
        const allowed = "a flow without `deliver`: this one is pushed to its target";
        throw new SpillwayError("option_invalid", { option: "flow", found: name, allowed });
      }
      this.#open(channel, role, flow);
    } catch (error) {
      if (!(error instanceof SpillwayError)) throw error;
      this.push({ kind: "rejected", channel, code: error.code, text: error.message });
    }
  }

  #open(channel: number, role: Role, flow: Flow<Uint8Array>): void {
    const { partitions, order, messageBytesMax, credit, window, groups, name } = flow.contract;
    const shards = groups.shards === "off" ? partitions : Math.min(partitions, groups.shards);
    this.push({
      kind: "attached",
      channel,
      partitions,
      shards,
      isOrdered: order === "key",
      payload: this.#context.config.contracts[name]?.payload ?? "bytes",
      messageBytesMax,
      durability: this.#context.spillway.durability,
      creditLeaseMs: credit.leaseMs,
      window,
    });
    const id = `${this.id}:${channel}`;
    if (role === "produce") {
      const link: Link<ToProducerFrame, ProducerFrame> = {
        send: (frame) => this.push({ kind: "produce", channel, frame }),
        onFrame: () => undefined,
      };
      // The link must be known before it is used: attaching sends at once.
      const opened = { role, flow, shards, link, detach: () => detach() } as const;
      this.#channels.set(channel, opened);
      const detach = flow.attachProducer(id, link);
    } else {
      const link: Link<ToConsumerFrame, ConsumerFrame> = {
        send: (frame) => {
          if ("beat" in frame) opened.beat = frame.beat;
          this.push({ kind: "consume", channel, frame });
        },
        onFrame: () => undefined,
      };
      const opened: Consume = {
        role,
        flow,
        link,
        detach: () => detach(),
        grant: undefined,
        beat: undefined,
        limitBytes: 0,
      };
      this.#channels.set(channel, opened);
      this.#count(1, largestOf(flow));
      const detach = flow.attachConsumer(id, link);
    }
  }

  /** W1: beside what all share there is room for what each worker may be given at least. */
  #count(workers: number, largestBytes: number): void {
    this.#workers += workers;
    this.session.keptBytesMax += 2 * largestBytes;
  }

  #detach(channel: number): void {
    const known = this.#channels.get(channel);
    if (known === undefined) return;
    this.#channels.delete(channel);
    if (known.role === "consume") this.#count(-1, -largestOf(known.flow));
    known.detach();
  }

  /** All channels end. */
  end(): void {
    for (const channel of this.#channels.keys()) this.#detach(channel);
  }
}

function isSame(given: Buffer, secret: Buffer): boolean {
  return given.length === secret.length && timingSafeEqual(given, secret);
}

/** What the largest message of a flow counts, with its headers. */
function largestOf({ contract }: Flow<Uint8Array>): number {
  return contract.messageBytesMax + headersBytesMax + deliveryBytes;
}

/** No credit any more; and what is refused because of the end waits for the next server. */
function beforeTheEnd(frame: ServerFrame): ServerFrame | undefined {
  if (frame.kind !== "produce") return frame;
  const inner = frame.frame;
  if (inner.kind !== "results") return undefined;
  const results = inner.results.map((result) =>
    result.kind === "refused" && result.code === "intake_closed"
      ? ({ ...result, code: "no_credit" } as const)
      : result,
  );
  return { ...frame, frame: { ...inner, results } };
}

/**
 * What is counted, hashed and steered is made here: a client may be wrong about it, and order per key
 * and deduplication hold only where a message lies where it belongs.
 */
function checkedSend(
  frame: Extract<ProducerFrame, { kind: "send" }>,
  { flow, shards }: Extract<Channel, { role: "produce" }>,
): ProducerFrame {
  const { partitions, order } = flow.contract;
  const shardsOf = new Map<string, readonly number[]>();
  const drafts = frame.drafts.map((given, at) => {
    const { draft, route } = checkedDraft(given, order === "key", at);
    let among: readonly number[] | undefined;
    if (route.group !== undefined && shards < partitions) {
      among = shardsOf.get(route.group) ?? steering.shardsOf(route.group, partitions, shards);
      shardsOf.set(route.group, among);
    }
    const place =
      route.hash === undefined
        ? undefined
        : steering.ofHash(route.hash, among?.length ?? partitions);
    const isHere =
      place === undefined
        ? (among?.includes(frame.partition) ?? true)
        : (among?.[place] ?? place) === frame.partition;
    if (isHere) return draft;
    const allowed = "the partition of its key, idempotency key or group";
    throw violation(`frame.drafts[${at}]`, `partition ${frame.partition}`, allowed);
  });
  return { ...frame, drafts };
}

function checkedDraft(given: Draft, isOrdered: boolean, at: number): ReturnType<typeof draftOf> {
  const { payload, headers, key, group, cost, idempotencyKey, delayMs, deadlineMs } = given;
  try {
    const made = draftOf(
      payload,
      {
        class: given.class,
        ...(key === undefined ? {} : { key }),
        ...(group === undefined ? {} : { group }),
        ...(cost === undefined ? {} : { cost }),
        ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
      },
      isOrdered,
    );
    if (headers.length > 0) checkHeaders(headers);
    const draft: Draft = {
      ...made.draft,
      ...(delayMs === undefined ? {} : { delayMs }),
      // It ran out while it waited: the queue refuses it with the code for that.
      ...(deadlineMs === undefined ? {} : { deadlineMs }),
      headers,
      bytes: made.draft.bytes + headers.length,
    };
    return { draft, route: made.route };
  } catch (error) {
    if (!(error instanceof SpillwayError) || error.code !== "option_invalid") throw error;
    throw new SpillwayError("protocol_violated", { ...error.details, path: `frame.drafts[${at}]` });
  }
}

const decoder = new TextDecoder("utf-8", { fatal: true });

function checkHeaders(headers: Uint8Array): void {
  let value: unknown;
  try {
    if (headers.length <= headersBytesMax) value = JSON.parse(decoder.decode(headers));
  } catch {
    value = undefined;
  }
  const isTexts =
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((each) => typeof each === "string");
  if (isTexts) return;
  throw new SpillwayError("option_invalid", {
    option: "headers",
    found: `${headers.length} bytes`,
    allowed: `an object of texts in JSON, of at most ${headersBytesMax} bytes`,
  });
}

export function violation(path: string, found: unknown, allowed: string): SpillwayError {
  return new SpillwayError("protocol_violated", { path, found, allowed });
}

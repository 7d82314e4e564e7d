/**
 * A session of one client: its channels, each an end of a flow's protocol, over as many connections as
 * it takes. While there is none, everything stays as it was for `graceMs`; then its credit is free again,
 * and what its workers had counts as failed attempts.
 *
 * It must not know sockets: a connection takes what is to leave, and gives what came.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { SpillwayError } from "../../base/index.ts";
import { steering } from "../../control/index.ts";
import { draftOf } from "../../producer/index.ts";
import { isNumbered, Session, sizeOf, split } from "../../protocol/index.ts";
import type {
  ClientFrame,
  ConsumerFrame,
  Draft,
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
  /** What may be kept for a client that does not acknowledge; its workers get no more credit at a quarter. */
  readonly keptBytes: number;
}

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
      readonly link: Link<ToConsumerFrame, ConsumerFrame>;
      readonly detach: () => void;
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
  #wake: () => void = () => undefined;
  /** The connection does not take what it is sent: workers get nothing more meanwhile. */
  isSlow: () => boolean = () => false;
  /** The server goes: producers wait for the next one, workers end what they have. */
  isClosing = false;

  constructor(context: Context, principal: Principal, limits: SessionLimits) {
    this.#context = context;
    this.principal = principal;
    this.#limits = limits;
    this.session = new Session({ keptBytesMax: limits.keptBytes });
  }

  /** Once: each resumption has a secret of its own, and only who began the session may go on with it (S7). */
  takeSecret(secret: string, principal: Principal): boolean {
    const given = Buffer.from(secret, "base64url");
    const isRight = given.length === this.#secret.length && timingSafeEqual(given, this.#secret);
    if (!isRight || principal.id !== this.principal.id) return false;
    this.newSecret();
    return true;
  }

  newSecret(): string {
    this.#secret = randomBytes(24);
    return this.#secret.toString("base64url");
  }

  /** A connection is there. @param wake Called when something is to leave. */
  bind(wake: () => void, isSlow: () => boolean): void {
    this.#wake = wake;
    this.isSlow = isSlow;
  }

  unbind(): void {
    this.session.disconnected();
    this.#wake = () => undefined;
    this.isSlow = () => false;
  }

  push(given: ServerFrame): void {
    const frame = this.isClosing ? beforeTheEnd(given) : given;
    if (frame === undefined) return;
    const isKept = isNumbered(frame);
    for (const part of split(frame, this.#limits.messageBytes / 4)) {
      this.session.push(part, isKept, isKept ? sizeOf(part) : 0);
    }
    this.#wake();
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
      const isTooMuch = this.session.keptBytes > this.#limits.keptBytes / 4 || this.isSlow();
      // Credit may be lost: the next one says it again, when this client takes what it gets.
      if (frame.frame.kind === "credit" && isTooMuch) return;
      channel.link.onFrame(frame.frame);
    } else throw violation("frame.kind", frame.frame.kind, `a frame to ${channel.role}`);
  }

  /** A token of a group sends for that group only. */
  #checkGroup(drafts: readonly Draft[]): void {
    const { group } = this.principal;
    if (group === undefined || drafts.every((draft) => draft.group === group)) return;
    throw new SpillwayError("forbidden", { needed: "messages of its group", allowed: group });
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
        send: (frame) => this.push({ kind: "consume", channel, frame }),
        onFrame: () => undefined,
      };
      const detach = flow.attachConsumer(id, link);
      this.#channels.set(channel, { role, link, detach });
    }
  }

  #detach(channel: number): void {
    const known = this.#channels.get(channel);
    this.#channels.delete(channel);
    known?.detach();
  }

  /** All channels end. */
  end(): void {
    for (const channel of this.#channels.keys()) this.#detach(channel);
  }
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
  const drafts = frame.drafts.map((given, at) => {
    const { draft, route } = checkedDraft(given, order === "key", at);
    const among =
      route.group === undefined || shards >= partitions
        ? undefined
        : steering.shardsOf(route.group, partitions, shards);
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

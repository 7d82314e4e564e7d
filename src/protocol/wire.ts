/**
 * What travels between a client and a server, version "spillway.v1": the frames of both hops, each on a
 * channel (one flow, one role), and what opens, resumes and ends a connection. docs/protocol.md says it
 * byte by byte.
 *
 * Numbered frames change what the other end knows: they arrive once and in order, over as many
 * connections as it takes (session.ts). The others only say how things stand, and the next one says it
 * again.
 */
import type {
  ConsumerFrame,
  Delivered,
  Draft,
  ProducerFrame,
  SendResult,
  Settlement,
  ToConsumerFrame,
  ToProducerFrame,
} from "./frames.ts";

export const subprotocol = "spillway.v1";

/** Of every message. How large one may be with its payloads a server says in `welcome`. */
export const wireLimits: {
  readonly headBytes: number;
  readonly framesMax: number;
  readonly itemsMax: number;
  readonly channelsMax: number;
} = {
  /** Of all frames of a message in UTF-8, without payloads. */
  headBytes: 65_536,
  framesMax: 256,
  /** Messages, results or settlements of one frame. */
  itemsMax: 256,
  channelsMax: 256,
};

export type Role = "produce" | "consume";

export interface Resume {
  readonly session: string;
  readonly secret: string;
  /** Number of the last numbered frame that came. */
  readonly received: number;
}

export type ClientFrame =
  | {
      readonly kind: "hello";
      readonly token?: string;
      /** Who it is, for logs. */
      readonly client: string;
      readonly resume?: Resume;
    }
  | {
      readonly kind: "attach";
      readonly channel: number;
      readonly role: Role;
      readonly flow: string;
    }
  | { readonly kind: "detach"; readonly channel: number }
  | { readonly kind: "ack"; readonly received: number }
  | { readonly kind: "ping"; readonly id: number }
  | { readonly kind: "pong"; readonly id: number }
  | { readonly kind: "produce"; readonly channel: number; readonly frame: ProducerFrame }
  | { readonly kind: "consume"; readonly channel: number; readonly frame: ConsumerFrame };

/** What a client must know of a flow. */
export interface Attached {
  readonly partitions: number;
  /** Partitions that one group uses; `partitions` when sharding is off. */
  readonly shards: number;
  readonly isOrdered: boolean;
  readonly payload: "json" | "bytes";
  readonly messageBytesMax: number;
  readonly durability: "memory" | "fsync" | "quorum" | "page-cache";
  readonly creditLeaseMs: number;
  /** Of a worker: bounds of its window. */
  readonly window: {
    readonly start: number;
    readonly min: number;
    readonly max: number;
    readonly fixed?: number;
  };
}

export type ServerFrame =
  | {
      readonly kind: "welcome";
      readonly session: string;
      /** To resume with, once. */
      readonly secret: string;
      /** Whether the session went on; else all channels are to be attached again. */
      readonly isResumed: boolean;
      readonly received: number;
      /** Largest message that the server takes. */
      readonly messageBytes: number;
      /** Silence after which the other end is held for gone. */
      readonly silenceMs: number;
      /** How long a session without a connection is kept. */
      readonly graceMs: number;
    }
  | ({ readonly kind: "attached"; readonly channel: number } & Attached)
  | {
      readonly kind: "rejected";
      readonly channel: number;
      readonly code: string;
      readonly text: string;
    }
  | { readonly kind: "detached"; readonly channel: number }
  | { readonly kind: "ack"; readonly received: number }
  | { readonly kind: "ping"; readonly id: number }
  | { readonly kind: "pong"; readonly id: number }
  /** The last one of a connection: why it ends, and when to come back. */
  | {
      readonly kind: "bye";
      readonly code: string;
      readonly text: string;
      readonly retryAfterMs?: number;
    }
  | { readonly kind: "produce"; readonly channel: number; readonly frame: ToProducerFrame }
  | { readonly kind: "consume"; readonly channel: number; readonly frame: ToConsumerFrame };

const loose: ReadonlySet<string> = new Set(
  "hello welcome ack ping pong bye beat grant held want credit working".split(" "),
);

export function isNumbered(frame: ClientFrame | ServerFrame): boolean {
  return !loose.has("frame" in frame ? frame.frame.kind : frame.kind);
}

/** A frame that is too long for one message, in several: items, positions and credit stay as they are. */
export function split<F extends ClientFrame | ServerFrame>(frame: F, bytesMax: number): F[] {
  if (!("frame" in frame)) return [frame];
  const inner: ProducerFrame | ConsumerFrame | ToProducerFrame | ToConsumerFrame = frame.frame;
  switch (inner.kind) {
    case "send": {
      let from = 0;
      return chunks(inner.drafts, bytesMax).map((drafts) => {
        const position = inner.position + from;
        from += drafts.length;
        return { ...frame, frame: { ...inner, drafts, position } };
      });
    }
    case "results":
      return chunks(inner.results, bytesMax).map((results) => {
        return { ...frame, frame: { ...inner, results } };
      });
    case "deliver":
      return chunks(inner.messages, bytesMax).map((messages) => {
        return { ...frame, frame: { ...inner, messages } };
      });
    case "settle":
      return chunks(inner.settlements, bytesMax).map((settlements) => {
        return { ...frame, frame: { ...inner, settlements } };
      });
    default:
      return [frame];
  }
}

/** About what a frame takes in memory while it is kept. */
export function sizeOf(frame: ClientFrame | ServerFrame): number {
  if (!("frame" in frame)) return frameBytes;
  const inner: ProducerFrame | ConsumerFrame | ToProducerFrame | ToConsumerFrame = frame.frame;
  switch (inner.kind) {
    case "send":
      return sum(inner.drafts);
    case "results":
      return sum(inner.results);
    case "deliver":
      return sum(inner.messages);
    case "settle":
      return sum(inner.settlements);
    default:
      return frameBytes;
  }
}

type Item = Draft | Delivered | SendResult | Settlement;

/** Of a frame without items. */
const frameBytes = 96;
/** Most that an item adds to the head beside its texts, of which a character may take six bytes. */
const itemHeadBytes = 240;
const characterBytes = 6;
/** What a delivery counts against a worker's credit beside its bytes: the rest of what is kept of it. */
export const deliveryBytes = 200;

function headOf(item: Item): number {
  return itemHeadBytes + characterBytes * charactersOf(item);
}

function charactersOf(item: Item): number {
  let characters = 0;
  if ("payload" in item) {
    characters += (item.key?.length ?? 0) + (item.group?.length ?? 0);
    if ("bytes" in item) characters += item.idempotencyKey?.length ?? 0;
  } else if ("verdict" in item) {
    const { verdict } = item;
    if (verdict.kind === "nack") characters += verdict.error.length;
    if (verdict.kind === "term") characters += verdict.reason.length;
  }
  return characters;
}

function bodyOf(item: Item): number {
  return "payload" in item ? item.payload.length + item.headers.length : 0;
}

function sum(items: readonly Item[]): number {
  let bytes = 0;
  for (const item of items) bytes += deliveryBytes + 2 * charactersOf(item) + bodyOf(item);
  return bytes;
}

/** At least one, so that a frame without items stays a frame. */
function chunks<T extends Item>(items: readonly T[], bytesMax: number): T[][] {
  if (items.length === 0) return [[]];
  const all: T[][] = [];
  let headBytes = 0;
  let bytes = 0;
  for (const item of items) {
    const head = headOf(item);
    const body = bodyOf(item);
    const last = all.at(-1);
    const isFull =
      last === undefined ||
      last.length === wireLimits.itemsMax ||
      headBytes + head > headBytesMax ||
      bytes + head + body > bytesMax;
    if (isFull) {
      all.push([item]);
      headBytes = head;
      bytes = head + body;
    } else {
      last.push(item);
      headBytes += head;
      bytes += head + body;
    }
  }
  return all;
}

/** Of one frame, by estimate; what else is in the message has the rest. */
const headBytesMax = wireLimits.headBytes - 4096;

/**
 * Heads and bodies back to frames. What comes may be anything: each value is checked, sizes are bounded
 * before memory is taken for them, and what is unknown is left out.
 * @throws {SpillwayError} protocol_violated, everywhere here
 */
import type {
  ClassName,
  ConsumerFrame,
  Delivered,
  Draft,
  FrameVerdict,
  Grant,
  Heartbeat,
  ProducerFrame,
  RefusalCode,
  SendResult,
  Settlement,
  Stamp,
  ToConsumerFrame,
  ToProducerFrame,
} from "./frames.ts";
import { Fields, some } from "./fields.ts";
import { wireLimits } from "./wire.ts";
import type { Attached, ClientFrame, Role, ServerFrame } from "./wire.ts";

/** Gives a copy of the next bytes of the message's body; undefined: there are not so many. */
export type Take = (bytes: number) => Uint8Array | undefined;

/** What has come, with its number if it has one. */
export interface Unpacked<F> {
  readonly n?: number;
  readonly frame: F;
}

const { itemsMax, channelsMax } = wireLimits;
const textMax = 1024;
const partitionsMax = 1024;
const spanMaxMs = 366 * 86_400_000;
const classes = ["critical", "normal", "bulk"] as const;
const durabilities = ["memory", "fsync", "quorum", "page-cache"] as const;

export function unpackClient(head: unknown, take: Take): Unpacked<ClientFrame> {
  const fields = new Fields(head, "frame");
  return numbered(fields, clientFrame(fields, take));
}

export function unpackServer(head: unknown, take: Take, nowMs: number): Unpacked<ServerFrame> {
  const fields = new Fields(head, "frame");
  return numbered(fields, serverFrame(fields, take, nowMs));
}

function numbered<F>(fields: Fields, frame: F): Unpacked<F> {
  const n = fields.maybe("n", (name) => fields.integer(name, 1));
  return n === undefined ? { frame } : { n, frame };
}

function clientFrame(fields: Fields, take: Take): ClientFrame {
  const kind = fields.text("kind", 16);
  switch (kind) {
    case "hello":
      return some<Extract<ClientFrame, { kind: "hello" }>>({
        kind,
        token: fields.maybe("token", (name) => fields.text(name, 512)),
        client: fields.text("client", 128),
        resume: fields.maybe("resume", (name) => {
          const resume = fields.inner(name);
          return {
            session: resume.text("session", 64),
            secret: resume.text("secret", 64),
            received: resume.integer("received"),
          };
        }),
      });
    case "attach": {
      const role: Role = fields.choice("role", ["produce", "consume"]);
      return { kind, channel: channelOf(fields), role, flow: fields.text("flow", 128) };
    }
    case "detach":
      return { kind, channel: channelOf(fields) };
    case "ack":
    case "ping":
    case "pong":
      return signal(fields, kind);
    case "beat":
    case "send":
      return {
        kind: "produce",
        channel: channelOf(fields),
        frame: producerFrame(fields, kind, take),
      };
    case "credit":
    case "settle":
    case "working":
    case "recovered":
      return { kind: "consume", channel: channelOf(fields), frame: consumerFrame(fields, kind) };
    default:
      return fields.refuse("kind", "a kind of frame that a client sends");
  }
}

function serverFrame(fields: Fields, take: Take, nowMs: number): ServerFrame {
  const kind = fields.text("kind", 16);
  switch (kind) {
    case "welcome":
      return {
        kind,
        session: fields.text("session", 64),
        secret: fields.text("secret", 64),
        isResumed: fields.flag("isResumed"),
        received: fields.integer("received"),
        messageBytes: fields.integer("messageBytes", 1024),
        silenceMs: fields.integer("silenceMs", 1),
        graceMs: fields.integer("graceMs"),
      };
    case "attached":
      return { kind, channel: channelOf(fields), ...attached(fields) };
    case "rejected": {
      const channel = channelOf(fields);
      return { kind, channel, code: fields.text("code", 64), text: fields.text("text", textMax) };
    }
    case "detached":
      return { kind, channel: channelOf(fields) };
    case "ack":
    case "ping":
    case "pong":
      return signal(fields, kind);
    case "bye":
      return some<Extract<ServerFrame, { kind: "bye" }>>({
        kind,
        code: fields.text("code", 64),
        text: fields.text("text", textMax),
        retryAfterMs: fields.maybe("retryAfterMs", (name) => fields.number(name)),
      });
    case "opened":
    case "closed":
    case "grant":
    case "held":
    case "results":
      return { kind: "produce", channel: channelOf(fields), frame: toProducerFrame(fields, kind) };
    case "want":
    case "deliver":
    case "settled":
    case "lost": {
      const frame = toConsumerFrame(fields, kind, take, nowMs);
      return { kind: "consume", channel: channelOf(fields), frame };
    }
    default:
      return fields.refuse("kind", "a kind of frame that a server sends");
  }
}

function signal(
  fields: Fields,
  kind: "ack" | "ping" | "pong",
): Extract<ClientFrame, { kind: "ack" | "ping" | "pong" }> {
  return kind === "ack"
    ? { kind, received: fields.integer("received") }
    : { kind, id: fields.integer("id") };
}

function channelOf(fields: Fields): number {
  return fields.integer("channel", 0, channelsMax - 1);
}

function partitionOf(fields: Fields): number {
  return fields.integer("partition", 0, partitionsMax - 1);
}

function attached(fields: Fields): Attached {
  const window = fields.inner("window");
  const inFlight = (name: string): number => window.integer(name, 1, 100_000);
  const fixed = window.maybe("fixed", inFlight);
  return {
    partitions: fields.integer("partitions", 1, partitionsMax),
    shards: fields.integer("shards", 1, partitionsMax),
    isOrdered: fields.flag("isOrdered"),
    payload: fields.choice("payload", ["json", "bytes"]),
    messageBytesMax: fields.integer("messageBytesMax", 1),
    durability: fields.choice("durability", durabilities),
    creditLeaseMs: fields.integer("creditLeaseMs", 1, spanMaxMs),
    window: {
      start: inFlight("start"),
      min: inFlight("min"),
      max: inFlight("max"),
      ...(fixed === undefined ? {} : { fixed }),
    },
  };
}

function beatOf(fields: Fields): Heartbeat {
  const beat = fields.inner("beat");
  return some<Heartbeat>({
    heartbeatMs: beat.number("heartbeatMs"),
    position: beat.integer("position"),
    positionBytes: beat.number("positionBytes"),
    want: beat.integer("want"),
    wantBytes: beat.number("wantBytes"),
    epoch: beat.maybe("epoch", (name) => beat.integer(name, -1)),
    headBytes: beat.maybe("headBytes", (name) => beat.number(name)),
  });
}

function stampOf(fields: Fields): Stamp {
  const stamp = fields.inner("stamp");
  return {
    epoch: stamp.integer("epoch", -1),
    grantId: stamp.integer("grantId", -1),
    heldMs: stamp.number("heldMs"),
  };
}

function grantOf(fields: Fields): Grant {
  const grant = fields.inner("grant");
  return {
    epoch: grant.integer("epoch", 0),
    grantId: grant.integer("grantId", 0),
    limitMessages: grant.integer("limitMessages"),
    limitBytes: grant.maybe("limitBytes", (name) => grant.number(name)) ?? Infinity,
    echoHeartbeatMs: grant.number("echoHeartbeatMs"),
    leaseMs: grant.number("leaseMs", 1, spanMaxMs),
  };
}

function bodyOf(fields: Fields, name: string, take: Take): Uint8Array {
  const bytes = fields.maybe(name, (each) => fields.integer(each)) ?? 0;
  return take(bytes) ?? fields.refuse(name, "a size of bytes that came in the message");
}

function producerFrame(fields: Fields, kind: "beat" | "send", take: Take): ProducerFrame {
  const partition = partitionOf(fields);
  const beat = beatOf(fields);
  if (kind === "beat") return { kind, partition, beat };
  const stamp = stampOf(fields);
  const position = fields.integer("position");
  const drafts = fields.list("drafts", itemsMax, (draft) => draftOf(draft, take));
  return { kind, partition, stamp, position, drafts, beat };
}

/** As it came: the server counts its bytes, checks its texts and hashes its key. */
function draftOf(fields: Fields, take: Take): Draft {
  const headers = bodyOf(fields, "headerBytes", take);
  const payload = bodyOf(fields, "bytes", take);
  const text = (name: string): string => fields.text(name, textMax);
  const span = (name: string): number => fields.number(name, 0, spanMaxMs);
  return some<Draft>({
    class: classOf(fields),
    key: fields.maybe("key", text),
    group: fields.maybe("group", text),
    idempotencyKey: fields.maybe("idempotencyKey", text),
    cost: fields.maybe("cost", (name) => fields.number(name, Number.MIN_VALUE)),
    delayMs: fields.maybe("delayMs", span),
    deadlineMs: fields.maybe("deadlineMs", (name) => fields.number(name, -spanMaxMs, spanMaxMs)),
    headers,
    payload,
    bytes: payload.length + headers.length,
  });
}

function classOf(fields: Fields): ClassName {
  return fields.maybe("class", (name) => fields.choice(name, classes)) ?? "normal";
}

function consumerFrame(fields: Fields, kind: ConsumerFrame["kind"]): ConsumerFrame {
  switch (kind) {
    case "credit":
      return { kind, grant: grantOf(fields) };
    case "settle":
      return { kind, settlements: fields.list("settlements", itemsMax, settlementOf) };
    case "working":
      return { kind, ...deliveryOf(fields), extendMs: fields.number("extendMs", 0, spanMaxMs) };
    case "recovered":
      return { kind };
  }
}

function deliveryOf(fields: Fields): { partition: number; seq: number; attempt: number } {
  return {
    partition: partitionOf(fields),
    seq: fields.integer("seq", 1),
    attempt: fields.integer("attempt", 1),
  };
}

function settlementOf(fields: Fields): Settlement {
  return {
    ...deliveryOf(fields),
    verdict: verdictOf(fields.inner("verdict")),
    durationMs: fields.number("durationMs"),
    confirm: fields.maybe("confirm", (name) => fields.flag(name)) ?? false,
  };
}

function verdictOf(fields: Fields): FrameVerdict {
  const kind = fields.choice("kind", ["ack", "nack", "release", "term"]);
  const delayMs = fields.maybe("delayMs", (name) => fields.number(name, 0, spanMaxMs));
  switch (kind) {
    case "ack":
      return { kind };
    case "nack":
      return some<Extract<FrameVerdict, { kind: "nack" }>>({
        kind,
        error: fields.text("error", textMax),
        delayMs,
      });
    case "release":
      return some<Extract<FrameVerdict, { kind: "release" }>>({ kind, delayMs });
    case "term":
      return { kind, reason: fields.text("reason", textMax) };
  }
}

function toProducerFrame(fields: Fields, kind: ToProducerFrame["kind"]): ToProducerFrame {
  const partition = partitionOf(fields);
  switch (kind) {
    case "opened":
      return { kind, partition };
    case "closed":
      return { kind, partition, code: codeOf(fields, "code") };
    case "grant":
      return { kind, partition, grant: grantOf(fields), ...hintOf(fields) };
    case "held":
      return { kind, partition, ...hintOf(fields) };
    case "results":
      return { kind, partition, results: fields.list("results", itemsMax, resultOf) };
  }
}

function hintOf(fields: Fields): {
  lowestClass: ClassName | null;
  limitedBy: RefusalCode;
  retryAfterMs: number;
} {
  const lowestClass = fields.choice("lowestClass", [...classes, "none"]);
  return {
    lowestClass: lowestClass === "none" ? null : lowestClass,
    limitedBy: codeOf(fields, "limitedBy"),
    retryAfterMs: fields.number("retryAfterMs"),
  };
}

/** A newer server may have a code that is not known here: it is shown as it is. */
function codeOf(fields: Fields, name: string): RefusalCode {
  return fields.text(name, 64) as RefusalCode;
}

function resultOf(fields: Fields): SendResult {
  const kind = fields.choice("kind", ["accepted", "duplicate", "refused"]);
  const position = fields.integer("position");
  switch (kind) {
    case "accepted":
      return { kind, position, seq: fields.integer("seq", 1), count: fields.integer("count", 1) };
    case "duplicate":
      return { kind, position, seq: fields.integer("seq", 1) };
    case "refused":
      return some<Extract<SendResult, { kind: "refused" }>>({
        kind,
        position,
        code: codeOf(fields, "code"),
        retryAfterMs: fields.maybe("retryAfterMs", (name) => fields.number(name)),
        bound: fields.maybe("bound", (name) => fields.text(name, 64)),
        found: fields.maybe("found", (name) => fields.number(name)),
        allowed: fields.maybe("allowed", (name) => fields.number(name)),
      });
  }
}

function toConsumerFrame(
  fields: Fields,
  kind: ToConsumerFrame["kind"],
  take: Take,
  nowMs: number,
): ToConsumerFrame {
  switch (kind) {
    case "want":
      return { kind, beat: beatOf(fields) };
    case "deliver": {
      const stamp = stampOf(fields);
      const read = (item: Fields): Delivered => deliveredOf(item, take, nowMs);
      return {
        kind,
        stamp,
        messages: fields.list("messages", itemsMax, read),
        beat: beatOf(fields),
      };
    }
    case "settled":
      return { kind, ...deliveryOf(fields), effective: fields.flag("effective") };
    case "lost":
      return { kind, ...deliveryOf(fields) };
  }
}

function deliveredOf(fields: Fields, take: Take, nowMs: number): Delivered {
  const headers = bodyOf(fields, "headerBytes", take);
  const payload = bodyOf(fields, "bytes", take);
  const text = (name: string): string => fields.text(name, textMax);
  const inMs = fields.maybe("deadlineInMs", (name) => fields.number(name, -spanMaxMs, spanMaxMs));
  return some<Delivered>({
    ...deliveryOf(fields),
    class: classOf(fields),
    key: fields.maybe("key", text),
    group: fields.maybe("group", text),
    cost: fields.maybe("cost", (name) => fields.number(name, Number.MIN_VALUE)) ?? 1,
    acceptedAtMs: nowMs - fields.number("ageMs"),
    deadlineAtMs: inMs === undefined ? undefined : nowMs + inMs,
    leaseMs: fields.number("leaseMs", 1, spanMaxMs),
    headers,
    payload,
  });
}

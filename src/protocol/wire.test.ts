import fc from "fast-check";
import { expect, test } from "vitest";
import type {
  Delivered,
  Draft,
  FrameVerdict,
  Grant,
  Heartbeat,
  SendResult,
  Settlement,
  Stamp,
} from "./frames.ts";
import { decode, encode } from "./message.ts";
import type { Message } from "./message.ts";
import { packClient, packServer } from "./pack.ts";
import type { Numbered } from "./session.ts";
import { unpackClient, unpackServer } from "./unpack.ts";
import { isNumbered, sizeOf, split, wireLimits } from "./wire.ts";
import type { ClientFrame, ServerFrame } from "./wire.ts";

// Frames of every kind, with every field that may be absent present or not.

const nowMs = 1.9e12;
const integer = (min: number, max: number = Number.MAX_SAFE_INTEGER) => fc.integer({ min, max });
/** JSON has no minus zero. */
const amount = fc
  .oneof(integer(0, 1e9), fc.double({ min: 0, max: 8.64e15, noNaN: true }))
  .map((value) => value + 0);
const spanMs = integer(1, 31_622_400_000);
const text = (maxLength: number) =>
  fc.oneof(
    fc.string({ maxLength, unit: "binary" }),
    fc.string({ maxLength: Math.min(maxLength, 20) }),
    // What takes most room in JSON, and in UTF-8.
    fc.integer({ min: 0, max: maxLength }).map((length) => "\u0001".repeat(length)),
    fc.integer({ min: 0, max: maxLength }).map((length) => "\uD800".repeat(length)),
    fc.integer({ min: 0, max: maxLength }).map((length) => "\u4E2D".repeat(length)),
  );
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => new Uint8Array(array));
const partition = integer(0, 1023);
const channel = integer(0, wireLimits.channelsMax - 1);
const messageClass = fc.constantFrom("critical" as const, "normal" as const, "bulk" as const);
const code = fc.constantFrom("no_credit" as const, "buffer_full" as const);

const grant: fc.Arbitrary<Grant> = fc.record({
  epoch: integer(0),
  grantId: integer(0),
  limitMessages: integer(0),
  limitBytes: fc.oneof(amount, fc.constant(Infinity)),
  echoHeartbeatMs: amount,
  leaseMs: spanMs,
});
const beat: fc.Arbitrary<Heartbeat> = fc.record(
  {
    heartbeatMs: amount,
    position: integer(0),
    positionBytes: amount,
    want: integer(0),
    wantBytes: amount,
    epoch: integer(-1),
    headBytes: amount,
  },
  { requiredKeys: ["heartbeatMs", "position", "positionBytes", "want", "wantBytes"] },
);
const stamp: fc.Arbitrary<Stamp> = fc.record({
  epoch: integer(-1),
  grantId: integer(-1),
  heldMs: amount,
});
const hint = {
  lowestClass: fc.option(messageClass),
  limitedBy: code,
  retryAfterMs: amount,
};

const draft: fc.Arbitrary<Draft> = fc
  .record(
    {
      class: messageClass,
      key: text(1024),
      group: text(1024),
      idempotencyKey: text(1024),
      cost: fc.double({ min: 1e-300, max: 1e9, noNaN: true }),
      delayMs: spanMs,
      deadlineMs: integer(-1000, 1e9),
      headers: bytes,
      payload: bytes,
    },
    { requiredKeys: ["class", "headers", "payload"] },
  )
  .map((given) => ({ ...given, bytes: given.payload.length + given.headers.length }));

const delivery = { partition, seq: integer(1), attempt: integer(1) };
const delivered: fc.Arbitrary<Delivered> = fc.record(
  {
    ...delivery,
    class: messageClass,
    key: text(1024),
    group: text(1024),
    cost: fc.double({ min: 1e-300, max: 1e9, noNaN: true }),
    acceptedAtMs: integer(nowMs - 1e10, nowMs),
    deadlineAtMs: integer(nowMs - 1e9, nowMs + 1e9),
    leaseMs: spanMs,
    headers: bytes,
    payload: bytes,
  },
  {
    requiredKeys: [
      "partition",
      "seq",
      "attempt",
      "class",
      "cost",
      "acceptedAtMs",
      "leaseMs",
      "headers",
      "payload",
    ],
  },
);

const verdict: fc.Arbitrary<FrameVerdict> = fc.oneof(
  fc.record({ kind: fc.constant("ack" as const) }),
  fc.record(
    { kind: fc.constant("nack" as const), error: text(1000), delayMs: spanMs },
    { requiredKeys: ["kind", "error"] },
  ),
  fc.record({ kind: fc.constant("release" as const), delayMs: spanMs }, { requiredKeys: ["kind"] }),
  fc.record({ kind: fc.constant("term" as const), reason: text(1000) }),
);
const settlement: fc.Arbitrary<Settlement> = fc.record({
  ...delivery,
  verdict,
  durationMs: amount,
  confirm: fc.boolean(),
});

const result: fc.Arbitrary<SendResult> = fc.oneof(
  fc.record({
    kind: fc.constant("accepted" as const),
    position: integer(0),
    seq: integer(1),
    count: integer(1),
  }),
  fc.record({ kind: fc.constant("duplicate" as const), position: integer(0), seq: integer(1) }),
  fc.record(
    {
      kind: fc.constant("refused" as const),
      position: integer(0),
      code,
      retryAfterMs: amount,
      found: amount,
      allowed: amount,
    },
    { requiredKeys: ["kind", "position", "code"] },
  ),
);

const items = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 8 });
const kind = <const T extends string>(name: T) => fc.constant(name);
const signals = [
  fc.record({ kind: kind("ack"), received: integer(0) }),
  fc.record({ kind: kind("ping"), id: integer(0) }),
  fc.record({ kind: kind("pong"), id: integer(0) }),
] as const;
const resume = fc.record({ session: text(64), secret: text(64), received: integer(0) });

const clientFrame: fc.Arbitrary<ClientFrame> = fc.oneof(
  fc.record(
    { kind: kind("hello"), token: text(512), client: text(128), resume },
    { requiredKeys: ["kind", "client"] },
  ),
  fc.record({
    kind: kind("attach"),
    channel,
    role: fc.constantFrom("produce", "consume"),
    flow: text(128),
  }),
  fc.record({ kind: kind("detach"), channel }),
  ...signals,
  fc.record({
    kind: kind("produce"),
    channel,
    frame: fc.oneof(
      fc.record({ kind: kind("beat"), partition, beat }),
      fc.record({
        kind: kind("send"),
        partition,
        stamp,
        position: integer(0, 2 ** 50),
        drafts: items(draft),
        beat,
      }),
    ),
  }),
  fc.record({
    kind: kind("consume"),
    channel,
    frame: fc.oneof(
      fc.record({ kind: kind("credit"), grant }),
      fc.record({ kind: kind("settle"), settlements: items(settlement) }),
      fc.record({ kind: kind("working"), ...delivery, extendMs: spanMs }),
      fc.record({ kind: kind("recovered") }),
    ),
  }),
);

const inFlight = integer(1, 100_000);
const serverFrame: fc.Arbitrary<ServerFrame> = fc.oneof(
  fc.record({
    kind: kind("welcome"),
    session: text(64),
    secret: text(64),
    isResumed: fc.boolean(),
    received: integer(0),
    messageBytes: integer(1024),
    silenceMs: integer(1),
    graceMs: integer(0),
  }),
  fc.record({
    kind: kind("attached"),
    channel,
    partitions: integer(1, 1024),
    shards: integer(1, 1024),
    isOrdered: fc.boolean(),
    payload: fc.constantFrom("json", "bytes"),
    messageBytesMax: integer(1),
    durability: fc.constantFrom("memory", "fsync", "quorum", "page-cache"),
    creditLeaseMs: spanMs,
    window: fc.record(
      { start: inFlight, min: inFlight, max: inFlight, fixed: inFlight },
      { requiredKeys: ["start", "min", "max"] },
    ),
  }),
  fc.record({ kind: kind("rejected"), channel, code: text(64), text: text(1000) }),
  fc.record({ kind: kind("detached"), channel }),
  ...signals,
  fc.record(
    { kind: kind("bye"), code: text(64), text: text(1000), retryAfterMs: amount },
    { requiredKeys: ["kind", "code", "text"] },
  ),
  fc.record({
    kind: kind("produce"),
    channel,
    frame: fc.oneof(
      fc.record({ kind: kind("opened"), partition }),
      fc.record({ kind: kind("closed"), partition, code }),
      fc.record({ kind: kind("grant"), partition, grant, ...hint }),
      fc.record({ kind: kind("held"), partition, ...hint }),
      fc.record({ kind: kind("results"), partition, results: items(result) }),
    ),
  }),
  fc.record({
    kind: kind("consume"),
    channel,
    frame: fc.oneof(
      fc.record({ kind: kind("want"), beat }),
      fc.record({ kind: kind("deliver"), stamp, messages: items(delivered), beat }),
      fc.record({ kind: kind("settled"), ...delivery, effective: fc.boolean() }),
      fc.record({ kind: kind("lost"), ...delivery }),
    ),
  }),
);

// There and back.

function number<F extends ClientFrame | ServerFrame>(frames: readonly F[]): Numbered<F>[] {
  let n = 0;
  return frames.map((frame) => {
    const bytes = sizeOf(frame);
    return isNumbered(frame) ? { n: ++n, frame, bytes } : { frame, bytes };
  });
}

const bytesMax = 1024 ** 2;

function sentByClient(frames: readonly Numbered<ClientFrame>[], ack?: number): Message[] {
  return encode(frames, ack, { pack: packClient, bytesMax });
}

function sentByServer(frames: readonly Numbered<ServerFrame>[], atMs: number): Message[] {
  const pack = (frame: ServerFrame, bodies: Uint8Array[]) => packServer(frame, atMs, bodies);
  return encode(frames, undefined, { pack, bytesMax });
}

test("what a client sends arrives as it was, in order and with its numbers", () => {
  fc.assert(
    fc.property(fc.array(clientFrame, { maxLength: 20 }), (frames) => {
      const sent = number(frames);
      const came = sentByClient(sent).flatMap((message) => decode(message, unpackClient));
      expect(came).toEqual(sent.map(({ bytes: _bytes, ...rest }) => rest));
    }),
    { numRuns: 300 },
  );
});

test("what a server sends arrives as it was, and moments are kept though clocks differ", () => {
  fc.assert(
    fc.property(
      fc.array(serverFrame, { maxLength: 20 }),
      integer(-1e9, 1e9),
      (frames, offsetMs) => {
        const sent = number(frames);
        const unpack = (head: unknown, take: Parameters<typeof unpackServer>[1]) =>
          unpackServer(head, take, nowMs + offsetMs);
        const came = sentByServer(sent, nowMs).flatMap((message) => decode(message, unpack));
        const expected = sent.map(({ bytes: _bytes, ...rest }) => ({
          ...rest,
          frame: onClock(rest.frame, offsetMs),
        }));
        expect(came).toEqual(expected);
      },
    ),
    { numRuns: 300 },
  );
});

/** The same moments on a clock that is ahead. */
function onClock(frame: ServerFrame, offsetMs: number): ServerFrame {
  if (frame.kind !== "consume" || frame.frame.kind !== "deliver") return frame;
  const messages = frame.frame.messages.map((message) => ({
    ...message,
    acceptedAtMs: message.acceptedAtMs + offsetMs,
    ...(message.deadlineAtMs === undefined
      ? {}
      : { deadlineAtMs: message.deadlineAtMs + offsetMs }),
  }));
  return { ...frame, frame: { ...frame.frame, messages } };
}

test("an acknowledgement goes first, and alone if nothing else leaves", () => {
  expect(sentByClient([], 7)).toEqual(['[{"kind":"ack","received":7}]']);
  const [message] = sentByClient(number([{ kind: "detach", channel: 3 }]), 7);
  expect(message).toBe('[{"kind":"ack","received":7},{"n":1,"kind":"detach","channel":3}]');
});

test("bodies are copied: what is kept of a message does not hold the rest of it", () => {
  const payload = new Uint8Array(10).fill(1);
  const frame = sendOf([{ class: "normal", headers: new Uint8Array(0), payload, bytes: 10 }]);
  const [message] = sentByClient(number([frame]));
  // As it comes from a socket in Node: a view of what was read at once.
  const pool = Buffer.alloc(65_536);
  pool.set(message as Uint8Array, 100);
  const view = pool.subarray(100, 100 + message!.length);
  const [came] = decode(view, unpackClient);
  const [kept] = draftsOf(came!.frame);
  expect(kept!.payload.buffer.byteLength).toBe(10);
});

function sendOf(drafts: readonly Draft[], position = 0): ClientFrame {
  const stamp = { epoch: 1, grantId: 1, heldMs: 0 };
  const beat = { heartbeatMs: 1, position, positionBytes: 0, want: 0, wantBytes: 0 };
  return {
    kind: "produce",
    channel: 0,
    frame: { kind: "send", partition: 0, stamp, position, drafts, beat },
  };
}

function draftsOf(frame: ClientFrame): readonly Draft[] {
  return frame.kind === "produce" && frame.frame.kind === "send" ? frame.frame.drafts : [];
}

// Limits.

/** Head and whole of a message, in bytes. */
function sizesOf(message: Message): { readonly head: number; readonly whole: number } {
  if (typeof message === "string") {
    const head = Buffer.byteLength(message);
    return { head, whole: head };
  }
  const view = new DataView(message.buffer, message.byteOffset);
  return { head: view.getUint32(0), whole: message.length };
}

const manyDrafts = fc.array(draft, { minLength: 1, maxLength: 400, size: "max" });

test("split keeps items, order and positions, and no part is longer than allowed", () => {
  fc.assert(
    fc.property(manyDrafts, integer(0, 1e6), (drafts, position) => {
      const parts = split(sendOf(drafts, position), 100_000);
      expect(parts.flatMap(draftsOf)).toEqual(drafts);
      let at = position;
      for (const part of parts) {
        const inner = part.kind === "produce" ? part.frame : undefined;
        expect(inner).toMatchObject({ kind: "send", position: at });
        const own = draftsOf(part);
        expect(own.length).toBeGreaterThan(0);
        expect(own.length).toBeLessThanOrEqual(wireLimits.itemsMax);
        at += own.length;
      }
    }),
    { numRuns: 30 },
  );
});

/** Items that are as long as their kind allows, one text aside. */
const longest = (texts: string) => {
  const max = Number.MAX_SAFE_INTEGER;
  const ids = { partition: 1023, seq: max, attempt: max };
  const spans = { delayMs: 31_622_399_999.123, deadlineMs: -31_622_399_999.123 };
  const drafted: Draft = {
    class: "critical",
    key: texts,
    group: texts,
    idempotencyKey: texts,
    cost: Math.PI * 1e-300,
    ...spans,
    headers: new Uint8Array(10),
    payload: new Uint8Array(10),
    bytes: 20,
  };
  const out: Delivered = {
    ...ids,
    class: "critical",
    key: texts,
    group: texts,
    cost: Math.PI * 1e-300,
    acceptedAtMs: nowMs - 8.64e14 - 0.123,
    deadlineAtMs: nowMs - 31_622_399_999.123,
    leaseMs: 31_622_399_999.123,
    headers: new Uint8Array(10),
    payload: new Uint8Array(10),
  };
  const settled: Settlement = {
    ...ids,
    verdict: { kind: "nack", error: texts, delayMs: 31_622_399_999.123 },
    durationMs: 1e6 * Math.PI,
    confirm: true,
  };
  return { drafted, out, settled };
};

test.each([
  ["no texts", ""],
  ["short texts", "a"],
  ["control characters", "\u0001\u0001"],
  ["Chinese", "\u4E2D".repeat(7)],
  ["many control characters", "\u0001".repeat(60)],
  ["the longest texts", "ä".repeat(1024)],
])("messages of the longest items stay within their limits: %s", (_what, texts) => {
  const { drafted, out, settled } = longest(texts);
  const many = <T>(item: T): T[] => Array.from({ length: 600 }, () => item);
  const beat = { heartbeatMs: 1, position: 0, positionBytes: 0, want: 0, wantBytes: 0 };
  const stamp = { epoch: 1, grantId: 1, heldMs: 0 };
  const settle: ClientFrame = {
    kind: "consume",
    channel: 255,
    frame: { kind: "settle", settlements: many(settled) },
  };
  const deliver: ServerFrame = {
    kind: "consume",
    channel: 255,
    frame: { kind: "deliver", stamp, messages: many(out), beat },
  };
  const fromClient = [sendOf(many(drafted)), settle].flatMap((each) => split(each, bytesMax / 4));
  const messages = [
    ...sentByClient(number(fromClient), 1),
    ...sentByServer(number(split(deliver, bytesMax / 4)), nowMs),
  ];
  for (const message of messages) {
    const { head, whole } = sizesOf(message);
    expect(head).toBeLessThanOrEqual(wireLimits.headBytes);
    expect(whole).toBeLessThanOrEqual(bytesMax);
  }
  const came = messages.flatMap((message) => {
    try {
      return decode<ClientFrame | ServerFrame>(message, unpackClient);
    } catch {
      return decode<ClientFrame | ServerFrame>(message, (head, take) =>
        unpackServer(head, take, nowMs),
      );
    }
  });
  let items = 0;
  for (const { frame } of came) {
    if (!("frame" in frame)) continue;
    const { frame: inner } = frame;
    if (inner.kind === "send") items += inner.drafts.length;
    if (inner.kind === "settle") items += inner.settlements.length;
    if (inner.kind === "deliver") items += inner.messages.length;
  }
  expect(items).toBe(1800);
});

test("many frames that leave at once stay within their limits together", () => {
  fc.assert(
    fc.property(fc.array(clientFrame, { maxLength: 300, size: "max" }), (frames) => {
      const parts = frames.flatMap((frame) => split(frame, bytesMax / 4));
      const messages = sentByClient(number(parts), 1);
      for (const message of messages) {
        expect(sizesOf(message).head).toBeLessThanOrEqual(wireLimits.headBytes);
        expect(decode(message, unpackClient).length).toBeLessThanOrEqual(wireLimits.framesMax);
      }
    }),
    { numRuns: 20 },
  );
});

test("a head is counted in bytes: frames of long texts do not share a message", () => {
  const key = "\u4E2D".repeat(1000);
  const drafts = Array.from({ length: 7 }, (): Draft => ({
    class: "normal",
    key,
    headers: new Uint8Array(0),
    payload: new Uint8Array(1),
    bytes: 1,
  }));
  // Four frames: fewer characters than a head may have bytes, and more bytes.
  const messages = sentByClient(number(Array.from({ length: 4 }, () => sendOf(drafts))));
  expect(messages.length).toBeGreaterThan(1);
  for (const message of messages) {
    expect(sizesOf(message).head).toBeLessThanOrEqual(wireLimits.headBytes);
    expect(decode(message, unpackClient).length).toBeGreaterThan(0);
  }
});

test("a payload as large as a flow allows leaves in a message of its own", () => {
  const payload = new Uint8Array(700_000);
  const large: Draft = { class: "bulk", headers: new Uint8Array(0), payload, bytes: 700_000 };
  const parts = split(sendOf([large, large, large]), bytesMax / 4);
  const messages = sentByClient(number(parts));
  expect(messages).toHaveLength(3);
  for (const message of messages) expect(message.length).toBeLessThan(bytesMax);
});

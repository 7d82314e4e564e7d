/** Hostile and broken ends of the wire, over real sockets: named attacks first, then chance. */
import { once } from "node:events";
import fc from "fast-check";
import { expect, test } from "vitest";
import { WebSocket } from "ws";
import { beat, expectViolation, openSockets, RawClient, wsFrame } from "../support/raw-client.ts";
import type { Face, Grant, Head } from "../support/raw-client.ts";

const flows = { orders: { partitions: 1 } };

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** A server that has survived still takes a message and hands it out. */
async function expectToServe(face: Face, name = "orders"): Promise<void> {
  const client = await RawClient.greet(face.url);
  const { grant } = await client.producer(name);
  client.tellWith(new Uint8Array([1]), sendOf(grant, [{ bytes: 1 }]));
  const { results } = (await client.next("results")) as unknown as { results: Head[] };
  expect(results).toMatchObject([{ kind: "accepted", position: 0 }]);
  client.socket.close(1000);
  await client.closed;
}

function sendOf(grant: Grant, drafts: readonly object[], more: object = {}): Head {
  const stamp = { epoch: grant.epoch, grantId: grant.grantId, heldMs: 0 };
  return { kind: "send", channel: 0, partition: 0, stamp, position: 0, drafts, beat, ...more };
}

/** A worker that grants so many messages once it is asked. */
async function openWorker(
  face: Face,
  hello: object = {},
  limitMessages = 1,
  flow = "orders",
): Promise<RawClient> {
  const worker = await RawClient.greet(face.url, hello);
  worker.tell({ kind: "attach", channel: 0, role: "consume", flow });
  const want = (await worker.next("want")) as unknown as { beat: { heartbeatMs: number } };
  worker.say(creditOf(want.beat.heartbeatMs, limitMessages));
  return worker;
}

function creditOf(echoHeartbeatMs: number, limitMessages: number, epoch = 1): Head {
  const grant = { epoch, grantId: 0, limitMessages, echoHeartbeatMs, leaseMs: 1e9 };
  return { kind: "credit", channel: 0, grant };
}

interface Out {
  readonly partition: number;
  readonly seq: number;
  readonly attempt: number;
}

async function nextDelivery(worker: RawClient): Promise<Out> {
  const { messages } = (await worker.next("deliver")) as unknown as { messages: Out[] };
  const { partition, seq, attempt } = messages[0]!;
  return { partition, seq, attempt };
}

function ackOf(out: Out): Head {
  const settlement = { ...out, verdict: { kind: "ack" }, durationMs: 1, confirm: true };
  return { kind: "settle", channel: 0, settlements: [settlement] };
}

// Messages that no client sends.

test("S8 a message that is larger than allowed closes the connection with 1009", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.greet(face.url);
  client.socket.send(new Uint8Array(1024 ** 2 + 131_073));
  expect(await client.closed).toBe(1009);
  await expectToServe(face);
});

test("S8 130,000 fragments of one byte are cut after 64", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.greet(face.url);
  const first = wsFrame(0x01, new Uint8Array([0x5b]));
  const more = wsFrame(0x00, new Uint8Array([0x20]));
  client.tcp.write(Buffer.concat([first, ...Array.from({ length: 129_999 }, () => more)]));
  expect(await client.closed).toBe(1008);
  await expectToServe(face);
});

test("S8 a message of 64 fragments is taken", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.greet(face.url);
  const text = Buffer.from(`[{"kind":"ping","id":7}]${" ".repeat(40)}`);
  expect(text).toHaveLength(64);
  for (let at = 0; at < 64; at++) {
    const first = (at === 63 ? 0x80 : 0) | (at === 0 ? 0x01 : 0x00);
    client.tcp.write(wsFrame(first, text.subarray(at, at + 1)));
  }
  await client.next("pong", ({ id }) => id === 7);
});

test("S8 a message that comes in thousands of tiny pieces is cut", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.greet(face.url);
  client.tcp.setNoDelay(true);
  client.tcp.write(wsFrame(0x82, new Uint8Array(65_000)).subarray(0, 8));
  let pieces = 0;
  while (client.socket.readyState !== WebSocket.CLOSED && pieces++ < 65_000) {
    client.tcp.write(new Uint8Array(1));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(await client.closed).toBe(1008);
  await expectToServe(face);
});

test("S8 compression is not agreed on, and a compressed frame ends the connection", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.connect(face.url, { perMessageDeflate: true });
  expect(client.socket.extensions).toBe("");
  client.tcp.write(wsFrame(0x80 | 0x40 | 0x01, Buffer.from("[]")));
  expect(await client.closed).toBe(1002);
  await expectToServe(face);
});

test.each([
  ["text that is not JSON", "[{"],
  ["a number", "17"],
  ["a head over its limit", `[${" ".repeat(65_535)}]`],
  ["bytes without a length", new Uint8Array(3)],
  ["a body that nobody owns", new Uint8Array([0, 0, 0, 2, 0x5b, 0x5d, 1, 2, 3])],
  ["an unknown kind", '[{"kind":"dance"}]'],
])("S10 %s is a violation: the server says so and closes with 1008", async (_what, message) => {
  const face = await openSockets({ flows });
  const client = await RawClient.greet(face.url);
  client.send(message);
  await expectViolation(client);
});

// Who may connect.

async function refusedWith(url: string, protocol: string, origin?: string): Promise<number> {
  const socket = new WebSocket(url, protocol, origin === undefined ? {} : { origin });
  const [, response] = (await once(socket, "unexpected-response")) as [
    unknown,
    { statusCode: number },
  ];
  socket.on("error", () => undefined);
  socket.terminate();
  return response.statusCode;
}

test("S8 a page of an origin that is not allowed cannot open a connection", async () => {
  const origins = ["https://shop.example.com"];
  const face = await openSockets({ flows, listen: { origins } });
  expect(await refusedWith(face.url, "spillway.v1", "https://evil.example.test")).toBe(403);
  expect(await refusedWith(face.url, "spillway.v1", "http://shop.example.com")).toBe(403);
  expect(await refusedWith(face.url, "spillway.v1", "null")).toBe(403);
  await RawClient.connect(face.url, { origin: origins[0]! });
});

test("another subprotocol, and another path, are refused before a connection is there", async () => {
  const face = await openSockets({ flows });
  expect(await refusedWith(face.url, "spillway.v2")).toBe(400);
  expect(await refusedWith(face.url.replace("connect", "elsewhere"), "spillway.v1")).toBe(404);
});

test("S8 who says no hello in time is cut off, whatever else comes", async () => {
  const face = await openSockets({ flows }, { silenceMs: 600 });
  const client = await RawClient.connect(face.url);
  const pings = setInterval(() => client.socket.ping(), 20);
  expect(await client.closed).toBe(1006);
  clearInterval(pings);
  await until(() => face.sockets.view().connections === 0);
});

test("a token that nobody knows is refused by name", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.connect(face.url);
  client.say({ kind: "hello", client: "test", token: "mallory" });
  expect(await client.end()).toEqual({ code: 1008, bye: "unauthenticated" });
});

// Frames out of turn.

test("a second hello, and frames before the first, are violations", async () => {
  const face = await openSockets({ flows });
  const twice = await RawClient.greet(face.url);
  twice.say({ kind: "hello", client: "test" });
  await expectViolation(twice);
  for (const early of [
    { kind: "ping", id: 1 },
    { kind: "attach", n: 1, channel: 0, role: "produce", flow: "orders" },
  ]) {
    const client = await RawClient.connect(face.url);
    client.say(early);
    await expectViolation(client);
  }
  expect(face.sockets.view().sessions).toBe(0);
});

test("U3 a number that skips one, or none where one is due, is a violation", async () => {
  const face = await openSockets({ flows });
  const attach = { kind: "attach", channel: 0, role: "produce", flow: "orders" };
  const skipping = await RawClient.greet(face.url);
  skipping.say({ n: 2, ...attach });
  await expectViolation(skipping);
  const without = await RawClient.greet(face.url);
  without.say(attach);
  await expectViolation(without);
  const claiming = await RawClient.greet(face.url);
  claiming.say({ kind: "ack", received: 5 });
  await expectViolation(claiming);
});

test("U1 a frame that comes twice is taken once", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.greet(face.url);
  const attach = { n: 1, kind: "attach", channel: 0, role: "produce", flow: "orders" };
  client.say(attach, attach, attach);
  await client.next("attached");
  client.say({ kind: "ping", id: 9 });
  await client.next("pong", ({ id }) => id === 9);
  expect(client.came.filter(({ kind }) => kind === "attached")).toEqual([]);
});

test("a channel is attached once, and takes frames of its role only", async () => {
  const face = await openSockets({ flows });
  const twice = await RawClient.greet(face.url);
  const attach = { kind: "attach", channel: 0, role: "produce", flow: "orders" };
  twice.tell(attach, attach);
  await expectViolation(twice);
  const wrong = await RawClient.greet(face.url);
  wrong.tell(attach, { kind: "recovered", channel: 0 });
  await expectViolation(wrong);
  const unknown = await RawClient.greet(face.url);
  unknown.tell({ ...attach, flow: "nobody" });
  expect(await unknown.next("rejected")).toMatchObject({ channel: 0, code: "not_found" });
  unknown.tell(attach);
  await unknown.next("attached");
});

// Credit.

test("G3 what is sent without credit is refused, message by message, and the bound holds", async () => {
  const face = await openSockets({
    flows: { orders: { partitions: 1, buffer: { messages: 16 } } },
  });
  const client = await RawClient.greet(face.url);
  const { grant } = await client.producer("orders");
  const drafts = Array.from({ length: 100 }, () => ({ bytes: 0 }));
  client.tell(sendOf({ ...grant, epoch: grant.epoch + 1 }, drafts));
  const stale = (await client.next("results")) as unknown as { results: Head[] };
  expect(stale.results).toHaveLength(100);
  for (const result of stale.results) {
    expect(result).toMatchObject({ kind: "refused", code: "no_credit" });
  }
  client.tell(sendOf(grant, drafts, { position: 100 }));
  const beyond = (await client.next("results")) as unknown as { results: Head[] };
  expect(beyond.results.length).toBeGreaterThanOrEqual(84);
  expect(face.flow("orders").state().depth).toBeLessThanOrEqual(16);
});

test("G4, G5 what is sent to another partition than its key's is a violation, and is not stored", async () => {
  const face = await openSockets({ flows: { orders: { partitions: 4, order: "key" } } });
  for (const draft of [
    { bytes: 0, key: "customer-1" },
    { bytes: 0, idempotencyKey: "order-1" },
  ]) {
    let violations = 0;
    for (let partition = 0; partition < 4; partition++) {
      const client = await RawClient.greet(face.url);
      const { grant } = await client.producer("orders");
      client.tell(sendOf(grant, [draft], { partition }));
      client.say({ kind: "ping", id: 5 });
      const isOver = await Promise.race([
        client.closed.then(() => true),
        client
          .next("pong", ({ id }) => id === 5)
          .then(
            () => false,
            () => true,
          ),
      ]);
      if (isOver) violations++;
    }
    expect(violations).toBe(3);
  }
});

test("V3 a settle of another worker's delivery changes nothing", async () => {
  const face = await openSockets({ flows });
  await face.flow("orders").send(new Uint8Array([1]));
  const worker = await openWorker(face);
  const out = await nextDelivery(worker);
  const thief = await RawClient.greet(face.url);
  thief.tell({ kind: "attach", channel: 0, role: "consume", flow: "orders" }, ackOf(out));
  expect(await thief.next("settled")).toMatchObject({ ...out, effective: false });
  thief.say({ kind: "working", channel: 0, ...out, extendMs: 1e9 });
  worker.tell(ackOf({ ...out, attempt: out.attempt + 1 }));
  expect(await worker.next("settled")).toMatchObject({ effective: false });
  expect(face.flow("orders").state().depth).toBe(1);
  worker.tell(ackOf(out));
  expect(await worker.next("settled", ({ effective }) => effective === true)).toMatchObject(out);
});

// Sessions.

test("S7 a session goes on for who began it, with the newest secret", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.connect(face.url);
  client.say({ kind: "hello", client: "test", token: "alice" });
  const first = (await client.next("welcome")) as unknown as { session: string; secret: string };
  client.tell({ kind: "attach", channel: 0, role: "produce", flow: "orders" });
  await client.next("opened");
  const { received } = client;
  client.socket.terminate();
  const resume = { session: first.session, received };
  const again = async (token: string, secret: string): Promise<RawClient> => {
    const other = await RawClient.connect(face.url);
    other.say({ kind: "hello", client: "test", token, resume: { ...resume, secret } });
    return other;
  };
  const isResumed = async (other: RawClient): Promise<unknown> =>
    (await other.next("welcome"))["isResumed"];
  // Another's token, no or another secret: a session of its own.
  expect(await isResumed(await again("bob", first.secret))).toBe(false);
  expect(await isResumed(await again("alice", ""))).toBe(false);
  expect(await isResumed(await again("alice", first.secret.replaceAll(/./g, "A")))).toBe(false);
  // The answer is lost: the secret that was used is still good.
  const lost = await again("alice", first.secret);
  expect(await isResumed(lost)).toBe(true);
  const resumed = await again("alice", first.secret);
  expect(await isResumed(resumed)).toBe(true);
  expect(await lost.closed).toBe(1006);
  // The client has shown that it has the next one: the old one is void.
  resumed.say({ kind: "ping", id: 3 });
  await resumed.next("pong", ({ id }) => id === 3);
  expect(await isResumed(await again("alice", first.secret))).toBe(false);
  resumed.say({ kind: "ping", id: 4 });
  await resumed.next("pong", ({ id }) => id === 4);
});

test("S7 a conversation that is said again changes nothing", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.greet(face.url);
  const { grant } = await client.producer("orders");
  client.tellWith(new Uint8Array([1, 2]), sendOf(grant, [{ bytes: 1 }, { bytes: 1 }]));
  await client.next("results");
  const before = face.flow("orders").state();
  expect(before.depth).toBe(2);
  // It acknowledges what this server may not have said yet: a violation, or refused like the next.
  const replay = await RawClient.connect(face.url);
  for (const message of client.sent) replay.send(message);
  await Promise.race([replay.closed, replay.next("results").catch(() => undefined)]);
  // Without that, its credit is of an epoch that is over.
  const again = await RawClient.connect(face.url);
  const acks = (message: string | Uint8Array): boolean => String(message).includes('"ack"');
  for (const message of client.sent) if (!acks(message)) again.send(message);
  const refused = { kind: "refused", code: "no_credit" };
  expect(await again.next("results")).toMatchObject({ results: [refused, refused] });
  expect(face.flow("orders").state().depth).toBe(2);
});

test("a session is kept for a while, and then what its worker had goes to another", async () => {
  const face = await openSockets({ flows }, { graceMs: 200 });
  await face.flow("orders").send(new Uint8Array([1]));
  const worker = await openWorker(face);
  const out = await nextDelivery(worker);
  worker.socket.terminate();
  await worker.closed;
  const other = await openWorker(face);
  expect(await nextDelivery(other)).toEqual({ ...out, attempt: out.attempt + 1 });
});

test("a client that is silent is cut off, one that answers is not", async () => {
  const face = await openSockets({ flows }, { silenceMs: 400 });
  const silent = await RawClient.greet(face.url);
  const alive = await RawClient.greet(face.url);
  const answers = setInterval(() => alive.say({ kind: "ping", id: 1 }), 50);
  expect(await silent.closed).toBe(1006);
  expect(silent.came.some(({ kind }) => kind === "ping")).toBe(true);
  alive.say({ kind: "ping", id: 2 });
  await alive.next("pong", ({ id }) => id === 2);
  clearInterval(answers);
});

test("sessions that nobody comes back for are bounded, and those without a channel are not kept", async () => {
  const face = await openSockets({ flows }, { lostSessionsMax: 3 });
  for (let n = 0; n < 8; n++) {
    const empty = await RawClient.greet(face.url);
    empty.socket.terminate();
    const client = await RawClient.greet(face.url);
    client.tell({ kind: "attach", channel: 0, role: "produce", flow: "orders" });
    await client.next("opened");
    client.socket.terminate();
    await Promise.all([client.closed, empty.closed]);
  }
  await until(() => face.sockets.view().connections === 0);
  expect(face.sockets.view().sessions).toBe(3);
});

// Clients that take and do not acknowledge, or do not read.

const large = { orders: { partitions: 1, messageBytesMax: "256 KiB", window: { max: 1000 } } };

test("G6 a worker that grants all and acknowledges nothing is given a little, and goes on when it does", async () => {
  const face = await openSockets({ flows: large });
  for (let n = 0; n < 60; n++) await face.flow("orders").send(new Uint8Array(200_000));
  const worker = await RawClient.greet(face.url);
  worker.isAcknowledging = false;
  const ends: Out[] = [];
  let heardMs = 0;
  let pongs = 0;
  const granting = setInterval(() => {
    for (const frame of worker.came.splice(0)) {
      const {
        kind,
        messages = [],
        beat: heard,
      } = frame as { kind: string; messages?: Out[]; beat?: { heartbeatMs: number } };
      ends.push(...messages);
      if (heard !== undefined) heardMs = heard.heartbeatMs;
      if (kind === "pong") pongs++;
    }
    worker.say(creditOf(heardMs, 1e6));
    worker.say({ kind: "ping", id: pongs });
    if (ends.length > 0 && worker.isAcknowledging) {
      worker.say({ kind: "ack", received: worker.received });
    }
  }, 5);
  worker.tell({ kind: "attach", channel: 0, role: "consume", flow: "orders" });
  await until(() => ends.length >= 20);
  // Many turns of credit later it has no more: each pong comes after what the credit before its ping brought.
  const before = pongs;
  await until(() => pongs >= before + 50);
  expect(ends.length).toBeLessThan(30);
  expect(face.sockets.view().keptBytes).toBeLessThan(6 * 1024 ** 2);
  worker.isAcknowledging = true;
  await until(() => ends.length === 60);
  clearInterval(granting);
});

test("G6 a client that acknowledges nothing it has asked for loses its session", async () => {
  const face = await openSockets({ flows });
  const client = await RawClient.greet(face.url);
  client.isAcknowledging = false;
  client.tell({ kind: "attach", channel: 0, role: "consume", flow: "orders" });
  const settlement = {
    partition: 0,
    seq: 1,
    attempt: 1,
    verdict: { kind: "ack" },
    durationMs: 0,
    confirm: true,
  };
  const settlements = Array.from({ length: 256 }, () => settlement);
  const says = setInterval(() => {
    for (let times = 0; times < 20; times++)
      client.tell({ kind: "settle", channel: 0, settlements });
  }, 1);
  const ended = await client.end();
  clearInterval(says);
  expect(ended).toEqual({ code: 1008, bye: "protocol_violated" });
  expect(face.sockets.view()).toMatchObject({ sessions: 0, keptBytes: 0 });
}, 60_000);

test("S8 a worker that stops reading is bounded and cut off, while others go on", async () => {
  const face = await openSockets({ flows: large }, { silenceMs: 900, graceMs: 100 });
  for (let n = 0; n < 60; n++) await face.flow("orders").send(new Uint8Array(200_000));
  const slow = await openWorker(face, {}, 1000);
  slow.tcp.pause();
  await until(() => face.sockets.view().keptBytes > 1e6);
  await expectToServe(face);
  expect(face.sockets.view().keptBytes).toBeLessThan(6 * 1024 ** 2);
  await until(() => face.sockets.view().sessions === 0);
  expect(face.sockets.view()).toEqual({ connections: 0, sessions: 0, keptBytes: 0 });
  slow.tcp.resume();
});

test("S8 a client that leaves more unread than it may is cut off before it is silent for long", async () => {
  const messageBytesMax = "16 MiB";
  const face = await openSockets(
    { flows: { orders: { partitions: 1, messageBytesMax } }, limits: { unreadBytes: "64 KiB" } },
    { stuckMs: 200, graceMs: 100 },
  );
  // More than the sockets of this machine hold between them.
  await face.flow("orders").send(new Uint8Array(15 * 1024 ** 2));
  const slow = await openWorker(face);
  slow.tcp.pause();
  await until(() => face.sockets.view().keptBytes > 0);
  await until(() => face.sockets.view().sessions === 0);
  slow.tcp.resume();
});

test("S8 answers to pings that nobody reads do not pile up", async () => {
  const face = await openSockets({ flows, limits: { unreadBytes: "64 KiB" } });
  const client = await RawClient.greet(face.url);
  client.tcp.pause();
  const id = Number.MAX_SAFE_INTEGER;
  const pings = JSON.stringify(Array.from({ length: 256 }, () => ({ kind: "ping", id })));
  for (let n = 0; n < 2000; n++) client.socket.send(pings);
  await until(() => client.socket.bufferedAmount === 0);
  client.say({ kind: "attach", n: 1, channel: 0, role: "produce", flow: "orders" });
  client.tcp.resume();
  await client.next("opened");
  const pongs = client.came.filter(({ kind }) => kind === "pong").length;
  expect(pongs).toBeGreaterThan(0);
  expect(pongs).toBeLessThan(256_000); // Of 512,000: what did not fit is not said.
}, 60_000);

// Chance.

const runs = Math.ceil(Number(process.env["SPILLWAY_FUZZ"] ?? 3000) / 10);

/** What goes wrong with one frame of a conversation. */
type Wrong =
  | { readonly kind: "set"; readonly at: number; readonly value: unknown }
  | { readonly kind: "drop"; readonly at: number }
  | { readonly kind: "twice" | "leave" | "cut" }
  | { readonly kind: "instead"; readonly message: string | Uint8Array };

const value = fc.oneof(
  fc.constantFrom<unknown>(-1, 0, 1, 1.5, 255, 256, 2 ** 53, 1e308, "", "x", true, null, [], {}),
  fc.integer(),
  fc.string(),
  fc.json().map((text) => JSON.parse(text) as unknown),
);
const wrong: fc.Arbitrary<Wrong> = fc.oneof(
  fc.record({ kind: fc.constant("set"), at: fc.nat({ max: 60 }), value }),
  fc.record({ kind: fc.constant("drop"), at: fc.nat({ max: 60 }) }),
  fc.record({ kind: fc.constantFrom("twice", "leave", "cut") }),
  fc.record({
    kind: fc.constant("instead"),
    message: fc.oneof(fc.string(), fc.json(), fc.uint8Array({ maxLength: 80 })),
  }),
);
/** Most frames are right, so that a conversation gets far. */
const step = fc.record({
  frame: fc.nat({ max: 15 }),
  wrong: fc.oneof({ arbitrary: fc.constant(null), weight: 9 }, { arbitrary: wrong, weight: 1 }),
  many: fc.integer({ min: 1, max: 3 }),
});

/** Every place in a value, to change or drop what is there. */
function places(of: unknown): (readonly [object, string])[] {
  if (typeof of !== "object" || of === null) return [];
  return Object.entries(of).flatMap(([name, inner]) => [[of, name] as const, ...places(inner)]);
}

class Conversation {
  readonly #face: Face;
  #client: RawClient | undefined;
  #n = 0;
  #resume: object | undefined;
  sent = 0;

  constructor(face: Face) {
    this.#face = face;
  }

  async step(which: number, wrong: Wrong | null): Promise<void> {
    const client =
      this.#client?.socket.readyState === WebSocket.OPEN ? this.#client : await this.#open();
    this.sent++;
    this.#say(client, which, wrong);
    // What comes of it is heard before the next frame, or the connection is over.
    const id = 1e6 + this.sent;
    client.say({ kind: "ping", id });
    await client.next("pong", (head) => head["id"] === id).catch(() => undefined);
  }

  #say(client: RawClient, which: number, wrong: Wrong | null): void {
    const head = this.#frame(client, which);
    if (!loose.has(head.kind)) Object.assign(head, { n: ++this.#n });
    if (wrong === null) return this.#send(client, head);
    switch (wrong.kind) {
      case "set":
      case "drop": {
        const all = places(head);
        const [owner, name] = all[wrong.at % all.length]!;
        if (wrong.kind === "drop") Reflect.deleteProperty(owner, name);
        else Reflect.set(owner, name, wrong.value);
        return this.#send(client, head);
      }
      case "twice":
        this.#send(client, head);
        return this.#send(client, head);
      case "cut":
        client.socket.terminate();
        return;
      case "instead":
        client.send(wrong.message);
        return;
      case "leave":
        return;
    }
  }

  async #open(): Promise<RawClient> {
    const client = await RawClient.connect(this.#face.url);
    this.#client = client;
    client.say({
      kind: "hello",
      client: "fuzz",
      ...(this.#resume === undefined ? {} : { resume: this.#resume }),
    });
    const welcome = await client.next("welcome");
    if (welcome["isResumed"] === false) this.#n = 0;
    else this.#n = Number(welcome["received"]);
    this.#resume = { session: welcome["session"], secret: welcome["secret"], received: 0 };
    if (welcome["isResumed"] === false) {
      client.say(
        { n: ++this.#n, kind: "attach", channel: 0, role: "produce", flow: "orders" },
        { n: ++this.#n, kind: "attach", channel: 1, role: "consume", flow: "orders" },
      );
    }
    return client;
  }

  #send(client: RawClient, head: Head): void {
    const drafts = (head["drafts"] ?? []) as readonly { bytes?: unknown }[];
    if (!Array.isArray(drafts) || drafts.length === 0) return client.say(head);
    const text = Buffer.from(JSON.stringify([head]));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    client.send(Buffer.concat([length, text, new Uint8Array(3 * drafts.length)]));
  }

  /** A right frame, as far as is known of how things stand. */
  #frame(client: RawClient, which: number): Head {
    const last = (kind: string): Head | undefined =>
      client.came.findLast((head) => head.kind === kind);
    const grant = (last("grant")?.["grant"] ?? { epoch: 1, grantId: 0 }) as Grant;
    const asked = (last("deliver") ?? last("want")) as unknown as
      | { beat: { heartbeatMs: number; position: number } }
      | undefined;
    const deliver = last("deliver") as unknown as { messages: Out[] } | undefined;
    const { partition, seq, attempt } = deliver?.messages[0] ?? {
      partition: 0,
      seq: 1,
      attempt: 1,
    };
    const out = { partition, seq, attempt };
    const stamp = { epoch: grant.epoch, grantId: grant.grantId, heldMs: 1 };
    const draft = { bytes: 3, class: "normal", key: "k", idempotencyKey: `i${this.sent % 50}` };
    const now = { ...beat, heartbeatMs: this.sent + 1, epoch: grant.epoch };
    const settle = (verdict: object): Head => ({
      kind: "settle",
      channel: 1,
      settlements: [{ ...out, verdict, durationMs: 2, confirm: true }],
    });
    switch (which) {
      case 0:
      case 1:
        return { kind: "beat", channel: 0, partition: 0, beat: now };
      case 2:
      case 3:
        return {
          kind: "send",
          channel: 0,
          partition: 0,
          stamp,
          position: this.sent,
          drafts: [draft, { bytes: 3 }],
          beat: now,
        };
      case 4:
      case 12:
      case 13:
        return {
          ...creditOf(asked?.beat.heartbeatMs ?? 1, (asked?.beat.position ?? 0) + 2),
          channel: 1,
        };
      case 5:
      case 14:
      case 15:
        return settle({ kind: "ack" });
      case 6:
        return settle({ kind: "nack", error: "no", delayMs: 1 });
      case 7:
        return { kind: "working", channel: 1, ...out, extendMs: 100 };
      case 8:
        return { kind: "recovered", channel: 1 };
      case 9:
        return { kind: "ping", id: 1 };
      case 10:
        return { kind: "ack", received: client.received };
      default:
        return { kind: "detach", channel: 2 };
    }
  }

  end(): void {
    this.#client?.socket.terminate();
  }
}

const loose = new Set(["ack", "ping", "beat", "credit", "working"]);

test("S10 whatever is said, the server serves on, and keeps little of it", async () => {
  const buffer = { messages: 64 };
  const face = await openSockets(
    // What a worker leaves behind is not tried again: it would fill the flow.
    {
      flows: {
        orders: { partitions: 1, buffer, retry: { attempts: 1 } },
        other: { partitions: 1 },
      },
    },
    { graceMs: 20, lostSessionsMax: 50 },
  );
  const prototype = JSON.stringify(Object.getOwnPropertyNames(Object.prototype));
  let frames = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 5, maxLength: 20, size: "max" }),
      async (steps) => {
        const conversation = new Conversation(face);
        for (const { frame, wrong, many } of steps) {
          for (let times = 0; times < many; times++) await conversation.step(frame, wrong);
        }
        frames += conversation.sent;
        conversation.end();
        const { sessions, keptBytes } = face.sockets.view();
        expect(sessions).toBeLessThanOrEqual(53);
        expect(keptBytes).toBeLessThan(16 * 1024 ** 2);
        expect(face.flow("orders").state().depth).toBeLessThanOrEqual(buffer.messages);
      },
    ),
    { numRuns: runs, endOnFailure: true },
  );
  expect(frames).toBeGreaterThan(10 * runs);
  expect(JSON.stringify(Object.getOwnPropertyNames(Object.prototype))).toBe(prototype);
  await until(() => face.sockets.view().sessions === 0);
  expect(face.sockets.view()).toEqual({ connections: 0, sessions: 0, keptBytes: 0 });
  // Nobody is there, so nobody has a message or credit, but for the toe-hold of the server's own process.
  const { creditsOut, inFlight, counters } = face.flow("orders").state();
  expect(inFlight).toBe(0);
  expect(creditsOut).toBeLessThanOrEqual(8);
  // Much of it was understood.
  expect(counters.accepted).toBeGreaterThan(runs / 100);
  for (const name of ["orders", "other"]) await expectToServe(face, name);
}, 600_000);

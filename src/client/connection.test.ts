import { expect, test } from "vitest";
import { VirtualClock } from "../../test/support/virtual-clock.ts";
import { SpillwayError } from "../base/index.ts";
import { Connection } from "./connection.ts";
import type { Channel } from "./connection.ts";

/** A server's end of a WebSocket, worked by hand. */
class FakeSocket extends EventTarget {
  binaryType = "blob";
  bufferedAmount = 0;
  readonly sent: Record<string, unknown>[] = [];
  isClosed = false;

  send(message: string): void {
    this.sent.push(...(JSON.parse(message) as Record<string, unknown>[]));
  }

  close(): void {
    this.isClosed = true;
  }

  open(): void {
    this.dispatchEvent(new Event("open"));
  }

  says(...heads: readonly object[]): void {
    this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(heads) }));
  }

  breaks(): void {
    const event = new Event("close");
    this.dispatchEvent(Object.assign(event, { code: 1006, reason: "" }));
  }

  kinds(): unknown[] {
    return this.sent.map(({ kind }) => kind);
  }
}

function setUp(random = () => 0.5) {
  const clock = new VirtualClock();
  const sockets: FakeSocket[] = [];
  const openedAtMs: number[] = [];
  const states: string[] = [];
  const connection = new Connection(
    { url: "http://queue.example.test", token: "spw_t", name: "test" },
    {
      clock,
      random,
      openSocket: () => {
        const socket = new FakeSocket();
        sockets.push(socket);
        openedAtMs.push(clock.now());
        return socket as unknown as WebSocket;
      },
      onState: (state, error) =>
        states.push(error === undefined ? state : `${state} ${error.code}`),
    },
  );
  const last = (): FakeSocket => sockets.at(-1)!;
  return { clock, sockets, openedAtMs, states, connection, last };
}

const welcome = {
  kind: "welcome",
  session: "s1",
  secret: "a",
  isResumed: false,
  received: 0,
  messageBytes: 1024 ** 2,
  silenceMs: 30_000,
  graceMs: 15_000,
};
const attached = {
  kind: "attached",
  channel: 0,
  partitions: 1,
  shards: 1,
  isOrdered: false,
  payload: "json",
  messageBytesMax: 1000,
  durability: "fsync",
  creditLeaseMs: 2000,
  window: { start: 1, min: 1, max: 1 },
};

function recorder(): { readonly channel: Channel; readonly heard: string[] } {
  const heard: string[] = [];
  const channel: Channel = {
    role: "produce",
    flow: "orders",
    onAttached: () => heard.push("attached"),
    onRejected: ({ code }) => heard.push(`rejected ${code}`),
    onReset: () => heard.push("reset"),
    onFrame: ({ kind }) => heard.push(kind),
  };
  return { channel, heard };
}

test("a client says who it is, and says something once it was welcomed", async () => {
  const { clock, last, states } = setUp();
  last().open();
  expect(last().sent).toEqual([{ kind: "hello", client: "test", token: "spw_t" }]);
  last().says(welcome);
  await clock.settle();
  expect(last().kinds()).toEqual(["hello", "ping"]);
  expect(states).toEqual(["connected"]);
});

test.each([0, 0.5, 0.999])(
  "pauses between attempts grow, are scattered (%d), and reach a bound",
  async (chance) => {
    const { clock, last, openedAtMs, states, connection } = setUp(() => chance);
    for (let times = 0; times < 12; times++) {
      const { length } = openedAtMs;
      last().breaks();
      await clock.until(() => openedAtMs.length > length);
    }
    connection.close();
    const pauses = openedAtMs.slice(1).map((atMs, at) => atMs - openedAtMs[at]!);
    const scatter = 0.5 + chance;
    expect(pauses[0]).toBeCloseTo(50 * scatter);
    for (let at = 1; at < pauses.length; at++) {
      expect(pauses[at]).toBeGreaterThanOrEqual(pauses[at - 1]!);
      expect(pauses[at]).toBeLessThanOrEqual(5000 * scatter + 1);
    }
    expect(pauses.at(-1)).toBe(pauses.at(-2));
    expect(states).toEqual(["disconnected disconnected"]); // Told once.
  },
);

test("a server that welcomes and breaks again is not stormed", async () => {
  const { clock, last, openedAtMs, connection } = setUp();
  for (let times = 0; times < 10; times++) {
    const { length } = openedAtMs;
    last().open();
    last().says({ ...welcome, isResumed: times > 0 });
    last().breaks();
    await clock.until(() => openedAtMs.length > length);
  }
  connection.close();
  expect(openedAtMs.at(-1)! - openedAtMs.at(-2)!).toBeGreaterThanOrEqual(1500);
});

test("after a connection that held, the next attempt comes at once", async () => {
  const { clock, last, openedAtMs, connection } = setUp();
  for (let times = 0; times < 8; times++) {
    const { length } = openedAtMs;
    last().breaks();
    await clock.until(() => openedAtMs.length > length);
  }
  last().open();
  last().says(welcome);
  await clock.advance(6000);
  last().breaks();
  const atMs = clock.now();
  const { length } = openedAtMs;
  await clock.until(() => openedAtMs.length > length);
  expect(openedAtMs.at(-1)! - atMs).toBeLessThanOrEqual(75);
  connection.close();
});

test("U1 a session that goes on gets what had not come, with its numbers", async () => {
  const { clock, last, sockets, connection } = setUp();
  const { channel, heard } = recorder();
  connection.attach(channel);
  last().open();
  last().says(welcome);
  await clock.settle();
  connection.detach(1); // Nobody: nothing is said.
  last().says({ n: 1, ...attached }, { kind: "ack", received: 1 });
  const lost = { kind: "produce", channel: 0, frame: sendFrame } as const;
  connection.send(lost);
  await clock.settle();
  last().breaks();
  await clock.until(() => sockets.length === 2);
  last().open();
  expect(last().sent[0]).toMatchObject({ resume: { session: "s1", secret: "a", received: 1 } });
  last().says({ ...welcome, secret: "b", isResumed: true, received: 1 });
  await clock.settle();
  expect(last().sent.slice(1)).toMatchObject([{ n: 2, kind: "send" }, { kind: "ping" }]);
  expect(heard).toEqual(["attached"]);
  connection.close();
});

const beat = { heartbeatMs: 1, position: 0, positionBytes: 0, want: 0, wantBytes: 0 };
const sendFrame = {
  kind: "send",
  partition: 0,
  stamp: { epoch: 1, grantId: 1, heldMs: 0 },
  position: 0,
  drafts: [],
  beat,
} as const;

test("a session that is gone begins anew: numbers from 1, channels attached again", async () => {
  const { clock, last, sockets, connection } = setUp();
  const { channel, heard } = recorder();
  connection.attach(channel);
  last().open();
  last().says(welcome);
  await clock.settle();
  connection.send({ kind: "produce", channel: 0, frame: sendFrame });
  await clock.settle();
  last().breaks();
  await clock.until(() => sockets.length === 2);
  last().open();
  last().says({ ...welcome, session: "s2" });
  await clock.settle();
  expect(heard).toEqual(["reset"]);
  expect(last().sent.slice(1)).toMatchObject([
    { n: 1, kind: "attach", channel: 0 },
    { kind: "ping" },
  ]);
  connection.close();
});

test.each(["unauthenticated", "forbidden", "protocol_violated"])(
  "%s is final: whoever waits is told, now and later, and nothing is tried again",
  async (code) => {
    const { clock, last, sockets, connection } = setUp();
    const { channel, heard } = recorder();
    connection.attach(channel);
    last().open();
    last().says({ kind: "bye", code, text: "no" });
    last().breaks();
    const late = recorder();
    connection.attach(late.channel);
    await clock.advance(60_000);
    expect(heard).toEqual([`rejected ${code}`]);
    expect(late.heard).toEqual([`rejected ${code}`]);
    expect(sockets).toHaveLength(1);
  },
);

test("a server that asks for a pause is given it, within reason", async () => {
  const { clock, last, openedAtMs, connection } = setUp();
  for (const retryAfterMs of [3000, 1e12]) {
    const { length } = openedAtMs;
    const atMs = clock.now();
    last().open();
    last().says({ kind: "bye", code: "quota_exceeded", text: "later", retryAfterMs });
    last().breaks();
    await clock.until(() => openedAtMs.length > length, 100_000);
    expect(openedAtMs.at(-1)! - atMs).toBeGreaterThanOrEqual(Math.min(retryAfterMs, 60_000));
    expect(openedAtMs.at(-1)! - atMs).toBeLessThan(66_000);
  }
  connection.close();
});

test("silence is asked about, and then given up; sooner while an answer is awaited", async () => {
  const { clock, last, sockets, connection } = setUp();
  last().open();
  last().says(welcome);
  await clock.advance(20_000);
  expect(sockets).toHaveLength(1);
  expect(
    last()
      .kinds()
      .filter((kind) => kind === "ping").length,
  ).toBeGreaterThan(1);
  await clock.advance(12_000);
  expect(sockets[0]!.isClosed).toBe(true);
  expect(sockets).toHaveLength(2);
  last().open();
  last().says({ ...welcome, isResumed: true });
  connection.attach(recorder().channel);
  await clock.advance(7000);
  expect(sockets[1]!.isClosed).toBe(true);
  connection.close();
});

test("a connection that still takes bytes is not silent", async () => {
  const { clock, last, sockets, connection } = setUp();
  last().open();
  last().says(welcome);
  connection.attach(recorder().channel);
  await clock.settle();
  last().bufferedAmount = 1000;
  for (let left = 999; left > 980; left--) {
    await clock.advance(1000);
    last().bufferedAmount = left;
  }
  expect(sockets).toHaveLength(1);
  await clock.advance(10_000);
  expect(sockets[0]!.isClosed).toBe(true);
  connection.close();
});

test("no welcome in time is a lost connection", async () => {
  const { clock, last, sockets, connection } = setUp();
  last().open();
  await clock.advance(8000);
  expect(sockets[0]!.isClosed).toBe(true);
  expect(sockets.length).toBeGreaterThan(1);
  connection.close();
});

test.each([
  ["a frame before the welcome", [{ kind: "ping", id: 1 }]],
  ["a second welcome", [welcome, welcome]],
  ["a number that skips one", [welcome, { n: 2, kind: "detached", channel: 0 }]],
  ["no number where one is due", [welcome, { kind: "detached", channel: 0 }]],
  ["an acknowledgement of what was not sent", [welcome, { kind: "ack", received: 7 }]],
  ["a kind that nobody knows", [welcome, { kind: "dance" }]],
])("U3 after %s the session begins anew, and not in a storm", async (_what, heads) => {
  const { clock, last, sockets, connection } = setUp();
  for (let times = 0; times < 9; times++) {
    const { length } = sockets;
    last().open();
    last().says(...heads);
    expect(sockets[length - 1]!.isClosed).toBe(true);
    await clock.until(() => sockets.length > length);
  }
  last().open();
  expect(last().sent[0]).toEqual({ kind: "hello", client: "test", token: "spw_t" });
  expect(connection.failure).toBeInstanceOf(SpillwayError);
  const before = clock.now();
  const { length } = sockets;
  last().says(...heads);
  await clock.until(() => sockets.length > length);
  expect(clock.now() - before).toBeGreaterThanOrEqual(1500);
  connection.close();
});

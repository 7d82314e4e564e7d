/** Batches: several messages in one request, settled together or one by one. */
import { expect, onTestFinished, test, vi } from "vitest";
import type { FlowOptions } from "../../src/config/index.ts";
import { verifyWebhook } from "../../src/server/index.ts";
import type { Envelope } from "../../src/server/push/request.ts";
import { resultsOf } from "../../src/server/push/results.ts";
import type { Flow, SendOptions } from "../../src/spillway.ts";
import { openServer } from "../support/server.ts";
import { PushTarget, until } from "../support/push-target.ts";
import type { Answers, Got } from "../support/push-target.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const batchOf = ({ body }: Got): readonly Envelope[] =>
  (JSON.parse(body.toString()) as { messages: Envelope[] }).messages;

/** A flow whose deliveries come many at a time. */
async function flowOf(target: PushTarget, options: FlowOptions = {}): Promise<Flow<Uint8Array>> {
  const server = await openServer({
    flows: {
      orders: {
        partitions: 1,
        window: { fixed: 40 },
        retry: { attempts: 5, delay: ["1ms", "5ms"], budget: 1 },
        ...target.deliver({ batch: { messages: 10 } }),
        ...options,
      },
    },
  });
  return server.spillway.flow<Uint8Array>("orders");
}

/** Sent while the flow is paused, so that they are there together. */
async function sendTogether(
  flow: Flow<Uint8Array>,
  payloads: readonly Uint8Array[],
  optionsOf: (at: number) => SendOptions = () => ({}),
): Promise<void> {
  await flow.pause();
  const sent = payloads.map((payload, at) => flow.send(payload, optionsOf(at)));
  await Promise.all(sent);
  await flow.resume();
}

async function ended(flow: Flow<Uint8Array>): Promise<void> {
  await until(() => flow.state().depth === 0);
}

/** Answers each message of a batch with the status that it deserves. */
function each(statusOf: (envelope: Envelope) => number | Record<string, number>): Answers {
  return (got, response) => {
    const results = batchOf(got).map((envelope) => {
      const status = statusOf(envelope);
      return { id: envelope.id, ...(typeof status === "number" ? { status } : status) };
    });
    response.writeHead(200, { "content-type": "application/vnd.spillway.results+json" });
    response.end(JSON.stringify({ results }));
    return undefined;
  };
}

test("what comes in one turn goes in one request, up to the contract's number; 2xx acks all", async () => {
  const target = await new PushTarget().listen();
  const flow = await flowOf(target, { ...target.deliver({ batch: { messages: 3 } }) });
  await sendTogether(
    flow,
    Array.from({ length: 40 }, (_, n) => bytes(String(n))),
  );
  await ended(flow);
  expect(flow.state().counters.acked).toBe(40);
  const sizes = target.got.map((got) => batchOf(got).length);
  expect(Math.max(...sizes)).toBe(3);
  expect(target.got.length).toBeLessThan(40);
  const payloads = target.got.flatMap((got) => batchOf(got).map(({ payload }) => Number(payload)));
  expect(payloads.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, n) => n));
});

test("an envelope says of a message what a request of its own would say", async () => {
  vi.stubEnv("BATCH_SECRET", `whsec_${Buffer.alloc(32, 3).toString("base64")}`);
  onTestFinished(() => void vi.unstubAllEnvs());
  const secret = { env: "BATCH_SECRET" };
  const target = await new PushTarget().listen();
  const flow = await flowOf(target, target.deliver({ batch: { messages: 10 }, secret }));
  const sent = [Uint8Array.of(0xff, 0xfe, 0), bytes('{"a":"ä"}')];
  await sendTogether(flow, sent, (at) =>
    at === 0
      ? {}
      : {
          key: "customer 17",
          group: "shop",
          deadline: "1h",
          headers: { "content-type": "application/json", cookie: "session=1" },
        },
  );
  await ended(flow);
  const got = target.got.at(-1)!;
  expect(got.headers).toMatchObject({
    "content-type": "application/vnd.spillway.batch+json",
    "spillway-flow": "orders",
    "idempotency-key": got.headers["webhook-id"],
  });
  expect(got.headers).not.toHaveProperty("spillway-message-id");
  const [raw, json] = target.got.flatMap(batchOf) as [Envelope, Envelope];
  expect(raw).toEqual({
    id: "orders/0/1",
    attempt: 1,
    acceptedAt: expect.stringMatching(/^20.*Z$/) as string,
    headers: {},
    encoding: "base64",
    payload: "//4A",
  });
  expect(json).toMatchObject({
    id: "orders/0/2",
    key: "customer 17",
    group: "shop",
    deadline: expect.stringMatching(/^20.*Z$/) as string,
    headers: { "content-type": "application/json" },
    encoding: "utf-8",
    payload: '{"a":"ä"}',
  });
  expect(json.headers).not.toHaveProperty("cookie");
  const { id } = verifyWebhook({ secret: process.env["BATCH_SECRET"]!, ...got });
  expect(id).toMatch(/^orders\/batch\/[\w-]{22}$/);
});

test("each message may be answered by itself, as if it had been sent alone", async () => {
  const target = await new PushTarget(
    each(({ payload, attempt }) => {
      if (payload === "never") return 410;
      if (payload === "throttled" && target.got.length === 1) return { status: 429, retryAfter: 0 };
      if (payload === "later" && attempt < 3) return 500;
      return 200;
    }),
  ).listen();
  const flow = await flowOf(target);
  const acked: [string, number][] = [];
  flow.on("acked", ({ id, attempt }) => acked.push([id, attempt]));
  await sendTogether(flow, ["now", "never", "throttled", "later"].map(bytes));
  await ended(flow);
  expect(new Map(acked)).toEqual(
    new Map([
      ["orders/0/1", 1],
      ["orders/0/3", 1],
      ["orders/0/4", 3],
    ]),
  );
  const letters = await Array.fromAsync(flow.deadLetters());
  expect(letters.map(({ id, reason }) => [id, reason])).toEqual([
    ["orders/0/2", "terminated: answered 410: gone"],
  ]);
});

test("V2 one bad message does not take its companions along: who failed together is tried alone", async () => {
  const target = await new PushTarget((got) =>
    batchOf(got).some(({ payload }) => payload === "poison") ? 400 : 200,
  ).listen();
  const flow = await flowOf(target, target.deliver({ batch: { messages: 10 }, rejectAfter: 1 }));
  const payloads = ["a", "b", "poison", "c", "d"].map(bytes);
  await sendTogether(flow, payloads);
  await ended(flow);
  expect(flow.state().counters).toMatchObject({ acked: 4, dead: 1 });
  const [letter] = await Array.fromAsync(flow.deadLetters());
  expect(letter).toMatchObject({ id: "orders/0/3", reason: "terminated: answered 400" });
  for (const got of target.got) {
    const batch = batchOf(got);
    const isRetried = batch.some(({ attempt }) => attempt > 1);
    expect(isRetried && batch.length > 1).toBe(false);
  }
});

test("a batch is bounded in bytes; what is larger goes alone", async () => {
  const target = await new PushTarget().listen();
  const flow = await flowOf(target);
  const sizes = [400_000, 400_000, 400_000, 1_000_000, 10, 10];
  await sendTogether(
    flow,
    sizes.map((size) => Buffer.alloc(size, "x")),
  );
  await ended(flow);
  expect(flow.state().counters.acked).toBe(sizes.length);
  for (const got of target.got) {
    const isBounded = got.body.length <= 1024 ** 2 + 1000 || batchOf(got).length === 1;
    expect(isBounded).toBe(true);
  }
});

test("G4 two messages of one key are never in one request, and come in their order", async () => {
  const target = await new PushTarget().listen();
  const flow = await flowOf(target);
  await sendTogether(
    flow,
    Array.from({ length: 60 }, (_, n) => bytes(String(n))),
    (at) => ({ key: `k${at % 6}` }),
  );
  await ended(flow);
  const last = new Map<string, number>();
  for (const got of target.got) {
    const batch = batchOf(got);
    expect(new Set(batch.map(({ key }) => key)).size).toBe(batch.length);
    for (const { key = "", payload } of batch) {
      expect(Number(payload)).toBeGreaterThan(last.get(key) ?? -1);
      last.set(key, Number(payload));
    }
  }
  expect(last.size).toBe(6);
});

test("results that cannot be read ack nothing; what they do not name has the status of the whole", () => {
  for (const body of [
    "",
    "null",
    "[]",
    "{}",
    '{"results":{}}',
    '{"results":[null]}',
    "[".repeat(50_000),
  ]) {
    expect([body.slice(0, 20), resultsOf(Buffer.from(body))]).toEqual([
      body.slice(0, 20),
      undefined,
    ]);
  }
  for (const bad of [
    { id: 1, status: 200 },
    { id: "a" },
    { id: "a", status: "200" },
    { id: "a", status: 2.5 },
  ]) {
    expect(resultsOf(Buffer.from(JSON.stringify({ results: [bad] })))).toBeUndefined();
  }
  const named = resultsOf(Buffer.from('{"results":[{"id":"a","status":429,"retryAfter":1.2}]}'));
  expect(named).toEqual(new Map([["a", { status: 429, headers: { "retry-after": "2" } }]]));
});

test("a batch whose results are cut or garbled is tried again", async () => {
  let calls = 0;
  const target = await new PushTarget((_got, response) => {
    if (++calls > 2) return 200;
    response.writeHead(200, { "content-type": "application/vnd.spillway.results+json" });
    response.end(calls === 1 ? "{}" : " ".repeat(100 * 1024));
    return undefined;
  }).listen();
  const flow = await flowOf(target);
  await sendTogether(flow, [bytes("a")]);
  await ended(flow);
  expect(flow.state().counters).toMatchObject({ acked: 1, dead: 0 });
  expect(target.got.flatMap((got) => batchOf(got).map(({ attempt }) => attempt))).toEqual([
    1, 2, 3,
  ]);
});

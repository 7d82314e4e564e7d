/** Targets that fail: order per key through failures, outages that lose nothing, probes that hang. */
import { expect, test } from "vitest";
import { sequence } from "../../src/base/index.ts";
import type { FlowOptions } from "../../src/config/index.ts";
import type { Flow } from "../../src/spillway.ts";
import { openServer } from "../support/server.ts";
import { PushTarget, until } from "../support/push-target.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function flowOf(options: FlowOptions): Promise<Flow<Uint8Array>> {
  const server = await openServer({ flows: { orders: { partitions: 2, ...options } } });
  return server.spillway.flow<Uint8Array>("orders");
}

test("G4 order per key holds over push, while the target fails in every way it can", async () => {
  const random = sequence(4711);
  const handled = new Map<string, number[]>();
  const now = new Set<string>();
  let overlaps = 0;
  const target = await new PushTarget(({ headers, body }, response) => {
    const key = headers["spillway-key"] as string;
    if (now.has(key)) overlaps++;
    now.add(key);
    const draw = random();
    const end = (status: number): number => {
      now.delete(key);
      return status;
    };
    if (draw < 0.1) return end(500);
    if (draw < 0.2) return end(429);
    if (draw < 0.25) {
      response.writeHead(503, { "retry-after": "0" }).end();
      end(503);
      return undefined;
    }
    if (draw < 0.3) {
      response.destroy();
      end(0);
      return undefined;
    }
    const done = handled.get(key) ?? [];
    handled.set(key, done);
    return new Promise<number>((resolve) =>
      setImmediate(() => {
        done.push(Number(body.toString()));
        resolve(end(200));
      }),
    );
  }).listen();
  const flow = await flowOf({
    ...target.deliver(),
    window: { fixed: 12 },
    retry: { attempts: 100, delay: ["1ms", "3ms"], budget: 1 },
  });
  const keys = 10;
  const each = 20;
  const sent: Promise<unknown>[] = [];
  for (let n = 0; n < each; n++) {
    for (let key = 0; key < keys; key++) sent.push(flow.send(bytes(String(n)), { key: `k${key}` }));
  }
  await Promise.all(sent);
  // The rate that 429s teach is forgotten with every change: what is at stake here is the order.
  let perSecond = 1_000_000;
  const hurry = setInterval(() => flow.change({ rate: { perSecond: perSecond++ } }), 20);
  try {
    await until(() => flow.state().depth === 0);
  } finally {
    clearInterval(hurry);
  }
  expect(flow.state().counters).toMatchObject({ acked: keys * each, dead: 0 });
  expect(target.got.length).toBeGreaterThan(keys * each);
  expect(overlaps).toBe(0);
  for (const [key, numbers] of handled) {
    const inOrder = numbers.filter((number, at) => number !== numbers[at - 1]); // At least once.
    expect([key, inOrder]).toEqual([key, Array.from({ length: each }, (_, n) => n)]);
  }
  expect(handled.size).toBe(keys);
}, 25_000);

test("a target that is away burns no attempts beyond those that opened the breaker, and loses nothing", async () => {
  const first = await new PushTarget().listen();
  const { port } = first;
  const flow = await flowOf({
    ...first.deliver(),
    retry: { attempts: 4, delay: ["1ms", "10ms"], budget: 1 },
  });
  const states: string[] = [];
  flow.on("breaker", ({ to }) => states.push(to));
  const acked: number[] = [];
  flow.on("acked", ({ attempt }) => acked.push(attempt));
  await first.close();
  const count = 30;
  await flow.sendBatch(Array.from({ length: count }, (_, n) => bytes(String(n))));
  // Two probes meet nobody: without the breaker four attempts would long be used up.
  await until(() => states.filter((state) => state === "half_open").length === 2);
  expect(flow.state().counters).toMatchObject({ acked: 0, dead: 0 });
  const second = await new PushTarget().listen(port);
  await until(() => flow.state().depth === 0);
  expect(flow.state().counters).toMatchObject({ accepted: count, acked: count, dead: 0 });
  expect(states.slice(0, 3)).toEqual(["open", "half_open", "open"]);
  expect(states).toContain("recovering");
  // Five failures in a row open it; with what was in flight then, no more than eight attempts are gone.
  expect(acked.reduce((sum, attempt) => sum + attempt - 1, 0)).toBeLessThanOrEqual(8);
  expect(new Set(second.got.map(({ body }) => body.toString())).size).toBe(count);
}, 30_000);

test("pain 20: a probe that hangs ends by its time limit, and limits change while the server runs", async () => {
  let mode: "away" | "hangs" | "well" = "away";
  const target = await new PushTarget(() =>
    mode === "hangs" ? undefined : mode === "away" ? 503 : 200,
  ).listen();
  const flow = await flowOf({
    ...target.deliver({ timeout: "100ms", connectTimeout: "100ms" }),
    retry: { attempts: 10, delay: ["1ms", "5ms"], budget: 1 },
  });
  const states: string[] = [];
  flow.on("breaker", ({ to }) => {
    states.push(to);
    if (to === "open" && mode === "hangs") mode = "well"; // The probe that hung is over.
    if (to === "open" && mode === "away") mode = "hangs";
  });
  await flow.sendBatch(Array.from({ length: 6 }, (_, n) => bytes(String(n))));
  await until(() => flow.state().depth === 0);
  expect(flow.state().counters).toMatchObject({ acked: 6, dead: 0 });
  expect(states.slice(0, 5)).toEqual(["open", "half_open", "open", "half_open", "recovering"]);
  flow.change({ window: { fixed: 3 }, rate: { perSecond: 500 } });
  expect(flow.state().target).toMatchObject({ window: { limit: 3 }, rate: { ratePerS: 500 } });
}, 25_000);

test("pain 3: what a rate limit holds back keeps its attempts, however long it waits", async () => {
  const target = await new PushTarget().listen();
  const flow = await flowOf({ ...target.deliver(), rate: { perSecond: 100, burst: 1 } });
  await flow.sendBatch(Array.from({ length: 120 }, (_, n) => bytes(String(n))));
  await until(() => flow.state().depth === 0);
  expect(new Set(target.got.map(({ headers }) => headers["spillway-attempt"]))).toEqual(
    new Set(["1"]),
  );
  expect(target.got).toHaveLength(120);
});

/** What a target says of its own limits is obeyed: capacity, rate, and when to come back. */
import { expect, test } from "vitest";
import {
  capacityOf,
  exhaustedForMs,
  policyRatePerS,
  retryAfterMs,
} from "../../src/server/push/limits.ts";
import type { FlowOptions } from "../../src/config/index.ts";
import type { Flow } from "../../src/spillway.ts";
import { openServer } from "../support/server.ts";
import { PushTarget, until } from "../support/push-target.ts";
import type { Answers } from "../support/push-target.ts";

const bytes = new TextEncoder().encode("x");

/** Answers with these header fields. */
function says(headers: () => Record<string, string>, status = 200): Answers {
  return (_got, response) => {
    response.writeHead(status, headers()).end();
    return undefined;
  };
}

async function flowOf(target: PushTarget, options: FlowOptions = {}): Promise<Flow<Uint8Array>> {
  const server = await openServer({ flows: { orders: { ...target.deliver(), ...options } } });
  return server.spillway.flow<Uint8Array>("orders");
}

test.each([
  ['"default";q=100;w=60', 100 / 60],
  ['"burst";q=100;w=10,"hour";q=1000;w=3600', 1000 / 3600],
  ['"burst";q=100;w=10, "daily";q=1000;w=86400', 10],
  ["default; q=50; w=1", 50],
  ['"a\\"b";q=7;w=1;pk=:cHsdsRa894==:;qu="requests"', 7],
  ['"bytes";q=1000000;w=1;qu="content-bytes"', undefined],
  ['"none";q=0;w=60', 1 / 60],
  ['"no window";q=10', undefined],
  ['"no quota";w=10', undefined],
  ['"x";q=10;w=0', undefined],
  ['"x";q=10;w=-1', undefined],
  ['"x";q="10";w=1', undefined],
  ['"x";q=10;w=1,', undefined],
  ['"open;q=10;w=1', undefined],
  ["100;w=60", undefined],
  ['"x";q=10;w=1;;', undefined],
  ['"x" q=10', undefined],
  ["", undefined],
  [`"x";q=10;w=1${" ".repeat(5000)}`, undefined],
  [undefined, undefined],
])("RateLimit-Policy: %s", (field, expected) => {
  expect(policyRatePerS(field)).toBe(expected);
});

test.each([
  ['"default";r=0;t=30', 30_000],
  ['"default";r=1;t=30', undefined],
  ['"a";r=5;t=1, "b";r=0;t=9', 9000],
  ['"a";r=0', undefined],
  ['"a";r=0;t=0', undefined],
  ['"a";r=0;t=86400', 300_000],
  ["limit=10, remaining=0, reset=5", undefined],
])("RateLimit: %s", (field, expected) => {
  expect(exhaustedForMs(field)).toBe(expected);
});

test("fields that cannot be read count as absent", () => {
  const nowMs = Date.parse("2026-11-24T12:00:00Z");
  for (const field of ["", "1.5", "1e3", "-5", "0x10", "12 s", "tomorrow", "5, 6"]) {
    expect([field, retryAfterMs(field, nowMs)]).toEqual([field, undefined]);
  }
  expect(retryAfterMs("Tue, 24 Nov 2026 12:01:00 GMT", nowMs)).toBe(60_000);
  expect(retryAfterMs("Tuesday, 24-Nov-26 12:01:00 GMT", nowMs)).toBe(60_000);
  expect(retryAfterMs("9".repeat(60), nowMs)).toBe(300_000);
  for (const field of ["0", "-1", "1.5", "many", "", "9".repeat(20)]) {
    expect([field, capacityOf(field)]).toEqual([field, undefined]);
  }
  expect(capacityOf("12")).toBe(12);
});

test("Spillway-Capacity bounds the window until a success comes without it", async () => {
  let capacity: string | undefined = "2";
  const target = await new PushTarget(
    says(() => (capacity === undefined ? {} : { "spillway-capacity": capacity })),
  ).listen();
  const flow = await flowOf(target, { window: { fixed: 16 } });
  await flow.send(bytes);
  await until(() => flow.state().target.window.published === 2);
  target.parallelMax = 0;
  await flow.sendBatch(Array.from({ length: 60 }, () => bytes));
  await until(() => flow.state().depth === 0);
  expect(target.parallelMax).toBeLessThanOrEqual(2);
  // An error of something in between does not know of it, and takes nothing back.
  target.answers = () => 404;
  await flow.send(bytes);
  await until(() => target.got.length > 61);
  expect(flow.state().target.window.published).toBe(2);
  capacity = undefined;
  target.answers = says(() => ({}));
  await flow.send(bytes);
  await until(() => flow.state().target.window.published === null);
});

test("RateLimit-Policy sets the rate outright, a change of limits keeps it, a success without it takes it back", async () => {
  let policy: string | undefined = '"default";q=400;w=10';
  const target = await new PushTarget(
    says(() => (policy === undefined ? {} : { "ratelimit-policy": policy })),
  ).listen();
  const flow = await flowOf(target);
  await flow.send(bytes);
  await until(() => flow.state().target.rate.because === "policy");
  expect(flow.state().target.rate.ratePerS).toBe(40);
  flow.change({ rate: { perSecond: 1000 }, window: { max: 20 } });
  expect(flow.state().target.rate).toMatchObject({ ratePerS: 40, because: "policy" });
  flow.change({ rate: { perSecond: 30 } });
  expect(flow.state().target.rate).toMatchObject({ ratePerS: 30, because: "contract" });
  policy = undefined;
  flow.change({ rate: null });
  await flow.send(bytes);
  await until(() => flow.state().target.rate.ratePerS === null);
});

test("RateLimit that says nothing is left pauses the target, and what waits goes on afterwards", async () => {
  let isExhausted = true;
  const target = await new PushTarget(
    says((): Record<string, string> => (isExhausted ? { ratelimit: '"default";r=0;t=1' } : {})),
  ).listen();
  const flow = await flowOf(target, { window: { fixed: 1 } });
  await flow.send(bytes);
  await until(() => flow.state().target.rate.pausedUntilMs !== null);
  isExhausted = false;
  await flow.send(bytes);
  await until(() => flow.state().counters.acked === 2);
  const [first, second] = target.got as [(typeof target.got)[0], (typeof target.got)[0]];
  expect(second.atMs - first.atMs).toBeGreaterThanOrEqual(950);
});

test("pain 4: thousands of answers of 429 and of 503 with Retry-After dead-letter nothing and cost no attempt", async () => {
  const refused = { count: 0 };
  const wanted = 3000;
  const target = await new PushTarget((_got, response) => {
    if (refused.count >= wanted) return 200;
    refused.count++;
    if (refused.count % 2 === 0) return 429;
    response.writeHead(503, { "retry-after": "0" }).end();
    return undefined;
  }).listen();
  // The rate that these answers teach would make the test wait: what is at stake here are the attempts.
  const flow = await flowOf(target, {
    window: { fixed: 32 },
    retry: { attempts: 2, delay: ["1ms", "1ms"], budget: 1 },
  });
  const events: unknown[] = [];
  flow.on("retrying", (event) => events.push(event));
  flow.on("dead", (event) => events.push(event));
  const acked: number[] = [];
  flow.on("acked", ({ attempt }) => acked.push(attempt));
  await flow.sendBatch(Array.from({ length: 400 }, () => bytes));
  // Each change of the contract forgets the learnt rate, so that all 3,000 come in this test's time.
  let perSecond = 1_000_000;
  const hurry = setInterval(() => flow.change({ rate: { perSecond: perSecond++ } }), 20);
  try {
    await until(() => flow.state().depth === 0);
  } finally {
    clearInterval(hurry);
  }
  expect(refused.count).toBe(wanted);
  expect(events).toEqual([]);
  expect(acked).toHaveLength(400);
  expect(new Set(acked)).toEqual(new Set([1]));
  expect(new Set(target.got.map(({ headers }) => headers["spillway-attempt"]))).toEqual(
    new Set(["1"]),
  );
}, 20_000);

test("pain 2: two flows that share a target of 50/s never exceed it together, and both progress", async () => {
  const target = await new PushTarget().listen();
  const part: FlowOptions = {
    ...target.deliver(),
    target: "api",
    rate: { perSecond: 50, burst: 5 },
    window: { fixed: 20 },
  };
  const server = await openServer({ flows: { a: part, b: part } });
  const flows = ["a", "b"].map((name) => server.spillway.flow<Uint8Array>(name));
  await Promise.all(flows.map((flow) => flow.sendBatch(Array.from({ length: 40 }, () => bytes))));
  await until(() => target.got.length === 80);
  const at = target.got.map(({ atMs }) => atMs);
  // Over any stretch: rate x time + burst, and a little for what came together on the way.
  for (let from = 0; from < at.length; from++) {
    for (let to = from; to < at.length; to++) {
      const allowed = (50 * (at[to]! - at[from]!)) / 1000 + 5 + 10;
      expect(to - from + 1).toBeLessThanOrEqual(Math.ceil(allowed));
    }
  }
  // Neither waits for the other to end.
  const half = target.got.slice(0, 40).map(({ headers }) => headers["spillway-flow"]);
  expect(new Set(half)).toEqual(new Set(["a", "b"]));
});

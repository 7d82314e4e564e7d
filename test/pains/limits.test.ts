/** Pains of other queues' users with limits, rates and blocked producers; each one is a test here. */
import { expect, test } from "vitest";
import { serviceMs } from "../../src/cli/demo/knee.ts";
import type { Flow } from "../../src/spillway.ts";
import { failureOf, World } from "../support/world.ts";

const allClasses = { critical: 1, normal: 1, bulk: 1 } as const;

test("pain 1: the intake can be closed: sends are refused with a reason, the drain goes on, nothing is lost", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<number>("orders", { partitions: 2, window: { fixed: 2 } });
  flow.consume(() => new Promise<void>((resolve) => world.clock.after(10, resolve)));
  await world.clock.run(flow.sendBatch(Array.from({ length: 100 }, (_, n) => n)));
  await world.clock.run(flow.closeIntake());
  const late = await world.clock.run(flow.sendBatch([1, 2, 3]));
  expect(late.map((result) => ("code" in result ? result.code : "ok"))).toEqual(
    Array.from({ length: 3 }, () => "intake_closed"),
  );
  for (const result of late)
    expect((result as { retryAfterMs: number }).retryAfterMs).toBeGreaterThan(0);
  await world.clock.until(() => flow.state().depth === 0);
  expect(flow.state().counters).toMatchObject({ accepted: 100, acked: 100 });
});

test("pain 2: two flows share one limit of 50/s: together never above it, and both progress", async () => {
  await using world = await World.open("memory");
  const options = { partitions: 1, target: "api", rate: { perSecond: 50, burst: 5 } } as const;
  const flows = ["a", "b"].map((name) => world.spillway.flow<number>(name, options));
  const starts: { name: string; atMs: number }[] = [];
  for (const flow of flows) {
    flow.consume(() => void starts.push({ name: flow.name, atMs: world.clock.now() }));
  }
  const values = Array.from({ length: 400 }, (_, n) => n);
  await world.clock.run(Promise.all(flows.map((flow) => flow.sendBatch(values))));
  await world.clock.advance(8000);
  let most = 0;
  for (let from = 0, to = 0; to < starts.length; to++) {
    while (starts[to]!.atMs - starts[from]!.atMs >= 1000) from++;
    most = Math.max(most, to - from + 1);
  }
  expect(most).toBeLessThanOrEqual(55);
  for (const name of ["a", "b"]) {
    expect(starts.filter((start) => start.name === name).length).toBeGreaterThan(120);
  }
  expect(starts.length).toBeGreaterThan(340);
});

test("pain 3: ten thousand throttled deliveries leave every attempt counter unchanged", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<number>("orders", { partitions: 1, retry: { attempts: 2 } });
  let throttled = 0;
  const attempts: number[] = [];
  flow.consume(async (_n, delivery) => {
    if (throttled < 10_000) {
      throttled++;
      return delivery.release({ overload: throttled % 2 === 0, delay: 1 });
    }
    attempts.push(delivery.attempt);
  });
  await world.clock.run(flow.sendBatch(Array.from({ length: 20 }, (_, n) => n)));
  await world.clock.until(() => attempts.length === 20, 10 ** 9);
  expect(throttled).toBe(10_000);
  expect(attempts).toEqual(Array.from({ length: 20 }, () => 1));
  expect(flow.state().counters).toMatchObject({ acked: 20, dead: 0 });
}, 60_000);

test("pain 10: the limit counts what is in flight: a thousand nacked at a full buffer never pass it", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<number>("orders", {
    partitions: 4,
    buffer: { messages: 2000 },
    classes: allClasses,
    window: { fixed: 1000 },
    retry: { attempts: 100, delay: ["10ms", "20ms"], budget: 1 },
  });
  const held: (() => void)[] = [];
  let isNacking = true;
  flow.consume((_n, delivery) => {
    if (!isNacking) return undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    held.push(resolve);
    return promise.then(() => delivery.nack());
  });
  const sends = Array.from({ length: 5000 }, (_, n) => flow.send(n));
  let most = 0;
  let mostInFlight = 0;
  for (let round = 0; round < 20; round++) {
    await world.clock.advance(50);
    most = Math.max(most, flow.state().depth);
    mostInFlight = Math.max(mostInFlight, flow.state().inFlight);
    for (const nack of held.splice(0)) nack();
    await world.clock.settle();
    most = Math.max(most, flow.state().depth);
  }
  expect([most, mostInFlight]).toEqual([2000, 1000]);
  isNacking = false;
  for (const nack of held.splice(0)) nack();
  await world.clock.run(Promise.all(sends), 600_000);
  await world.clock.until(() => flow.state().depth === 0, 600_000);
  expect(flow.state().counters).toMatchObject({ accepted: 5000, acked: 5000 });
}, 60_000);

test("pain 11: one flow is full, one is empty: the empty one keeps its rate", async () => {
  await using world = await World.open("memory");
  const rate = async (flow: Flow<number>): Promise<number> => {
    const before = flow.state().counters.accepted;
    for (let round = 0; round < 100; round++) {
      void flow.sendBatch(Array.from({ length: 10 }, (_, n) => n)).catch(() => {});
      await world.clock.advance(10);
    }
    return flow.state().counters.accepted - before;
  };
  const empty = world.spillway.flow<number>("empty", { partitions: 1 });
  empty.consume(() => {});
  const alone = await rate(empty);
  const full = world.spillway.flow<number>("full", {
    partitions: 1,
    buffer: { messages: 10 },
    classes: allClasses,
  });
  const waiting = Array.from({ length: 100 }, (_, n) => full.send(n).catch(() => {}));
  await world.clock.advance(100);
  expect(full.state()).toMatchObject({ depth: 10, producer: { blocked: true, waiting: 90 } });
  expect(await rate(empty)).toBe(alone);
  expect(alone).toBe(1000);
  await world.close();
  await Promise.all(waiting);
  await world.open();
});

test("pain 12: every wait has a state, a reason and an end in the producer's hands", async () => {
  await using world = await World.open("memory");
  const options = { partitions: 1, buffer: { messages: 1 }, classes: allClasses };
  const flow = world.spillway.flow<number>("orders", options);
  await world.clock.run(flow.send(0));
  const blocked: unknown[] = [];
  flow.on("blocked", (event) => blocked.push(event));
  const abort = new AbortController();
  const waits = [
    failureOf(flow.send(1, { timeout: "1s" })),
    failureOf(flow.send(2, { signal: abort.signal })),
    failureOf(flow.send(3)),
  ];
  await world.clock.advance(500);
  expect(blocked).toEqual([{ code: "buffer_full", retryAfterMs: expect.any(Number) }]);
  expect(flow.credits()).toEqual({ messages: 0, waiting: 3, blocked: true });
  await world.clock.advance(1000);
  expect(flow.credits().waiting).toBe(2);
  abort.abort();
  await world.clock.settle();
  expect(flow.credits().waiting).toBe(1);
  await world.close();
  const ends = await Promise.all(waits);
  expect(ends.map((error) => (error as { code: string }).code)).toEqual([
    "timed_out",
    "aborted",
    "closed",
  ]);
  await world.open();
});

test("pain 14: a slow consumer of A leaves B's producer untouched, and A's stall can be seen", async () => {
  await using world = await World.open("memory");
  const options = { partitions: 1, buffer: { messages: 50 }, classes: allClasses };
  const a = world.spillway.flow<number>("a", options);
  const b = world.spillway.flow<number>("b", options);
  let isStuck = false;
  a.consume(() =>
    isStuck ? new Promise<void>(() => {}) : new Promise<void>((r) => world.clock.after(10, r)),
  );
  b.consume(() => {});
  const blocked: string[] = [];
  for (const flow of [a, b]) flow.on("blocked", () => blocked.push(flow.name));
  await world.clock.run(a.sendBatch(Array.from({ length: 40 }, (_, n) => n)));
  await world.clock.until(() => a.state().depth === 0);
  isStuck = true;
  const waiting = Array.from({ length: 100 }, (_, n) => a.send(n).catch(() => {}));
  let slowest = 0;
  for (let round = 0; round < 200; round++) {
    const atMs = world.clock.now();
    await world.clock.run(b.send(round));
    slowest = Math.max(slowest, world.clock.now() - atMs);
    await world.clock.advance(50);
  }
  expect(blocked).toEqual(["a"]);
  expect(slowest).toBeLessThanOrEqual(1);
  expect(a.state().stalledMs).toBeGreaterThan(5000);
  expect(a.state().producer.blocked).toBe(true);
  expect(b.state().stalledMs).toBeUndefined();
  await world.close();
  await Promise.all(waiting);
  await world.open();
});

test("pain 15: in a spike the producer settles at the drain rate within 5 s, and the backlog stays under its bound", async () => {
  await using world = await World.open("memory");
  const seconds = 4;
  const flow = world.spillway.flow<number>("orders", {
    partitions: 4,
    buffer: { messages: 1_000_000, seconds },
    classes: allClasses,
  });
  let running = 0;
  flow.consume(async () => {
    running++;
    await new Promise<void>((resolve) => world.clock.after(serviceMs(running), resolve));
    running--;
  });
  const inSecond: { accepted: number; acked: number }[] = [];
  const spike = { isOver: false };
  // 5,000/s at most, as many producers as wait: three times what the consumer can do.
  const produce = async (): Promise<void> => {
    while (!spike.isOver) {
      await flow.send(1).catch(() => {});
      await new Promise<void>((resolve) => world.clock.after(10, resolve));
    }
  };
  await world.clock.advance(100);
  const producers = Array.from({ length: 50 }, produce);
  let deepest = 0;
  let before = flow.state().counters;
  for (let second = 0; second < 12; second++) {
    await world.clock.advance(1000);
    const state = flow.state();
    if (second >= 5) deepest = Math.max(deepest, state.secondsOfWork ?? 0);
    const { accepted, acked } = state.counters;
    inSecond.push({ accepted: accepted - before.accepted, acked: acked - before.acked });
    before = state.counters;
  }
  spike.isOver = true;
  flow.change({ window: { fixed: 8 } });
  await world.clock.run(Promise.all(producers), 60_000);
  const last = inSecond.slice(6);
  const sum = (field: "accepted" | "acked"): number =>
    last.reduce((total, each) => total + each[field], 0);
  expect(sum("accepted") / sum("acked")).toBeGreaterThan(0.9);
  expect(sum("accepted") / sum("acked")).toBeLessThan(1.1);
  expect(sum("acked") / last.length).toBeGreaterThan(1000);
  expect(deepest).toBeLessThanOrEqual(seconds * 1.1);
}, 60_000);

test("pain 16: send waits for space and durability, not for the result; ready() for credit", async () => {
  await using world = await World.open("memory");
  const options = { partitions: 1, buffer: { messages: 3 }, classes: allClasses };
  const flow = world.spillway.flow<number>("orders", options);
  const results: (() => void)[] = [];
  flow.consume(() => new Promise<void>((resolve) => results.push(resolve)));
  const receipts: string[] = [];
  for (let n = 0; n < 3; n++) receipts.push((await world.clock.run(flow.send(n))).id);
  expect(receipts).toHaveLength(3);
  expect(flow.state().counters.acked).toBe(0);
  let isReady = false;
  const fourth = flow.send(3);
  await world.clock.advance(100);
  const ready = flow.ready().then(() => (isReady = true));
  await world.clock.advance(5000);
  expect(isReady).toBe(false);
  results.shift()!();
  await world.clock.run(Promise.all([fourth, ready]));
  expect(flow.state().counters).toMatchObject({ accepted: 4, acked: 1 });
});

test("pain 17: what is refused at the limit, and what depth counts, is exact for messages, bytes and seconds", async () => {
  await using world = await World.open("memory");
  const bounds = {
    messages: { buffer: { messages: 20 } },
    bytes: { buffer: { bytes: 20 * 1000 }, messageBytesMax: 1000 },
    seconds: { buffer: { seconds: 2 }, expectedRate: 10 },
  };
  for (const [name, options] of Object.entries(bounds)) {
    const flow = world.spillway.flow<Uint8Array>(name, {
      partitions: 1,
      payload: "bytes",
      classes: allClasses,
      ...options,
    });
    await world.clock.run(flow.opened());
    const outcomes: string[] = [];
    for (let n = 0; n < 60; n++) {
      const tried = flow.trySend(new Uint8Array(1000));
      const outcome =
        tried instanceof Promise ? tried.then(() => "ok") : Promise.resolve(tried.code);
      outcomes.push(await world.clock.run(outcome.catch((error: { code: string }) => error.code)));
      await world.clock.advance(20);
    }
    const accepted = outcomes.filter((outcome) => outcome === "ok").length;
    expect([name, accepted]).toEqual([name, 20]);
    expect(new Set(outcomes)).toEqual(new Set(["ok", "buffer_full"]));
    // Depth is what has not ended: stored, in flight or waiting for a retry; accepted is all there ever was.
    flow.consume(() => new Promise<void>(() => {}));
    await world.clock.advance(100);
    expect(flow.state()).toMatchObject({ depth: 20, bytes: 20_000, counters: { accepted: 20 } });
    expect(flow.state().inFlight).toBeGreaterThan(0);
  }
});

/** Pains of other queues' users with leases, order, fairness, events and breakers; each is a test here. */
import { expect, test } from "vitest";
import { serviceMs } from "../../src/cli/demo/knee.ts";
import type { PartitionWrite, WriteResult } from "../../src/engines/index.ts";
import { policyFields } from "../../src/flow/index.ts";
import { SpillwayError } from "../../src/spillway.ts";
import type { Flow, FlowEvents } from "../../src/spillway.ts";
import { failureOf, World } from "../support/world.ts";

test("pain 5: an event loop that is blocked past the lease costs one redelivery, the first ack is fenced, the cause is told", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<number>("orders", {
    partitions: 1,
    lease: "5s",
    retry: { attempts: 5, delay: ["10ms", "10ms"], budget: 1 },
  });
  const told: unknown[] = [];
  flow.on("leaseEnded", (event) => told.push(event));
  flow.on("retrying", ({ id, attempt, error }) => told.push({ id, attempt, error }));
  const attempts: number[] = [];
  const firstAck: unknown[] = [];
  flow.consume(async (_n, delivery) => {
    attempts.push(delivery.attempt);
    if (delivery.attempt > 1) return;
    world.clock.stall(30_000);
    await new Promise<void>((resolve) => world.clock.after(100, resolve));
    firstAck.push(await failureOf(delivery.ack()));
  });
  const { id } = await world.clock.run(flow.send(1));
  await world.clock.until(() => flow.state().counters.acked === 1 && firstAck.length === 1);
  await world.clock.advance(60_000);
  expect(attempts).toEqual([1, 2]);
  expect(firstAck).toMatchObject([{ code: "delivery_settled" }]);
  expect(told).toEqual([
    { id, attempt: 1 },
    { id, attempt: 1, error: "the lease of the delivery ended" },
  ]);
  expect(flow.state().counters).toMatchObject({ accepted: 1, acked: 1, dead: 0 });
});

test("pain 6: every change of a message's state is one event, no more and no less than the store was told", async () => {
  const stored: string[] = [];
  const note = (batch: readonly PartitionWrite[], results: readonly WriteResult[]): void => {
    const events = { ack: "acked", retry: "retrying", released: "released", dead: "dead" } as const;
    const others = { discard: "discarded", redrive: "redriven" } as const;
    const kinds: Readonly<Record<string, string>> = { ...events, ...others };
    for (const [at, { claim, changes }] of batch.entries()) {
      for (const { seq, kind } of changes) {
        if (kind !== "started") stored.push(`${kinds[kind]} ${claim.ref.partition}/${seq}`);
      }
      for (const { kind, seq } of results[at]!.appended) {
        if (kind === "stored") stored.push(`accepted ${claim.ref.partition}/${seq}`);
      }
    }
  };
  await using world = await World.open("memory", {
    around: (method, args, call) => {
      const result = call();
      if (method !== "write") return result;
      return (result as Promise<WriteResult[]>).then((results) => {
        note(args[0] as readonly PartitionWrite[], results);
        return results;
      });
    },
  });
  const flow = world.spillway.flow<number>("orders", {
    partitions: 3,
    lease: "1s",
    discard: ["expired"],
    retry: { attempts: 3, delay: ["10ms", "50ms"], budget: 1 },
  });
  const told: string[] = [];
  const names = [
    "accepted",
    "acked",
    "retrying",
    "released",
    "dead",
    "discarded",
    "redriven",
  ] as const;
  for (const name of names) {
    flow.on(name, ({ id }: FlowEvents[typeof name][0]) => {
      told.push(`${name} ${id.slice("orders/".length)}`);
    });
  }
  flow.consume(async (n, delivery) => {
    if (n % 7 === 1) throw new Error("always");
    if (n % 7 === 2 && delivery.attempt === 1) return delivery.nack();
    if (n % 7 === 3) return delivery.term("no");
    if (n % 7 === 4 && told.filter((each) => each.startsWith("released")).length < 9) {
      return delivery.release();
    }
    if (n % 7 === 5 && delivery.attempt === 1) {
      await new Promise<void>((resolve) => world.clock.after(3000, resolve));
    }
  });
  const values = Array.from({ length: 140 }, (_, n) => n);
  await world.clock.run(
    flow.sendBatch(values, (n) => ({
      key: `k${n % 20}`,
      ...(n % 10 === 0 ? { delay: "1s", deadline: "1s" } : {}),
    })),
  );
  await world.clock.until(() => flow.state().depth === 0, 600_000);
  await world.clock.run(flow.redrive({ max: 5 }));
  await world.clock.until(() => flow.state().depth === 0, 600_000);
  const [first] = await world.clock.run(Array.fromAsync(flow.deadLetters()));
  await world.clock.run(flow.purge([first!.id], "enough"));
  await world.clock.advance(1000);
  expect(told.toSorted()).toEqual(stored.toSorted());
  for (const name of names) {
    const count = told.filter((each) => each.startsWith(name)).length;
    expect([name, count > 0]).toEqual([name, true]);
  }
});

test("pain 7: a tenant with 100,000 queued does not keep another's one message waiting", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<string>("orders", { partitions: 1, window: { fixed: 1 } });
  const flood = Array.from({ length: 100_000 }, () => "a");
  await world.clock.run(flow.sendBatch(flood, (group) => ({ group })));
  const handlerMs = 100;
  const starts: string[] = [];
  flow.consume((group) => {
    starts.push(group);
    return new Promise<void>((resolve) => world.clock.after(handlerMs, resolve));
  });
  await world.clock.advance(1000);
  const before = starts.length;
  const atMs = world.clock.now();
  await world.clock.run(flow.send("b", { group: "b" }));
  await world.clock.until(() => starts.includes("b"));
  // Attempts that were made durable ahead of credit come first: a handful, whatever is queued.
  expect(starts.length - before).toBeLessThanOrEqual(7);
  expect(world.clock.now() - atMs).toBeLessThanOrEqual(7 * handlerMs);
}, 60_000);

test("pain 8: a key whose message used up its attempts goes on, and is shown as blocked until then", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<string>("orders", {
    partitions: 1,
    retry: { attempts: 3, delay: ["1s", "1s"], budget: 1 },
  });
  const seen: string[] = [];
  flow.consume((value, { attempt }) => {
    seen.push(`${value}:${attempt}`);
    if (value === "poison") throw new Error("poison");
  });
  const poison = await world.clock.run(flow.send("poison", { key: "k" }));
  const next = await world.clock.run(flow.send("next", { key: "k" }));
  await world.clock.advance(10);
  const seq = Number(poison.id.split("/")[2]);
  expect(await flow.why(next.id)).toMatchObject({ reason: "key", behindSeq: seq });
  await world.clock.until(() => flow.state().depth === 0);
  expect(seen).toEqual(["poison:1", "poison:2", "poison:3", "next:1"]);
  expect(flow.state().counters).toMatchObject({ dead: 1, acked: 1 });
});

test("pain 9: a message of a handler that hangs is back within its lease and a second", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<string>("orders", {
    partitions: 1,
    lease: "10s",
    retry: { attempts: 5, delay: ["100ms", "1s"], budget: 1 },
  });
  const atMs: number[] = [];
  flow.consume((_value, { attempt }) => {
    atMs.push(world.clock.now());
    return attempt === 1 ? new Promise<void>(() => {}) : undefined;
  });
  await world.clock.run(flow.send("x"));
  await world.clock.until(() => flow.state().depth === 0);
  expect(atMs[1]! - atMs[0]!).toBeGreaterThanOrEqual(10_000);
  expect(atMs[1]! - atMs[0]!).toBeLessThanOrEqual(11_000);
});

test("pain 9: a handler of six hours that says it is working runs once", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<string>("orders", { partitions: 1, lease: "30s" });
  let runs = 0;
  flow.consume(async (_value, delivery) => {
    runs++;
    for (let minute = 0; minute < 6 * 60; minute++) {
      delivery.working("2m");
      await new Promise<void>((resolve) => world.clock.after(60_000, resolve));
    }
  });
  await world.clock.run(flow.send("x"));
  await world.clock.until(() => flow.state().depth === 0, 7 * 3_600_000);
  expect(runs).toBe(1);
  expect(flow.state().counters).toMatchObject({ acked: 1, dead: 0 });
}, 60_000);

test("pain 13: a store that fails under overload: accepted is what is stored, and every other send hears it", async () => {
  let writes = 0;
  await using world = await World.open("memory", {
    around: (method, _args, call) => {
      if (method !== "write" || ++writes % 4 !== 0) return call();
      const fails = writes % 8 === 0 ? "store_full" : "outcome_unknown";
      if (writes % 12 !== 0) return Promise.reject(new SpillwayError(fails));
      // It happened, and its answer is lost.
      return (call() as Promise<unknown>).then(() => {
        throw new SpillwayError("outcome_unknown");
      });
    },
  });
  const flow = world.spillway.flow<number>("orders", { partitions: 2, buffer: { messages: 5000 } });
  const outcomes: string[] = [];
  const sends = Array.from({ length: 2000 }, async (_, n) => {
    await new Promise<void>((resolve) => world.clock.after(n * 2, resolve));
    // Without an idempotency key only the store's own memory of a write keeps it from being done twice.
    const key = n % 2 === 0 ? {} : { idempotencyKey: `${n}` };
    const outcome = flow.send(n, { ...key, timeout: "20s" });
    outcomes.push(
      await outcome.then(() => "accepted").catch((error: { code: string }) => error.code),
    );
  });
  await world.clock.run(Promise.all(sends), 600_000);
  const accepted = outcomes.filter((outcome) => outcome === "accepted").length;
  expect(outcomes).toHaveLength(2000);
  expect(new Set(outcomes)).toEqual(new Set(["accepted", "store_full"]));
  expect(flow.state().counters).toMatchObject({ accepted, pending: accepted });
  const audits = await Promise.all(
    [0, 1].map((partition) => world.engine.audit({ flow: "orders", partition })),
  );
  expect(audits.reduce((sum, { counted }) => sum + counted.pending, 0)).toBe(accepted);
});

test("pain 19: twenty-five consumers share one controller, which leaks no place however deliveries end", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<number>("orders", {
    partitions: 4,
    lease: "2s",
    window: { fixed: 20 },
    retry: { attempts: 50, delay: ["1ms", "5ms"], budget: 1 },
  });
  let count = 0;
  let most = 0;
  let running = 0;
  for (let consumer = 0; consumer < 25; consumer++) {
    flow.consume(async (_n, delivery) => {
      most = Math.max(most, ++running);
      const turn = ++count;
      await new Promise<void>((resolve) => world.clock.after(turn % 5, resolve));
      running--;
      if (turn % 11 === 0) throw new Error("throws");
      if (turn % 13 === 0) return delivery.nack({ fault: "message" });
      if (turn % 17 === 0) return delivery.release();
      if (turn % 19 === 0) return delivery.term("no");
      if (turn % 23 === 0) void delivery.ack().catch(() => {});
    });
  }
  const results = flow.sendBatch(Array.from({ length: 10_000 }, (_, n) => n));
  await world.clock.run(results, 600_000);
  await world.clock.until(() => flow.state().depth === 0, 3_600_000);
  expect(most).toBeLessThanOrEqual(20);
  expect(flow.state()).toMatchObject({ inFlight: 0, target: { inFlight: 0 } });
  // No place is lost: all twenty can be used at once.
  running = most = 0;
  count = 1_000_000;
  await world.clock.run(flow.sendBatch(Array.from({ length: 200 }, (_, n) => n)));
  await world.clock.until(() => flow.state().depth === 0, 600_000);
  expect(most).toBe(20);
}, 60_000);

test("pain 19: wrong units are refused at the start, by name", async () => {
  await using world = await World.open("memory");
  const wrong: readonly [string, object][] = [
    ["classes.bulk", { classes: { bulk: 50 } }],
    ["retry.budget", { retry: { budget: 10 } }],
    ["window.max", { window: { max: 0 } }],
    ["lease", { lease: "30 parsecs" }],
    ["buffer.bytes", { buffer: { bytes: "2 bananas" } }],
    ["window.fixed", { window: { fixed: 0.5 } }],
  ];
  for (const [path, options] of wrong) {
    let paths: string[] = [];
    try {
      world.spillway.flow("orders", options as never);
    } catch (error) {
      const { problems } = (error as SpillwayError).details as { problems: { path: string }[] };
      paths = problems.map((problem) => problem.path);
    }
    expect(paths).toContain(path);
  }
});

/** Messages per second that the knee consumer does of a backlog, once the window has been found. */
async function rateOf(window: { fixed?: number }): Promise<number> {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<number>("orders", { partitions: 4, window });
  let running = 0;
  flow.consume(async () => {
    running++;
    await new Promise<void>((resolve) => world.clock.after(serviceMs(running), resolve));
    running--;
  });
  const backlog = flow.sendBatch(Array.from({ length: 40_000 }, (_, n) => n));
  await world.clock.advance(15_000);
  const before = flow.state().counters.acked;
  await world.clock.advance(5000);
  const rate = (flow.state().counters.acked - before) / 5;
  flow.change({ window: { fixed: 10 } });
  await world.clock.run(backlog, 120_000);
  return rate;
}

test("pain 19: the window that it finds is within 10 % of the best fixed one, where a large one collapses", async () => {
  const found = await rateOf({});
  const fixed = [];
  for (const window of [8, 10, 12, 14]) fixed.push(await rateOf({ fixed: window }));
  expect(found).toBeGreaterThan(0.9 * Math.max(...fixed));
  expect(await rateOf({ fixed: 64 })).toBeLessThan(0.3 * found);
}, 120_000);

test("pain 20: a probe that never returns does not leave the breaker half open for ever", async () => {
  await using world = await World.open("memory");
  const flow: Flow<number> = world.spillway.flow<number>("orders", {
    partitions: 1,
    lease: "1h", // The breaker's own patience is what counts.
    order: "none",
    retry: { attempts: 100, delay: ["100ms", "1s"], budget: 1 },
  });
  let mode: "down" | "hangs" | "well" = "down";
  let hung = 0;
  flow.consume((_n, delivery) => {
    if (mode === "well") return undefined;
    if (mode === "down") return delivery.nack({ error: "refused", fault: "target" });
    hung++;
    return new Promise<void>(() => {});
  });
  const changes: string[] = [];
  flow.on("breaker", ({ from, to }) => changes.push(`${from}>${to}`));
  await world.clock.run(flow.sendBatch(Array.from({ length: 50 }, (_, n) => n)));
  await world.clock.until(() => flow.state().target.breaker.state === "open");
  mode = "hangs";
  await world.clock.until(() => hung > 0, 600_000);
  mode = "well";
  await world.clock.until(() => flow.state().counters.acked === 50 - hung, 600_000);
  expect(changes.slice(0, 3)).toEqual(["closed>open", "open>half_open", "half_open>open"]);
  await world.clock.until(() => flow.state().target.breaker.state === "closed");
  await world.clock.until(() => flow.state().depth === 0, 2 * 3_600_000);
  expect(flow.state().counters).toMatchObject({ acked: 50, dead: 0 });
});

test("pain 20: every limit of the contract can be changed while the flow runs", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<number>("orders", { partitions: 1 });
  const seen: number[] = [];
  flow.consume((n) => seen.push(n));
  const patches = [
    { buffer: { messages: 500, bytes: "1 MiB", seconds: 60 } },
    { classes: { normal: 0.9, bulk: 0.3 } },
    { retry: { attempts: 2, delay: ["1s", "2s"], budget: 0.5 } },
    { window: { min: 2, max: 20 } },
    { rate: { perSecond: 1000 } },
    { boundary: { rate: { perSecond: 500 }, groupRate: { perSecond: 100 } } },
    { lease: "1m" },
  ] as const;
  for (const [n, patch] of patches.entries()) {
    const contract = flow.change(patch);
    expect(flow.contract).toBe(contract);
    await world.clock.run(flow.send(n));
  }
  expect(flow.contract).toMatchObject({
    buffer: { messages: 500, bytes: 1_048_576, seconds: 60 },
    leaseMs: 60_000,
    rate: { perSecond: 1000 },
    boundary: { rate: { perSecond: 500 }, groupRate: { perSecond: 100 } },
  });
  await world.clock.until(() => seen.length === patches.length);
  flow.change({ boundary: { rate: { perSecond: 1, burst: 1 } } });
  const codes = new Set<string>();
  for (let n = 0; n < 20; n++) {
    const outcome = flow.send(n, { timeout: 10 });
    codes.add(
      await world.clock.run(
        outcome.then(() => "ok").catch((error: { code: string }) => error.code),
      ),
    );
  }
  expect(codes).toContain("ok");
  expect(codes.has("rate_limited") || codes.has("timed_out")).toBe(true);
  expect(policyFields.toSorted()).toEqual(
    [...new Set(patches.flatMap((patch) => Object.keys(patch)))].toSorted(),
  );
});

/** The boundary of a flow as its producers meet it: one group's flood is not the others' problem. */
import { expect, test } from "vitest";
import { memory } from "../../src/engines/memory/index.ts";
import type { Flow, FlowOptions } from "../../src/spillway.ts";
import { World } from "../support/world.ts";

const seconds = 30;
/** Two at a time, 20 ms each: 100 per second. The steady group sends a fifth of that. */
const steadyEveryMs = 50;
const options = {
  partitions: 2,
  order: "none",
  buffer: { messages: 2000 },
  window: { fixed: 2 },
} as const satisfies FlowOptions;

type How = "send" | "trySend";

interface Outcome {
  offered: number;
  accepted: number;
  /** Of what was accepted: how long its `send` took. */
  waitMaxMs: number;
  handled: number;
  readonly codes: Map<string, number>;
}

function outcome(): Outcome {
  return { offered: 0, accepted: 0, waitMaxMs: 0, handled: 0, codes: new Map() };
}

function offer(
  world: World,
  flow: Flow<string>,
  how: How,
  who: string,
  more: { readonly group?: string; readonly class?: "normal" | "bulk" },
  into: Outcome,
): void {
  const atMs = world.clock.now();
  into.offered++;
  const refuse = (code: string): void => void into.codes.set(code, (into.codes.get(code) ?? 0) + 1);
  const tried = how === "send" ? flow.send(who, more) : flow.trySend(who, more);
  if (!(tried instanceof Promise)) return refuse(tried.code);
  tried.then(
    () => {
      into.accepted++;
      into.waitMaxMs = Math.max(into.waitMaxMs, world.clock.now() - atMs);
    },
    (error: { readonly code: string }) => refuse(error.code),
  );
}

interface Load {
  readonly how: How;
  readonly flood: "a" | "ungrouped" | "none";
  readonly class?: "normal" | "bulk";
  readonly more?: FlowOptions;
}

/** A flood of 50 times what the consumer can do, beside a group that sends a fifth of it. */
async function run({ how, flood, class: lane = "normal", more }: Load) {
  await using world = await World.open("memory");
  const { clock } = world;
  const flow = world.spillway.flow<string>("orders", { ...options, ...more });
  const outcomes = { flood: outcome(), steady: outcome() };
  flow.consume(async (who) => {
    await new Promise<void>((resolve) => clock.after(20, resolve));
    outcomes[who as keyof typeof outcomes].handled++;
  });
  await clock.run(flow.opened());
  const untilMs = clock.now() + seconds * 1000;
  const every = (gapMs: number, call: () => void): void => {
    if (clock.now() >= untilMs) return;
    call();
    clock.after(gapMs, () => every(gapMs, call));
  };
  if (flood !== "none") {
    const group = flood === "ungrouped" ? {} : { group: flood };
    every(10, () => {
      for (let k = 0; k < 50; k++) {
        offer(world, flow, how, "flood", { ...group, class: lane }, outcomes.flood);
      }
    });
  }
  every(steadyEveryMs, () =>
    offer(world, flow, how, "steady", { group: "b", class: lane }, outcomes.steady),
  );
  let peak = 0;
  await clock.until(() => {
    peak = Math.max(peak, flow.state().pressure);
    return clock.now() >= untilMs;
  }, 2000 * seconds);
  return { ...outcomes, peak, state: flow.state() };
}

test.each<Load>([
  { how: "send", flood: "a" },
  { how: "trySend", flood: "a" },
  { how: "send", flood: "ungrouped" },
  { how: "trySend", flood: "ungrouped" },
  { how: "send", flood: "a", class: "bulk" },
  { how: "trySend", flood: "a", class: "bulk" },
  { how: "trySend", flood: "a", more: { boundary: { learn: "off" } } },
  // The flow's own rate is what is short, not the consumer.
  { how: "trySend", flood: "a", more: { boundary: { rate: { perSecond: 80 } } } },
  { how: "send", flood: "a", more: { boundary: { rate: { perSecond: 80 } } } },
])("G7 a flood of one group costs another one less than 5 % of its rate: %o", async (load) => {
  const alone = await run({ ...load, flood: "none" });
  expect(alone.steady.accepted).toBe((seconds * 1000) / steadyEveryMs);
  const { flood, steady, peak, state } = await run(load);
  expect(steady.accepted).toBeGreaterThan(0.95 * alone.steady.accepted);
  expect(steady.handled).toBeGreaterThan(0.95 * alone.steady.handled);
  expect(steady.waitMaxMs, "its wait stays what it was, to a tick or two").toBeLessThan(250);
  // The rest is the flood's own, and no more was let in than can be worked off.
  const capacity = load.more?.boundary?.rate?.perSecond ?? 100;
  expect(flood.handled + steady.handled).toBeGreaterThan(0.9 * capacity * seconds);
  expect(peak).toBeLessThan(0.35);
  expect(flood.codes.get("group_limited")).toBeGreaterThan(100_000);
  const { boundary } = state;
  expect(boundary.groups).toBe(2);
  expect(boundary.refused.share).toBeGreaterThan(0);
  expect(boundary.held.map(({ group }) => group)).toEqual([load.flood === "a" ? "a" : ""]);
});

test("G12 a group that waits for its turn is slowed down, not refused, and uses what the others leave", async () => {
  await using world = await World.open("memory");
  const { clock } = world;
  const flow = world.spillway.flow<string>("orders", options);
  let handled = 0;
  flow.consume(async () => {
    await new Promise<void>((resolve) => clock.after(20, resolve));
    handled++;
  });
  await clock.run(flow.opened());
  const untilMs = clock.now() + seconds * 1000;
  const failures: unknown[] = [];
  const loop = async (group: string, pauseMs: number): Promise<void> => {
    while (clock.now() < untilMs) {
      await flow.send(group, { group }).catch((error: unknown) => failures.push(error));
      if (pauseMs > 0) await new Promise<void>((resolve) => clock.after(pauseMs, resolve));
    }
  };
  const loops = [
    ...Array.from({ length: 300 }, () => loop("import", 1)),
    loop("shop", steadyEveryMs),
  ];
  await clock.run(Promise.all(loops));
  expect(failures).toEqual([]);
  expect(handled).toBeGreaterThan(0.95 * 100 * seconds);
  expect(flow.state().pressure).toBeLessThan(0.35);
});

test("a flood that is alone uses the whole buffer: there is nobody to protect", async () => {
  await using world = await World.open("memory");
  const flow = world.spillway.flow<number>("orders", options);
  await world.clock.run(flow.opened());
  const sends = Array.from({ length: 1600 }, (_, n) => flow.send(n, { group: "a" }));
  await world.clock.run(Promise.all(sends));
  expect(flow.state()).toMatchObject({ depth: 1600, boundary: { level: "normal_stopped" } });
  expect(flow.state().boundary.held).toEqual([]);
});

test("what was learnt outlives a restart, at the cost of five minutes after a crash", async () => {
  const kept: string[] = [];
  const engine = memory();
  const set = engine.meta.set.bind(engine.meta);
  engine.meta.set = (key, value, revision) => {
    if (key.startsWith("learnt/")) kept.push(key);
    return set(key, value, revision);
  };
  await using world = await World.open("memory", { engine });
  const { clock } = world;
  const learning = { ...options, boundary: { learn: "day" as const } };
  let flow = world.spillway.flow<string>("orders", learning);
  flow.consume(() => {});
  await clock.run(flow.opened());
  const sinceMs = clock.now();
  for (let minute = 0; minute < 180; minute++) {
    await clock.run(flow.send("x", { group: `tenant ${minute % 3}` }));
    await clock.advance(60_000);
  }
  expect(kept.length, "every five minutes").toBeGreaterThanOrEqual(30);
  const before = flow.state().boundary;
  expect(before).toMatchObject({ learn: "day", learntSinceMs: sinceMs, slotMs: 300_000 });
  expect(before.learntSlots).toBeGreaterThanOrEqual(34);
  expect(before.forecast[0]!.spanMs).toBe(300_000);
  expect(before.forecast[0]!.expected).toBeCloseTo(5, 0);
  await world.reopen();
  flow = world.spillway.flow<string>("orders", learning);
  await clock.run(flow.opened());
  const { learntSlots, learntSinceMs, forecast } = flow.state().boundary;
  expect({ learntSlots, learntSinceMs }).toEqual({
    learntSlots: before.learntSlots,
    learntSinceMs: sinceMs,
  });
  expect(forecast[0]!.expected).toBeCloseTo(before.forecast[0]!.expected, 1);
}, 30_000);

test("the state names the ten groups that are refused most, and no more", async () => {
  await using world = await World.open("memory");
  const { clock } = world;
  const flow = world.spillway.flow<string>("orders", options);
  flow.consume(() => new Promise<void>((resolve) => clock.after(20, () => resolve())));
  await clock.run(flow.opened());
  for (let step = 0; step < 300; step++) {
    for (let group = 0; group < 40; group++) {
      const tried = flow.trySend("x", { group: `tenant ${group}` });
      if (tried instanceof Promise) tried.catch(() => {}); // Refused at the queue.
    }
    await clock.advance(10);
  }
  const { held, groups, level } = flow.state().boundary;
  expect({ level, groups, held: held.length }).toEqual({
    level: "groups_held",
    groups: 40,
    held: 10,
  });
  expect(held[0]).toMatchObject({ by: "share" });
  expect(held[0]!.toPerS).toBeGreaterThan(0);
});

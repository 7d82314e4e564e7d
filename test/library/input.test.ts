/** G12: whatever is given to the library, it answers with a documented code, and goes on. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { catalogue } from "../../src/base/index.ts";
import { SpillwayError } from "../../src/spillway.ts";
import type { Flow } from "../../src/spillway.ts";
import { World } from "../support/world.ts";

const junk = fc.oneof(
  fc.anything({ withBigInt: true, withDate: true, withMap: true, withTypedArray: true }),
  fc.constantFrom("", "-1s", "1 parsec", "NaN", -1, 0, 0.5, 1e308, Infinity, NaN, null, undefined),
  fc.string({ maxLength: 3000 }),
  fc.constant(() => 1),
);

const textless: readonly object[] = [
  Object.create(null),
  { toString: () => Symbol("no text") },
  Object.assign(new Error(), { message: Object.create(null) as unknown }),
];

/** Some of the fields, some of them junk, some of others' names. */
function junkOf(...fields: readonly string[]): fc.Arbitrary<object> {
  const shape = Object.fromEntries([...fields, "unknown"].map((field) => [field, junk]));
  return fc.record(shape, { requiredKeys: [] });
}

const messageOptions = junkOf(
  "key",
  "group",
  "class",
  "idempotencyKey",
  "delay",
  "deadline",
  "cost",
  "headers",
  "signal",
);
const flowOptions = junkOf(
  "partitions",
  "buffer",
  "order",
  "dedup",
  "classes",
  "deadline",
  "discard",
  "retry",
  "lease",
  "window",
  "rate",
  "boundary",
  "groups",
  "messageBytesMax",
  "credit",
  "readAhead",
  "target",
  "budget",
  "payload",
);

/** Runs it to its end, or for a while; what is thrown must have a code of the catalogue. */
async function answered(world: World, call: () => unknown): Promise<void> {
  try {
    const result = call();
    if (!(result instanceof Promise)) return;
    result.catch(() => {});
    await world.clock.run(result, 10_000).catch((error: unknown) => {
      if (!String(error).includes("virtual time")) throw error;
    });
  } catch (error) {
    if (error instanceof SpillwayError && error.code in catalogue) return;
    throw new Error(`not a refusal: ${String(error)}`, { cause: error });
  }
}

/** Fails on anything that would have ended the process. */
async function survives(run: () => Promise<void>): Promise<void> {
  const fatal: unknown[] = [];
  const note = (error: unknown): void => void fatal.push(error);
  process.on("uncaughtException", note).on("unhandledRejection", note);
  try {
    await run();
  } finally {
    process.off("uncaughtException", note).off("unhandledRejection", note);
  }
  expect(fatal).toEqual([]);
}

async function works(world: World, flow: Flow): Promise<void> {
  const before = flow.state().counters.acked;
  const consumer = flow.consume(() => {});
  await world.clock.run(flow.send("still there"));
  await world.clock.until(() => flow.state().counters.acked > before, 600_000);
  consumer.stop();
}

test("G12 junk as a message or its options", async () => {
  await survives(async () => {
    await using world = await World.open("memory");
    const flow = world.spillway.flow("orders", { partitions: 2 });
    await fc.assert(
      fc.asyncProperty(junk, messageOptions, async (value, options) => {
        await answered(world, () => flow.send(value, options));
        await answered(world, () => flow.trySend(value, options));
        await answered(world, () => flow.sendBatch([value, "good"], () => options));
      }),
      { numRuns: 150, examples: [["", { deadline: [] as never }]] },
    );
    for (const partition of flow.state().partitions) expect(partition.state).toBe("open");
    await works(world, flow);
  });
}, 60_000);

test("G12 junk as the contract of a flow, or as its change", async () => {
  await survives(async () => {
    await using world = await World.open("memory");
    const flow = world.spillway.flow("orders", { partitions: 1 });
    let flows = 0;
    await fc.assert(
      fc.asyncProperty(junk, flowOptions, async (name, options) => {
        const names = flows++ % 2 === 0 ? `flow-${flows}` : (name as string);
        await answered(world, () => world.spillway.flow(names, options as never).opened());
        await answered(world, () => flow.change(options));
        await answered(world, () => world.spillway.flow(names, name as never).opened());
      }),
      { numRuns: 100 },
    );
    await works(world, flow);
  });
}, 60_000);

test("G12 junk in the hands of an operator", async () => {
  await survives(async () => {
    await using world = await World.open("memory");
    const flow: Flow = world.spillway.flow("orders", { partitions: 2, retry: { attempts: 1 } });
    await world.clock.run(flow.opened());
    await fc.assert(
      fc.asyncProperty(junk, junk, async (a, b) => {
        await answered(world, () => flow.pause(a as never));
        await answered(world, () => flow.resume(a as never));
        await answered(world, () => flow.why(a as never));
        await answered(world, () => flow.redrive(a as never));
        await answered(world, () => flow.redrive({ ids: a as never, max: b as never }));
        await answered(world, () => flow.redrive({ ids: [a as never] }));
        await answered(world, () => flow.purge(a as never, b as never));
        await answered(world, () => flow.purge(["orders/0/1", "orders/7/1"], b as never));
        await answered(world, () => flow.drain({ pollMs: 1, signal: AbortSignal.abort() }));
        await answered(world, () => flow.openIntake());
        await answered(world, () => flow.resume());
      }),
      { numRuns: 100 },
    );
    for (const partition of [0, 1]) await world.clock.run(flow.resume(partition));
    for (const partition of flow.state().partitions) expect(partition.state).toBe("open");
    await works(world, flow);
  });
}, 60_000);

test("G12 junk as verbs of a delivery, and as what a handler returns or throws", async () => {
  await survives(async () => {
    await using world = await World.open("memory");
    const flow: Flow = world.spillway.flow("orders", {
      partitions: 1,
      order: "none",
      retry: { attempts: 3, delay: ["1ms", "2ms"], budget: 1 },
    });
    await fc.assert(
      fc.asyncProperty(junk, fc.nat({ max: 7 }), async (value, verb) => {
        let runs = 0;
        const consumer = flow.consume(async (_message, delivery) => {
          if (delivery.attempt > 1 || ++runs > 2) return undefined; // A release comes back at once.
          if (verb === 0) await answered(world, () => delivery.working(value as never));
          if (verb === 1) return delivery.nack({ delay: value as never });
          if (verb === 2) return delivery.nack({ error: value as never, fault: value as never });
          if (verb === 3) return delivery.release({ delay: value as never });
          if (verb === 4) return delivery.term(value as never);
          if (verb === 5) throw value;
          if (verb === 6) return delivery.nack(value as never);
          return value;
        });
        await world.clock.run(flow.send("x"));
        await world.clock.advance(100);
        consumer.stop();
      }),
      {
        numRuns: 150,
        examples: textless.flatMap((value) => [4, 5, 7].map((n): [unknown, number] => [value, n])),
      },
    );
    for (const partition of flow.state().partitions) expect(partition.state).toBe("open");
    await works(world, flow);
    await world.clock.advance(60_000);
    const { accepted, acked, dead, discarded, pending } = flow.state().counters;
    expect(accepted).toBe(acked + dead + discarded + pending);
  });
}, 60_000);

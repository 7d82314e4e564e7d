/** Opening, closing, reopening: nothing accepted is lost on the way. */
import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { memory } from "../../src/engines/memory/index.ts";
import { openSpillway } from "../../src/spillway.ts";
import { TempDir } from "../support/temp-dir.ts";
import { engineNames, failureOf, gate, World } from "../support/world.ts";

describe.each(engineNames)("life cycle over %s", (engine) => {
  test("close waits for handlers that end in time, and their acks count", async () => {
    await using world = await World.open(engine, { drainMaxMs: 5000 });
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    flow.consume(() => new Promise<void>((resolve) => world.clock.after(2000, resolve)));
    await world.clock.run(flow.sendBatch([1, 2, 3]));
    await world.clock.until(() => flow.state().inFlight === 3);
    const atMs = world.clock.now();
    await world.reopen();
    expect(world.clock.now() - atMs).toBeLessThan(5000);
    const again = world.spillway.flow<number>("orders", { partitions: 1 });
    await world.clock.run(again.opened());
    expect(again.state().counters).toMatchObject({ acked: 3, pending: 0 });
  });

  test("close releases what does not end in time: untried, handed out again by the next life", async () => {
    await using world = await World.open(engine, { drainMaxMs: 1000 });
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    const aborted: number[] = [];
    flow.consume((n, { signal }) => {
      signal.addEventListener("abort", () => aborted.push(n));
      return new Promise<void>(() => {});
    });
    await world.clock.run(flow.sendBatch([1, 2, 3, 4, 5, 6, 7, 8, 9]));
    await world.clock.until(() => flow.state().inFlight > 0);
    const inFlight = flow.state().inFlight;
    await world.reopen();
    expect(aborted).toHaveLength(inFlight);
    const again = world.spillway.flow<number>("orders", { partitions: 1 });
    const attempts: number[] = [];
    again.consume((_n, { attempt }) => attempts.push(attempt));
    await world.clock.until(() => again.state().counters.acked === 9);
    expect(attempts).toEqual(Array.from({ length: 9 }, () => 1));
  });

  test("close answers every send: accepted or closed, and the store agrees", async () => {
    await using world = await World.open(engine);
    const classes = { critical: 1, normal: 1, bulk: 1 };
    const options = { partitions: 2, buffer: { messages: 50 }, classes };
    const flow = world.spillway.flow<number>("orders", options);
    const sends = Array.from({ length: 100 }, (_, n) =>
      flow.send(n).then(
        () => "accepted",
        (error: { code: string }) => error.code,
      ),
    );
    await world.clock.settle();
    await world.close();
    const outcomes = await world.clock.run(Promise.all(sends));
    expect(new Set(outcomes)).toEqual(new Set(["accepted", "closed"]));
    await world.open();
    const again = world.spillway.flow<number>("orders", options);
    await world.clock.run(again.opened());
    const accepted = outcomes.filter((outcome) => outcome === "accepted").length;
    expect(again.state().counters.accepted).toBe(accepted);
  });

  test("a closed instance refuses everything with its code, and closing twice is closing once", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    await world.clock.run(flow.opened());
    await world.clock.run(Promise.all([world.spillway.close(), world.spillway.close()]));
    expect(await failureOf(flow.send(1))).toMatchObject({ code: "closed" });
    expect(flow.trySend(1)).toMatchObject({ accepted: false, code: "closed" });
    expect(() => world.spillway.flow("orders")).toThrow(
      expect.objectContaining({ code: "closed" }),
    );
    await flow.ready();
  });

  test("a reopened store goes on where it was: ids, attempts, repeats, dead letters", async () => {
    await using world = await World.open(engine);
    const options = {
      partitions: 1,
      retry: { attempts: 2, delay: ["1m", "2m"], budget: 1 },
    } as const;
    let flow = world.spillway.flow<number>("orders", options);
    const consumer = flow.consume(() => {
      throw new Error("no");
    });
    const { id } = await world.clock.run(flow.send(1, { idempotencyKey: "a" }));
    await world.clock.until(() => flow.state().partitions[0]!.known === 1);
    await world.clock.advance(1000);
    consumer.stop();
    await world.reopen();
    expect(world.spillway.flowNames).toEqual(["orders"]);
    flow = world.spillway.flow<number>("orders", options);
    expect(await world.clock.run(flow.send(1, { idempotencyKey: "a" }))).toMatchObject({
      id,
      duplicate: true,
    });
    expect(await world.clock.run(flow.send(2))).toMatchObject({ id: "orders/0/2" });
    const attempts: string[] = [];
    flow.consume((n, { attempt }) => {
      attempts.push(`${n}:${attempt}`);
      throw new Error("no");
    });
    await world.clock.until(() => flow.state().counters.dead === 2, 600_000);
    expect(attempts.toSorted()).toEqual(["1:2", "2:1", "2:2"]);
  });

  test("another number of partitions is refused, for a key would change its place", async () => {
    await using world = await World.open(engine);
    await world.clock.run(world.spillway.flow("orders", { partitions: 2 }).opened());
    await world.reopen();
    expect(() => world.spillway.flow("orders", { partitions: 4 })).toThrow(
      expect.objectContaining({ code: "contract_invalid" }),
    );
    await world.clock.run(world.spillway.flow("orders", { partitions: 2 }).opened());
  });

  test("the same name is the same flow", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", { partitions: 2 });
    expect(world.spillway.flow("orders")).toBe(flow);
  });

  test("a contract that is not valid is refused with every problem, and leaves nothing behind", async () => {
    await using world = await World.open(engine);
    const bad = { partitions: 0, leese: "1s", retry: { attempts: -1 } } as never;
    let error: unknown;
    try {
      world.spillway.flow("orders", bad);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: "contract_invalid" });
    const { problems } = (error as { details: { problems: { path: string }[] } }).details;
    expect(problems.map(({ path }) => path).toSorted()).toEqual([
      "leese",
      "partitions",
      "retry.attempts",
    ]);
    expect(world.spillway.flowNames).toEqual([]);
  });

  test("close while handlers are held ends at its time limit", async () => {
    await using world = await World.open(engine, { drainMaxMs: 700 });
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    const held = gate();
    flow.consume(() => held.promise);
    await world.clock.run(flow.send(1));
    await world.clock.until(() => flow.state().inFlight === 1);
    const atMs = world.clock.now();
    await world.close();
    expect(world.clock.now() - atMs).toBeLessThanOrEqual(1000);
    held.open();
  });
});

describe("directories", () => {
  test("a directory has one process: a second one, here or elsewhere, is refused", async () => {
    using dir = new TempDir();
    await using spillway = await openSpillway({ dir: dir.path });
    await spillway.flow("orders", { partitions: 1 }).opened();
    expect(await failureOf(openSpillway({ dir: dir.path }))).toMatchObject({
      code: "store_locked",
    });
    const script = `
      import { openSpillway } from ${JSON.stringify(import.meta.resolve("../../src/spillway.ts"))};
      await openSpillway({ dir: ${JSON.stringify(dir.path)} }).then(
        () => console.log("opened"), (error) => console.log(error.code));`;
    const args = ["--conditions=source", "--input-type=module", "--eval", script];
    const { stdout } = spawnSync(process.execPath, args, {
      encoding: "utf8",
      timeout: 15_000,
    });
    expect(stdout.trim()).toBe("store_locked");
  });

  test("two instances on two directories in one process do not meet", async () => {
    using dirA = new TempDir();
    using dirB = new TempDir();
    await using a = await openSpillway({ dir: dirA.path });
    await using b = await openSpillway({ dir: dirB.path });
    const flows = [a, b].map((each) => each.flow<string>("orders", { partitions: 1 }));
    const ids = await Promise.all(flows.map((flow, at) => flow.send(`m${at}`)));
    expect(ids.map(({ id }) => id)).toEqual(["orders/0/1", "orders/0/1"]);
    const seen = await Promise.all(
      flows.map(async (flow) => {
        const delivery = (await flow.deliveries().next()).value!;
        await delivery.ack();
        return delivery.value;
      }),
    );
    expect(seen).toEqual(["m0", "m1"]);
  });

  test("either a directory or an engine", async () => {
    for (const options of [{}, { dir: "x", engine: memory() }]) {
      expect(await failureOf(openSpillway(options))).toMatchObject({ code: "option_invalid" });
    }
  });
});

/** Deadlines: what cannot be done in time is refused early or ends as the contract says. */
import { describe, expect, test } from "vitest";
import { engineNames, failureOf, World } from "../support/world.ts";

describe.each(engineNames)("deadlines over %s", (engine) => {
  test("an expired message is a dead letter by default, and its handler never sees it", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    await world.clock.run(flow.send(1, { deadline: "10s" }));
    await world.clock.run(flow.send(2));
    await world.clock.advance(11_000);
    const seen: number[] = [];
    flow.consume((n) => seen.push(n));
    await world.clock.until(() => flow.state().depth === 0);
    expect(seen).toEqual([2]);
    expect(flow.state().counters).toMatchObject({ acked: 1, dead: 1, discarded: 0 });
    const [letter] = await world.clock.run(Array.fromAsync(flow.deadLetters()));
    expect(letter).toMatchObject({ reason: "expired" });
  });

  test("where the contract declares it an expired message is discarded, counted and told", async () => {
    await using world = await World.open(engine);
    const options = { partitions: 1, discard: ["expired"], deadline: "10s" } as const;
    const flow = world.spillway.flow<number>("orders", options);
    const told: unknown[] = [];
    flow.on("discarded", (event) => told.push(event));
    const { id } = await world.clock.run(flow.send(1));
    await world.clock.advance(11_000);
    flow.consume(() => {});
    await world.clock.until(() => flow.state().counters.discarded === 1);
    expect(told).toEqual([{ id, reason: "expired" }]);
    expect(await world.clock.run(flow.why(id))).toMatchObject({ reason: "discarded" });
    expect(flow.state().counters).toMatchObject({ accepted: 1, dead: 0, pending: 0 });
  });

  test("an expired head lets the next of its key pass", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    await world.clock.run(flow.send(1, { key: "k", deadline: "1s" }));
    await world.clock.run(flow.send(2, { key: "k" }));
    await world.clock.advance(2000);
    const seen: number[] = [];
    flow.consume((n) => seen.push(n));
    await world.clock.until(() => flow.state().depth === 0);
    expect(seen).toEqual([2]);
  });

  test("G12 a message that could not be done in time is refused at once, with a time to come back", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1, window: { fixed: 1 } });
    flow.consume(() => new Promise<void>((resolve) => world.clock.after(100, resolve)));
    await world.clock.run(flow.sendBatch(Array.from({ length: 200 }, (_, n) => n)));
    await world.clock.advance(10_000);
    expect(flow.state().secondsOfWork).toBeGreaterThan(5);
    const refused = await failureOf(world.clock.run(flow.send(1, { deadline: "2s" })));
    expect(refused).toMatchObject({ code: "deadline_infeasible", retry: "later" });
    expect((refused as { retryAfterMs: number }).retryAfterMs).toBeGreaterThan(0);
    const { id } = await world.clock.run(flow.send(1, { deadline: "1m" }));
    await world.clock.until(() => flow.state().depth === 0);
    expect(await world.clock.run(flow.why(id))).toMatchObject({ reason: "acked" });
  });

  test("a deadline before the delay is refused: it lies in the past when the message is due", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    const refused = flow.send(1, { delay: "1h", deadline: "1m" });
    const { code } = (await failureOf(world.clock.run(refused))) as { code: string };
    expect(["deadline_passed", "deadline_infeasible"]).toContain(code);
    expect(flow.state().counters.accepted).toBe(0);
  });

  test("a deadline runs while its message waits for credit", async () => {
    await using world = await World.open(engine);
    const classes = { critical: 1, normal: 1, bulk: 1 };
    const options = { partitions: 1, buffer: { messages: 2 }, classes };
    const flow = world.spillway.flow<number>("orders", options);
    await world.clock.run(flow.send(1));
    await world.clock.run(flow.send(2));
    const waiting = failureOf(flow.send(3, { deadline: "5s" }));
    await world.clock.advance(6000);
    flow.consume(() => {});
    const { code } = (await world.clock.run(waiting)) as { code: string };
    expect(["deadline_passed", "deadline_infeasible"]).toContain(code);
  });

  test("a delayed message is handled at its time, over a restart too", async () => {
    await using world = await World.open(engine);
    const options = { partitions: 1 };
    const atMs = world.clock.now();
    const first = world.spillway.flow<number>("orders", options);
    await world.clock.run(first.send(1, { delay: "1h" }));
    await world.clock.advance(60_000);
    await world.reopen();
    const flow = world.spillway.flow<number>("orders", options);
    const seen: number[] = [];
    flow.consume(() => seen.push(world.clock.now() - atMs));
    await world.clock.advance(58 * 60_000);
    expect(seen).toEqual([]);
    await world.clock.until(() => seen.length === 1, 3_600_000);
    expect(seen[0]).toBeGreaterThanOrEqual(3_600_000);
    expect(seen[0]).toBeLessThan(3_600_100);
  });
});

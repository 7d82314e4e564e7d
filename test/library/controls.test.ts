/** What operators do: pause, close the intake, drain, redrive, purge, change limits. */
import { describe, expect, test } from "vitest";
import type { DeadLetter, Flow } from "../../src/spillway.ts";
import { engineNames, failureOf, World } from "../support/world.ts";

describe.each(engineNames)("controls over %s", (engine) => {
  test("G7 a paused partition holds its messages, the others go on", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 3, order: "key" });
    await world.clock.run(flow.pause(1));
    const values = Array.from({ length: 60 }, (_, n) => n);
    const results = await world.clock.run(flow.sendBatch(values, (n) => ({ key: `k${n}` })));
    const held = results.filter((result) => "id" in result && result.id.startsWith("orders/1/"));
    expect(held.length).toBeGreaterThan(5);
    flow.consume(() => {});
    await world.clock.until(() => flow.state().counters.acked === 60 - held.length);
    await world.clock.advance(10_000);
    expect(flow.state().depth).toBe(held.length);
    expect(flow.state().partitions[1]).toMatchObject({ state: "paused", depth: held.length });
    const { id } = held[0] as { id: string };
    expect(await world.clock.run(flow.why(id))).toMatchObject({ reason: "paused" });
    await world.clock.run(flow.resume(1));
    await world.clock.until(() => flow.state().depth === 0);
  });

  test("a paused flow takes messages in, hands none out, and stays paused over a restart", async () => {
    await using world = await World.open(engine);
    const options = { partitions: 2 };
    let flow = world.spillway.flow<number>("orders", options);
    const seen: number[] = [];
    flow.consume((n) => seen.push(n));
    await world.clock.run(flow.pause());
    await world.clock.run(flow.sendBatch([1, 2, 3]));
    await world.clock.advance(5000);
    expect(seen).toEqual([]);
    expect(flow.state()).toMatchObject({ isPaused: true, depth: 3 });
    await world.reopen();
    flow = world.spillway.flow<number>("orders", options);
    flow.consume((n) => seen.push(n));
    await world.clock.run(flow.opened());
    await world.clock.advance(5000);
    expect(seen).toEqual([]);
    await world.clock.run(flow.resume());
    await world.clock.until(() => seen.length === 3);
  });

  test("closeIntake refuses with its code, drain ends when nothing is pending, openIntake goes on", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 2 });
    await world.clock.run(flow.sendBatch([1, 2, 3]));
    let isDrained = false;
    const drained = flow.drain().then(() => (isDrained = true));
    await world.clock.advance(1000);
    expect(isDrained).toBe(false);
    expect(await failureOf(world.clock.run(flow.send(4)))).toMatchObject({
      code: "intake_closed",
      retry: "later",
    });
    // With credit still in hand the refusal comes with the answer, without it at once.
    const tried = Promise.resolve(flow.trySend(5)).catch((error: unknown) => error);
    expect(await world.clock.run(tried)).toMatchObject({ code: "intake_closed" });
    expect(flow.state()).toMatchObject({ isIntakeClosed: true, depth: 3 });
    flow.consume(() => {});
    await world.clock.run(drained);
    expect(flow.state().counters).toMatchObject({ accepted: 3, acked: 3 });
    await world.clock.run(flow.openIntake());
    expect(await world.clock.run(flow.send(6))).toMatchObject({ duplicate: false });
  });

  test("drain can be given up", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    await world.clock.run(flow.send(1));
    const abort = new AbortController();
    const drained = failureOf(flow.drain({ signal: abort.signal }));
    await world.clock.advance(100);
    abort.abort();
    expect(await world.clock.run(drained)).toMatchObject({ code: "aborted" });
  });

  test("G2 dead letters are listed, redriven with fresh attempts under their ids, and purged with a reason", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 2, retry: { attempts: 1 } });
    const letters = (): Promise<DeadLetter[]> =>
      world.clock.run(Array.fromAsync(flow.deadLetters()));
    let isBroken = true;
    const seen: { n: number; attempt: number; id: string }[] = [];
    flow.consume((n, { attempt, id }) => {
      if (isBroken) throw new Error("broken");
      seen.push({ n, attempt, id });
    });
    await world.clock.run(
      flow.sendBatch([1, 2, 3, 4, 5, 6], (n) => ({ key: `k${n}`, group: "g" })),
    );
    await world.clock.until(() => flow.state().counters.dead === 6);
    const dead = await letters();
    expect(dead).toHaveLength(6);
    expect(dead[0]).toMatchObject({ attempts: 1, group: "g" });
    expect(dead[0]!.reason).toContain("broken");
    isBroken = false;
    const ids = dead.slice(0, 2).map(({ id }) => id);
    expect(await world.clock.run(flow.redrive({ ids }))).toBe(2);
    await world.clock.until(() => flow.state().counters.acked === 2);
    expect(seen.map(({ id, attempt }) => ({ id, attempt }))).toEqual(
      ids.map((id) => ({ id, attempt: 1 })),
    );
    await world.clock.run(flow.purge([dead[2]!.id], "a test order"));
    await world.clock.until(() => flow.state().counters.discarded === 1);
    expect(await world.clock.run(flow.why(dead[2]!.id))).toEqual({
      reason: "discarded",
      text: "it ended as discarded: a test order",
    });
    expect(await world.clock.run(flow.redrive({ max: 1 }))).toBe(1);
    await world.clock.until(() => flow.state().counters.acked === 3);
    expect(await letters()).toHaveLength(2);
    expect(await world.clock.run(flow.redrive())).toBe(2);
    await world.clock.until(() => flow.state().counters.acked === 5);
    expect(flow.state().counters).toMatchObject({ accepted: 6, acked: 5, discarded: 1, dead: 0 });
  });

  test("G3 redrive brings back no more than the buffer has room for", async () => {
    await using world = await World.open(engine);
    const classes = { critical: 1, normal: 1, bulk: 1 };
    const options = { partitions: 1, buffer: { messages: 10 }, retry: { attempts: 1 }, classes };
    const flow = world.spillway.flow<number>("orders", options);
    const failing = flow.consume(() => {
      throw new Error("broken");
    });
    for (let n = 0; n < 20; n++) await world.clock.run(flow.send(n));
    await world.clock.until(() => flow.state().counters.dead === 20);
    failing.stop();
    for (let n = 0; n < 4; n++) await world.clock.run(flow.send(n));
    await world.clock.advance(10_000); // Credit that is not used comes back, but for a toe-hold.
    const count = await world.clock.run(flow.redrive());
    await world.clock.advance(100);
    expect(flow.state().depth).toBe(4 + count);
    expect(flow.state().depth + flow.state().creditsOut).toBe(10);
    expect(count).toBeGreaterThan(0);
    flow.consume(() => {});
    await world.clock.until(() => flow.state().depth === 0);
    expect(await world.clock.run(flow.redrive())).toBeGreaterThan(0);
  });

  test("change: a new window, rate and buffer hold at once, without a restart", async () => {
    await using world = await World.open(engine);
    const flow: Flow<number> = world.spillway.flow<number>("orders", {
      partitions: 1,
      window: { fixed: 1 },
    });
    let running = 0;
    let most = 0;
    flow.consume(async () => {
      most = Math.max(most, ++running);
      await new Promise<void>((resolve) => world.clock.after(10, resolve));
      running--;
    });
    const values = Array.from({ length: 30 }, (_, n) => n);
    await world.clock.run(flow.sendBatch(values));
    await world.clock.until(() => flow.state().depth === 0);
    expect(most).toBe(1);
    const contract = flow.change({ window: { fixed: 5 } });
    expect(contract.window.fixed).toBe(5);
    expect(flow.contract).toBe(contract);
    await world.clock.run(flow.sendBatch(values));
    await world.clock.until(() => flow.state().depth === 0);
    expect(most).toBe(5);
    flow.change({ buffer: { messages: 8 } });
    await world.clock.run(flow.pause());
    await world.clock.advance(10_000);
    const results = values.map((n) => flow.trySend(n, { class: "critical" }));
    const refused = results.filter((result) => !(result instanceof Promise));
    await world.clock.run(Promise.allSettled(results.map((result) => Promise.resolve(result))));
    expect(flow.state().depth).toBeLessThanOrEqual(8);
    expect(refused.length).toBeGreaterThanOrEqual(22);
  });

  test("change refuses what is not valid, and nothing has changed", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    const before = flow.contract;
    for (const patch of [{ window: { fixed: -1 } }, { partitions: 4 }, { retry: { budget: 7 } }]) {
      expect(() => flow.change(patch as never)).toThrow(
        expect.objectContaining({ code: "contract_invalid" }),
      );
    }
    expect(flow.contract).toBe(before);
  });
});

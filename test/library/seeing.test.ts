/** why, state, events: what can be seen of a flow is what is there. */
import { describe, expect, test } from "vitest";
import type { Flow, FlowEvents } from "../../src/spillway.ts";
import { engineNames, failureOf, gate, World } from "../support/world.ts";

describe.each(engineNames)("seeing over %s", (engine) => {
  test("G11 why says for every state what a message waits for", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", {
      partitions: 1,
      window: { fixed: 1 },
      retry: { attempts: 3, delay: ["10s", "10s"], budget: 1 },
    });
    const why = async (id: string): Promise<string> => (await world.clock.run(flow.why(id))).reason;
    const send = async (value: string, options = {}): Promise<string> =>
      (await world.clock.run(flow.send(value, options))).id;
    const late = await send("late", { delay: "1h" });
    expect(await why(late)).toBe("due");
    await world.clock.run(flow.pause());
    const fails = await send("fails", { key: "f" });
    expect(await why(fails)).toBe("paused");
    await world.clock.run(flow.resume());
    const held = gate();
    flow.consume(async (value, delivery) => {
      if (value === "fails" && delivery.attempt === 1) throw new Error("no");
      if (value === "termed") return delivery.term("no");
      if (value === "held") await held.promise;
    });
    await world.clock.advance(100);
    expect(await why(fails)).toBe("retry");
    const behind = await send("behind", { key: "f" });
    const reason = await world.clock.run(flow.why(behind));
    expect(reason).toMatchObject({ reason: "key", behindSeq: 2 });
    const termed = await send("termed");
    await world.clock.advance(100);
    expect(await why(termed)).toBe("dead");
    const handled = await send("held", { key: "h" });
    await world.clock.advance(100);
    expect(await why(handled)).toBe("handler");
    const waits = await send("waits");
    await world.clock.advance(100);
    expect(await why(waits)).toBe("credit");
    held.open();
    await world.clock.advance(100);
    expect(await why(handled)).toBe("acked");
    expect(await why(waits)).toBe("acked");
    for (const unknown of ["orders/0/999", "orders/9/1", "other/0/1", "nonsense", ""]) {
      expect(await failureOf(world.clock.run(flow.why(unknown)))).toMatchObject({
        code: "not_found",
      });
    }
  });

  test("why knows a message that only the store holds", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1, readAhead: 16 });
    await world.clock.run(flow.pause());
    await world.clock.run(
      flow.sendBatch(
        Array.from({ length: 500 }, (_, n) => n),
        (n) => ({ key: `k${n % 3}` }),
      ),
    );
    expect(flow.state().partitions[0]!.known).toBeLessThan(500);
    const { reason } = await world.clock.run(flow.why("orders/0/500"));
    expect(["key", "store"]).toContain(reason);
  });

  test("state shows depth, counters, credit, window, rates, partitions", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", {
      partitions: 2,
      window: { fixed: 2 },
      buffer: { messages: 1000 },
    });
    await world.clock.run(flow.sendBatch(Array.from({ length: 100 }, (_, n) => n)));
    flow.consume(() => new Promise<void>((resolve) => world.clock.after(100, resolve)));
    await world.clock.advance(2050);
    const state = flow.state();
    expect(state).toMatchObject({
      flow: "orders",
      isPaused: false,
      isIntakeClosed: false,
      limitMessages: 1000,
      inFlight: 2,
      isStoreFull: false,
      target: { target: "orders", inFlight: 2, breaker: { state: "closed" } },
      producer: { waiting: 0, blocked: false },
    });
    const { accepted, acked, pending } = state.counters;
    expect(accepted).toBe(100);
    expect(pending).toBe(100 - acked);
    expect(acked).toBeGreaterThan(30);
    expect(state.depth).toBe(pending);
    expect(state.drainRatePerS).toBeGreaterThan(15);
    expect(state.drainRatePerS).toBeLessThan(25);
    expect(state.secondsOfWork).toBeCloseTo(state.depth / state.drainRatePerS!, 5);
    expect(state.oldestAgeMs).toBeGreaterThan(1900);
    expect(state.partitions.map(({ depth }) => depth).reduce((a, b) => a + b)).toBe(state.depth);
    expect(state.bytes).toBeGreaterThan(0);
  });

  test("an error that nobody listens for, and a listener that throws, end neither flow nor process", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1, retry: { attempts: 1 } });
    const uncaught: unknown[] = [];
    const warnings: unknown[] = [];
    const onUncaught = (error: unknown): void => void uncaught.push(error);
    const onWarning = (warning: unknown): void => void warnings.push(warning);
    process.on("uncaughtException", onUncaught);
    process.on("warning", onWarning);
    try {
      for (const event of ["accepted", "acked", "dead", "blocked", "error"] as const) {
        flow.on(event as "acked", () => {
          throw new Error(`listener of ${event}`);
        });
      }
      flow.consume((n) => {
        if (n % 2 === 1) throw new Error("odd");
      });
      await world.clock.run(flow.sendBatch([1, 2, 3, 4, 5]));
      await world.clock.until(() => flow.state().depth === 0);
      await world.clock.settle();
      expect(flow.state().counters).toMatchObject({ accepted: 5, acked: 2, dead: 3 });
      expect(flow.state().partitions[0]!.state).toBe("open");
      expect(uncaught).toEqual([]);
      expect(warnings.length).toBeGreaterThan(0);
    } finally {
      process.off("uncaughtException", onUncaught);
      process.off("warning", onWarning);
    }
  });

  test("off and once do what they say", async () => {
    await using world = await World.open(engine);
    const flow: Flow<number> = world.spillway.flow<number>("orders", { partitions: 1 });
    const seen: string[] = [];
    const on = ({ id }: FlowEvents["accepted"][0]): void => void seen.push(`on ${id}`);
    flow.on("accepted", on).once("accepted", ({ id }) => seen.push(`once ${id}`));
    await world.clock.run(flow.send(1));
    flow.off("accepted", on);
    await world.clock.run(flow.send(2));
    expect(seen).toEqual(["on orders/0/1", "once orders/0/1"]);
  });
});

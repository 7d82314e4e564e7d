/** forward: the ack here and the message there are one write. */
import { describe, expect, test } from "vitest";
import type { PartitionWrite } from "../../src/engines/index.ts";
import type { Delivery, Flow } from "../../src/spillway.ts";
import { engineNames, failureOf, World } from "../support/world.ts";

const options = {
  partitions: 2,
  retry: { attempts: 3, delay: ["10ms", "20ms"], budget: 1 },
} as const;

describe.each(engineNames)("forwarding over %s", (engine) => {
  /** Remembers every batch that the engine is given. */
  function recorded(): {
    batches: (readonly PartitionWrite[])[];
    around: (method: string, args: readonly unknown[], call: () => unknown) => unknown;
  } {
    const batches: (readonly PartitionWrite[])[] = [];
    const around = (method: string, args: readonly unknown[], call: () => unknown): unknown => {
      if (method === "write") batches.push(args[0] as readonly PartitionWrite[]);
      return call();
    };
    return { batches, around };
  }

  test("G2 the ack of one and the append of the other are in the same batch, so no crash parts them", async () => {
    const { batches, around } = recorded();
    await using world = await World.open(engine, { around });
    const first = world.spillway.flow<number>("first", options);
    const second = world.spillway.flow<number>("second", options);
    first.consume(async (n, delivery) => {
      await first.forward(delivery, second, n * 10, { idempotencyKey: delivery.id });
    });
    await world.clock.run(first.sendBatch([1, 2, 3, 4, 5, 6], (n) => ({ key: `k${n}` })));
    await world.clock.until(() => first.state().counters.acked === 6);
    expect(second.state().counters).toMatchObject({ accepted: 6, pending: 6 });
    const acks = batches.filter((batch) =>
      batch.some(
        ({ claim, changes }) =>
          claim.ref.flow === "first" && changes.some(({ kind }) => kind === "ack"),
      ),
    );
    const count = (batch: readonly PartitionWrite[], flow: string): number => {
      let sum = 0;
      for (const { claim, appends, changes } of batch) {
        if (claim.ref.flow !== flow) continue;
        sum +=
          flow === "second" ? appends.length : changes.filter(({ kind }) => kind === "ack").length;
      }
      return sum;
    };
    expect(acks.length).toBeGreaterThan(0);
    for (const batch of acks) expect(count(batch, "first")).toBe(count(batch, "second"));
  });

  test("a pipeline of three stages loses and doubles nothing, while stages fail", async () => {
    await using world = await World.open(engine);
    const stages = ["a", "b", "c"].map((name) => world.spillway.flow<number>(name, options));
    const [a, b, c] = stages as [Flow<number>, Flow<number>, Flow<number>];
    const pass = (from: Flow<number>, to: Flow<number>): void => {
      from.consume(async (n, delivery) => {
        if (delivery.attempt === 1 && n % 5 === 0) throw new Error("once");
        await from.forward(delivery, to, n);
      });
    };
    pass(a, b);
    pass(b, c);
    const seen: number[] = [];
    c.consume((n) => seen.push(n));
    const values = Array.from({ length: 100 }, (_, n) => n);
    await world.clock.run(a.sendBatch(values, (n) => ({ key: `k${n % 10}` })));
    await world.clock.until(() => c.state().counters.acked === 100);
    expect(seen.toSorted((x, y) => x - y)).toEqual(values);
    for (const stage of stages) {
      expect(stage.state().counters).toMatchObject({ accepted: 100, acked: 100, dead: 0 });
    }
  });

  test("the next flow's refusal leaves the delivery to be settled here", async () => {
    await using world = await World.open(engine);
    const first = world.spillway.flow<number>("first", options);
    const second = world.spillway.flow<number>("second", options);
    await world.clock.run(second.closeIntake());
    await world.clock.run(first.send(1));
    const errors: unknown[] = [];
    first.consume(async (n, delivery) => {
      errors.push(await failureOf(first.forward(delivery, second, n)));
      expect(delivery.isSettled).toBe(false);
      await delivery.term("closed");
    });
    await world.clock.until(() => first.state().counters.dead === 1);
    expect(errors).toMatchObject([{ code: "intake_closed" }]);
    expect(second.state().counters.accepted).toBe(0);
  });

  test("pressure goes upstream: a full next flow holds the first one's deliveries", async () => {
    await using world = await World.open(engine);
    const first = world.spillway.flow<number>("first", { ...options, window: { fixed: 3 } });
    const classes = { critical: 1, normal: 1, bulk: 1 };
    const second = world.spillway.flow<number>("second", {
      ...options,
      buffer: { messages: 5 },
      classes,
    });
    first.consume(async (n, delivery) => {
      await first.forward(delivery, second, n);
    });
    await world.clock.run(first.sendBatch(Array.from({ length: 20 }, (_, n) => n)));
    await world.clock.advance(5000);
    expect(second.state().depth).toBe(5);
    expect(first.state().inFlight).toBe(3);
    expect(first.state().depth).toBe(15);
    second.consume(() => {});
    await world.clock.until(() => second.state().counters.acked === 20);
    expect(first.state().counters.acked).toBe(20);
  });

  test("G4 a forward whose lease has ended does not send: the next attempt does, once", async () => {
    await using world = await World.open(engine);
    const first = world.spillway.flow<number>("first", { ...options, lease: "1s" });
    const second = world.spillway.flow<number>("second", options);
    await world.clock.run(first.send(1));
    const late: Delivery<number>[] = [];
    first.consume(async (n, delivery) => {
      if (delivery.attempt === 1) {
        late.push(delivery);
        await new Promise<void>((resolve) => world.clock.after(5000, resolve));
      }
      await first.forward(delivery, second, n);
    });
    await world.clock.until(() => first.state().counters.acked === 1);
    expect(second.state().counters.accepted).toBe(1);
    const outcome = await failureOf(world.clock.run(first.forward(late[0]!, second, 1)));
    expect(outcome).toMatchObject({ code: "delivery_settled" });
    await world.clock.advance(5000);
    expect(second.state().counters.accepted).toBe(1);
  });
});

/** Handlers and pullers: every way in which a delivery ends. */
import { describe, expect, test } from "vitest";
import type { Delivery } from "../../src/spillway.ts";
import { engineNames, failureOf, gate, World } from "../support/world.ts";

const one = { partitions: 1, retry: { attempts: 3, delay: ["1s", "10s"], budget: 1 } } as const;

describe.each(engineNames)("consuming over %s", (engine) => {
  test("a handler that returns acks, whatever it returns", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", one);
    const seen: number[] = [];
    flow.consume((n) => (n % 2 === 0 ? seen.push(n) : Promise.resolve(seen.push(n))));
    await world.clock.run(flow.sendBatch([1, 2, 3, 4]));
    await world.clock.until(() => flow.state().counters.acked === 4);
    expect(seen.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4]);
  });

  test("a handler that throws or rejects is retried after a delay, with the next attempt number", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", one);
    const tries: { value: string; attempt: number; atMs: number }[] = [];
    flow.consume((value, { attempt }) => {
      tries.push({ value, attempt, atMs: world.clock.now() });
      if (attempt > 1) return undefined;
      if (value === "throws") throw new Error("no");
      return Promise.reject(new Error("no"));
    });
    await world.clock.run(flow.sendBatch(["throws", "rejects"]));
    await world.clock.until(() => flow.state().counters.acked === 2);
    for (const value of ["throws", "rejects"]) {
      const [first, second] = tries.filter((each) => each.value === value);
      expect([first!.attempt, second!.attempt]).toEqual([1, 2]);
      // The delay is drawn between half and all of the base, never less.
      expect(second!.atMs - first!.atMs).toBeGreaterThanOrEqual(100);
      expect(second!.atMs - first!.atMs).toBeLessThanOrEqual(2000);
    }
  });

  test("after its attempts a message is a dead letter with the last error", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", one);
    let attempts = 0;
    flow.consume(() => {
      attempts++;
      throw new Error(`failure ${attempts}`);
    });
    const { id } = await world.clock.run(flow.send("x"));
    await world.clock.until(() => flow.state().counters.dead === 1);
    const letters = await world.clock.run(Array.fromAsync(flow.deadLetters()));
    expect(attempts).toBe(3);
    expect(letters).toMatchObject([
      { id, attempts: 3, reason: "attempts_exhausted: Error: failure 3" },
    ]);
    expect(await world.clock.run(flow.why(id))).toMatchObject({ reason: "dead" });
  });

  test("term dead-letters at once; release costs no attempt; nack may ask for a later time", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", one);
    const seen: string[] = [];
    flow.consume(async (value, delivery) => {
      seen.push(`${value}:${delivery.attempt}@${world.clock.now() % 1_000_000}`);
      if (value === "term") await delivery.term("not ours");
      if (value === "release" && seen.length < 20) await delivery.release({ delay: "100ms" });
      if (value === "nack" && delivery.attempt === 1) await delivery.nack({ delay: "60s" });
    });
    const sentAtMs = world.clock.now() % 1_000_000;
    await world.clock.run(flow.sendBatch(["term", "release", "nack"]));
    await world.clock.until(() => flow.state().depth === 0, 300_000);
    const released = seen.filter((each) => each.startsWith("release"));
    expect(released.length).toBeGreaterThan(5);
    expect(released.every((each) => each.startsWith("release:1@"))).toBe(true);
    const again = seen.find((each) => each.startsWith("nack:2@"))!;
    expect(Number(again.split("@")[1]) - sentAtMs).toBeGreaterThanOrEqual(60_000);
    const [letter] = await world.clock.run(Array.fromAsync(flow.deadLetters()));
    expect(letter).toMatchObject({ reason: "terminated: not ours", attempts: 1 });
    expect(flow.state().counters).toMatchObject({ acked: 2, dead: 1 });
  });

  test("verbs resolve when durable; a second verb is refused and changes nothing", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", one);
    await world.clock.run(flow.send("x"));
    let delivery: Delivery<string> | undefined;
    flow.consume(async (_value, given) => {
      delivery = given;
      expect(given.isSettled).toBe(false);
      await given.ack();
      expect(flow.state().counters.acked).toBe(1);
    });
    await world.clock.until(() => flow.state().counters.acked === 1);
    expect(delivery!.isSettled).toBe(true);
    const verbs = [delivery!.ack(), delivery!.nack(), delivery!.release(), delivery!.term("no")];
    for (const verb of verbs) {
      expect(await failureOf(verb)).toMatchObject({ code: "delivery_settled" });
    }
    await world.clock.advance(60_000);
    expect(flow.state().counters).toMatchObject({ acked: 1, dead: 0, pending: 0 });
  });

  test("G4 at the end of its lease a delivery goes to another attempt, and its own settle is fenced", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", { ...one, lease: "5s" });
    const { id } = await world.clock.run(flow.send("x", { key: "k" }));
    const held = gate();
    const outcomes: unknown[] = [];
    const ended: unknown[] = [];
    flow.on("leaseEnded", (event) => ended.push(event));
    const aborted: unknown[] = [];
    flow.consume(async (_value, delivery) => {
      if (delivery.attempt > 1) return;
      delivery.signal.addEventListener("abort", () => aborted.push(delivery.signal.reason));
      await held.promise;
      outcomes.push(await failureOf(delivery.ack()));
    });
    await world.clock.until(() => flow.state().inFlight === 1);
    await world.clock.advance(4900);
    expect(aborted).toEqual([]);
    await world.clock.advance(200);
    expect(ended).toEqual([{ id, attempt: 1 }]);
    expect(aborted).toMatchObject([{ code: "delivery_settled" }]);
    await world.clock.until(() => flow.state().counters.acked === 1);
    held.open();
    await world.clock.until(() => outcomes.length === 1);
    expect(outcomes).toMatchObject([{ code: "delivery_settled" }]);
    expect(flow.state().counters).toMatchObject({ acked: 1, pending: 0 });
  });

  test("working keeps the lease for as long as it is said", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", { ...one, lease: "5s" });
    await world.clock.run(flow.send("x"));
    let runs = 0;
    const held = gate();
    flow.consume(async (_value, delivery) => {
      runs++;
      delivery.working("1m");
      await held.promise;
    });
    await world.clock.until(() => runs === 1);
    await world.clock.advance(59_000);
    expect(runs).toBe(1);
    held.open();
    await world.clock.until(() => flow.state().counters.acked === 1);
    expect(runs).toBe(1);
  });

  test("deliveries() gives as many as are asked for, and takes back what was not looked at", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { ...one, order: "none" });
    await world.clock.run(flow.sendBatch([1, 2, 3]));
    const abort = new AbortController();
    const deliveries = flow.deliveries({ signal: abort.signal });
    const first = (await world.clock.run(deliveries.next())).value!;
    await world.clock.advance(1000);
    expect(flow.state().inFlight).toBe(1);
    const second = (await world.clock.run(deliveries.next())).value!;
    expect(flow.state().inFlight).toBe(2);
    expect([first.value, second.value]).toEqual([1, 2]);
    await world.clock.run(Promise.all([first.ack(), second.nack({ error: "later" })]));
    const waits = deliveries.next();
    abort.abort();
    const last = await world.clock.run(waits);
    if (last.done !== true) await world.clock.run(last.value.release());
    expect((await world.clock.run(deliveries.next())).done).toBe(true);
    await world.clock.advance(100);
    expect(flow.state()).toMatchObject({ inFlight: 0, counters: { acked: 1, pending: 2 } });
  });

  test("a stopped consumer takes nothing more; what it has goes on", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", one);
    const held = gate();
    const seen: number[] = [];
    const abort = new AbortController();
    flow.consume(
      async (n) => {
        seen.push(n);
        await held.promise;
      },
      { signal: abort.signal },
    );
    await world.clock.run(flow.send(1));
    await world.clock.until(() => seen.length === 1);
    abort.abort();
    await world.clock.run(flow.send(2));
    await world.clock.advance(5000);
    expect(seen).toEqual([1]);
    held.open();
    await world.clock.until(() => flow.state().counters.acked === 1);
    expect(flow.state().depth).toBe(1);
    flow.consume((n) => seen.push(n));
    await world.clock.until(() => flow.state().counters.acked === 2);
    expect(seen).toEqual([1, 2]);
  });

  test("several consumers of a flow share its work and its window", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { ...one, window: { fixed: 4 } });
    const counts = [0, 0];
    let running = 0;
    let most = 0;
    for (const at of [0, 1]) {
      flow.consume(async () => {
        counts[at]!++;
        most = Math.max(most, ++running);
        await new Promise<void>((resolve) => world.clock.after(10, resolve));
        running--;
      });
    }
    await world.clock.run(flow.sendBatch(Array.from({ length: 40 }, (_, n) => n)));
    await world.clock.until(() => flow.state().counters.acked === 40);
    expect(most).toBeLessThanOrEqual(4);
    expect(most).toBeGreaterThan(1);
    expect(Math.min(...counts)).toBeGreaterThan(10);
  });

  test("flows of one target share its window", async () => {
    await using world = await World.open(engine);
    const options = { ...one, target: "mailer", window: { fixed: 3 } };
    const flows = ["a", "b"].map((name) => world.spillway.flow<number>(name, options));
    let running = 0;
    let most = 0;
    for (const flow of flows) {
      flow.consume(async () => {
        most = Math.max(most, ++running);
        await new Promise<void>((resolve) => world.clock.after(10, resolve));
        running--;
      });
    }
    const values = Array.from({ length: 20 }, (_, n) => n);
    await world.clock.run(Promise.all(flows.map((flow) => flow.sendBatch(values))));
    await world.clock.until(() => flows.every((flow) => flow.state().counters.acked === 20));
    expect(most).toBe(3);
  });

  test("a payload that is not JSON is a dead letter, not a crash", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", one);
    flow.consume(() => {});
    await world.clock.run(flow.send(Buffer.from("{not json")));
    await world.clock.until(() => flow.state().counters.dead === 1);
    const [letter] = await world.clock.run(Array.fromAsync(flow.deadLetters()));
    expect(letter!.reason).toContain("not JSON");
  });
});

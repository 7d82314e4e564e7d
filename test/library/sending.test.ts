/** Sending: receipts, repeats, validation, refusals, batches. */
import { getEventListeners } from "node:events";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { engineNames, failureOf, World } from "../support/world.ts";

describe.each(engineNames)("sending over %s", (engine) => {
  test("G1 a receipt names the message and says what accepted means", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", { partitions: 1 });
    const first = await world.clock.run(flow.send({ n: 1 }));
    const second = await world.clock.run(flow.send({ n: 2 }));
    const durability = engine === "memory" ? "memory" : "fsync";
    expect([first, second]).toEqual([
      { id: "orders/0/1", duplicate: false, durability },
      { id: "orders/0/2", duplicate: false, durability },
    ]);
    expect(world.spillway.durability).toBe(durability);
  });

  test("G5 a repeat under an idempotency key gets the first one's receipt, a change is refused", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", { partitions: 4 });
    const first = await world.clock.run(flow.send({ n: 1 }, { idempotencyKey: "a" }));
    const again = await world.clock.run(flow.send({ n: 1 }, { idempotencyKey: "a" }));
    expect(first.duplicate).toBe(false);
    expect(again).toEqual({ ...first, duplicate: true });
    const other = flow.send({ n: 2 }, { idempotencyKey: "a" });
    expect(await failureOf(world.clock.run(other))).toMatchObject({
      code: "idempotency_conflict",
      retry: "never",
    });
    expect(flow.state().counters).toMatchObject({ accepted: 1, pending: 1 });
  });

  test("G5 two sends at once under one idempotency key are one message", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", { partitions: 2 });
    const sends = [1, 2, 3].map(() => flow.send({ n: 1 }, { idempotencyKey: "a" }));
    const receipts = await world.clock.run(Promise.all(sends));
    expect(new Set(receipts.map(({ id }) => id)).size).toBe(1);
    expect(receipts.filter(({ duplicate }) => !duplicate)).toHaveLength(1);
  });

  test("G5 an idempotency key is remembered after its message ended, and forgotten after its window", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", { partitions: 1, dedup: { window: "1h" } });
    using consumer = flow.consume(() => {});
    const first = await world.clock.run(flow.send({ n: 1 }, { idempotencyKey: "a" }));
    await world.clock.until(() => flow.state().counters.acked === 1);
    await world.clock.advance(59 * 60_000);
    const inside = await world.clock.run(flow.send({ n: 1 }, { idempotencyKey: "a" }));
    expect(inside).toEqual({ ...first, duplicate: true });
    await world.clock.advance(2 * 60_000);
    const outside = await world.clock.run(flow.send({ n: 1 }, { idempotencyKey: "a" }));
    expect(outside.duplicate).toBe(false);
    expect(outside.id).not.toBe(first.id);
    consumer.stop();
  });

  test("a message arrives as it was sent: payload, key, group, class, headers, times", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", { partitions: 1 });
    const value = { text: "käse \u{1f9c0}", list: [1, null, true], deep: { of: [{}] } };
    const options = { key: "k", group: "g", headers: { "trace-id": "é" }, deadline: "1h" } as const;
    const sentAtMs = world.clock.now();
    const { id } = await world.clock.run(flow.send(value, { ...options, class: "critical" }));
    const seen: unknown[] = [];
    flow.consume((got, delivery) => {
      seen.push(got);
      const { key, group, headers, class: messageClass, attempt, deadline } = delivery;
      expect({ id: delivery.id, key, group, headers, messageClass, attempt }).toEqual({
        id,
        key: "k",
        group: "g",
        headers: { "trace-id": "é" },
        messageClass: "critical",
        attempt: 1,
      });
      expect(deadline?.getTime()).toBe(sentAtMs + 3_600_000);
      expect(delivery.acceptedAt.getTime()).toBeGreaterThanOrEqual(sentAtMs);
    });
    await world.clock.until(() => flow.state().counters.acked === 1);
    expect(seen).toEqual([value]);
  });

  test("a flow of bytes carries them untouched and refuses anything else", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<Uint8Array>("raw", { partitions: 1, payload: "bytes" });
    const bytes = Uint8Array.of(0, 255, 10, 0, 128);
    await world.clock.run(flow.send(bytes));
    const refused = flow.send("text" as unknown as Uint8Array);
    expect(await failureOf(refused)).toMatchObject({ code: "message_unencodable" });
    const seen: Uint8Array[] = [];
    flow.consume((got) => seen.push(got));
    await world.clock.until(() => seen.length === 1);
    expect([...seen[0]!]).toEqual([...bytes]);
  });

  test("a Standard Schema validates and transforms before anything is stored", async () => {
    await using world = await World.open(engine);
    const schema = z.object({ n: z.number().int(), at: z.string().default("now") });
    const flow = world.spillway.flow("orders", { partitions: 1, schema });
    const bad = flow.send({ n: 1.5 } as never);
    const error = await failureOf(bad);
    expect(error).toMatchObject({ code: "message_invalid", retry: "never" });
    expect(JSON.stringify((error as { details: unknown }).details)).toContain("n");
    await world.clock.run(flow.send({ n: 1 } as never));
    const seen: unknown[] = [];
    flow.consume((value) => seen.push(value));
    await world.clock.until(() => seen.length === 1);
    expect(seen).toEqual([{ n: 1, at: "now" }]);
    expect(flow.state().counters.accepted).toBe(1);
  });

  test("an asynchronous schema is awaited by send and sendBatch, and refused by trySend", async () => {
    await using world = await World.open(engine);
    const schema = z.object({ n: z.number() }).refine(async ({ n }) => n % 2 === 0, "odd");
    const flow = world.spillway.flow("orders", { partitions: 1, schema });
    await world.clock.run(flow.send({ n: 2 }));
    expect(await failureOf(flow.send({ n: 3 }))).toMatchObject({ code: "message_invalid" });
    const results = await world.clock.run(flow.sendBatch([{ n: 4 }, { n: 5 }]));
    expect(results.map((result) => ("code" in result ? result.code : "ok"))).toEqual([
      "ok",
      "message_invalid",
    ]);
    expect(() => flow.trySend({ n: 2 })).toThrow(/synchronous/);
  });

  test("Q4 batches wait their turn where single sends would be refused, and all are accepted", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { buffer: { messages: 500 } });
    flow.consume(() => undefined);
    const values = Array.from({ length: 4000 }, (_, n) => n);
    const batches = [1, 2, 3, 4].map(() => flow.sendBatch(values));
    const results = (await world.clock.run(Promise.all(batches))).flat();
    expect(results.filter(({ accepted }) => accepted).length).toBe(16_000);
  });

  test("batches that have ended have let go of their signal", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", { partitions: 1 });
    const { signal } = new AbortController();
    for (let n = 0; n < 3; n++) {
      await world.clock.run(flow.sendBatch([n], undefined, { signal }));
    }
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  test("a batch whose signal is aborted is told so, message by message", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders");
    const signal = AbortSignal.abort();
    const results = await world.clock.run(flow.sendBatch([1, 2], undefined, { signal }));
    expect(results).toMatchObject([{ code: "aborted" }, { code: "aborted" }]);
    expect(flow.state().counters.accepted).toBe(0);
  });

  test("G12 sendBatch answers for each message, and its good ones are not held by its bad ones", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow("orders", { partitions: 2, messageBytesMax: 1000 });
    await world.clock.run(flow.send("first", { idempotencyKey: "2" }));
    const values = ["a", "x".repeat(2000), "b", 10n, "c"];
    const keys = ["0", "1", "2", "3", "4"];
    const results = await world.clock.run(
      flow.sendBatch(values, (_value, at) => ({ idempotencyKey: keys[at]! })),
    );
    expect(results.map((result) => ("code" in result ? result.code : "ok"))).toEqual([
      "ok",
      "message_too_large",
      "idempotency_conflict",
      "message_unencodable",
      "ok",
    ]);
    expect(flow.state().counters.accepted).toBe(3);
  });

  test("a batch is accepted in its order", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    const values = Array.from({ length: 5000 }, (_, n) => n);
    const results = await world.clock.run(flow.sendBatch(values));
    const ids = results.map((result) => ("id" in result ? result.id : result.code));
    expect(ids).toEqual(values.map((n) => `orders/0/${n + 1}`));
  });
});

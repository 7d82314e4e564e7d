/** G4, G7: order per key, fair groups, isolation of the rest. */
import { describe, expect, test } from "vitest";
import { engineNames, World } from "../support/world.ts";

const retry = { attempts: 5, delay: ["1s", "2s"], budget: 1 } as const;

describe.each(engineNames)("order over %s", (engine) => {
  test("G4 messages of a key are handled one at a time, in order of acceptance", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 4, window: { fixed: 50 } });
    const last = new Map<string, number>();
    const running = new Set<string>();
    const wrong: string[] = [];
    flow.consume(async (n, { key }) => {
      if (running.has(key!)) wrong.push(`overlap of ${key}`);
      if (n !== (last.get(key!) ?? -1) + 1) wrong.push(`${key}: ${n} after ${last.get(key!)}`);
      running.add(key!);
      await new Promise<void>((resolve) => world.clock.after(1 + (n % 7), resolve));
      running.delete(key!);
      last.set(key!, n);
    });
    for (let n = 0; n < 40; n++) {
      await world.clock.run(
        flow.sendBatch(
          Array.from({ length: 10 }, () => n),
          (_, k) => ({ key: `k${k}` }),
        ),
      );
    }
    await world.clock.until(() => flow.state().counters.acked === 400);
    expect(wrong).toEqual([]);
  });

  test("G4, G7 a message that waits for its retry holds its key and no other", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", { partitions: 1, retry });
    const seen: string[] = [];
    flow.consume((value, { attempt }) => {
      seen.push(`${value}:${attempt}`);
      if (value === "a1" && attempt < 3) throw new Error("not yet");
    });
    const values = ["a1", "a2", "b1", "a3", "b2"];
    await world.clock.run(flow.sendBatch(values, (value) => ({ key: value[0]! })));
    await world.clock.until(() => seen.includes("b2:1"));
    expect(seen).not.toContain("a2:1");
    await world.clock.until(() => flow.state().depth === 0);
    expect(seen.filter((each) => each.startsWith("a"))).toEqual([
      "a1:1",
      "a1:2",
      "a1:3",
      "a2:1",
      "a3:1",
    ]);
  });

  test("G4 a key keeps its order across classes and past a delayed head", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", { partitions: 1 });
    const seen: { n: number; atMs: number }[] = [];
    await world.clock.run(flow.opened());
    const startMs = world.clock.now();
    await world.clock.run(flow.send(1, { key: "k", class: "bulk", delay: "5s" }));
    await world.clock.run(flow.send(2, { key: "k", class: "critical" }));
    await world.clock.run(flow.send(3, { key: "k", class: "normal" }));
    await world.clock.run(flow.send(4, { key: "other" }));
    flow.consume((n) => seen.push({ n, atMs: world.clock.now() - startMs }));
    await world.clock.until(() => seen.length === 4);
    expect(seen.map(({ n }) => n)).toEqual([4, 1, 2, 3]);
    expect(seen[1]!.atMs).toBeGreaterThanOrEqual(5000);
    expect(seen[1]!.atMs).toBeLessThan(5100);
  });

  test("without order a key is only a label", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", {
      partitions: 1,
      order: "none",
      window: { fixed: 10 },
    });
    let running = 0;
    let most = 0;
    flow.consume(async (_n, { key }) => {
      expect(key).toBe("k");
      most = Math.max(most, ++running);
      await new Promise<void>((resolve) => world.clock.after(10, resolve));
      running--;
    });
    await world.clock.run(flow.sendBatch([1, 2, 3, 4, 5], () => ({ key: "k" })));
    await world.clock.until(() => flow.state().counters.acked === 5);
    expect(most).toBe(5);
  });

  test("G4 order per key survives a restart in the middle of a backlog", async () => {
    await using world = await World.open(engine);
    const options = { partitions: 2, retry, window: { fixed: 8 }, readAhead: 16 } as const;
    const values = Array.from({ length: 300 }, (_, n) => n);
    await world.clock.run(
      world.spillway
        .flow<number>("orders", options)
        .sendBatch(values, (n) => ({ key: `k${n % 7}` })),
    );
    const seen: number[] = [];
    for (let life = 0; life < 3; life++) {
      const flow = world.spillway.flow<number>("orders", options);
      const before = seen.length;
      flow.consume((n) => seen.push(n));
      await world.clock.until(() => seen.length >= Math.min(300, before + 100));
      await world.reopen();
    }
    const flow = world.spillway.flow<number>("orders", options);
    flow.consume((n) => seen.push(n));
    await world.clock.run(flow.opened());
    await world.clock.until(() => flow.state().depth === 0);
    for (let k = 0; k < 7; k++) {
      const ofKey = seen.filter((n) => n % 7 === k);
      expect([...new Set(ofKey)]).toEqual(values.filter((n) => n % 7 === k));
      expect(ofKey).toEqual(ofKey.toSorted((a, b) => a - b));
    }
  });

  test("G7, F1 groups get equal shares, whatever they have sent", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", { partitions: 1, window: { fixed: 1 } });
    const groups = [
      ...Array.from({ length: 300 }, () => "big"),
      ...Array.from({ length: 20 }, () => "small"),
    ];
    await world.clock.run(flow.sendBatch(groups, (group) => ({ group })));
    const seen: string[] = [];
    flow.consume((group) => seen.push(group));
    await world.clock.until(() => seen.length === 320);
    const first = seen.slice(0, 40).filter((group) => group === "small").length;
    expect(first).toBeGreaterThanOrEqual(18);
  });

  test("weights of groups decide their shares", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", {
      partitions: 1,
      window: { fixed: 1 },
      groups: { weights: { gold: 3 } },
    });
    const groups = Array.from({ length: 400 }, (_, n) => (n % 2 === 0 ? "gold" : "tin"));
    await world.clock.run(flow.sendBatch(groups, (group) => ({ group })));
    const seen: string[] = [];
    flow.consume((group) => seen.push(group));
    await world.clock.until(() => seen.length === 400);
    const gold = seen.slice(0, 200).filter((group) => group === "gold").length;
    expect(gold).toBeGreaterThan(140);
    expect(gold).toBeLessThan(160);
  });

  test("classes share 16 : 4 : 1, and bulk is never starved", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<string>("orders", { partitions: 1, window: { fixed: 1 } });
    const classes = (["critical", "normal", "bulk"] as const).flatMap((each) =>
      Array.from({ length: 300 }, () => each),
    );
    await world.clock.run(flow.sendBatch(classes, (each) => ({ class: each as "bulk" })));
    const seen: string[] = [];
    flow.consume((each) => seen.push(each));
    await world.clock.until(() => seen.length === 900);
    const share = (name: string): number =>
      seen.slice(0, 210).filter((each) => each === name).length;
    expect(share("critical")).toBeGreaterThan(150);
    expect(share("normal")).toBeGreaterThan(34);
    expect(share("bulk")).toBeGreaterThanOrEqual(8);
  });
});

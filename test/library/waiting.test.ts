/** Out of credit: waiting, refusing, saying so. */
import { describe, expect, test } from "vitest";
import type { Flow } from "../../src/spillway.ts";
import { engineNames, failureOf, World } from "../support/world.ts";

/** A flow whose buffer holds ten; nobody consumes. */
function small(world: World): Flow<number> {
  return world.spillway.flow<number>("orders", {
    partitions: 1,
    buffer: { messages: 10 },
    classes: { critical: 1, normal: 1, bulk: 1 },
  });
}

async function fill(world: World, flow: Flow<number>): Promise<void> {
  for (let n = 0; n < 10; n++) await world.clock.run(flow.send(n));
  await world.clock.advance(100);
}

describe.each(engineNames)("waiting over %s", (engine) => {
  test("G3, G12 at a full buffer trySend refuses with a code and a time to come back", async () => {
    await using world = await World.open(engine);
    const flow = small(world);
    await fill(world, flow);
    const refused = await flow.trySend(10);
    expect(refused).toMatchObject({ accepted: false, code: "buffer_full" });
    expect((refused as { retryAfterMs: number }).retryAfterMs).toBeGreaterThan(0);
    await world.clock.advance(1000);
    expect(flow.state()).toMatchObject({ depth: 10, counters: { accepted: 10 } });
  });

  test("with credit trySend is the promise of a receipt", async () => {
    await using world = await World.open(engine);
    const flow = small(world);
    await world.clock.run(flow.opened());
    const sent = flow.trySend(1);
    expect(sent).toBeInstanceOf(Promise);
    const receipt = await world.clock.run(sent as Promise<unknown>);
    expect(receipt).toMatchObject({ id: "orders/0/1" });
  });

  test("G3 a send waits at a full buffer, and is accepted when a place is free", async () => {
    await using world = await World.open(engine);
    const flow = small(world);
    await fill(world, flow);
    let isDone = false;
    const waiting = flow.send(10).then(() => (isDone = true));
    await world.clock.advance(10_000);
    expect(isDone).toBe(false);
    expect(flow.state()).toMatchObject({ depth: 10, producer: { waiting: 1, blocked: true } });
    const delivery = (await flow.deliveries().next()).value!;
    await world.clock.run(delivery.ack());
    await world.clock.run(waiting);
    expect(flow.state()).toMatchObject({ depth: 10, counters: { accepted: 11, acked: 1 } });
  });

  test("blocked says why, resumed says that it is over, and credits() shows both", async () => {
    await using world = await World.open(engine);
    const flow = small(world);
    await fill(world, flow);
    const events: unknown[] = [];
    flow.on("blocked", ({ code }) => events.push(code));
    flow.on("resumed", () => events.push("resumed"));
    const waiting = flow.send(10);
    waiting.catch(() => {});
    await world.clock.advance(100);
    expect(events).toEqual(["buffer_full"]);
    expect(flow.credits()).toEqual({ messages: 0, waiting: 1, blocked: true });
    let isReady = false;
    const ready = flow.ready().then(() => (isReady = true));
    await world.clock.advance(100);
    expect(isReady).toBe(false);
    flow.consume(() => {});
    await world.clock.run(Promise.all([waiting, ready]));
    expect(events).toEqual(["buffer_full", "resumed"]);
    expect(flow.credits()).toMatchObject({ waiting: 0, blocked: false });
  });

  test("G12 a wait ends with its time limit or its signal, and takes nothing with it", async () => {
    await using world = await World.open(engine);
    const flow = small(world);
    await fill(world, flow);
    const atMs = world.clock.now();
    const timed = failureOf(flow.send(10, { timeout: "3s" }));
    const abort = new AbortController();
    const aborted = failureOf(flow.send(11, { signal: abort.signal }));
    const batch = flow.sendBatch([12, 13], undefined, { signal: abort.signal });
    expect(await world.clock.run(timed)).toMatchObject({ code: "timed_out", retry: "later" });
    expect(world.clock.now() - atMs).toBe(3000);
    abort.abort(new Error("enough"));
    expect(await world.clock.run(aborted)).toMatchObject({
      code: "aborted",
      cause: new Error("enough"),
    });
    const results = await world.clock.run(batch);
    expect(results).toMatchObject([{ code: "aborted" }, { code: "aborted" }]);
    const early = flow.send(14, { signal: AbortSignal.abort() });
    expect(await failureOf(early)).toMatchObject({ code: "aborted" });
    flow.consume(() => {});
    await world.clock.until(() => flow.state().depth === 0);
    expect(flow.state().counters.accepted).toBe(10);
  });

  test("a WritableStream holds its writer back while there is no credit", async () => {
    await using world = await World.open(engine);
    const flow = small(world);
    const writer = flow.writable((n) => ({ key: `k${n}` })).getWriter();
    let written = 0;
    const writing = (async () => {
      for (let n = 0; n < 50; n++) {
        await writer.ready;
        await writer.write(n);
        written++;
      }
      await writer.close();
    })();
    await world.clock.advance(5000);
    const held = written;
    expect(held).toBeLessThan(50);
    expect(flow.state().depth).toBe(10);
    const seen: number[] = [];
    flow.consume((n) => seen.push(n));
    await world.clock.run(writing);
    await world.clock.until(() => flow.state().depth === 0);
    expect(seen.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, n) => n));
  });

  test("a stream fails its writer with the code of what was refused", async () => {
    await using world = await World.open(engine);
    const flow = small(world);
    await world.clock.run(flow.closeIntake());
    const writer = flow.writable().getWriter();
    const failed = failureOf(
      (async () => {
        for (let n = 0; n < 3; n++) await writer.write(n);
        await writer.close();
      })(),
    );
    expect(await world.clock.run(failed)).toMatchObject({ code: "intake_closed" });
  });

  test("Q4 waiting is bounded: more are refused at once, with the reason why the others wait", async () => {
    await using world = await World.open(engine);
    const flow = small(world);
    await fill(world, flow);
    const abort = new AbortController();
    void flow.trySend(0); // By its answer the flow knows why there is no credit.
    const values = Array.from({ length: 10_050 }, (_, n) => n);
    const sends = values.map((n) =>
      failureOf(flow.send(n, { signal: abort.signal })).then((error) => error as { code: string }),
    );
    await world.clock.advance(100);
    abort.abort();
    const codes = (await world.clock.run(Promise.all(sends))).map(({ code }) => code);
    expect(codes.filter((code) => code === "aborted")).toHaveLength(10_000);
    expect(codes.filter((code) => code === "buffer_full")).toHaveLength(50);
  });

  test("classes stop at their levels of the buffer: bulk first, critical last", async () => {
    await using world = await World.open(engine);
    const flow = world.spillway.flow<number>("orders", {
      partitions: 1,
      buffer: { messages: 100 },
    });
    const tries = async (messageClass: "critical" | "normal" | "bulk"): Promise<number> => {
      let taken = 0;
      for (let n = 0; n < 200; n++) {
        const sent = flow.trySend(n, { class: messageClass });
        if (sent instanceof Promise) {
          const outcome = await world.clock.run(sent.then(() => "ok").catch(() => "refused"));
          if (outcome === "ok") taken++;
        }
        await world.clock.advance(5);
      }
      return taken;
    };
    await world.clock.run(flow.opened());
    const bulk = await tries("bulk");
    const normal = await tries("normal");
    const critical = await tries("critical");
    expect(bulk).toBeGreaterThan(40);
    expect(bulk).toBeLessThanOrEqual(50);
    expect(bulk + normal).toBeGreaterThan(70);
    expect(bulk + normal).toBeLessThanOrEqual(80);
    expect(bulk + normal + critical).toBe(100);
  });
});

import fc from "fast-check";
import { expect, test } from "vitest";
import { isSpillwayError, sequence } from "../../base/index.ts";
import { conformance } from "../conformance.ts";
import type { Harness } from "../conformance.ts";
import type { Engine, PartitionRef, PartitionWrite } from "../engine.ts";
import { memory } from "./index.ts";

const mebibyte = 1024 ** 2;
const ref: PartitionRef = { flow: "orders", partition: 0 };

async function claimOf(engine: Engine, of = ref): Promise<PartitionWrite["claim"]> {
  const result = await engine.claim(of, { node: "n", address: "a" }, 1000);
  if (result.kind === "held") throw new Error("memory never holds");
  return result.claim;
}

let writes = 0;
function draft(claim: PartitionWrite["claim"], parts: Partial<PartitionWrite>): PartitionWrite {
  const limits = { messages: 1e9, bytes: 1e12 };
  const writeId = `${++writes}`;
  return { claim, writeId, nowMs: 1, appends: [], changes: [], limits, ...parts };
}

const letter = (bytes: number): PartitionWrite["appends"][number] => ({
  class: "normal",
  headers: new Uint8Array(0),
  payload: new Uint8Array(bytes),
});

async function openHarness(): Promise<Harness> {
  const engine = memory({ fullAtBytes: 32 * mebibyte });
  await engine.open();
  const filler = await claimOf(engine, { flow: "filler", partition: 0 });
  let filled = 0;
  const fillWith = async (bytes: number): Promise<void> => {
    for (;;) {
      try {
        await engine.write([draft(filler, { appends: [letter(bytes)] })]);
        filled++;
      } catch (error) {
        if (isSpillwayError(error, "store_full")) return;
        throw error;
      }
    }
  };
  return {
    engine,
    reopen: async () => {
      await engine[Symbol.asyncDispose]();
      await engine.open();
      return engine;
    },
    fill: async () => {
      await fillWith(4 * mebibyte);
      await fillWith(32 * 1024);
    },
    makeRoom: async () => {
      const changes = Array.from(
        { length: filled },
        (_, i) => ({ seq: i + 1, kind: "ack" }) as const,
      );
      await engine.write([draft(filler, { changes })]);
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

conformance({ test, fc }, "memory", openHarness);

async function twoIds(seed: number): Promise<string[]> {
  await using engine = memory({ random: sequence(seed) });
  await engine.open();
  return [(await claimOf(engine)).claimId, (await claimOf(engine)).claimId];
}

test("M2 the same chance gives the same claim ids", async () => {
  const first = await twoIds(1);
  expect(await twoIds(1)).toEqual(first);
  expect(await twoIds(2)).not.toEqual(first);
  expect(new Set(first).size).toBe(2);
  for (const id of first) expect(id).toMatch(/^[0-9a-f]{32}$/);
});

test("M1 a write is done when it has been called", async () => {
  await using engine = memory();
  await engine.open();
  const claim = await claimOf(engine);
  const writing = engine.write([draft(claim, { appends: [letter(1)] })]);
  const audit = engine.audit(ref);
  expect((await audit).counters.pending).toBe(1);
  await writing;
});

test("M5 a batch names a partition once", async () => {
  await using engine = memory();
  await engine.open();
  const claim = await claimOf(engine);
  const batch = [draft(claim, { appends: [letter(1)] }), draft(claim, { appends: [letter(1)] })];
  await expect(engine.write(batch)).rejects.toMatchObject({ code: "invariant_broken" });
});

test("a batch above the profile's limit is refused whole", async () => {
  await using engine = memory({ maxMessageBytes: 100 });
  await engine.open();
  const claim = await claimOf(engine);
  expect(engine.profile).toMatchObject({ maxMessageBytes: 100, maxBatchBytes: 400 });
  const appends = Array.from({ length: 5 }, () => letter(100));
  await expect(engine.write([draft(claim, { appends })])).rejects.toMatchObject({
    code: "message_too_large",
  });
  await engine.write([draft(claim, { appends: appends.slice(1) })]);
});

test("E20 dead letters take space until they are purged, discarded messages take none", async () => {
  await using engine = memory({ fullAtBytes: 300 });
  await engine.open();
  const claim = await claimOf(engine);
  await engine.write([draft(claim, { appends: [letter(100), letter(100), letter(100)] })]);
  const more = { appends: [letter(100)] };
  const dead = { seq: 1, kind: "dead", reason: "r" } as const;
  const discard = { seq: 1, kind: "discard", reason: "r" } as const;
  await expect(engine.write([draft(claim, { ...more, changes: [dead] })])).rejects.toMatchObject({
    code: "store_full",
  });
  await engine.write([draft(claim, { changes: [dead] })]);
  await expect(engine.write([draft(claim, more)])).rejects.toMatchObject({ code: "store_full" });
  await engine.write([draft(claim, { ...more, changes: [discard] })]);
  expect((await engine.audit(ref)).counters).toMatchObject({ pending: 3, dead: 0, discarded: 1 });
});

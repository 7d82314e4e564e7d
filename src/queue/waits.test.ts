import { expect, test } from "vitest";
import { MachineHarness } from "../../test/support/machine-harness.ts";
import { entryOf } from "./entry.ts";
import type { Entry } from "./entry.ts";
import { Waits } from "./waits.ts";

function waiting(seq: number, dueAtMs: number, attempts = 0, partition = 0): Entry {
  return entryOf(
    partition,
    { seq, class: "normal", bytes: 1, attempts, crashes: 0, dueAtMs, acceptedAtMs: 0 },
    undefined,
  );
}

function released(waits: Waits, nowMs: number): number[] {
  const seqs: number[] = [];
  waits.release(nowMs, ({ seq }) => seqs.push(seq));
  return seqs;
}

test("R1 a retry takes a token; without one it waits, the order of due times kept", () => {
  const waits = new Waits(0.1, 0);
  for (let seq = 1; seq <= 14; seq++) waits.delay(waiting(seq, 100 - seq, 1));
  expect(released(waits, 100)).toEqual([14, 13, 12, 11, 10, 9, 8, 7, 6, 5]);
  const atMs = waits.nextAtMs(100);
  expect(atMs).toBeGreaterThan(100);
  expect(released(waits, atMs - 1)).toEqual([]);
  expect(released(waits, atMs)).toEqual([4]);
});

test("R1 a message that its sender delayed takes no token", () => {
  const waits = new Waits(0.1, 0);
  for (let seq = 1; seq <= 20; seq++) waits.delay(waiting(seq, 50));
  expect(released(waits, 49)).toEqual([]);
  expect(released(waits, 50)).toHaveLength(20);
});

test("M3 one suspect at a time is out, and those of a lost partition hold up no other", () => {
  const waits = new Waits(0.1, 0);
  const suspects = [0, 0, 1].map((partition, at) => waiting(at + 1, 0, 1, partition));
  for (const entry of suspects) {
    entry.state = "suspect";
    waits.suspect(entry);
  }
  expect(released(waits, 0)).toEqual([1]);
  expect(released(waits, 0)).toEqual([]);
  waits.drop(0);
  expect(released(waits, 0)).toEqual([3]);
  waits.ended(suspects[2]!);
  expect(released(waits, 0)).toEqual([]);
});

test("G6 what is due last goes back to the store, and what is due soon is kept", () => {
  const waits = new Waits(0.1, 0);
  const back: Entry[] = [];
  for (let seq = 1; seq <= 20_000; seq++) back.push(...waits.delay(waiting(seq, 1_000_000 + seq)));
  expect(waits.size).toBeLessThanOrEqual(8192);
  expect(waits.size + back.length).toBe(20_000);
  const kept = 20_000 - back.length;
  expect(Math.min(...back.map(({ seq }) => seq))).toBe(kept + 1);
  expect(waits.hasRoomFor(1_000_000 + kept)).toBe(true);
  expect(waits.hasRoomFor(1_000_001 + kept)).toBe(false);
  expect(waits.delay(waiting(30_000, 500, 1))).toEqual([]);
  expect(released(waits, 500)).toEqual([30_000]);
});

test("L1 a flood of messages for later holds up no short delay and no retry, and all of it comes", () => {
  const world = new MachineHarness({
    partitions: 2,
    order: "none",
    buffer: { messages: 12_000 },
    readAhead: 64,
    retry: { attempts: 5, delay: [100, 200] },
  });
  const store = (delayMs: number, partition: number): void => {
    while (!world.send("p0", partition, { delayMs })) {
      world.turn();
      world.settleStore();
      world.nowMs += 100; // Credit that lies with the other partition comes back by its lease.
    }
  };
  for (let at = 0; at < 9000; at++) store(86_400_000 + at, at % 2);
  store(0, 0);
  store(3000, 1);
  world.pump(6);
  world.checkKnown();
  expect(world.runs).toHaveLength(1);
  world.settle(world.runs[0]!, { kind: "nack", error: "no" });
  world.pump();
  const seen = new Set<string>();
  for (let ms = 0; ms < 4000 && seen.size < 2; ms += 100) {
    world.nowMs += 100;
    world.pump();
    for (const run of world.runs) {
      seen.add(`${run.delivered.partition}:${run.delivered.attempt}`);
      world.settle(run, { kind: "ack" });
    }
  }
  expect([...seen].toSorted()).toEqual(["0:2", "1:1"]);
  world.checkKnown();
});

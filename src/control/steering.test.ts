import * as fc from "fast-check";
import { expect, test } from "vitest";
import { hash53, sequence } from "../base/index.ts";
import { defaultShardCount, ofHash, pickOfTwo, shardsOf } from "./steering.ts";

test("S1 routes are written down: a change would send keys away from their pending messages", () => {
  expect(["a", "order-17", "Zoë"].map((key) => ofHash(hash53(key), 16))).toEqual([2, 0, 5]);
  expect(shardsOf("tenant-1", 16, 4)).toEqual([15, 14, 3, 0]);
  expect(shardsOf("tenant-2", 64, 4)).toEqual([51, 24, 37, 12]);
});

test("S2 shards are distinct, in range, as many as asked for, and the same each time", () => {
  fc.assert(
    fc.property(
      fc.string(),
      fc.integer({ min: 1, max: 80 }),
      fc.integer({ min: 1, max: 90 }),
      (group, partitions, k) => {
        const shards = shardsOf(group, partitions, k);
        expect(shards).toHaveLength(Math.min(k, partitions));
        expect(new Set(shards).size).toBe(shards.length);
        for (const shard of shards) expect(shard >= 0 && shard < partitions).toBe(true);
        expect(shardsOf(group, partitions, k)).toEqual(shards);
      },
    ),
  );
});

test("S2 groups spread evenly, and share their partitions as rarely as chance allows", () => {
  const groups = Array.from({ length: 2000 }, (_, g) => new Set(shardsOf(`group-${g}`, 8, 2)));
  const load = Array.from({ length: 8 }, (_, p) => groups.filter((each) => each.has(p)).length);
  for (const count of load) expect(Math.abs(count - 500)).toBeLessThan(80);
  const [mine, ...others] = groups;
  const shared = others.map((each) => [...each].filter((p) => mine!.has(p)).length);
  const all = shared.filter((count) => count === 2).length / others.length;
  const any = shared.filter((count) => count > 0).length / others.length;
  expect(all).toBeGreaterThan(0.024);
  expect(all).toBeLessThan(0.048);
  expect(any).toBeCloseTo(0.46, 1);
});

test("S3 one partition more changes at most one shard of a group, and most groups not at all", () => {
  let moved = 0;
  for (let g = 0; g < 1000; g++) {
    const before = shardsOf(`group-${g}`, 16, 4);
    const after = new Set(shardsOf(`group-${g}`, 17, 4));
    const lost = before.filter((p) => !after.has(p)).length;
    expect(lost).toBeLessThanOrEqual(1);
    moved += lost;
  }
  expect(moved).toBeGreaterThan(170);
  expect(moved).toBeLessThan(300);
});

test("the count of shards is off below 8 partitions, then 2, then 4", () => {
  expect([1, 7, 8, 15, 16, 64].map(defaultShardCount)).toEqual([1, 7, 2, 2, 4, 4]);
});

test("hashes of keys spread evenly over any number of partitions", () => {
  for (const partitions of [3, 16, 64]) {
    const counts = Array.from({ length: partitions }, () => 0);
    for (let i = 0; i < 200 * partitions; i++) {
      const p = ofHash(hash53(`key-${i}`), partitions);
      counts[p] = counts[p]! + 1;
    }
    // Chi-square: mean n - 1, deviation sqrt(2 (n - 1)).
    const chi = counts.reduce((sum, count) => sum + (count - 200) ** 2 / 200, 0);
    expect(chi).toBeLessThan(partitions - 1 + 4 * Math.sqrt(2 * (partitions - 1)));
  }
});

test("S2 of two drawn partitions the freer one is taken, and they always differ", () => {
  fc.assert(
    fc.property(
      fc.nat(),
      fc.nat(),
      fc.integer({ min: 2, max: 70 }),
      (seed, counter, partitions) => {
        const asked: number[] = [];
        const picked = pickOfTwo(seed, counter, partitions, (p) => {
          asked.push(p);
          return (p * 7919) % 13;
        });
        expect(new Set(asked).size).toBe(2);
        for (const p of asked) expect(p >= 0 && p < partitions).toBe(true);
        expect((picked * 7919) % 13).toBe(Math.max(...asked.map((p) => (p * 7919) % 13)));
        expect(pickOfTwo(seed, counter, partitions, (p) => (p * 7919) % 13)).toBe(picked);
      },
    ),
  );
  expect(pickOfTwo(1, 1, 1, () => 0)).toBe(0);
});

/** Mean of the longest backlog while partitions of equal speed drain at 90 % load. */
function longest(choices: 1 | 2): number {
  const draw = sequence(7);
  const backlog = Array.from({ length: 64 }, () => 0);
  let owed = 0;
  let sum = 0;
  let samples = 0;
  for (let n = 0; n < 100_000; n++) {
    // Equal credit everywhere takes the first choice.
    const free = choices === 2 ? (p: number): number => -backlog[p]! : (): number => 0;
    const p = pickOfTwo(11, n, 64, free);
    backlog[p] = backlog[p]! + 1;
    for (owed += 1 / 0.9; owed >= 1; owed--) {
      const served = Math.floor(draw() * 64);
      if (backlog[served]! > 0) backlog[served] = backlog[served]! - 1;
    }
    if (n % 100 === 99) {
      sum += Math.max(...backlog);
      samples++;
    }
  }
  return sum / samples;
}

test("two choices keep the longest of 64 backlogs at 90 % load near 5, where one lets it grow to 42", () => {
  expect(longest(2)).toBeLessThan(6);
  expect(longest(1)).toBeGreaterThan(20);
});

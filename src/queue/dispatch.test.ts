import fc from "fast-check";
import { expect, test } from "vitest";
import { recovery } from "../control/index.ts";
import { Dispatch } from "./dispatch.ts";
import { entryOf } from "./entry.ts";
import { Sources } from "./sources.ts";

const classes = ["critical", "normal", "bulk"] as const;
const rates = { arrivalsPerS: 0, drainPerS: 0 };

/** Partitions with their sources, and a dispatch over them. */
class World {
  readonly paused = new Set<number>();
  readonly weights = new Map<string, number>();
  readonly sources = [0, 1, 2].map((partition) => new Sources(partition));
  readonly dispatch = new Dispatch({
    mayDispatch: (partition) => !this.paused.has(partition),
    weightOf: (group) => this.weights.get(group) ?? 1,
  });
  #seq = 0;

  add(partition: number, rank: 0 | 1 | 2, group: string, count = 1): void {
    const source = this.sources[partition]!.of(rank, group);
    for (let at = 0; at < count; at++) {
      const descriptor = {
        seq: ++this.#seq,
        class: classes[rank],
        group,
        bytes: 1,
        attempts: 0,
        crashes: 0,
        acceptedAtMs: 0,
      };
      source.ready.pushBack(entryOf(partition, descriptor, undefined));
    }
    this.dispatch.offer(source);
  }

  pick(): ReturnType<typeof entryOf> | undefined {
    return this.dispatch.pick(rates)?.entry;
  }

  resume(partition: number): void {
    this.paused.delete(partition);
    for (const source of this.sources[partition]!.all()) this.dispatch.offer(source);
  }

  ready(partition: number): number {
    let count = 0;
    for (const source of this.sources[partition]!.all()) count += source.ready.size;
    return count;
  }
}

const moves = fc.array(fc.tuple(fc.nat(9), fc.nat(99)), {
  minLength: 30,
  maxLength: 200,
  size: "max",
});

test("D1 and D2 what is ready in a partition that is not paused is found, and nothing else", () => {
  fc.assert(
    fc.property(moves, (history) => {
      const world = new World();
      const wrong: string[] = [];
      for (const [kind, a] of history) {
        const partition = a % 3;
        if (kind < 4) world.add(partition, ((a >> 2) % 3) as 0 | 1 | 2, `g${(a >> 4) % 3}`);
        else if (kind === 4) world.paused.add(partition);
        else if (kind === 5) world.resume(partition);
        else if (kind === 6) {
          world.sources[partition]!.split(1e9);
          for (const source of world.sources[partition]!.all()) world.dispatch.offer(source);
        } else {
          const ready = [0, 1, 2].some((at) => !world.paused.has(at) && world.ready(at) > 0);
          const entry = world.pick();
          if ((entry !== undefined) !== ready) wrong.push("D1 it did not find what is ready");
          if (world.paused.has(entry?.partition ?? -1)) wrong.push("D2 it found what is paused");
        }
      }
      for (const partition of [0, 1, 2]) world.resume(partition);
      while (world.pick() !== undefined);
      expect(wrong).toEqual([]);
      for (const partition of [0, 1, 2]) expect(world.ready(partition)).toBe(0);
    }),
    { numRuns: 200 },
  );
});

test("D3 classes are served 16 to 4 to 1, and each within every 21 picks", () => {
  const world = new World();
  for (const rank of [0, 1, 2] as const) world.add(0, rank, "", 400);
  const ranks = Array.from({ length: 210 }, () => world.pick()!.rank);
  expect(ranks.filter((rank) => rank === 0)).toHaveLength(160);
  expect(ranks.filter((rank) => rank === 1)).toHaveLength(40);
  for (let at = 0; at + 42 <= ranks.length; at++) expect(ranks.slice(at, at + 42)).toContain(2);
});

test("D3 groups share by their weights, however much one of them has", () => {
  const world = new World();
  world.weights.set("big", 3);
  world.add(0, 1, "flood", 5000);
  world.add(1, 1, "big", 300);
  world.add(2, 1, "small", 300);
  const groups = Array.from({ length: 250 }, () => world.pick()!.group);
  expect(groups.filter((group) => group === "big").length).toBe(150);
  expect(groups.filter((group) => group === "small").length).toBe(50);
});

test("after an outage the backlog rotates apart, and what is fresh gets its share", () => {
  const world = new World();
  world.add(0, 1, "", 40);
  world.sources[0]!.split(40);
  for (const source of world.sources[0]!.all()) world.dispatch.offer(source);
  recovery.begin(world.dispatch.recovery, 0);
  world.add(0, 1, "", 40);
  const fresh = Array.from({ length: 40 }, () => world.pick()!.seq).filter((seq) => seq > 40);
  expect(Math.abs(fresh.length - 36), "nine of ten, to within one").toBeLessThanOrEqual(1);
});

test("inside a source, first ready, first out; the partitions take turns", () => {
  const world = new World();
  world.add(0, 1, "", 3);
  world.add(1, 1, "", 3);
  const picks = Array.from({ length: 6 }, () => world.pick()!);
  expect(picks.map(({ partition }) => partition)).toEqual([0, 1, 0, 1, 0, 1]);
  expect(picks.map(({ seq }) => seq)).toEqual([1, 4, 2, 5, 3, 6]);
});

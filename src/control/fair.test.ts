import * as fc from "fast-check";
import { expect, test } from "vitest";
import { sequence } from "../base/index.ts";
import { Ring } from "./fair.ts";

const weights = { critical: 16, normal: 4, bulk: 1 } as const;
type Name = keyof typeof weights;
const names = ["critical", "normal", "bulk"] as const;
const one = (): number => 1;

/** Two levels as the queue composes them: classes, then groups of weight 1, each with its cost. */
class TwoLevels {
  readonly classes = new Ring<Name>();
  readonly groups: Record<Name, Ring<string>> = {
    critical: new Ring(),
    normal: new Ring(),
    bulk: new Ring(),
  };
  readonly cost: (group: string) => number;

  constructor(cost: (group: string) => number = one) {
    this.cost = cost;
  }

  activate(name: Name, group: string): void {
    this.groups[name].activate(group, 1);
    this.classes.activate(name, weights[name]);
  }

  pick(): { name: Name; group: string } | undefined {
    const name = this.classes.next((c) => {
      const head = this.groups[c].peek(this.cost);
      return head === undefined ? 0 : this.cost(head);
    });
    if (name === undefined) return undefined;
    return { name, group: this.groups[name].next(this.cost)! };
  }
}

/** Longest gap, in dispatches, between two turns of a group, and dispatches, by class. */
function measure(groups: number, dispatches: number): { gaps: number[]; counts: number[] } {
  const levels = new TwoLevels();
  for (const name of names) {
    for (let g = 0; g < groups; g++) levels.activate(name, `${name}${g}`);
  }
  const last = new Map<string, number>();
  const gaps = [0, 0, 0];
  const counts = [0, 0, 0];
  for (let n = 1; n <= dispatches; n++) {
    const { name, group } = levels.pick()!;
    const rank = names.indexOf(name);
    counts[rank] = counts[rank]! + 1;
    gaps[rank] = Math.max(gaps[rank]!, n - (last.get(group) ?? 0));
    last.set(group, n);
  }
  return { gaps, counts };
}

test("F1 with everything backlogged the classes get 76.2, 19.0 and 4.8 %, and gaps stay in bounds", () => {
  const { gaps, counts } = measure(50, 42_000);
  const shares = counts.map((count) => Math.round((1000 * count) / 42_000) / 10);
  expect(shares).toEqual([76.2, 19, 4.8]);
  expect(gaps).toEqual([70, 271, 1050]);
  const bounds = [105, 294, 1071];
  gaps.forEach((gap, rank) => expect(gap).toBeLessThanOrEqual(bounds[rank]!));
});

test("F1 the gap bound holds for any number of groups", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 60 }), (groups) => {
      const { gaps } = measure(groups, 21 * groups * 4);
      names.forEach((name, rank) => {
        const bound = (Math.ceil(groups / weights[name]) + 1) * 21;
        expect(gaps[rank]!).toBeLessThanOrEqual(bound);
      });
    }),
    { numRuns: 30 },
  );
});

test("F1 what keys send is in proportion to their weights, whatever the costs and weights", () => {
  const key = fc.record({
    weight: fc.constantFrom(0.1, 0.3, 1, 2, 16),
    costMax: fc.constantFrom(1, 3, 16, 300),
  });
  fc.assert(
    fc.property(
      fc.array(key, { minLength: 2, maxLength: 6, size: "max" }),
      fc.nat(),
      (keys, seed) => {
        const draw = sequence(seed);
        const ring = new Ring<number>();
        const heads = keys.map(({ costMax }) => 1 + Math.floor(draw() * costMax));
        const sent = keys.map(() => 0);
        keys.forEach(({ weight }, k) => ring.activate(k, weight));
        for (let n = 0; n < 2000; n++) {
          const k = ring.next((each) => heads[each]!)!;
          sent[k] = sent[k]! + heads[k]!;
          heads[k] = 1 + Math.floor(draw() * keys[k]!.costMax);
          ring.check();
        }
        // Each has sent its weight times the rounds, less than a head and a round short of it.
        const slack = keys.map(({ weight, costMax }) => costMax / weight + 2);
        const rounds = keys.map(({ weight }, k) => sent[k]! / weight);
        for (let i = 0; i < keys.length; i++) {
          for (let j = 0; j < keys.length; j++) {
            expect(rounds[i]! - rounds[j]!).toBeLessThanOrEqual(slack[j]! + 1);
          }
        }
      },
    ),
    { numRuns: 60 },
  );
});

test("F1 two levels share by cost: a class of large messages gets no more than its weight", () => {
  const levels = new TwoLevels((group) => (group.startsWith("bulk") ? 16 : 1));
  for (const name of names) levels.activate(name, `${name}0`);
  const costs = { critical: 0, normal: 0, bulk: 0 };
  for (let n = 0; n < 50_000; n++) {
    const { name, group } = levels.pick()!;
    costs[name] += levels.cost(group);
  }
  const all = costs.critical + costs.normal + costs.bulk;
  expect(costs.bulk / all).toBeCloseTo(1 / 21, 2);
  expect(costs.critical / all).toBeCloseTo(16 / 21, 2);
});

test("F2 a pick succeeds while anybody has work, and unused shares go to the others at once", () => {
  const event = fc.record({
    name: fc.constantFrom(...names),
    count: fc.integer({ min: 0, max: 5 }),
  });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60, size: "max" }), (events) => {
      const left = { critical: 0, normal: 0, bulk: 0 };
      const ring = new Ring<Name>();
      const cost = (name: Name): number => (left[name] > 0 ? 1 : 0);
      for (const { name, count } of events) {
        left[name] += count;
        if (left[name] > 0) ring.activate(name, weights[name]);
        const had = left.critical + left.normal + left.bulk > 0;
        const picked = ring.next(cost);
        expect(picked !== undefined).toBe(had);
        if (picked !== undefined) left[picked]--;
        ring.check();
      }
      let rest = left.critical + left.normal + left.bulk;
      for (; rest > 0; rest--) left[ring.next(cost)!]--;
      expect(left).toEqual({ critical: 0, normal: 0, bulk: 0 });
      expect(ring.next(cost)).toBeUndefined();
      expect(ring.size).toBe(0);
    }),
  );
});

test("F2 a key that ran empty takes no earnings along", () => {
  const ring = new Ring<string>();
  const left: Record<string, number> = { a: 1, b: 1000 };
  const cost = (key: string): number => (left[key]! > 0 ? 1 : 0);
  ring.activate("a", 100);
  ring.activate("b", 1);
  expect(ring.next(cost)).toBe("a");
  left["a"] = 0;
  for (let i = 0; i < 10; i++) expect(ring.next(cost)).toBe("b");
  left["a"] = 1000;
  ring.activate("a", 1);
  const picks = Array.from({ length: 10 }, () => ring.next(cost));
  expect(picks.filter((key) => key === "a")).toHaveLength(5);
});

test.each([
  ["heads that cost 256 rounds", 256, 1],
  ["weights of a hundredth", 1, 0.01],
  ["both", 1000, 0.1],
])("F3 a pick visits few keys: %s", (_, cost, weight) => {
  const ring = new Ring<number>();
  for (let k = 0; k < 1000; k++) ring.activate(k, weight);
  // One key that can always pay keeps the rounds turning one by one.
  ring.activate(1000, 1);
  let visits = 0;
  const picks = new Map<number, number>();
  for (let n = 0; n < 20_000; n++) {
    const key = ring.next((each) => {
      visits++;
      return each === 1000 ? 1 : cost;
    })!;
    picks.set(key, (picks.get(key) ?? 0) + 1);
  }
  // Two looks for each message, and one for each 31 rounds in which a key only earns.
  const rounds = picks.get(1000)!;
  expect(visits).toBeLessThanOrEqual(2 * 20_000 + 1000 * (rounds / 31 + 2));
  expect(picks.size).toBeGreaterThan(1);
});

test("F3 when nobody can pay for a while, the first who can is found without walking the rounds", () => {
  const ring = new Ring<string>();
  ring.activate("large", 1);
  ring.activate("larger", 1);
  let visits = 0;
  const cost = (key: string): number => {
    visits++;
    return key === "large" ? 10_000 : 20_000;
  };
  expect(ring.next(cost)).toBe("large");
  expect(visits).toBeLessThan(2 * (10_000 / 31 + 2));
});

test("F1 a new weight counts from the next round on, and not for rounds gone by", () => {
  const ring = new Ring<string>();
  ring.activate("light", 0.05);
  ring.activate("other", 1);
  const picks = (count: number): string => {
    const lights = Array.from({ length: count }, () => ring.next(one) === "light");
    return `${lights.filter(Boolean).length} of ${count}`;
  };
  expect(picks(10)).toBe("0 of 10");
  ring.activate("light", 4);
  ring.check();
  expect(picks(25)).toBe("20 of 25");
  ring.activate("light", 0.05);
  expect(picks(63)).toBe("3 of 63");
});

test("F2 a key that is taken away costs the one being served nothing", () => {
  const ring = new Ring<string>();
  ring.activate("heavy", 5);
  for (const key of ["a", "b"]) ring.activate(key, 1);
  expect(ring.next(one)).toBe("heavy");
  ring.deactivate("a");
  ring.check();
  const picks = Array.from({ length: 6 }, () => ring.next(one));
  expect(picks).toEqual(["heavy", "heavy", "heavy", "heavy", "b", "heavy"]);
});

test("F4 a key that leaves and returns at once gains nothing", () => {
  const ring = new Ring<string>();
  let fresh = 1;
  const cost = (key: string): number => (key === "hasty" ? fresh : 1);
  ring.activate("hasty", 1);
  for (const key of ["a", "b", "c"]) ring.activate(key, 1);
  const picks: string[] = [];
  for (let n = 0; n < 400; n++) {
    const key = ring.next(cost)!;
    picks.push(key);
    fresh = key === "hasty" ? 0 : fresh;
    if (key !== "hasty" && fresh === 0) {
      // It has sent its one message and now brings the next one.
      ring.deactivate("hasty");
      fresh = 1;
      ring.activate("hasty", 1);
    }
  }
  const hasty = picks.filter((key) => key === "hasty").length;
  expect(hasty).toBeGreaterThan(90);
  expect(hasty).toBeLessThanOrEqual(101);
});

test("F2 and F3 hold whatever comes, goes, changes weight and cost", () => {
  const key = fc.integer({ min: 0, max: 5 });
  const step = fc.oneof(
    fc.record({ kind: fc.constant("activate" as const), key, weight: fc.constantFrom(0.1, 1, 7) }),
    fc.record({ kind: fc.constant("deactivate" as const), key }),
    fc.record({ kind: fc.constant("cost" as const), key, cost: fc.constantFrom(0, 1, 2.5, 64) }),
    fc.record({ kind: fc.constant("next" as const) }),
    fc.record({ kind: fc.constant("peek" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: "max" }), (steps) => {
      const ring = new Ring<number>();
      const active = new Set<number>();
      let steady = true;
      let fair = true;
      const costs = [1, 1, 1, 1, 1, 1];
      const cost = (each: number): number => costs[each]!;
      for (const each of steps) {
        if (each.kind === "activate") {
          ring.activate(each.key, each.weight);
          active.add(each.key);
        } else if (each.kind === "deactivate") {
          ring.deactivate(each.key);
          active.delete(each.key);
        } else if (each.kind === "cost") {
          costs[each.key] = each.cost;
        } else if (each.kind === "peek") {
          const seen = [ring.peek(cost), ring.peek(cost)];
          steady &&= seen[0] === seen[1] && ring.next(cost) === seen[0];
        } else {
          const picked = ring.next(cost);
          const able = [...active].filter((one) => costs[one]! > 0);
          fair &&= picked === undefined ? able.length === 0 : able.includes(picked);
        }
        // Who has nothing to send may have left unnoticed; who has must be here.
        for (const one of active) if (costs[one] === 0 && !ring.has(one)) active.delete(one);
        expect([steady, fair]).toEqual([true, true]);
        expect([...ring].toSorted((a, b) => a - b)).toEqual([...active].toSorted((a, b) => a - b));
        ring.check();
      }
    }),
  );
});

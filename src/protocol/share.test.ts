import fc from "fast-check";
import { expect, test } from "vitest";
import { divide } from "./share.ts";

/** One at a time to the smallest that is below its goal, the first of equals. */
function oneByOne(have: readonly number[], goal: readonly number[], free: number): number[] {
  const out = [...have];
  for (let left = free; left > 0; left--) {
    let best = -1;
    for (let k = 0; k < out.length; k++) {
      if (out[k]! < goal[k]! && (best < 0 || out[k]! < out[best]!)) best = k;
    }
    if (best < 0) break;
    out[best] = out[best]! + 1;
  }
  return out;
}

const parties = (max: number) =>
  fc.array(fc.record({ have: fc.nat({ max }), goal: fc.nat({ max }) }), { maxLength: 12 });

test("S1-S3 the division equals giving one at a time to the smallest", () => {
  fc.assert(
    fc.property(parties(30), fc.nat({ max: 200 }), (drawn, free) => {
      const have = drawn.map((d) => d.have);
      const goal = drawn.map((d) => d.goal);
      const expected = oneByOne(have, goal, free);
      const given = expected.reduce((sum, n, k) => sum + n - have[k]!, 0);
      expect(divide(have, goal, have.length, free)).toBe(free - given);
      expect(have).toEqual(expected);
    }),
    { numRuns: 2_000 },
  );
});

test("S1-S3 hold for bytes by the terabyte", () => {
  fc.assert(
    fc.property(parties(2 ** 31 - 1), fc.maxSafeNat(), (drawn, drawnFree) => {
      const free = drawnFree % 2 ** 34;
      const before = drawn.map((d) => d.have * 256);
      const goal = drawn.map((d) => d.goal * 256);
      const have = [...before];
      const left = divide(have, goal, have.length, free);
      const given = have.reduce((sum, n, k) => sum + n - before[k]!, 0);
      expect(given + left).toBe(free);
      const open = have.filter((n, k) => n < goal[k]!);
      expect(left === 0 || open.length === 0).toBe(true); // S2
      const least = Math.min(...open);
      have.forEach((n, k) => {
        const raised = n > before[k]!;
        expect(n).toBeGreaterThanOrEqual(before[k]!); // S1
        expect(!raised || n <= Math.min(goal[k]!, least + 1)).toBe(true); // S1, S3
      });
    }),
  );
});

test("only the first `count` take part, and nothing is given without room", () => {
  const have = [0, 0, 9];
  expect(divide(have, [5, 5, 99], 2, 4)).toBe(0);
  expect(have).toEqual([2, 2, 9]);
  expect(divide(have, [5, 5, 99], 3, 0)).toBe(0);
  expect(have).toEqual([2, 2, 9]);
});

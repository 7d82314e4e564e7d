import fc from "fast-check";
import { expect, test } from "vitest";
import { Sorted } from "./sorted.ts";

const upwards = (a: number, b: number): number => a - b;

test("S1 and S2 hold, and it reads as a sorted set, whatever is added and deleted", () => {
  const steps = fc.array(fc.tuple(fc.boolean(), fc.nat(900)), { maxLength: 3000, size: "max" });
  fc.assert(
    fc.property(steps, fc.nat(900), (drawn, cursor) => {
      const sorted = new Sorted(upwards);
      const model = new Set<number>();
      for (const [add, value] of drawn) {
        if (add) sorted.add(value);
        else sorted.delete(value);
        if (add) model.add(value);
        else model.delete(value);
      }
      sorted.check();
      const values = [...model].toSorted(upwards);
      expect(sorted.size).toBe(values.length);
      expect(sorted.first()).toBe(values[0]);
      expect([...sorted.after(null)]).toEqual(values);
      expect([...sorted.after(cursor)]).toEqual(values.filter((value) => value > cursor));
    }),
    { numRuns: 30 },
  );
});

test("S2 holds when chunks split at the end, at the front and in the middle", () => {
  const sorted = new Sorted(upwards);
  for (let i = 0; i < 3000; i++) sorted.add(i * 2);
  for (let i = 0; i < 3000; i++) sorted.add(-i);
  for (let i = 0; i < 3000; i++) sorted.add(((i * 7919) % 3000) * 2 + 1);
  sorted.check();
  expect(sorted.size).toBe(8999);
  for (let i = 0; i < 3000; i++) sorted.delete(i * 2);
  sorted.check();
  expect([...sorted.after(0)].length).toBe(3000);
});

/** What an insert, two deletes and a page in a set of that size cost. */
function comparisons(size: number): number {
  let count = 0;
  const sorted = new Sorted((a: number, b: number) => {
    count++;
    return a - b;
  });
  for (let i = 0; i < size; i++) sorted.add(i * 2);
  count = 0;
  sorted.add(size + 1);
  sorted.delete(size);
  sorted.delete(0);
  sorted
    .after(size >> 1)
    .take(10)
    .toArray();
  return count;
}

test("E11 the cost of every operation grows with the logarithm of the size", () => {
  expect(comparisons(1_000_000)).toBeLessThan(comparisons(1000) + 4 * 12);
});

import fc from "fast-check";
import { expect, test } from "vitest";
import { IntegerMap } from "./integer-map.ts";

const call = fc.record({
  key: fc.oneof(
    fc.nat(40),
    fc.nat(40).map((n) => n * 65_536), // The same low bits.
    fc.nat(8).map((n) => n * 2 ** 40 + 7),
    fc.constant(Number.MAX_SAFE_INTEGER),
  ),
  deletes: fc.boolean(),
});

test("an integer map holds what a Map would, whatever comes and goes", () => {
  fc.assert(
    fc.property(fc.array(call, { maxLength: 400 }), (calls) => {
      const map = new IntegerMap<number>();
      const model = new Map<number, number>();
      for (const [at, { key, deletes }] of calls.entries()) {
        const before = model.get(key);
        if (deletes) model.delete(key);
        else model.set(key, at + 1);
        const taken = deletes ? map.delete(key) : before;
        if (!deletes) map.set(key, at + 1);
        expect(taken).toBe(before);
        expect(map.size).toBe(model.size);
        expect(map.get(key)).toBe(model.get(key));
        expect(map.has(key)).toBe(model.has(key));
      }
      expect(new Map(map)).toEqual(model);
      const values = new Set<number>();
      map.forEach((value) => values.add(value));
      expect(values).toEqual(new Set(model.values()));
    }),
  );
});

test("an integer map that grew and was emptied holds the rest", () => {
  const map = new IntegerMap<number>();
  for (let key = 0; key < 10_000; key++) map.set(key, key + 1);
  for (let key = 0; key < 9_990; key++) expect(map.delete(key)).toBe(key + 1);
  expect(new Map(map)).toEqual(
    new Map(Array.from({ length: 10 }, (_, n) => [9_990 + n, 9_991 + n] as const)),
  );
  map.clear();
  expect([...map]).toEqual([]);
});

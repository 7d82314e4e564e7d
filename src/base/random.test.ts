import fc from "fast-check";
import { expect, test } from "vitest";
import { hash32, hashNumber } from "./random.ts";

test("G8 the hash of one number is the one that any number of words would give", () => {
  fc.assert(
    fc.property(fc.maxSafeInteger(), fc.maxSafeNat(), (seed, word) => {
      expect(hashNumber(seed, word)).toBe(hash32(seed, word));
    }),
  );
});

import fc from "fast-check";
import { expect, test } from "vitest";
import * as lag from "./lag.ts";

test("G9 a percentile is at most 19 % above the true one, and never below", () => {
  const sample = fc.double({ min: 0.02, max: 100_000, noNaN: true });
  fc.assert(
    fc.property(fc.array(sample, { minLength: 1, maxLength: 200 }), (samples) => {
      const state = lag.init();
      for (const ms of samples) lag.note(state, ms);
      const sorted = samples.toSorted((a, b) => a - b);
      const seen = lag.view(state);
      for (const [share, found] of [
        [0.5, seen.p50Ms],
        [0.99, seen.p99Ms],
      ] as const) {
        const exact = sorted[Math.ceil(share * sorted.length) - 1]!;
        expect(found).toBeGreaterThanOrEqual(exact * 0.999_999);
        expect(found).toBeLessThanOrEqual(exact * 1.19);
      }
      expect(seen.maxMs).toBe(sorted.at(-1));
      expect(seen.count).toBe(samples.length);
    }),
  );
});

test("G9 old samples fade, so a lag that rises is soon seen", () => {
  const state = lag.init();
  for (let k = 0; k < 100_000; k++) lag.note(state, 5);
  for (let k = 0; k < 9_000; k++) lag.note(state, 80);
  expect(lag.view(state).p50Ms).toBeGreaterThanOrEqual(80);
  expect(lag.view(lag.init())).toEqual({ p50Ms: 0, p99Ms: 0, maxMs: 0, count: 0 });
});

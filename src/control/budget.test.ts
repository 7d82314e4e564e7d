import * as fc from "fast-check";
import { expect, test } from "vitest";
import * as budget from "./budget.ts";

const startMs = 1_764_000_000_000;

/** Bursts of first attempts, and retries asked for whenever there may be one. */
const load = fc.array(
  fc.record({
    gapMs: fc.oneof(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 12_000 })),
    firsts: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 400 })),
    asks: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 100 })),
  }),
  { maxLength: 80, size: "max" },
);

const within = (times: readonly number[], fromMs: number, toMs: number): number =>
  times.filter((at) => at >= fromMs && at <= toMs).length;

test("R1 retries over any 10 s stay within the share, the floor and what was kept", () => {
  fc.assert(
    fc.property(
      load,
      fc.constantFrom(0, 0.1, 0.5),
      fc.constantFrom(0, 1, 5),
      (steps, share, floor) => {
        const b = budget.init({ share, floorPerS: floor }, startMs);
        const firsts: number[] = [];
        const retries: number[] = [];
        let nowMs = startMs;
        for (const { gapMs, firsts: settles, asks } of steps) {
          nowMs += gapMs;
          for (let i = 0; i < settles; i++) {
            budget.firstSettled(b, nowMs);
            firsts.push(nowMs);
          }
          for (let i = 0; i < asks; i++) if (budget.take(b, nowMs)) retries.push(nowMs);
          budget.check(b);
        }
        for (const fromMs of new Set(retries)) {
          const toMs = fromMs + 10_000;
          const kept = Math.max(10, share * within(firsts, fromMs - 10_000, fromMs));
          const allowed = share * within(firsts, fromMs, toMs) + 10 * floor + kept;
          expect(within(retries, fromMs, toMs)).toBeLessThanOrEqual(allowed + 0.01);
        }
      },
    ),
  );
});

test("R1 a target at which everything fails gets a tenth more work, not its twelvefold", () => {
  const b = budget.init({}, startMs);
  let retries = 0;
  for (let ms = 0; ms < 60_000; ms += 10) {
    for (let i = 0; i < 10; i++) budget.firstSettled(b, startMs + ms);
    while (budget.take(b, startMs + ms)) retries++;
  }
  expect(retries).toBeGreaterThan(6000);
  expect(retries).toBeLessThanOrEqual(6000 + 60 + 10);
});

test("R1 what was kept in busy times is let go of in quiet ones", () => {
  const b = budget.init({ floorPerS: 0 }, startMs);
  for (let i = 0; i < 5000; i++) budget.firstSettled(b, startMs + i);
  expect(Math.floor(budget.view(b).tokens)).toBe(500);
  expect(budget.take(b, startMs + 16_000)).toBe(true);
  expect(Math.floor(budget.view(b).tokens)).toBe(9);
});

test("R6 a retry is never more than 1 / floor away, and the time named is good", () => {
  fc.assert(
    fc.property(fc.double({ min: 0.05, max: 50, noNaN: true }), load, (floorPerS, steps) => {
      const b = budget.init({ floorPerS }, startMs);
      let nowMs = startMs;
      for (const { gapMs, firsts, asks } of steps) {
        nowMs += gapMs;
        for (let i = 0; i < firsts; i++) budget.firstSettled(b, nowMs);
        for (let i = 0; i < asks; i++) budget.take(b, nowMs);
        const readyMs = budget.readyAtMs(b, nowMs);
        expect(readyMs - nowMs).toBeLessThanOrEqual(1000 / floorPerS + 1);
        const other = { ...b, firsts: [...b.firsts] };
        expect(budget.take(other, nowMs)).toBe(readyMs === nowMs);
        expect(budget.take({ ...b, firsts: [...b.firsts] }, readyMs)).toBe(true);
      }
    }),
  );
});

test("R6 without a floor and without tokens only first attempts bring a retry on", () => {
  const b = budget.init({ floorPerS: 0 }, startMs);
  for (let i = 0; i < 10; i++) expect(budget.take(b, startMs)).toBe(true);
  expect(budget.readyAtMs(b, startMs)).toBe(Infinity);
  for (let i = 0; i < 10; i++) budget.firstSettled(b, startMs);
  expect(budget.take(b, startMs)).toBe(true);
  expect(budget.take(b, startMs)).toBe(false);
});

import * as fc from "fast-check";
import { expect, test } from "vitest";
import * as limiter from "./limiter.ts";

const startMs = 1_764_000_000_000;

test("L1 any span passes at most burst + rate x span, and a rested limiter passes its whole burst", () => {
  fc.assert(
    fc.property(
      fc.record({
        ratePerS: fc.double({ min: 0.2, max: 5000, noNaN: true }),
        burst: fc.integer({ min: 1, max: 500 }),
        gaps: fc.array(fc.double({ min: 0, max: 300, noNaN: true }), {
          maxLength: 300,
          size: "max",
        }),
      }),
      ({ ratePerS, burst, gaps }) => {
        const l = limiter.init({ ratePerS, burst }, startMs);
        for (let i = 0; i < burst; i++) expect(limiter.take(l, startMs, 1)).toBe(0);
        expect(limiter.take(l, startMs, 1)).toBeGreaterThan(0);
        const passed = Array.from({ length: burst }, () => startMs);
        let nowMs = startMs;
        for (const gap of gaps) {
          nowMs += gap;
          if (limiter.take(l, nowMs, 1) === 0) passed.push(nowMs);
        }
        for (let from = 0; from < passed.length; from += 7) {
          for (let to = from; to < passed.length; to += 5) {
            const spanS = (passed[to]! - passed[from]!) / 1000;
            expect(to - from + 1).toBeLessThanOrEqual(burst + ratePerS * spanS + 0.01);
          }
        }
      },
    ),
    { numRuns: 60 },
  );
});

test("L1 a steady sender gets the rate to within a thousandth, over hours and at 100,000/s", () => {
  for (const ratePerS of [0.3, 7, 100_000]) {
    const l = limiter.init({ ratePerS, burst: 1 }, startMs);
    let nowMs = startMs + 36_000_000;
    const fromMs = nowMs;
    let passed = 0;
    while (passed < 5000) {
      const waitMs = limiter.take(l, nowMs, 1);
      if (waitMs === 0) passed++;
      else nowMs += waitMs;
    }
    const share = ((passed - 1) * 1000) / (nowMs - fromMs) / ratePerS;
    expect(Math.abs(share - 1)).toBeLessThan(0.001);
  }
});

test("L2 a refusal spends nothing, and the wait it names is enough and not too long", () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.01, max: 100_000, noNaN: true }),
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 1, max: 20 }),
      fc.double({ min: 0.2, max: 8, noNaN: true }),
      (ratePerS, burst, cost, factor) => {
        const l = limiter.init({ ratePerS, burst }, startMs);
        let waitMs = 0;
        for (let i = 0; i < 100 && waitMs === 0; i++) {
          waitMs = limiter.take(l, startMs, cost, factor);
        }
        fc.pre(waitMs > 0);
        const before = { ...l };
        expect(limiter.take(l, startMs, cost, factor)).toBe(waitMs);
        expect(limiter.take(l, startMs + 0.9 * waitMs - 0.01, cost, factor)).toBeGreaterThan(0);
        expect(l).toEqual(before);
        expect(limiter.take(l, startMs + waitMs, cost, factor)).toBe(0);
      },
    ),
  );
});

test("L3 a cost above the burst passes after a rest, and is paid by those who come after", () => {
  const l = limiter.init({ ratePerS: 10, burst: 5 }, startMs);
  expect(limiter.take(l, startMs, 100)).toBe(0);
  expect(limiter.view(l, startMs).left).toBeCloseTo(-95);
  expect(limiter.take(l, startMs, 1)).toBeCloseTo(9600);
  expect(limiter.take(l, startMs + 9600, 1)).toBe(0);
});

test("L3 what was used already is spent whatever is left, and the wait it names is enough", () => {
  const l = limiter.init({ ratePerS: 10, burst: 5 }, 0);
  expect(limiter.owe(l, 0, 4)).toBe(0);
  const waitMs = limiter.owe(l, 0, 21);
  expect(waitMs).toBe(2100); // Of 25 a burst of 5 is free, and one is to be had.
  expect(limiter.take(l, waitMs - 1, 1)).toBeGreaterThan(0);
  expect(limiter.owe(l, waitMs, 0)).toBe(0);
  expect(limiter.take(l, waitMs, 1)).toBe(0);
});

test("the burst is a second of the rate where none is given, and never below one message", () => {
  expect(limiter.init({ ratePerS: 40 }, startMs).burst).toBe(40);
  expect(limiter.init({ ratePerS: 0.1 }, startMs).burst).toBe(1);
});

test("a factor multiplies rate and burst for the call", () => {
  const l = limiter.init({ ratePerS: 10 }, startMs);
  let passed = 0;
  while (limiter.take(l, startMs, 1, 6) === 0) passed++;
  expect(passed).toBe(60);
  expect(limiter.take(l, startMs, 1, 6)).toBeCloseTo(1000 / 60);
});

test("a new rate counts at once: a debt shrinks with a higher rate and keeps its time with a lower", () => {
  const raised = limiter.init({ ratePerS: 1, burst: 1000 }, startMs);
  for (let i = 0; i < 1000; i++) limiter.take(raised, startMs, 1);
  limiter.setRate(raised, { ratePerS: 1000, burst: 1 }, startMs);
  expect(limiter.take(raised, startMs, 1)).toBeCloseTo(1000);

  const lowered = limiter.init({ ratePerS: 1000 }, startMs);
  for (let i = 0; i < 1000; i++) limiter.take(lowered, startMs, 1);
  limiter.setRate(lowered, { ratePerS: 1 }, startMs);
  expect(limiter.take(lowered, startMs, 1)).toBeLessThanOrEqual(1000);
});

test("a surge counts whole inside and fades over five minutes outside; the largest of several counts", () => {
  const minute = 60_000;
  const surge = { fromMs: startMs, toMs: startMs + minute, factor: 6 };
  const at = (ms: number): number => limiter.surgeFactor([surge], startMs + ms);
  expect([at(0), at(minute)]).toEqual([6, 6]);
  expect([at(-5 * minute), at(6 * minute), at(-minute * 60)]).toEqual([1, 1, 1]);
  expect(at(-2.5 * minute)).toBeCloseTo(3.5);
  expect(at(3.5 * minute)).toBeCloseTo(3.5);
  const quiet = { fromMs: startMs - minute, toMs: startMs + 10 * minute, factor: 0.5 };
  expect(limiter.surgeFactor([quiet, surge], startMs)).toBe(6);
  expect(limiter.surgeFactor([quiet], startMs)).toBe(0.5);
  expect(limiter.surgeFactor([], startMs)).toBe(1);
});

import * as fc from "fast-check";
import { expect, test } from "vitest";
import { isSpillwayError, sequence } from "../base/index.ts";
import * as overload from "./overload.ts";

/** Settles `count` calls evenly over `ms`, `bad` of every hundred with a 429. */
function settle(
  o: overload.Overload,
  fromMs: number,
  ms: number,
  count: number,
  bad: number,
): number {
  for (let i = 1; i <= count; i++) {
    overload.settled(o, fromMs + (ms * i) / count, (37 * i) % 100 < bad);
    overload.check(o);
  }
  return fromMs + ms;
}

test("O1 a contracted rate of 50/s lets through 50 t + burst at most, over any t", () => {
  const event = fc.record({
    kind: fc.constantFrom("call", "call", "call", "call", "settle", "pause", "policy"),
    passMs: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 60, noNaN: true })),
    waits: fc.boolean(),
    pick: fc.nat({ max: 1_000 }),
  });
  fc.assert(
    fc.property(
      fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined }),
      fc.array(event, { maxLength: 300 }),
      (burst, events) => {
        const options = { ratePerS: 50, seed: 1, ...(burst === undefined ? {} : { burst }) };
        const o = overload.init(options);
        const startsMs: number[] = [];
        let nowMs = 1_700_000_000_000;
        for (const { kind, passMs, waits, pick } of events) {
          nowMs += passMs;
          if (kind === "settle") overload.settled(o, nowMs, pick % 3 === 0);
          else if (kind === "pause") overload.pauseUntil(o, nowMs, pick);
          else if (kind === "policy") overload.setCap(o, nowMs, pick % 2 === 0 ? null : pick);
          else {
            const readyMs = overload.readyAtMs(o, nowMs, 1);
            if (waits) nowMs = readyMs;
            if (readyMs <= nowMs) {
              overload.spend(o, nowMs, 1);
              startsMs.push(nowMs);
            }
          }
          overload.check(o);
        }
        const most = burst ?? 1;
        for (let i = 0; i < startsMs.length; i++) {
          for (let j = i; j < startsMs.length; j++) {
            const seconds = (startsMs[j]! - startsMs[i]!) / 1_000;
            expect(j - i + 1).toBeLessThanOrEqual(50 * seconds + most + 1e-3);
          }
        }
      },
    ),
    { numRuns: 200 },
  );
});

test("O1 a contracted rate is used whole", () => {
  const o = overload.init({ ratePerS: 50, seed: 1 });
  let nowMs = 0;
  for (let i = 0; i < 501; i++) {
    nowMs = overload.readyAtMs(o, nowMs, 1);
    overload.spend(o, nowMs, 1);
  }
  expect(nowMs).toBeCloseTo(10_000, 0);
});

test("O1 a call dearer than the burst starts when the burst is full, and is paid for after", () => {
  const o = overload.init({ ratePerS: 10, burst: 5, seed: 1 });
  expect(overload.readyAtMs(o, 0, 20)).toBe(0);
  overload.spend(o, 0, 20);
  expect(overload.readyAtMs(o, 0, 1)).toBeCloseTo(1_600);
});

test("O2 without overload answers nothing is limited", () => {
  const o = overload.init({ seed: 1 });
  settle(o, 0, 10_000, 5_000, 0);
  expect(overload.readyAtMs(o, 10_000, 1)).toBe(10_000);
  expect(overload.view(o)).toEqual({ ratePerS: null, because: null, pausedUntilMs: null });
});

test("O2 the cap falls to 98 % of what was served, then rises by 4 % a second", () => {
  const o = overload.init({ seed: 1 });
  settle(o, 0, 102, 102, 50); // One cell: 51 of 101 fine in 101 ms.
  const fallen = overload.view(o);
  expect(fallen.because).toBe("overload");
  expect(fallen.ratePerS).toBeGreaterThan(0.98 * 490);
  expect(fallen.ratePerS).toBeLessThan(0.98 * 515);
  settle(o, 102, 102, 102, 50);
  expect(overload.view(o).ratePerS! / fallen.ratePerS!).toBeCloseTo(0.98, 2);
  settle(o, 204, 10_000, 5_000, 0);
  expect(overload.view(o).ratePerS! / fallen.ratePerS!).toBeCloseTo(0.98 * 1.04 ** 10, 1);
});

test("O2 overload answers up to 2 % are tolerated", () => {
  const o = overload.init({ seed: 1 });
  settle(o, 0, 10_000, 20_000, 2);
  expect(overload.view(o).ratePerS).toBeNull();
});

test("O2 a target that refuses everything still gets one call a second, and is forgiven", () => {
  const o = overload.init({ seed: 1 });
  const nowMs = settle(o, 0, 2_000, 1_000, 100);
  expect(overload.view(o).ratePerS).toBe(1);
  overload.spend(o, nowMs, 1);
  expect(overload.readyAtMs(o, nowMs, 1)).toBeLessThanOrEqual(nowMs + 1_000);
  expect(overload.readyAtMs(o, nowMs + 61_000, 1)).toBe(nowMs + 61_000);
  expect(overload.view(o).ratePerS).toBeNull();
});

test("O2 idle time is not taken for a low rate of the target", () => {
  const o = overload.init({ seed: 1 });
  settle(o, 0, 50, 5, 0);
  settle(o, 60_000, 200, 200, 50);
  expect(overload.view(o).ratePerS).toBeGreaterThan(300);
});

test("O2 a pause that the target asked for is not taken for a low rate of it", () => {
  const o = overload.init({ seed: 1 });
  settle(o, 0, 50, 5, 0);
  overload.pauseUntil(o, 50, 1_000);
  const backMs = overload.readyAtMs(o, 50, 1);
  settle(o, backMs, 200, 200, 50);
  expect(overload.view(o).ratePerS).toBeGreaterThan(200);
});

test("O3 Retry-After pauses for that long and up to a tenth more, five minutes at most", () => {
  fc.assert(
    fc.property(fc.nat(), fc.double({ min: 0, max: 1e9, noNaN: true }), (seed, afterMs) => {
      const o = overload.init({ seed });
      overload.pauseUntil(o, 5_000, afterMs);
      overload.check(o);
      const waitMs = overload.readyAtMs(o, 5_000, 1) - 5_000;
      expect(waitMs).toBeGreaterThanOrEqual(Math.min(afterMs, 300_000) - 1e-6);
      expect(waitMs).toBeLessThanOrEqual(1.1 * Math.min(afterMs, 300_000) + 1e-6);
    }),
  );
});

test("O3 a shorter pause does not end a longer one", () => {
  const o = overload.init({ seed: 1 });
  overload.pauseUntil(o, 0, 60_000);
  overload.pauseUntil(o, 10, 1_000);
  expect(overload.readyAtMs(o, 10, 1)).toBeGreaterThanOrEqual(60_000);
});

function pauseEndMs(seed: number): number {
  const o = overload.init({ seed });
  overload.pauseUntil(o, 0, 10_000);
  return overload.readyAtMs(o, 0, 1);
}

test("different seeds leave a pause at different times, the same seed at the same", () => {
  expect(new Set([1, 2, 3, 4, 5].map(pauseEndMs)).size).toBe(5);
  expect(pauseEndMs(3)).toBe(pauseEndMs(3));
});

test("RateLimit-Policy sets the cap outright, and takes it back", () => {
  const o = overload.init({ seed: 1, ratePerS: 500 });
  settle(o, 0, 1_000, 1_000, 90);
  overload.setCap(o, 1_000, 200);
  expect(overload.view(o)).toMatchObject({ ratePerS: 200, because: "policy" });
  overload.setCap(o, 1_000, 0);
  expect(overload.readyAtMs(o, 1_000, 1)).toBe(Infinity);
  overload.setCap(o, 1_000, 900);
  expect(overload.view(o)).toMatchObject({ ratePerS: 500, because: "contract" });
  overload.setCap(o, 1_000, null);
  expect(overload.view(o)).toMatchObject({ ratePerS: 500, because: "contract" });
});

test("another contract forgets what was learnt, and keeps what the target says: its rate and its pause", () => {
  const o = overload.init({ seed: 1, ratePerS: 500 });
  settle(o, 0, 1_000, 1_000, 90);
  expect(overload.view(o).because).toBe("overload");
  const unlearnt = overload.changed(o, 1_000, { seed: 1, ratePerS: 300 });
  expect(overload.view(unlearnt)).toMatchObject({ ratePerS: 300, because: "contract" });
  overload.setCap(o, 1_000, 200);
  overload.pauseUntil(o, 1_000, 10_000);
  const next = overload.changed(o, 2_000, { seed: 1, ratePerS: 900, burst: 30 });
  overload.check(next);
  expect(overload.view(next)).toMatchObject({ ratePerS: 200, because: "policy" });
  expect(next.tokens).toBeLessThanOrEqual(4); // The burst of 200/s, not that of the contract.
  expect(overload.readyAtMs(next, 2_000, 1)).toBe(overload.readyAtMs(o, 2_000, 1));
  expect(overload.readyAtMs(next, 2_000, 1)).toBeGreaterThanOrEqual(11_000);
});

test("what readyAtMs promises holds when the time has come: no wait re-arms itself", () => {
  const random = sequence(5);
  const o = overload.init({ seed: 1, ratePerS: 73_123 });
  let nowMs = 1_700_000_000_000;
  for (let i = 0; i < 20_000; i++) {
    let asks = 0;
    for (let at = nowMs; (at = overload.readyAtMs(o, nowMs, 1)) > nowMs; asks++) nowMs = at;
    expect(asks).toBeLessThanOrEqual(2); // The clock has steps; a second look may be needed.
    overload.spend(o, nowMs, 1);
    if (random() < 0.01) nowMs += 10 * random();
  }
});

test("a rate or burst that cannot be is refused at the start", () => {
  for (const options of [{ ratePerS: 0 }, { ratePerS: NaN }, { burst: 0.5 }, { burst: Infinity }]) {
    expect(() => overload.init({ seed: 1, ...options })).toThrow(
      expect.toSatisfy((error) => isSpillwayError(error, "option_invalid")),
    );
  }
});

import fc from "fast-check";
import { expect, test } from "vitest";
import * as forecast from "./forecast.ts";

const hourly = { slotMs: 3_600_000, week: true, horizons: [1, 6, 24] };
const hoursOfWeek = 7 * 24;

/** Busy by day, twice as busy on the fifth day of a week. */
function usual(hour: number): number {
  const ofDay = hour % 24;
  const busy = ofDay >= 8 && ofDay < 18 ? 1000 : 50;
  return Math.floor(hour / 24) % 7 === 4 ? 2 * busy : busy;
}

function taught(weeks: number, options: forecast.ForecastOptions = hourly): forecast.Forecast {
  const f = forecast.init(options);
  for (let hour = 0; hour < weeks * hoursOfWeek; hour++) forecast.learn(f, hour, usual(hour));
  return f;
}

test("after some weeks every hour of the week is forecast for what it is, and the band is narrow", () => {
  const f = taught(6);
  for (let hour = 6 * hoursOfWeek; hour < 7 * hoursOfWeek; hour++) {
    const expected = forecast.predict(f, 1);
    expect(Math.abs(expected / usual(hour) - 1), `hour ${hour}`).toBeLessThan(0.15);
    forecast.learn(f, hour, usual(hour));
  }
  for (const at of [0, 1, 2]) {
    const { expected, low, high } = forecast.outlook(f, at)!;
    expect(low).toBeGreaterThan(0.7 * expected);
    expect(high).toBeLessThan(1.4 * expected);
  }
});

test("F1 a skipped slot teaches nothing and judges nobody", () => {
  const f = taught(3);
  const before = structuredClone(forecast.saved(f));
  forecast.skip(f, f.slot + 30);
  expect(forecast.saved(f)).toEqual({ ...before, slot: before.slot + 30 });
  expect(() => forecast.learn(f, f.slot, 1)).toThrow("F1");
  // The week goes on in its place.
  const next = f.slot + 1;
  forecast.learn(f, next, usual(next));
  expect(Math.abs(forecast.predict(f, 1) / usual(next + 1) - 1)).toBeLessThan(0.2);
});

test("F2 with a clamp, one slot that is a hundred times too high leaves its season below twice as high", () => {
  const f = taught(4, { ...hourly, clamp: 4 });
  const attackedAt = f.slot + 12;
  for (let hour = f.slot + 1; hour <= attackedAt; hour++) {
    forecast.learn(f, hour, hour === attackedAt ? 100 * usual(hour) : usual(hour));
  }
  for (let hour = attackedAt + 1; hour < attackedAt + hoursOfWeek; hour++) {
    forecast.learn(f, hour, usual(hour));
  }
  expect(forecast.predict(f, 1)).toBeLessThan(2 * usual(attackedAt));
});

test("F1, F2 and F3 hold for any counts, gaps and horizons", () => {
  const steps = fc.array(
    fc.record({ skip: fc.constantFrom(0, 0, 0, 0, 1, 5, 400), x: fc.nat({ max: 1e6 }) }),
    { maxLength: 300, size: "max" },
  );
  fc.assert(
    fc.property(steps, fc.boolean(), fc.nat({ max: 1e6 }), (history, week, firstSlot) => {
      const f = forecast.init({ ...hourly, week, ratiosMax: 40 });
      let slot = firstSlot;
      for (const { skip, x } of history) {
        if (skip > 0) forecast.skip(f, (slot += skip));
        forecast.learn(f, ++slot, x);
        forecast.check(f);
        for (const at of [0, 1, 2]) {
          const outlook = forecast.outlook(f, at);
          if (outlook === undefined) continue;
          expect(outlook.low).toBeGreaterThanOrEqual(0);
          expect(outlook.low).toBeLessThanOrEqual(outlook.high);
          expect(Number.isFinite(outlook.high)).toBe(true);
        }
      }
    }),
    { numRuns: 60 },
  );
});

test("what is saved and restored forecasts the same, and other slots or seasons begin anew", () => {
  const f = taught(3);
  const kept = JSON.parse(JSON.stringify(forecast.saved(f))) as forecast.SavedForecast;
  const restored = forecast.restore(hourly, kept)!;
  forecast.check(restored);
  for (const ahead of [1, 6, 24, 100]) {
    expect(forecast.predict(restored, ahead)).toBeCloseTo(forecast.predict(f, ahead), 0);
  }
  for (const at of [0, 1, 2]) {
    expect(forecast.outlook(restored, at)!.high).toBeCloseTo(forecast.outlook(f, at)!.high, -1);
  }
  expect(forecast.restore({ ...hourly, week: false }, kept)).toBeUndefined();
  expect(forecast.restore({ ...hourly, slotMs: 1_800_000 }, kept)).toBeUndefined();
});

import * as fc from "fast-check";
import { expect, test } from "vitest";
import * as recovery from "./recovery.ts";

/**
 * An outage of 30 s at 60 % load ends at 0: 990 arrivals per second, drained at 1,650/s.
 * @returns Wait of those that arrive after it, and when the backlog is gone, in s.
 */
function afterOutage(split: boolean): { meanS: number; worstS: number; goneS: number } {
  const ratePerS = 1650;
  const arrivalsPerS = 990;
  const r = recovery.init();
  if (split) recovery.begin(r, 0);
  let backlog = 30 * arrivalsPerS;
  let arrived = 0;
  let served = 0;
  let sumS = 0;
  let worstS = 0;
  let goneS = 0;
  for (let n = 0; n < 100 * ratePerS; n++) {
    const nowS = n / ratePerS;
    arrived = Math.floor(nowS * arrivalsPerS);
    const side = recovery.pick(r, arrived > served, backlog > 0, arrivalsPerS, ratePerS);
    recovery.check(r);
    if (side === "backlog" && --backlog === 0) {
      goneS = nowS;
      recovery.end(r);
    } else if (side === "fresh") {
      const waitS = nowS - (served + 1) / arrivalsPerS;
      served++;
      sumS += waitS;
      worstS = Math.max(worstS, waitS);
    }
  }
  return { meanS: sumS / served, worstS, goneS };
}

test("V1 after 30 s of outage at 60 % load fresh messages wait 0 s and the backlog takes 45 s", () => {
  const { worstS, goneS } = afterOutage(true);
  expect(worstS).toBeLessThan(0.01);
  expect(goneS).toBeCloseTo(45, 0);
});

test("without the split fresh messages wait behind the backlog, which takes 18 s", () => {
  const { worstS, goneS } = afterOutage(false);
  expect(goneS).toBeCloseTo(18, 0);
  expect(worstS).toBeGreaterThan(17);
});

test("V1 fresh gets its share to within one dispatch, and the backlog at least a tenth", () => {
  const rate = fc.double({ min: 0, max: 5000, noNaN: true });
  fc.assert(
    fc.property(rate, rate, fc.integer({ min: 1, max: 400 }), (arrivals, drained, dispatches) => {
      const r = recovery.init();
      recovery.begin(r, 0);
      const share = recovery.freshShare(arrivals, drained);
      let fresh = 0;
      for (let n = 1; n <= dispatches; n++) {
        if (recovery.pick(r, true, true, arrivals, drained) === "fresh") fresh++;
        recovery.check(r);
        expect(Math.abs(fresh - share * n)).toBeLessThanOrEqual(1 + 1e-9);
      }
      expect(dispatches - fresh).toBeGreaterThanOrEqual(Math.floor(dispatches / 10));
    }),
  );
});

test("V2 what is ready alone goes at once, and saves up no claim", () => {
  const r = recovery.init();
  recovery.begin(r, 0);
  expect(recovery.pick(r, false, false, 500, 1000)).toBeUndefined();
  for (let n = 0; n < 100; n++) expect(recovery.pick(r, false, true, 500, 1000)).toBe("backlog");
  const next = Array.from({ length: 10 }, () => recovery.pick(r, true, true, 500, 1000));
  expect(next.filter((side) => side === "fresh")).toHaveLength(5);
  for (let n = 0; n < 100; n++) expect(recovery.pick(r, true, false, 500, 1000)).toBe("fresh");
});

test("while no split was begun, or after its end, the older goes first", () => {
  const r = recovery.init();
  expect(recovery.pick(r, true, true, 500, 1000)).toBe("backlog");
  recovery.begin(r, 5);
  expect(r.sinceMs).toBe(5);
  recovery.end(r);
  for (let n = 0; n < 5; n++) expect(recovery.pick(r, true, true, 900, 1000)).toBe("backlog");
});

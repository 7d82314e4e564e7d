import fc from "fast-check";
import { expect, test } from "vitest";
import { cut, forever, planLoad, spikeAtMs } from "./load.ts";
import { parseFlags } from "./options.ts";

test("the default is the recorded spike, thinned out to what one process can offer", async () => {
  const load = await planLoad(parseFlags({}));
  expect(load.durationMs).toBe(30_000);
  expect(load.peakPerS).toBe(12_000);
  expect(load.offered(load.durationMs)).toBe(load.total);
  expect(load.title).toContain("Twitter_volume_AAPL: 3 h 30 min in 30 s");
  expect(load.messages).toHaveLength(10_000);
  expect(load.contents).toBe("10,000 lines of apache_access.log, 1,753 keys");
  // Calm, spike, calm: a third each.
  expect(spikeAtMs(load)).toBeGreaterThan(9_000);
  expect(spikeAtMs(load)).toBeLessThan(11_000);
  expect(load.offered(spikeAtMs(load))).toBeLessThan(0.05 * load.total);
});

test("a rate without a recording is constant", async () => {
  const load = await planLoad(parseFlags({ rate: "5000" }));
  expect([load.durationMs, load.total, load.offered(1000), load.offered(-1)]).toEqual([
    20_000, 100_000, 5000, 0,
  ]);
  expect(spikeAtMs(load)).toBe(0);
});

test("a speed sets how long a recording takes, a rate its mean", async () => {
  const load = await planLoad(parseFlags({ arrivals: "nyc_taxi", speed: "3600", rate: "100" }));
  expect(load.durationMs).toBeCloseTo(49_500, 0);
  expect(load.total).toBeCloseTo(4950, -1);
});

test("a stretch of a load, and a load without end, offer what the load does", async () => {
  const load = await planLoad(parseFlags({ arrivals: "elb_request_count_8c0756", rate: "500" }));
  const times = fc.double({ min: 0, max: load.durationMs, noNaN: true });
  fc.assert(
    fc.property(times, times, fc.nat({ max: 5 }), (fromMs, atMs, rounds) => {
      const part = cut(load, fromMs, load.durationMs - fromMs);
      const within = Math.min(atMs, part.durationMs);
      expect(part.offered(atMs)).toBe(load.offered(fromMs + within) - load.offered(fromMs));
      const endless = forever(load).offered(rounds * load.durationMs + atMs);
      expect(Math.abs(endless - rounds * load.total - load.offered(atMs))).toBeLessThanOrEqual(1);
    }),
  );
});

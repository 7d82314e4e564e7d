import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import { isSpillwayError } from "../../base/index.ts";
import type { ErrorDetails } from "../../base/index.ts";
import { parseSeries, readSeries, replay, spikeWindow } from "./arrivals.ts";
import type { ReplayOptions, Series } from "./arrivals.ts";
import { dataFile } from "./data-files.ts";

function seriesOf(counts: readonly number[]): Series {
  const rows = counts.map((count, at) => {
    const time = new Date(at * 60_000).toISOString().slice(0, 19).replace("T", " ");
    return `${time},${count}`;
  });
  return parseSeries("test.csv", ["timestamp,value", ...rows, ""].join("\n"));
}

function refusal(call: () => unknown): ErrorDetails {
  try {
    call();
  } catch (error) {
    if (!isSpillwayError(error, "option_invalid")) throw error;
    return error.details;
  }
  throw new Error("It was accepted.");
}

test("the bundled recordings are read, with the figures that data/README.md gives", async () => {
  const found = await Promise.all(
    ["Twitter_volume_AAPL", "elb_request_count_8c0756", "nyc_taxi"].map(async (name) => {
      const series = await readSeries(dataFile(`arrivals/${name}.csv`));
      const { counts, peakToMean, intervalMs, missing } = series;
      return [counts.length, intervalMs, Math.round(peakToMean * 10) / 10, missing];
    }),
  );
  expect(found).toEqual([
    [15_902, 300_000, 157.6, 0],
    [4032, 300_000, 10.6, 8],
    [10_320, 1_800_000, 2.6, 0],
  ]);
});

test("a series knows its mean, its peak and its rows", () => {
  expect(seriesOf([1, 2, 9, 0])).toEqual({
    file: "test.csv",
    intervalMs: 60_000,
    counts: [1, 2, 9, 0],
    mean: 3,
    peak: 9,
    peakAt: 2,
    peakToMean: 3,
    missing: 0,
  });
});

test("line ends, a byte order mark, a T and a zone are read as well", () => {
  const rows = [
    "2015-01-01T00:00Z,1",
    "2015-01-01T00:05:00.000+02:00,2.5",
    "2015-01-01 00:10:00,3",
  ];
  const { counts, intervalMs } = parseSeries(
    "x",
    `\uFEFF${["timestamp,value", ...rows].join("\r\n")}`,
  );
  expect([counts, intervalMs]).toEqual([[1, 2.5, 3], 300_000]);
});

test("what is wrong is said with file, line, what was found and what is allowed", () => {
  const good = ["timestamp,value", "2015-01-01 00:00:00,1", "2015-01-01 00:05:00,2"];
  const end = "2015-01-01 00:10:00,3";
  const cases: [lines: string[], line: number | undefined, found: string, allowed: RegExp][] = [
    [["time,count"], 1, "time,count", /header "timestamp,value"/],
    [[""], 1, "", /header/],
    [[...good, "yesterday,3"], 4, "yesterday,3", /row such as/],
    [[...good, "2015-13-01 00:00:00,3"], 4, "2015-13-01 00:00:00,3", /row such as/],
    [[...good, `${end},4`], 4, `${end},4`, /row such as/],
    [[...good, "", end], 4, "", /row such as/],
    [[...good, "2015-01-01 00:10:00,-3"], 4, "2015-01-01 00:10:00,-3", /number from 0/],
    [[...good, "2015-01-01 00:10:00,NaN"], 4, "2015-01-01 00:10:00,NaN", /number from 0/],
    [[...good, "2015-01-01 00:10:00,"], 4, "2015-01-01 00:10:00,", /number from 0/],
    [[...good, good[2]!], 4, good[2]!, /after the row before it, 2015-01-01 00:05:00,2/],
    [good, 3, "2 rows", /at least 3 rows/],
    [[...good, "2015-01-01 00:11:00,3"], undefined, "1 of 2 steps", /even steps/],
    [
      ["timestamp,value", ...[0, 1, 2].map((i) => `2015-01-0${i + 1} 00:00,0`)],
      undefined,
      "no arrivals",
      /above 0/,
    ],
  ];
  for (const [lines, line, found, allowed] of cases) {
    const details = refusal(() => parseSeries("spike.csv", lines.join("\n")));
    expect([details["file"], details["line"]]).toEqual(["spike.csv", line]);
    expect(details["found"]).toContain(found);
    expect(details["allowed"]).toMatch(allowed);
  }
  const long = refusal(() => parseSeries("x", "y".repeat(1e6)));
  expect(JSON.stringify(long).length).toBeLessThan(300);
});

test("a file that is missing, no file or too large is refused before it is read", async () => {
  const folder = await mkdtemp(join(tmpdir(), "spillway-arrivals-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const missing = join(folder, "none.csv");
  await expect(readSeries(missing)).rejects.toMatchObject({
    code: "not_found",
    details: { file: missing },
  });
  await expect(readSeries(folder)).rejects.toMatchObject({ code: "option_invalid" });
  const large = join(folder, "large.csv");
  await writeFile(large, "");
  await truncate(large, 2 ** 36); // Sparse.
  await expect(readSeries(large)).rejects.toMatchObject({
    code: "option_invalid",
    details: { file: large, found: "68719476736 bytes" },
  });
});

test("speed and seconds compress time and keep the number of messages", () => {
  const series = seriesOf([60, 120, 600, 60]);
  const fast = replay(series, { speed: 60 });
  expect(fast).toMatchObject({
    durationMs: 4000,
    total: 840,
    meanPerS: 210,
    peakPerS: 600,
    speed: 60,
  });
  expect(replay(series, { seconds: 4 })).toMatchObject({ durationMs: 4000, total: 840, speed: 60 });
  expect(replay(series)).toMatchObject({ durationMs: 240_000, total: 840, speed: 1, factor: 1 });
  expect(
    [0, 500, 1000, 1500, 2000, 2500, 3999.9, 4000, 9999, -1].map((at) => fast.offered(at)),
  ).toEqual([0, 30, 60, 120, 180, 480, 839, 840, 840, 0]);
});

test("A2 a mean or a peak that is asked for scales every row alike", () => {
  const series = seriesOf([60, 120, 600, 60]);
  const mean = replay(series, { seconds: 4, ratePerS: 2100 });
  expect(mean).toMatchObject({ total: 8400, meanPerS: 2100, peakPerS: 6000, factor: 10 });
  expect(mean.offered(3000) - mean.offered(2000)).toBe(6000);
  const peak = replay(series, { seconds: 8, peakPerS: 6000 });
  expect(peak).toMatchObject({ total: 16_800, meanPerS: 2100, peakPerS: 6000, factor: 20 });
  expect(peak.offered(6000) - peak.offered(4000)).toBe(12_000);
});

test("A1 what is offered never falls, starts at 0 and ends at the total", () => {
  const options: fc.Arbitrary<ReplayOptions> = fc.oneof(
    fc.record({ speed: fc.double({ min: 0.01, max: 1e6, noNaN: true }) }),
    fc.record({
      seconds: fc.double({ min: 0.01, max: 1e4, noNaN: true }),
      ratePerS: fc.double({ min: 0.01, max: 1e4, noNaN: true }),
    }),
  );
  const counts = fc
    .array(fc.nat({ max: 1000 }), { minLength: 3, maxLength: 50 })
    .filter((values) => values.some((value) => value > 0));
  fc.assert(
    fc.property(counts, options, (values, how) => {
      const schedule = replay(seriesOf(values), how);
      const offered = Array.from({ length: 200 }, (_, i) =>
        schedule.offered((schedule.durationMs * i) / 200),
      );
      offered.push(schedule.offered(schedule.durationMs));
      expect(offered).toEqual(offered.toSorted((a, b) => a - b));
      expect(offered.every((value) => Number.isInteger(value))).toBe(true);
      expect([offered[0], offered[200]]).toEqual([0, schedule.total]);
      const asked = (schedule.meanPerS * schedule.durationMs) / 1000;
      expect(Math.abs(schedule.total - asked)).toBeLessThanOrEqual(0.5 + 1e-6 * asked);
    }),
  );
});

test("replay options that contradict or make no sense are refused", () => {
  const series = seriesOf([1, 2, 3]);
  for (const [options, option] of [
    [{ speed: 2, seconds: 3 }, "speed"],
    [{ ratePerS: 2, peakPerS: 3 }, "ratePerS"],
    [{ speed: 0 }, "speed"],
    [{ seconds: -1 }, "seconds"],
    [{ ratePerS: Infinity }, "ratePerS"],
    [{ peakPerS: NaN }, "peakPerS"],
  ] as const) {
    expect(refusal(() => replay(series, options))["option"]).toBe(option);
  }
  expect(refusal(() => spikeWindow(series, 0))["option"]).toBe("seconds");
});

test("a spike window is calm, spike, calm, a third each, at the speed that fits", () => {
  const calm = Array.from({ length: 40 }, () => 10);
  const spike = [200, 1000, 500, 5, 300]; // One row below does not end it.
  const found = spikeWindow(seriesOf([...calm, ...spike, ...calm]), 15);
  expect(found.series.counts).toEqual([...calm.slice(0, 5), ...spike, ...calm.slice(0, 5)]);
  expect(found.speed).toBe(60);
  expect(replay(found.series, { speed: found.speed }).durationMs).toBe(15_000);
  const early = spikeWindow(seriesOf([10, 1000, ...calm]), 3);
  expect(early.series.counts).toEqual([10, 1000, 10]);
  expect(spikeWindow(seriesOf([7, 7, 7, 7]), 1).series.counts).toEqual([7, 7]);
});

test("the recorded spike of the demo begins and ends calm", async () => {
  const series = await readSeries(dataFile("arrivals/Twitter_volume_AAPL.csv"));
  const { series: found } = spikeWindow(series, 30);
  const third = found.counts.length / 3;
  expect(Math.max(...found.counts.slice(0, third))).toBeLessThan(0.02 * series.peak);
  expect(Math.max(...found.counts.slice(-third))).toBeLessThan(0.06 * series.peak);
  expect(found.peak).toBe(13_479);
});

/** The forecast on recorded series: the figures that its rules were chosen by, as floors. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as forecast from "./forecast.ts";

const folder = join(import.meta.dirname, "../../data/arrivals");

interface Row {
  readonly file: string;
  readonly slotMinutes: number;
  /** Days before which nothing counts. */
  readonly warmDays: number;
  /** Horizons in slots; mean absolute error in % of the mean; coverage of the 90 % band of the sum. */
  readonly slots: readonly number[];
  readonly errors: readonly number[];
  readonly coverage: readonly number[];
}

const rows: readonly Row[] = [
  {
    file: "nyc_taxi.csv",
    slotMinutes: 30,
    warmDays: 28,
    slots: [1, 2, 12, 48],
    errors: [4.8, 6.0, 8.7, 9.6],
    coverage: [89.6, 89.4, 88.9, 88.2],
  },
  {
    file: "elb_request_count_8c0756.csv",
    slotMinutes: 5,
    warmDays: 7,
    slots: [1, 12, 72, 288],
    errors: [64.9, 66.7, 69.1, 70.7],
    coverage: [89.8, 90.0, 88.9, 83.3],
  },
  {
    file: "Twitter_volume_AAPL.csv",
    slotMinutes: 5,
    warmDays: 14,
    slots: [1, 12, 72, 288],
    errors: [41.4, 80.9, 79.7, 87.0],
    coverage: [90.0, 90.0, 89.5, 90.1],
  },
];
const tolerance = 3;

function load(file: string): number[] {
  const lines = readFileSync(join(folder, file), "utf8").trim().split("\n").slice(1);
  return lines.map((line) => Number(line.split(",")[1]));
}

/** Runs a series through and judges from outside, with sums and errors of its own. */
function judged(row: Row): { errors: number[]; coverage: number[] } {
  const series = load(row.file);
  const day = (24 * 60) / row.slotMinutes;
  const warm = row.warmDays * day;
  const mean = series.reduce((sum, x) => sum + x, 0) / series.length;
  const f = forecast.init({
    slotMs: row.slotMinutes * 60_000,
    week: true,
    horizons: row.slots,
  });
  const before = [0];
  for (const x of series) before.push(before.at(-1)! + x);
  const errors = row.slots.map(() => ({ sum: 0, count: 0 }));
  const bands = row.slots.map(() => ({ inside: 0, count: 0 }));
  for (const [t, x] of series.entries()) {
    forecast.learn(f, t, x);
    if (t < warm) continue;
    for (const [k, h] of row.slots.entries()) {
      if (t + h >= series.length) continue;
      errors[k]!.sum += Math.abs(series[t + h]! - forecast.predict(f, h));
      errors[k]!.count++;
      if (t % Math.max(1, Math.floor(h / 4)) !== 0) continue;
      const outlook = forecast.outlook(f, k);
      if (outlook === undefined) continue;
      const actual = before[t + h + 1]! - before[t + 1]!;
      bands[k]!.count++;
      if (actual >= outlook.low && actual <= outlook.high) bands[k]!.inside++;
    }
  }
  forecast.check(f);
  return {
    errors: errors.map(({ sum, count }) => (100 * sum) / count / mean),
    coverage: bands.map(({ inside, count }) => (100 * inside) / count),
  };
}

test.each(rows)("the best of three reaches its figures on $file", (row) => {
  const { errors, coverage } = judged(row);
  for (const [k] of row.slots.entries()) {
    expect(errors[k], `error at ${row.slots[k]} slots`).toBeLessThan(row.errors[k]! + tolerance);
    expect(coverage[k], `coverage at ${row.slots[k]} slots`).toBeGreaterThan(
      row.coverage[k]! - tolerance,
    );
  }
});

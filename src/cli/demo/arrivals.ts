/**
 * Recorded arrivals and their replay.
 *
 * A recording is a CSV file of `timestamp,value` rows: so many messages in the interval that begins
 * at the timestamp (local time; a zone, if any, is left out of account). The interval is the usual
 * step between rows. Rows are laid end to end: where rows are missing, time is closed up, not filled.
 *
 * How a replay compresses time: one second of it stands for `speed` recorded seconds, so a row of
 * `intervalMs` is replayed in intervalMs / speed, at a constant rate. Compression alone keeps the
 * number of messages and multiplies every rate by `speed`; a rate that is asked for multiplies all
 * rows by one factor instead. The shape, peak over mean, is that of the recording in either case.
 *
 * A1  What was offered up to a moment never falls, starts at 0 and ends at `total`.
 * A2  Mean and peak of a replay stand to each other as in what was recorded.
 * A3  The same series and options give the same schedule: there is no chance in it.
 */
import { readFile, stat } from "node:fs/promises";
import { SpillwayError } from "../../base/index.ts";

/** Counts per interval, and what they say. */
export interface Series {
  readonly file: string;
  readonly intervalMs: number;
  /** Messages in each interval, in order. */
  readonly counts: readonly number[];
  /** Per interval. */
  readonly mean: number;
  /** Per interval. */
  readonly peak: number;
  readonly peakAt: number;
  readonly peakToMean: number;
  /** Rows that are missing between the first and the last. */
  readonly missing: number;
}

const fileBytesMax = 64 * 1024 ** 2;
const header = "timestamp,value";

/**
 * @throws {SpillwayError} not_found; option_invalid with file, line, found and allowed
 */
export async function readSeries(file: string): Promise<Series> {
  const found = await stat(file).catch((cause: unknown) => {
    throw new SpillwayError("not_found", { file, allowed: "a CSV file of arrivals" }, { cause });
  });
  if (!found.isFile() || found.size > fileBytesMax) {
    refuse(file, 0, `${found.size} bytes`, `a file of at most ${fileBytesMax} bytes`);
  }
  return parseSeries(file, await readFile(file, "utf8"));
}

/** `file` is for messages alone. */
export function parseSeries(file: string, text: string): Series {
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  if (lines[0] !== header) refuse(file, 1, lines[0]!, `the header "${header}"`);
  const timesMs: number[] = [];
  const counts: number[] = [];
  for (let at = 1; at < lines.length; at++) {
    const line = lines[at]!;
    if (line === "" && at === lines.length - 1) break;
    const [time = "", value = "", ...more] = line.split(",");
    const timeMs = parseTime(time);
    if (timeMs === undefined || more.length > 0) {
      refuse(file, at + 1, line, 'a row such as "2015-02-26 21:42:53,104"');
    }
    if (!/^\d+(\.\d+)?$/.test(value))
      refuse(file, at + 1, line, "a value that is a number from 0 on");
    if (timesMs.length > 0 && timeMs <= timesMs.at(-1)!) {
      refuse(file, at + 1, line, `a time after the row before it, ${lines[at - 1]}`);
    }
    timesMs.push(timeMs);
    counts.push(Number(value));
  }
  if (counts.length < 3) refuse(file, lines.length, `${counts.length} rows`, "at least 3 rows");
  if (!counts.some((count) => count > 0)) refuse(file, 0, "no arrivals", "a value above 0");
  const { intervalMs, missing } = usualStep(file, timesMs);
  return describe(file, intervalMs, counts, missing);
}

export interface ReplayOptions {
  /** Recorded seconds per second; without `seconds` by default 1. Not together with `seconds`. */
  readonly speed?: number;
  /** How long the replay takes. */
  readonly seconds?: number;
  /** Messages per second on average; by default as recorded, times speed. */
  readonly ratePerS?: number;
  /** Messages per second at the peak, instead of `ratePerS`. */
  readonly peakPerS?: number;
}

export interface Schedule {
  readonly durationMs: number;
  /** Messages offered by the end. */
  readonly total: number;
  readonly meanPerS: number;
  readonly peakPerS: number;
  /** Recorded seconds per second. */
  readonly speed: number;
  /** Messages offered for one that was recorded. */
  readonly factor: number;
  /** @returns How many messages are to have been offered by then: a whole number. */
  offered(elapsedMs: number): number;
}

/**
 * @throws {SpillwayError} option_invalid
 */
export function replay(series: Series, options: ReplayOptions = {}): Schedule {
  checkReplay(options);
  const { intervalMs, counts, mean } = series;
  const recordedMs = counts.length * intervalMs;
  const durationMs =
    options.seconds === undefined ? recordedMs / (options.speed ?? 1) : options.seconds * 1000;
  const speed = recordedMs / durationMs;
  const meanPerS =
    options.peakPerS === undefined
      ? (options.ratePerS ?? (mean * speed * 1000) / intervalMs)
      : options.peakPerS / series.peakToMean;
  const factor = (meanPerS * intervalMs) / (mean * speed * 1000);
  const rowMs = durationMs / counts.length;
  const sums = new Float64Array(counts.length + 1);
  counts.forEach((count, at) => (sums[at + 1] = sums[at]! + count * factor));
  const total = Math.round(sums[counts.length]!);
  return {
    durationMs,
    total,
    meanPerS,
    peakPerS: meanPerS * series.peakToMean,
    speed,
    factor,
    offered(elapsedMs) {
      if (!(elapsedMs > 0)) return 0;
      if (elapsedMs >= durationMs) return total;
      const row = Math.min(counts.length - 1, Math.floor(elapsedMs / rowMs));
      const part = elapsedMs / rowMs - row;
      return Math.min(total, Math.floor(sums[row]! + part * (sums[row + 1]! - sums[row]!)));
    },
  };
}

/**
 * The stretch around the largest peak in which a run of `seconds` shows calm, spike, calm: a third of
 * the run each, less calm where the recording begins or ends too near. The spike is taken to last
 * while counts are above the median by more than 5 % of what the peak is; a single row below does not
 * end it.
 *
 * @returns The stretch, and the speed at which it takes `seconds`.
 */
export function spikeWindow(
  series: Series,
  seconds: number,
): { readonly series: Series; readonly speed: number } {
  checkReplay({ seconds });
  const { counts, peak, peakAt, intervalMs } = series;
  const median = counts.toSorted((a, b) => a - b)[counts.length >> 1]!;
  const level = median + 0.05 * (peak - median);
  const above = (at: number): boolean => (counts[at] ?? 0) > level;
  let from = peakAt;
  while (above(from - 1) || above(from - 2)) from--;
  let to = peakAt + 1;
  while (above(to) || above(to + 1)) to++;
  const calm = to - from;
  const stretch = counts.slice(Math.max(0, from - calm), to + calm);
  const speed = (stretch.length * intervalMs) / (seconds * 1000);
  return { series: describe(series.file, intervalMs, stretch, 0), speed };
}

function describe(
  file: string,
  intervalMs: number,
  counts: readonly number[],
  missing: number,
): Series {
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  let peakAt = 0;
  counts.forEach((count, at) => {
    if (count > counts[peakAt]!) peakAt = at;
  });
  const peak = counts[peakAt]!;
  return { file, intervalMs, counts, mean, peak, peakAt, peakToMean: peak / mean, missing };
}

/** The median step, which at least nine of ten rows keep. */
function usualStep(
  file: string,
  timesMs: readonly number[],
): { intervalMs: number; missing: number } {
  const steps = timesMs.slice(1).map((timeMs, at) => timeMs - timesMs[at]!);
  const intervalMs = steps.toSorted((a, b) => a - b)[steps.length >> 1]!;
  let odd = 0;
  let missing = 0;
  steps.forEach((step) => {
    if (step !== intervalMs) odd++;
    missing += Math.max(0, Math.round(step / intervalMs) - 1);
  });
  if (odd > 0.1 * steps.length) {
    const found = `${odd} of ${steps.length} steps other than ${intervalMs} ms`;
    refuse(file, 0, found, "rows at even steps, but for one in ten");
  }
  return { intervalMs, missing };
}

/** Local time without a zone, counted as if every day had 24 hours. */
function parseTime(text: string): number | undefined {
  const match =
    /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?)(?:Z|[+-]\d\d:?\d\d)?$/.exec(
      text.trim(),
    );
  if (match === null) return undefined;
  const timeMs = Date.parse(`${match[1]}T${match[2]}Z`);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

function checkReplay(options: ReplayOptions): void {
  for (const [option, value] of Object.entries(options) as [string, number | undefined][]) {
    if (value !== undefined && !(Number.isFinite(value) && value > 0)) {
      throw new SpillwayError("option_invalid", { option, found: value, allowed: "above 0" });
    }
  }
  exclusive(options, "speed", "seconds");
  exclusive(options, "ratePerS", "peakPerS");
}

function exclusive(options: ReplayOptions, a: keyof ReplayOptions, b: keyof ReplayOptions): void {
  if (options[a] === undefined || options[b] === undefined) return;
  throw new SpillwayError("option_invalid", { option: a, allowed: `${a} or ${b}, not both` });
}

/** `line` counts from 1; 0 is the file as a whole. */
function refuse(file: string, line: number, found: string, allowed: string): never {
  throw new SpillwayError("option_invalid", {
    file,
    ...(line > 0 && { line }),
    found: found.length > 80 ? `${found.slice(0, 80)}…` : found,
    allowed,
  });
}

/**
 * What the demo offers: how many messages by when, and which. Offered load is open-loop: the schedule
 * does not wait for anybody.
 */
import { existsSync } from "node:fs";
import { basename } from "node:path";
import { plural, span } from "../format.ts";
import { readSeries, replay, spikeWindow } from "./arrivals.ts";
import { dataFile } from "./data-files.ts";
import type { DemoOptions } from "./options.ts";
import { readPayloads } from "./payloads.ts";

export interface Message {
  readonly key?: string;
  readonly payload: Uint8Array;
}

export interface Load {
  /** What is replayed, in a line. */
  readonly title: string;
  /** What the messages are, in a line. */
  readonly contents: string;
  readonly durationMs: number;
  readonly total: number;
  readonly peakPerS: number;
  /** @returns How many messages are to have been offered by then; a whole number that never falls. */
  offered(elapsedMs: number): number;
  /** Sent in turn, again and again. */
  readonly messages: readonly Message[];
}

const secondsDefault = 30;
const constantSecondsDefault = 20;
/** More than this one process cannot offer next to everything else; a recording is thinned out. */
const peakPerSMax = 12_000;
const bundled = "Twitter_volume_AAPL";

/** @throws {SpillwayError} not_found, option_invalid: a file that cannot be used */
export async function planLoad(options: DemoOptions): Promise<Load> {
  const { messages, contents } = await messagesOf(options);
  const isConstant = options.ratePerS !== undefined && options.arrivals === undefined;
  const timing = isConstant ? constant(options, options.ratePerS) : await recorded(options);
  return { ...timing, messages, contents };
}

/** The load again and again, without an end. */
export function forever(load: Load): Load {
  const { durationMs, total } = load;
  return {
    ...load,
    durationMs: Infinity,
    total: Infinity,
    offered(elapsedMs) {
      const rounds = Math.floor(elapsedMs / durationMs);
      return rounds * total + load.offered(elapsedMs - rounds * durationMs);
    },
  };
}

/** A stretch of a load, moved to the start. */
export function cut(load: Load, fromMs: number, durationMs: number): Load {
  const before = load.offered(fromMs);
  const offered = (elapsedMs: number): number =>
    load.offered(fromMs + Math.min(elapsedMs, durationMs)) - before;
  return { ...load, durationMs, total: offered(durationMs), offered };
}

/** When the load first comes to a tenth of its peak: the spike begins. */
export function spikeAtMs(load: Load): number {
  const stepMs = 100;
  for (let atMs = 0; atMs < load.durationMs; atMs += stepMs) {
    const ratePerS = ((load.offered(atMs + stepMs) - load.offered(atMs)) * 1000) / stepMs;
    if (ratePerS >= load.peakPerS / 10) return Math.max(0, atMs - 2 * stepMs);
  }
  return 0;
}

type Timing = Omit<Load, "messages" | "contents">;

function constant({ seconds = constantSecondsDefault }: DemoOptions, ratePerS: number): Timing {
  const durationMs = seconds * 1000;
  const offered = (elapsedMs: number): number =>
    Math.floor((Math.min(Math.max(0, elapsedMs), durationMs) * ratePerS) / 1000);
  return {
    title: `a constant ${ratePerS}/s for ${span(durationMs)}`,
    durationMs,
    total: offered(durationMs),
    peakPerS: ratePerS,
    offered,
  };
}

async function recorded(options: DemoOptions): Promise<Timing> {
  const series = await readSeries(arrivalsFile(options.arrivals));
  const { seconds = secondsDefault, speed, ratePerS } = options;
  const stretch = spikeWindow(series, seconds).series;
  const timing = speed === undefined ? { seconds } : { speed };
  const asRecorded = replay(stretch, timing);
  const schedule =
    ratePerS === undefined
      ? replay(stretch, { ...timing, peakPerS: Math.min(peakPerSMax, asRecorded.peakPerS) })
      : replay(stretch, { ...timing, ratePerS });
  const recordedMs = stretch.counts.length * stretch.intervalMs;
  const name = basename(series.file).replace(/\.csv$/, "");
  const { durationMs, total, peakPerS, factor } = schedule;
  const scaled = Math.abs(factor - 1) < 0.005 ? "" : `, counts x ${Number(factor.toPrecision(2))}`;
  return {
    title: `${name}: ${span(recordedMs)} in ${span(durationMs)}${scaled}`,
    durationMs,
    total,
    peakPerS,
    offered: (elapsedMs) => schedule.offered(elapsedMs),
  };
}

function arrivalsFile(named: string | undefined): string {
  if (named === undefined) return dataFile(`arrivals/${bundled}.csv`);
  const names = ["Twitter_volume_AAPL", "elb_request_count_8c0756", "nyc_taxi"];
  return !existsSync(named) && names.includes(named) ? dataFile(`arrivals/${named}.csv`) : named;
}

async function messagesOf({
  payloads,
}: DemoOptions): Promise<{ messages: Message[]; contents: string }> {
  const { file, lines, cut, tooLong } = await readPayloads(
    payloads ?? dataFile("payloads/apache_access.log"),
  );
  const messages = lines.map(({ key, text }) => ({
    ...(key !== undefined && { key }),
    payload: Buffer.from(text),
  }));
  const keys = new Set(lines.map(({ key }) => key));
  keys.delete(undefined);
  const of = keys.size === 0 ? "no keys" : plural(keys.size, "key");
  const some = `${cut ? ", its first 16 MiB" : ""}${tooLong > 0 ? `, ${tooLong} too long` : ""}`;
  const contents = `${plural(lines.length, "line")} of ${basename(file)}, ${of}${some}`;
  return { messages, contents };
}

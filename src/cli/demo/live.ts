/**
 * The live view of a run: on a terminal a block that is redrawn ten times a second, elsewhere a line a
 * second. It shows what it is given and decides nothing.
 */
import { styleText } from "node:util";
import { bar, clockTime, count, millis, plural, span, sparkline } from "../format.ts";
import type { Load } from "./load.ts";
import type { Latency, Sample } from "./meter.ts";
import type { Concurrency } from "./options.ts";

export interface Live extends Disposable {
  show(sample: Sample): void;
}

export interface Scene {
  readonly load: Load;
  readonly concurrency: Concurrency;
  readonly dir: string;
}

/** Rates are taken over this many samples: one second. */
const rateSamples = 10;
const historyMax = 600;
const sparkWidth = 40;
const barWidth = 30;
const labelWidth = 12;

interface Rates {
  readonly offered: number;
  readonly accepted: number;
  readonly handled: number;
}

export function silent(): Live {
  return { show: () => {}, [Symbol.dispose]: () => {} };
}

/** A line a second. */
export function lines(write: (text: string) => void): Live {
  const samples: Sample[] = [];
  let shown = -1;
  return {
    show(sample) {
      keep(samples, sample);
      const second = Math.floor(sample.atMs / 1000);
      if (second === shown) return;
      shown = second;
      write(`${lineOf(sample, ratesOf(samples))}\n`);
    },
    [Symbol.dispose]: () => {},
  };
}

function lineOf(sample: Sample, rates: Rates): string {
  const { depth, limitMessages, window, inFlight, breaker } = sample;
  return [
    clockTime(sample.atMs),
    `offered ${count(rates.offered)}/s`,
    `accepted ${count(rates.accepted)}/s`,
    `handled ${count(rates.handled)}/s`,
    `backlog ${count(depth)}/${count(limitMessages)}`,
    `in flight ${inFlight}/${window}`,
    `refused ${count(refusedCount(sample))}`,
    ...(breaker === "closed" ? [] : [`breaker ${breaker}`]),
  ].join("  ");
}

/** A block that is redrawn in place. When the view ends it stays as it was last, or is wiped. */
export function block(stream: NodeJS.WriteStream, scene: Scene, wipes: boolean): Live {
  const samples: Sample[] = [];
  let height = 0;
  let last: Latency = { p50: 0, p99: 0 };
  const showCursor = (): void => void stream.write("\u001B[?25h");
  process.once("exit", showCursor);
  stream.write("\u001B[?25l");
  return {
    show(sample) {
      keep(samples, sample);
      if (samples.length % 5 === 1) last = sample.latencyMs; // Steady enough to be read.
      const width = Math.max(20, stream.columns ?? 80) - 1;
      const drawn = draw(scene, samples, last).map((line) => paint(line.slice(0, width), stream));
      const up = height === 0 ? "" : `\u001B[${height}A`;
      stream.write(`${up}${drawn.map((line) => `\r\u001B[2K${line}\n`).join("")}`);
      height = drawn.length;
    },
    [Symbol.dispose]() {
      process.off("exit", showCursor);
      if (wipes && height > 0) stream.write(`\u001B[${height}A\r\u001B[J`);
      showCursor();
    },
  };
}

function draw(scene: Scene, samples: readonly Sample[], latency: Latency): string[] {
  const sample = samples.at(-1)!;
  const rates = ratesOf(samples);
  const { load } = scene;
  const isOver = sample.atMs > load.durationMs;
  const of = isOver || load.durationMs === Infinity ? "" : ` of ${clockTime(load.durationMs)}`;
  const phase = isOver ? "the load is over, the backlog is drained" : "messages are offered";
  const share = sample.depth / sample.limitMessages;
  const work = sample.secondsOfWork;
  const workText = work === undefined ? "" : `${span(work * 1000)} of work`;
  const flights = `${String(sample.inFlight).padStart(8)} of ${sample.window}`;
  const producer = sample.isBlocked
    ? `told to wait, ${plural(sample.waiting, "send")} waiting`
    : "free to send";
  const mode = scene.concurrency === "adaptive" ? "found by measuring" : "fixed";
  return [
    `  time      ${clockTime(sample.atMs).padStart(8)}${of}    ${phase}`,
    "",
    `  offered   ${rate(rates.offered)}  ${ratesSpark(samples, "offered")}`,
    `  accepted  ${rate(rates.accepted)}  ${ratesSpark(samples, "accepted")}`,
    `  handled   ${rate(rates.handled)}  ${ratesSpark(samples, "handled")}`,
    `  backlog   ${count(sample.depth).padStart(8)}    ${spark(everyHalfSecond(samples).map(({ depth }) => depth))}`,
    `            ${bar(share, barWidth)}  limit ${count(sample.limitMessages)}  ${workText}`,
    "",
    `  in flight ${flights.padEnd(16)} window, ${mode}; breaker ${sample.breaker}`,
    `  handler   ${millis(latency.p50).padStart(8)}    median; ${millis(latency.p99)} for the slowest 1 %`,
    `  credits   ${count(sample.credits).padStart(8)}    producer ${producer}`,
    `  refused   ${count(refusedCount(sample)).padStart(8)}    ${codesOf(sample.refused)}`,
  ];
}

/** Names in the background, figures in front. */
function paint(line: string, stream: NodeJS.WriteStream): string {
  const label = line.slice(0, labelWidth);
  return styleText("dim", label, { stream }) + line.slice(labelWidth);
}

function rate(perS: number): string {
  return `${count(perS).padStart(8)}/s`;
}

function keep(samples: Sample[], sample: Sample): void {
  // The meter's map goes on changing.
  samples.push({ ...sample, refused: new Map(sample.refused) });
  if (samples.length > historyMax) samples.shift();
}

function ratesOf(samples: readonly Sample[], end: number = samples.length - 1): Rates {
  const to = samples[end]!;
  const from = samples[Math.max(0, end - rateSamples)]!;
  const seconds = Math.max(0.001, (to.atMs - from.atMs) / 1000);
  return {
    offered: (to.offered - from.offered) / seconds,
    accepted: (to.accepted - from.accepted) / seconds,
    handled: (to.handled - from.handled) / seconds,
  };
}

function ratesSpark(samples: readonly Sample[], what: keyof Rates): string {
  const kept = everyHalfSecond(samples);
  const values: number[] = [];
  for (let at = 1; at < kept.length; at++) {
    const from = kept[at - 1]!;
    const to = kept[at]!;
    values.push(((to[what] - from[what]) * 1000) / Math.max(1, to.atMs - from.atMs));
  }
  return spark(values);
}

/** One column for each half second, against the highest of them. */
function spark(values: readonly number[]): string {
  const shown = values.slice(-sparkWidth);
  const max = Math.max(0, ...shown);
  return `${sparkline(shown, sparkWidth, max).padEnd(sparkWidth)}  to ${count(max)}`;
}

/** The newest last. */
function everyHalfSecond(samples: readonly Sample[]): Sample[] {
  const first = (samples.length - 1) % 5;
  return samples.filter((_, at) => at % 5 === first);
}

function refusedCount({ refused }: Sample): number {
  let sum = 0;
  for (const number of refused.values()) sum += number;
  return sum;
}

function codesOf(refused: ReadonlyMap<string, number>): string {
  return [...refused]
    .toSorted(([, a], [, b]) => b - a)
    .map(([code, number]) => `${code} ${count(number)}`)
    .join("  ");
}

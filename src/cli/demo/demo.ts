/** The demo: the run, the same spike at fixed concurrencies, the report. */
import { rmSync } from "node:fs";
import { mkdir, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { SpillwayError } from "../../base/index.ts";
import { exitCodes } from "../exit-codes.ts";
import { count, millis } from "../format.ts";
import { stopOnSignals } from "../stop.ts";
import { block, lines, silent } from "./live.ts";
import type { Live, Scene } from "./live.ts";
import { cut, forever, planLoad, spikeAtMs } from "./load.ts";
import type { Load } from "./load.ts";
import type { DemoOptions } from "./options.ts";
import { pageOf } from "./page.ts";
import { reportOf } from "./report.ts";
import { run } from "./run.ts";
import type { RunResult } from "./run.ts";

/**
 * As long as the spike, so that both are measured over the same phases of it; the collapse is told by
 * less. All of it stays below two minutes.
 */
const fixedCompared = [
  { concurrency: 8, forMs: 20_000 },
  { concurrency: 12, forMs: 20_000 },
  { concurrency: 64, forMs: 8000 },
];
const drainMaxMs = 45_000;
/** A terminal with fewer rows gets lines. */
const blockRows = 16;

/** @returns The exit code. @throws {SpillwayError} What cannot be used, or a store that cannot be opened. */
export async function demo(options: DemoOptions): Promise<number> {
  const startedAtMs = performance.now();
  using stop = stopOnSignals();
  const load = await planLoad(options);
  await using place = await placeOf(options.dir);
  const { dir } = place;
  const { concurrency } = options;
  const offered = options.loops ? forever(load) : load;
  say(options, introOf(offered, dir, options));
  const scene = { load: offered, concurrency, dir };
  const main = await shown(options, scene, false, (onSample) =>
    run({ ...scene, drainMaxMs }, { signal: stop.signal, onSample }),
  );
  const compared = options.compares ? await compare(options, load, stop.signal) : [];
  const tookMs = performance.now() - startedAtMs;
  const isKept = options.dir !== undefined;
  const outcome = { load, main, compared, dir, isKept, tookMs };
  const report = reportOf(outcome);
  process.stdout.write(options.isJson ? `${JSON.stringify(report)}\n` : pageOf(outcome));
  return report.faults.length === 0 ? exitCodes.ok : exitCodes.failed;
}

function introOf(load: Load, dir: string, { loops, dir: kept }: DemoOptions): string {
  return [
    "Spillway demo: a spike into a consumer that collapses when it is overdriven",
    "",
    `  arrivals  ${load.title}`,
    `  messages  ${load.contents}`,
    `  consumer  another process, HTTP: best about 1,659/s at 12 calls, 100/s at 64`,
    `  store     ${dir}${kept === undefined ? " (removed at the end)" : ""}`,
    `  ${loops ? "It goes on in a loop; " : ""}Ctrl-C ends it at any moment, with the report.`,
    "",
  ].join("\n");
}

async function compare(
  options: DemoOptions,
  load: Load,
  signal: AbortSignal,
): Promise<RunResult[]> {
  const results: RunResult[] = [];
  if (!signal.aborted) say(options, "\nThe same spike at fixed concurrencies, not drained");
  for (const { concurrency, forMs } of fixedCompared) {
    if (signal.aborted) break;
    const spike = cut(load, spikeAtMs(load), Math.min(forMs, load.durationMs));
    await using place = await placeOf(undefined);
    const scene = { load: spike, concurrency, dir: place.dir };
    const result = await shown(options, scene, true, (onSample) =>
      run({ ...scene, drainMaxMs: 0 }, { signal, onSample }),
    );
    if (result.wasStopped) break;
    results.push(result);
    const { goodputPerS, latencyMs } = result;
    say(
      options,
      `  ${String(concurrency).padStart(2)} calls at once: ${count(goodputPerS)}/s handled, ${millis(latencyMs.p50)} a call`,
    );
  }
  return results;
}

async function shown(
  { isJson }: DemoOptions,
  scene: Scene,
  wipes: boolean,
  act: (onSample: Live["show"]) => Promise<RunResult>,
): Promise<RunResult> {
  const stream = isJson ? process.stderr : process.stdout;
  const write = (text: string): void => void stream.write(text);
  const isTall = stream.isTTY && stream.rows >= blockRows;
  using live = isTall ? block(stream, scene, wipes) : isJson ? silent() : lines(write);
  return await act((sample) => live.show(sample));
}

function say({ isJson }: DemoOptions, text: string): void {
  if (!isJson) process.stdout.write(`${text}\n`);
  else if (process.stderr.isTTY) process.stderr.write(`${text}\n`);
}

interface Place extends AsyncDisposable {
  readonly dir: string;
}

/** The directory that was named, or a new one that is removed however the process ends but by kill -9. */
async function placeOf(named: string | undefined): Promise<Place> {
  if (named !== undefined) {
    const dir = resolve(named);
    await mkdir(dir, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
      const allowed = "a folder, or a path where one can be made";
      throw new SpillwayError(
        "option_invalid",
        { option: "--data", found: dir, allowed },
        { cause },
      );
    });
    return { dir, [Symbol.asyncDispose]: async () => {} };
  }
  const dir = await mkdtemp(join(tmpdir(), "spillway-demo-"));
  const remove = (): void => rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  process.once("exit", remove);
  return {
    dir,
    async [Symbol.asyncDispose]() {
      process.off("exit", remove);
      remove();
    },
  };
}

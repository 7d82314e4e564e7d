/** `spillway simulate`: whole runs of what is shipped, on virtual time, under faults, judged. */
import { writeFileSync } from "node:fs";
import type { Command } from "commander";
import { SpillwayError } from "../base/index.ts";
import { commandOf, drawPlan, hashOf, run, shrink } from "../simulator/index.ts";
import type { HistoryEvent, Less, RunResult, Shrunk } from "../simulator/index.ts";
import { exitCodes } from "./exit-codes.ts";
import { count, plural, span } from "./format.ts";

interface Flags {
  readonly seed?: string;
  readonly from?: string;
  readonly runs?: string;
  readonly without?: string;
  readonly sends?: string;
  readonly history?: string;
  readonly shrink?: boolean;
  readonly json?: true;
}

interface SimulateOptions {
  /** Seeds from this one on. */
  readonly from: number;
  readonly runs: number;
  readonly less: Less;
  /** A file for the history of the last run. */
  readonly history?: string;
  readonly shrinks: boolean;
  readonly isJson: boolean;
}

const runsDefault = 200;
const shownMax = 8;

export function addSimulate(program: Command): void {
  program
    .command("simulate")
    .description("run seeded faults against the whole of it on virtual time, and judge each run")
    .option("--seed <number>", "play this seed alone")
    .option("--from <number>", "first seed of many", "1")
    .option("--runs <number>", "how many seeds", String(runsDefault))
    .option("--without <parts>", "leave out parts of the seed, as a failure printed them")
    .option("--sends <number>", "at most so many sends of each producer")
    .option("--history <file>", "write the history of the last run, for check-history")
    .option("--no-shrink", "do not look for a smaller run of a seed that failed")
    .option("--json", "print one JSON object")
    .action(async (flags: Flags) => {
      process.exitCode = await simulate(parseFlags(flags), (line) => {
        process.stdout.write(`${line}\n`);
      });
    });
}

function parseFlags(flags: Flags): SimulateOptions {
  const seed = wholeOf("--seed", flags.seed, 0);
  const sends = wholeOf("--sends", flags.sends, 1);
  const without = flags.without?.split(",").filter((part) => part !== "") ?? [];
  return {
    from: seed ?? wholeOf("--from", flags.from, 0) ?? 1,
    runs: seed === undefined ? (wholeOf("--runs", flags.runs, 1) ?? runsDefault) : 1,
    less: { without, ...(sends === undefined ? {} : { sends }) },
    ...(flags.history === undefined ? {} : { history: flags.history }),
    shrinks: flags.shrink !== false,
    isJson: flags.json === true,
  };
}

function wholeOf(option: string, text: string | undefined, least: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new SpillwayError("option_invalid", {
    option,
    found: text,
    allowed: `a whole number from ${least}`,
  });
}

interface Played {
  readonly last: RunResult;
  readonly runs: number;
  readonly inconclusive: number;
  readonly simulatedMs: number;
  readonly events: number;
  /** In how many runs each rare thing happened. */
  readonly marks: ReadonlyMap<string, number>;
}

/**
 * Plays seeds until one is broken, and shrinks that one.
 * @param print Takes a line for people, or the JSON object.
 * @returns The exit code: 0 when every run held.
 */
async function simulate(options: SimulateOptions, print: (line: string) => void): Promise<number> {
  const played = await play(options);
  const { last } = played;
  const isBroken = last.broken.length > 0;
  const isWhole = (options.less.without ?? []).length === 0;
  const shrunk = isBroken && options.shrinks && isWhole ? await shrink(last.seed, last) : undefined;
  if (options.history !== undefined) {
    writeFileSync(options.history, linesOf((shrunk?.result ?? last).history));
  }
  const lines = options.isJson
    ? [asJson(played, options, shrunk)]
    : isBroken
      ? brokenText(played, options, shrunk)
      : heldText(played, options);
  for (const line of lines) print(line);
  return isBroken ? exitCodes.failed : exitCodes.ok;
}

async function play({ from, runs, less }: SimulateOptions): Promise<Played> {
  const marks = new Map<string, number>();
  let [played, inconclusive, simulatedMs, events] = [0, 0, 0, 0];
  let last: RunResult;
  do {
    last = await run(drawPlan(from + played, less));
    played++;
    simulatedMs += last.simulatedMs;
    events += last.history.length;
    if (last.isInconclusive) inconclusive++;
    for (const name of last.marks.keys()) marks.set(name, (marks.get(name) ?? 0) + 1);
  } while (last.broken.length === 0 && played < runs);
  return { last, runs: played, inconclusive, simulatedMs, events, marks };
}

function asJson(played: Played, { less }: SimulateOptions, shrunk: Shrunk | undefined): string {
  const { last, marks, ...numbers } = played;
  const isBroken = last.broken.length > 0;
  return JSON.stringify({
    ok: !isBroken,
    ...numbers,
    marks: Object.fromEntries(marks),
    hash: hashOf(last.history),
    ...(isBroken && {
      seed: last.seed,
      broken: (shrunk?.result ?? last).broken,
      again: commandOf(last.seed, less),
      ...(shrunk !== undefined && { smaller: commandOf(last.seed, shrunk.less) }),
    }),
  });
}

function brokenText(
  { last }: Played,
  { less }: SimulateOptions,
  shrunk: Shrunk | undefined,
): string[] {
  const shown = shrunk?.result ?? last;
  const lines = [
    `Seed ${last.seed} is broken:`,
    ...shown.broken.slice(0, shownMax).map((line) => `  ${line}`),
    `Again:   ${commandOf(last.seed, less)}`,
  ];
  if (shrunk === undefined) return lines;
  const events = `${plural(shown.history.length, "event")} instead of ${count(last.history.length)}`;
  return [...lines, `Smaller: ${commandOf(last.seed, shrunk.less)}`, `         ${events}`];
}

function heldText(played: Played, options: SimulateOptions): string[] {
  const { last, runs, inconclusive, simulatedMs, events, marks } = played;
  const spent = `${plural(events, "event")} in ${span(simulatedMs)} of virtual time`;
  const lines = [`${plural(runs, "run")} held: ${spent}.`];
  if (inconclusive > 0) {
    lines.push(`${plural(inconclusive, "run")} proved nothing: too many unknown outcomes.`);
  }
  if (options.runs === 1) return [...lines, `History ${hashOf(last.history)}`];
  return [
    ...lines,
    ...rarest(marks).map(([name, times]) => `  ${String(times).padStart(6)}  ${name}`),
  ];
}

function linesOf(history: readonly HistoryEvent[]): string {
  return history.map((event) => `${JSON.stringify(event)}\n`).join("");
}

function rarest(marks: ReadonlyMap<string, number>): [string, number][] {
  return [...marks].toSorted((a, b) => a[1] - b[1]);
}

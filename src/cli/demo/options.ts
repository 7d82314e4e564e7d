/** The flags of `spillway demo`, checked: what cannot be used is named before anything starts. */
import { SpillwayError } from "../../base/index.ts";

/** As commander gives them. */
export interface DemoFlags {
  readonly arrivals?: string;
  readonly payloads?: string;
  readonly speed?: string;
  readonly seconds?: string;
  readonly rate?: string;
  readonly concurrency?: string;
  readonly data?: string;
  readonly json?: boolean;
  readonly compare?: boolean;
  readonly loop?: boolean;
}

export interface DemoOptions {
  /** A CSV file, or the name of a bundled recording. */
  readonly arrivals?: string;
  readonly payloads?: string;
  /** Recorded seconds per second. */
  readonly speed?: number;
  readonly seconds?: number;
  /** Messages per second: constant, or the mean of a recording that is named. */
  readonly ratePerS?: number;
  readonly concurrency: Concurrency;
  /** The data directory; absent: a new one, removed at the end. */
  readonly dir?: string;
  readonly isJson: boolean;
  readonly compares: boolean;
  readonly loops: boolean;
}

export type Concurrency = "adaptive" | number;

/** @throws {SpillwayError} option_invalid */
export function parseFlags(flags: DemoFlags): DemoOptions {
  const speed = numberOf("--speed", flags.speed, 0.001, 1_000_000);
  const seconds = numberOf("--seconds", flags.seconds, 0.5, 86_400);
  const ratePerS = numberOf("--rate", flags.rate, 1, 100_000);
  const loops = flags.loop === true;
  exclude("--speed", speed, "--seconds", seconds);
  if (flags.arrivals === undefined)
    exclude("--speed", speed, "--rate without --arrivals", ratePerS);
  return {
    ...(flags.arrivals !== undefined && { arrivals: flags.arrivals }),
    ...(flags.payloads !== undefined && { payloads: flags.payloads }),
    ...(speed !== undefined && { speed }),
    ...(seconds !== undefined && { seconds }),
    ...(ratePerS !== undefined && { ratePerS }),
    concurrency: concurrencyOf(flags.concurrency ?? "adaptive"),
    ...(flags.data !== undefined && { dir: flags.data }),
    isJson: flags.json === true,
    compares: flags.compare !== false && !loops,
    loops,
  };
}

function concurrencyOf(text: string): Concurrency {
  if (text === "adaptive") return text;
  const fixed = Number(text);
  if (Number.isInteger(fixed) && fixed >= 1 && fixed <= 1000) return fixed;
  return refuse("--concurrency", text, '"adaptive", or a whole number from 1 to 1000');
}

function numberOf(
  option: string,
  text: string | undefined,
  min: number,
  max: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== "" && value >= min && value <= max) return value;
  return refuse(option, text, `a number from ${min} to ${max}`);
}

function exclude(a: string, left: unknown, b: string, right: unknown): void {
  if (left !== undefined && right !== undefined) refuse(a, b, "one of them, not both");
}

function refuse(option: string, found: string, allowed: string): never {
  throw new SpillwayError("option_invalid", { option, found, allowed });
}

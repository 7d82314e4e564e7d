/**
 * The one logger: a line of JSON for each event, of fields that are listed here and nothing else.
 *
 * S11 No payload, token, header, query, or text that somebody outside has chosen is ever written: what is
 *     not on the list is left out, and an error is written as its code and the places in the program
 *     that it came through, without its message.
 *
 * A flood of events is cut at `linesPerSMax`; the next line that is written says how many are missing.
 */
import type { FastifyBaseLogger } from "fastify";
import { catalogue, isSpillwayError } from "../base/index.ts";

export type LogLevel = "info" | "warn" | "error";

/** Names of events; a text that is none of them (nor a code of the catalogue) is written as "other". */
const events = [
  "request.refused",
  "request.failed",
  "connection.refused",
  "tls.reloaded",
  "tls.reload_failed",
] as const;

export type LogEvent = (typeof events)[number];

/** What a line may hold. `route` is the pattern of a route, never the path that was asked for. */
export interface LogFields {
  readonly requestId?: string | undefined;
  readonly method?: string | undefined;
  readonly route?: string | undefined;
  readonly status?: number | undefined;
  readonly code?: string | undefined;
  /** Id of the token. */
  readonly principal?: string | undefined;
  readonly flow?: string | undefined;
  readonly partition?: number | undefined;
  readonly target?: string | undefined;
  readonly address?: string | undefined;
  readonly port?: number | undefined;
  readonly count?: number | undefined;
  readonly bytes?: number | undefined;
  readonly ms?: number | undefined;
  /** Written as code and places. */
  readonly error?: unknown;
}

const fieldNames: ReadonlySet<string> = new Set<keyof LogFields>([
  "requestId",
  "method",
  "route",
  "status",
  "code",
  "principal",
  "flow",
  "partition",
  "target",
  "address",
  "port",
  "count",
  "bytes",
  "ms",
]);
const levels: Readonly<Record<string, number>> = { info: 0, warn: 1, error: 2, silent: 3 };
const texts: ReadonlySet<string> = new Set([...events, ...Object.keys(catalogue)]);
const linesPerSMax = 100;
const valueMax = 200;
const placesMax = 12;
const causesMax = 4;

export class Log {
  readonly #level: number;
  readonly #write: (line: string) => void;
  #second = 0;
  #lines = 0;
  #missing = 0;

  constructor(level: "info" | "warn" | "silent", write: (line: string) => void) {
    this.#level = levels[level]!;
    this.#write = write;
  }

  info(event: LogEvent, fields?: LogFields): void {
    this.#line("info", event, fields);
  }

  warn(event: LogEvent, fields?: LogFields): void {
    this.#line("warn", event, fields);
  }

  error(event: LogEvent, fields?: LogFields): void {
    this.#line("error", event, fields);
  }

  /** What Fastify itself has to say, under the same rules. */
  forFastify(): FastifyBaseLogger {
    const at =
      (level: LogLevel) =>
      (first: unknown, second?: unknown): void => {
        const text = typeof first === "string" ? first : second;
        const fields = typeof first === "object" && first !== null ? first : {};
        const error = first instanceof Error ? first : "err" in fields ? fields.err : undefined;
        this.#line(level, String(text), { ...fields, error });
      };
    const logger = {
      level: "info",
      info: none, // "Server listening at ...": the server says that itself.
      debug: none,
      trace: none,
      silent: none,
      warn: at("warn"),
      error: at("error"),
      fatal: at("error"),
      child: (): unknown => logger,
    };
    return logger as unknown as FastifyBaseLogger;
  }

  #line(level: LogLevel, text: string, fields: LogFields = {}): void {
    if (levels[level]! < this.#level) return;
    const nowMs = Date.now();
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#lines = 0;
    }
    if (this.#lines >= linesPerSMax) {
      this.#missing += 1;
      return;
    }
    this.#lines += 1;
    const line: Record<string, unknown> = { time: new Date(nowMs).toISOString(), level };
    line["event"] = texts.has(text) ? text : "other";
    for (const [name, value] of Object.entries(fields)) {
      if (!fieldNames.has(name)) continue;
      if (typeof value === "number") line[name] = value;
      else if (typeof value === "string") line[name] = value.slice(0, valueMax);
    }
    if (fields.error !== undefined) line["error"] = shown(fields.error);
    if (this.#missing > 0) line["missing"] = this.#missing;
    this.#missing = 0;
    this.#write(`${JSON.stringify(line)}\n`);
  }
}

const none = (): void => undefined;

/** Codes and places of an error and what caused it; never a message. */
function shown(thrown: unknown): readonly unknown[] {
  const found: unknown[] = [];
  for (let at = thrown; at instanceof Error && found.length < causesMax; at = at.cause) {
    const { code } = at as { code?: unknown };
    const invariant = isSpillwayError(at, "invariant_broken") ? at.details["invariant"] : undefined;
    found.push({
      type: /^\w{1,40}$/.test(at.name) ? at.name : "Error",
      ...(typeof code === "string" && /^\w{1,60}$/.test(code) ? { code } : {}),
      ...(typeof invariant === "string" ? { invariant } : {}),
      places: placesOf(at),
    });
  }
  return found.length === 0 ? [{ type: typeof thrown }] : found;
}

/** The message may have lines of its own that look like places: the stack counts from its end. */
function placesOf({ stack = "", message }: Error): readonly string[] {
  const from = stack.indexOf(message);
  const rest = from < 0 ? stack : stack.slice(from + message.length);
  const isWhole = from >= 0 || message === "";
  return isWhole
    ? rest
        .split("\n")
        .filter((line) => /^ {4}at /.test(line))
        .slice(0, placesMax)
        .map((line) => line.trim().slice(0, valueMax))
    : [];
}

/**
 * Fields of a contract: how each kind of value is read, what it says when it is refused, and which
 * hint it gives when units were mixed up. A field is a zod schema, so that the contract's JSON schema
 * comes from the same place; what is wrong is said in an issue's `params`, which `schema.ts` collects.
 */
import { z } from "zod";
import { parseBytes, parseMs } from "../base/index.ts";
import { parseInstant } from "./instant.ts";
import type { SecretRef } from "./options.ts";

interface FieldKind<T> {
  readonly allowed: string;
  /** JSON schema of what may be written; `default` is text for people where it follows from others. */
  readonly json: Readonly<Record<string, unknown>>;
  /** @returns undefined when the value is refused. */
  readonly read: (value: unknown) => T | undefined;
  /** What was probably meant by a refused value; suggested if it can be read. */
  readonly guess?: (value: unknown) => unknown;
}

export function field<T>(kind: FieldKind<T>): z.ZodType<T> {
  return z
    .unknown()
    .meta(kind.json)
    .transform((value, context): T => {
      const read = kind.read(value);
      if (read !== undefined) return read;
      const guess = kind.guess?.(value);
      const likely = guess !== undefined && kind.read(guess) !== undefined;
      const hint = likely ? `did you mean ${JSON.stringify(guess)}?` : undefined;
      const params = { allowed: kind.allowed, hint };
      context.issues.push({ code: "custom", input: value, message: kind.allowed, params });
      return z.NEVER;
    });
}

/** An object that knows its fields: its own issues say their names, see `problemsOf`. */
export function section<Shape extends z.core.$ZodLooseShape>(
  shape: Shape,
): z.ZodObject<Shape, z.core.$strict> {
  return z.strictObject(shape, { error: Object.keys(shape).join(", ") });
}

interface Range {
  readonly min: number;
  readonly max: number;
  readonly description: string;
  readonly default?: number | string;
}

export function count({ min, max, ...doc }: Range): z.ZodType<number> {
  return field({
    allowed: `a whole number from ${min} to ${max}`,
    json: { type: "integer", minimum: min, maximum: max, ...doc },
    read: (value) => (Number.isInteger(value) ? inRange(value as number, min, max) : undefined),
    guess: guessNumber,
  });
}

export function quantity({ min, max, ...doc }: Range): z.ZodType<number> {
  return field({
    allowed: `a number from ${min} to ${max}`,
    json: { type: "number", minimum: min, maximum: max, ...doc },
    read: (value) => inRange(value, min, max),
    guess: guessNumber,
  });
}

export function share(doc: { description: string; default: number }): z.ZodType<number> {
  return field({
    allowed: "a share between 0 and 1",
    json: { type: "number", minimum: 0, maximum: 1, ...doc },
    read: (value) => inRange(value, 0, 1),
    guess: (value) => {
      const percent = typeof value === "string" ? /^([\d.]+)\s*%$/.exec(value.trim()) : null;
      if (percent !== null) return rounded(Number(percent[1]) / 100);
      return typeof value === "number" ? rounded(value / 100) : guessNumber(value);
    },
  });
}

/** Reads to ms; `min` and `max` are spans as text, "1s". */
export function span(range: SpanRange): z.ZodType<number> {
  return spanIn(range, "ms", 1);
}

/** Reads to seconds, in which a plain number is taken, too. */
export function seconds(range: SpanRange): z.ZodType<number> {
  return spanIn(range, "s", 1000);
}

interface SpanRange {
  readonly min: string;
  readonly max: string;
  readonly description: string;
  readonly default?: string;
}

function spanIn({ min, max, ...doc }: SpanRange, unit: "ms" | "s", unitMs: number) {
  const [minMs, maxMs] = [parseMs(min)!, parseMs(max)!];
  return field({
    allowed: `a span from ${min} to ${max}, as text ("${doc.default ?? "10s"}") or a number of ${unit}`,
    json: { type: ["number", "string"], ...doc },
    read: (value) => {
      if (typeof value !== "number" && typeof value !== "string") return undefined;
      const ms = typeof value === "number" ? value * unitMs : parseMs(value);
      if (ms === undefined || (unitMs === 1 && !Number.isInteger(ms))) return undefined;
      return inRange(ms, minMs, maxMs) === undefined ? undefined : ms / unitMs;
    },
    guess: (value) => {
      if (typeof value === "string") return guessSpan(value);
      return typeof value === "number" && value < minMs ? `${value}s` : undefined;
    },
  });
}

/** Reads to bytes. */
export function size({ min, max, ...doc }: Range): z.ZodType<number> {
  return field({
    allowed: `a size from ${min} B to ${max / 1024 ** 3} GiB, as text ("64 KiB") or a number of bytes`,
    json: { type: ["integer", "string"], ...doc },
    read: (value) => {
      if (typeof value !== "number" && typeof value !== "string") return undefined;
      const bytes = parseBytes(value);
      return Number.isInteger(bytes) ? inRange(bytes, min, max) : undefined;
    },
    guess: (value) => (typeof value === "string" ? guessSize(value) : undefined),
  });
}

/** Messages (or cost) per second. */
export function perSecond(doc: { description: string }): z.ZodType<number> {
  const [min, max] = [0.001, 1e9];
  return field({
    allowed: `a number of messages per second, from ${min} to ${max}`,
    json: { type: "number", minimum: min, maximum: max, ...doc },
    read: (value) => inRange(value, min, max),
    guess: guessRate,
  });
}

export function choice<const T extends string>(
  values: readonly T[],
  doc: { description: string; default?: string },
): z.ZodType<T> {
  return field({
    allowed: values.map((value) => `"${value}"`).join(" or "),
    json: { enum: values, ...doc },
    read: (value) => values.find((allowed) => allowed === value),
  });
}

/** Reads to ms since the epoch; earlier ones are seconds that were taken for ms. */
export function instant(doc: { description: string }): z.ZodType<number> {
  const [minMs, maxMs] = [parseInstant("2000-01-01T00:00Z")!, parseInstant("9999-01-01T00:00Z")!];
  return field({
    allowed:
      'an instant from 2000 on: ISO 8601 with a zone ("2026-11-27T00:00Z") or ms since the epoch',
    json: { type: ["integer", "string"], ...doc },
    read: (value) => {
      const ms = typeof value === "string" ? parseInstant(value) : value;
      return Number.isInteger(ms) ? inRange(ms, minMs, maxMs) : undefined;
    },
    guess: (value) =>
      typeof value === "string"
        ? [`${value}Z`, `${value}T00:00Z`].find((text) => parseInstant(text) !== undefined)
        : Number(value) * 1000,
  });
}

/** Names of flows and targets. */
export function name(doc: { description: string }): z.ZodType<string> {
  return field({
    allowed: nameAllowed,
    json: { type: "string", pattern: nameForm.source, ...doc },
    read: (value) => (isName(value) ? value : undefined),
  });
}

const nameForm = /^[A-Za-z0-9._-]{1,128}$/;
export const nameAllowed = "a name: 1 to 128 of A-Z a-z 0-9 . _ -";

export function isName(value: unknown): value is string {
  return typeof value === "string" && nameForm.test(value);
}

/** Text of a form. */
export function text(kind: {
  readonly form: RegExp;
  readonly allowed: string;
  readonly description: string;
}): z.ZodType<string> {
  const { form, allowed, description } = kind;
  return field({
    allowed,
    json: { type: "string", pattern: form.source, description },
    read: (value) => (typeof value === "string" && form.test(value) ? value : undefined),
  });
}

/** An object of texts, by names of a form. */
export function texts(kind: {
  readonly name: RegExp;
  readonly text: RegExp;
  readonly allowed: string;
  readonly description: string;
}): z.ZodType<Record<string, string>> {
  return field({
    allowed: kind.allowed,
    json: {
      type: "object",
      additionalProperties: { type: "string" },
      description: kind.description,
    },
    read: (value) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
      const entries = Object.entries(value) as [string, unknown][];
      const isGood = entries.every(
        ([key, each]) => kind.name.test(key) && typeof each === "string" && kind.text.test(each),
      );
      return isGood ? (Object.fromEntries(entries) as Record<string, string>) : undefined;
    },
  });
}

/** A secret's place: a variable of the environment, or a file. */
export function secretRef(doc: { description: string }): z.ZodType<SecretRef> {
  return field({
    allowed: 'where the secret is read from: { env: "NAME" } or { file: "PATH" }',
    json: {
      anyOf: [
        {
          type: "object",
          properties: { env: { type: "string" } },
          required: ["env"],
          additionalProperties: false,
        },
        {
          type: "object",
          properties: { file: { type: "string" } },
          required: ["file"],
          additionalProperties: false,
        },
      ],
      ...doc,
    },
    read: (value) => {
      if (typeof value !== "object" || value === null) return undefined;
      const [[name, place] = [], ...others] = Object.entries(value) as [string, unknown][];
      if (others.length > 0 || typeof place !== "string" || place === "") return undefined;
      if (name === "env") return { env: place };
      return name === "file" ? { file: place } : undefined;
    },
  });
}

function inRange(value: unknown, min: number, max: number): number | undefined {
  return typeof value === "number" && value >= min && value <= max ? value : undefined;
}

function rounded(value: number): number {
  return Number(value.toPrecision(12));
}

function guessNumber(value: unknown): number | undefined {
  if (typeof value !== "string") return undefined;
  const plain = value.trim().replaceAll(/[_,](?=\d{3})/g, "");
  return /^\d+(\.\d+)?$/.test(plain) ? Number(plain) : undefined;
}

function guessRate(value: unknown): number | undefined {
  const match =
    typeof value === "string"
      ? /^([\d.]+)\s*(?:\/|per )\s*(s|sec|second|m|min|minute|h|hour)$/i.exec(value.trim())
      : null;
  if (match === null) return guessNumber(value);
  const unitS = { s: 1, m: 60, h: 3600 }[match[2]![0]!.toLowerCase() as "s" | "m" | "h"];
  return rounded(Number(match[1]) / unitS);
}

const spanWords = {
  ms: /^(msecs?|milli(second)?s?)$/,
  s: /^(s(ecs?|econds?)?)?$/,
  m: /^m(ins?|inutes?)?$/,
  h: /^h(rs?|ours?)?$/,
  d: /^d(ays?)?$/,
};

/** A span without a unit is taken for seconds. */
function guessSpan(value: string): string | undefined {
  const match = /^([\d.]+)\s*([a-z]*)$/i.exec(value.trim());
  if (match === null) return undefined;
  const word = match[2]!.toLowerCase();
  const unit = Object.entries(spanWords).find(([, form]) => form.test(word))?.[0];
  return unit === undefined ? undefined : `${match[1]}${unit}`;
}

function guessSize(value: string): string | undefined {
  const match = /^([\d.]+)\s*([kmgt]?)(i?b|i?bytes?|i)?$/i.exec(value.trim());
  if (match === null) return undefined;
  const letter = match[2]!.toUpperCase();
  return `${match[1]} ${letter === "" ? "B" : `${letter}iB`}`;
}

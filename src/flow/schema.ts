/**
 * The shape of a contract: its fields, their ranges, and its JSON schema. What fields demand of each
 * other stands in `contradictions.ts`.
 */
import { z } from "zod";
import * as defaults from "./defaults.ts";
import * as fields from "./fields.ts";
import { push } from "./push.ts";
import type { GivenPush } from "./push.ts";
import type { DiscardReason } from "./options.ts";
import { messageClasses } from "./message.ts";
import type { MessageClass } from "./message.ts";
import { nearest, pathText, problem, shownMax } from "./problems.ts";
import type { Problem } from "./problems.ts";

/** What was written, in ms and bytes; absent where nothing was. */
export interface Given {
  partitions?: number | undefined;
  buffer?: Some<{ messages: number; bytes: number; seconds: number }>;
  order?: "key" | "none" | undefined;
  dedup?: Some<{ window: number }>;
  classes?: Some<Record<MessageClass, number>>;
  deadline?: number | undefined;
  discard?: DiscardReason[] | undefined;
  retry?: Some<{ attempts: number; delay: [number, number]; budget: number }>;
  lease?: number | undefined;
  window?: Some<{ start: number; min: number; max: number; fixed: number }>;
  rate?: GivenRate | undefined;
  expectedRate?: number | undefined;
  boundary?: Some<{
    rate: GivenRate;
    groupRate: GivenRate;
    learn: "day" | "week" | "off";
    surges: { from: number; to: number; factor: number }[];
  }>;
  groups?: Some<{ weights: Record<string, number>; shards: number | "off" }>;
  messageBytesMax?: number | undefined;
  credit?: Some<{ leaseMs: number }>;
  readAhead?: number | undefined;
  target?: string | undefined;
  budget?: Some<{ endToEnd: number }>;
  deliver?: GivenPush | undefined;
  payload?: "json" | "bytes" | undefined;
}
export interface GivenRate {
  perSecond: number;
  burst?: number | undefined;
}
type Some<T> = { [Name in keyof T]?: T[Name] | undefined } | undefined;

/**
 * JSON schema (2020-12) of what users write in a contract. It knows shapes and ranges; texts of spans
 * and sizes, and contradictions, are checked by `parseContract` alone.
 */
export function contractSchema(): Record<string, unknown> {
  return { ...z.toJSONSchema(contract, { io: "input" }), title: "Contract of a Spillway flow" };
}

/** Reads the shape. What cannot be read is left out of `given`, and its path is in `unread`. */
export function readShape(options: unknown): {
  readonly given: Given;
  readonly problems: Problem[];
  /** "rate", "buffer.bytes": down to the second level. */
  readonly unread: ReadonlySet<string>;
} {
  const result = contract.safeParse(options, { reportInput: true });
  if (result.success) return { given: result.data, problems: [], unread: new Set() };
  const { issues } = result.error;
  const unread = new Set(issues.flatMap((issue) => placesOf(issue)));
  const rest = contract.safeParse(without(unread, options));
  return { given: rest.data ?? {}, problems: issues.flatMap((issue) => problemsOf(issue)), unread };
}

/** Where an issue lies, down to the second level. */
function placesOf(issue: z.core.$ZodIssue): string[] {
  if (issue.code !== "unrecognized_keys") return [issue.path.slice(0, 2).join(".")];
  return issue.keys.map((key) => [...issue.path, key].slice(0, 2).join("."));
}

function without(unread: ReadonlySet<string>, value: unknown, above = ""): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return above === "" ? {} : value;
  }
  const kept = Object.entries(value).filter(([name]) => !unread.has(above + name));
  if (above !== "") return Object.fromEntries(kept);
  return Object.fromEntries(
    kept.map(([name, inner]) => [name, without(unread, inner, `${name}.`)]),
  );
}

/** Names of the fields at the top. */
export function fieldNames(): string[] {
  return Object.keys(contract.shape);
}

/** The message of an object's own issues is the list of its field names: see `fields.section`. */
export function problemsOf(issue: z.core.$ZodIssue): Problem[] {
  const { path, message } = issue;
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key, at) => {
      const near = at < shownMax ? nearest(key, message.split(", ")) : undefined;
      const hint = near === undefined ? undefined : `did you mean "${near}"?`;
      return {
        ...problem(pathText([...path, key]), "", `one of ${message}`, hint),
        found: "an unknown field",
      };
    });
  }
  const params = issue.code === "custom" ? issue.params : undefined;
  const anObject = issue.code === "invalid_type" && issue.expected === "object";
  const allowed = anObject ? `an object with ${message}` : message;
  return [problem(pathText(path), issue.input, allowed, params?.["hint"] as string | undefined)];
}

function rate(description: string, burstDefault: string) {
  const burst = `How many may go at once after a pause; by default ${burstDefault}.`;
  return fields
    .section({
      perSecond: fields.perSecond({ description }),
      burst: fields.quantity({ min: 1, max: 1e9, description: burst }).optional(),
    })
    .optional();
}

const groupsMax = 10_000;

const surge = fields.section({
  from: fields.instant({ description: "When it begins." }),
  to: fields.instant({ description: "When it ends." }),
  factor: fields.quantity({ min: 0.01, max: 1000, description: "Times the usual arrivals." }),
});

const weight = fields.quantity({ min: 0.01, max: 100, description: "1 where absent." });

/** Not `z.record`: a group may have any name, "__proto__" as well. */
const weights: z.ZodType<Record<string, number>> = z
  .unknown()
  .meta({
    type: "object",
    additionalProperties: { type: "number", minimum: 0.01, maximum: 100 },
    propertyNames: { minLength: 1, maxLength: 256 },
    maxProperties: groupsMax,
    description: "Share of a group against the others of its class; 1 where absent.",
    default: {},
  })
  .transform((value, context): Record<string, number> => {
    const refuse = (allowed: string, input: unknown, path: PropertyKey[] = []): void =>
      void context.issues.push({ code: "custom", input, message: allowed, path });
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      refuse("an object of weights by group", value);
      return z.NEVER;
    }
    const entries = Object.entries(value);
    if (entries.length > groupsMax) refuse(`an object of at most ${groupsMax} groups`, value);
    for (const [name, each] of entries.slice(0, groupsMax)) {
      if (name === "" || name.length > 256) refuse("groups of 1 to 256 characters", name, [name]);
      else if (!weight.safeParse(each).success) refuse("a number from 0.01 to 100", each, [name]);
    }
    return Object.fromEntries<number>(entries);
  });

const shards: z.ZodType<number | "off"> = fields.field<number | "off">({
  allowed: 'a whole number from 1 to 1024, or "off"',
  json: {
    anyOf: [{ type: "integer", minimum: 1, maximum: 1024 }, { const: "off" }],
    description:
      "On how many partitions a group's messages lie; by default off below 8 partitions, 2, 4 from 16.",
  },
  read: (value) => {
    if (value === "off") return value;
    const known = typeof value === "number" && Number.isInteger(value);
    return known && value >= 1 && value <= 1024 ? value : undefined;
  },
});

const boundary = fields
  .section({
    rate: rate("Messages per second that the flow takes in.", "one second of the rate"),
    groupRate: rate("Messages per second of each group.", "one second of the rate"),
    learn: fields
      .choice(["day", "week", "off"], {
        description: "Season that is learnt of arrivals, for forecasts and envelopes.",
        default: defaults.learnDefault,
      })
      .optional(),
    surges: z
      .array(surge, { error: "a list of surges" })
      .max(1000, { error: "a list of at most 1,000 surges" })
      .optional(),
  })
  .optional();

const contract = fields.section({
  partitions: fields
    .count({ min: 1, max: 1024, description: "Slices with one owner each.", default: 8 })
    .optional(),
  buffer: fields
    .section({
      messages: fields
        .count({
          min: 1,
          max: 1e12,
          description: "Messages stored and not settled, over all partitions.",
          default: defaults.bufferDefault.messages,
        })
        .optional(),
      bytes: fields
        .size({
          min: 1024,
          max: 1024 ** 5,
          description: "Bytes stored and not settled, over all partitions.",
          default: "2 GiB",
        })
        .optional(),
      seconds: fields
        .seconds({
          min: "10ms",
          max: "30d",
          description: "Seconds of work: backlog / drain rate; by default no bound.",
        })
        .optional(),
    })
    .optional(),
  order: fields
    .choice(["key", "none"], { description: "What is kept in order.", default: "key" })
    .optional(),
  dedup: fields
    .section({
      window: fields
        .span({
          min: "1s",
          max: "90d",
          description: "How long an idempotency key is remembered.",
          default: "24h",
        })
        .optional(),
    })
    .optional(),
  classes: fields
    .section(
      Object.fromEntries(
        messageClasses.map((name) => [
          name,
          fields
            .share({
              description: `Share of the buffer at which ${name} messages stop.`,
              default: defaults.classesDefault[name],
            })
            .optional(),
        ]),
      ) as Record<MessageClass, z.ZodOptional<z.ZodType<number>>>,
    )
    .optional(),
  deadline: fields
    .span({ min: "1ms", max: "365d", description: "Default deadline after acceptance." })
    .optional(),
  discard: z
    .array(fields.choice(["expired", "shed"], { description: "A reason to drop a message." }), {
      error: 'a list of "expired" and "shed"',
    })
    .optional(),
  retry: fields
    .section({
      attempts: fields
        .count({
          min: 1,
          max: 1000,
          description: "Deliveries that may fail before a message is dead-lettered.",
          default: defaults.retryDefault.attempts,
        })
        .optional(),
      delay: z
        .tuple([delay("After the first failure.", "200ms"), delay("The longest.", "15m")], {
          error: 'two spans, the first delay and the longest: ["200ms", "15m"]',
        })
        .optional(),
      budget: fields
        .share({
          description: "Retries allowed, as a share of first attempts.",
          default: defaults.retryDefault.budget,
        })
        .optional(),
    })
    .optional(),
  lease: fields
    .span({
      min: "100ms",
      max: "24h",
      description: "How long a delivery may take without a sign of life.",
      default: "30s",
    })
    .optional(),
  window: fields
    .section({
      start: inFlight("At the start.", defaults.windowDefault.start).optional(),
      min: inFlight("At least.", defaults.windowDefault.min).optional(),
      max: inFlight("At most.", defaults.windowDefault.max).optional(),
      fixed: inFlight("Always: switches measuring off.").optional(),
    })
    .optional(),
  rate: rate("Messages per second that the target allows.", "20 ms of the rate"),
  expectedRate: fields
    .perSecond({ description: "Messages settled per second, until that is measured." })
    .optional(),
  boundary,
  groups: fields.section({ weights: weights.optional(), shards: shards.optional() }).optional(),
  messageBytesMax: fields
    .size({
      min: 1,
      max: 64 * 1024 ** 2,
      description: "Largest message, headers included.",
      default: "1 MiB",
    })
    .optional(),
  credit: fields
    .section({
      leaseMs: fields
        .span({
          min: "100ms",
          max: "60s",
          description: "How long granted credit may be used.",
          default: "2s",
        })
        .optional(),
    })
    .optional(),
  readAhead: fields
    .count({
      min: 1,
      max: 1_000_000,
      description: "Descriptors that a partition's owner holds in memory.",
      default: defaults.readAheadDefault,
    })
    .optional(),
  target: fields.name({ description: "Flows that name one target share its limits." }).optional(),
  budget: fields
    .section({
      endToEnd: fields
        .span({ min: "1ms", max: "365d", description: "Latency budget from acceptance to ack." })
        .optional(),
    })
    .optional(),
  deliver: push.optional(),
  payload: fields
    .choice(["json", "bytes"], { description: "What a message is made of.", default: "json" })
    .optional(),
});

function delay(description: string, standard: string) {
  return fields.span({ min: "1ms", max: "7d", description, default: standard });
}

function inFlight(description: string, standard?: number) {
  const range = { min: 1, max: 100_000, description: `Messages in flight. ${description}` };
  return fields.count(standard === undefined ? range : { ...range, default: standard });
}

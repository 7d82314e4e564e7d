/**
 * What of a contract may change while its flow exists. The rest (partitions, order, dedup, names) says
 * where stored messages lie and what they mean.
 */
import type { Contract, Push, Rate } from "./contract.ts";
import * as defaults from "./defaults.ts";
import { messageClasses } from "./message.ts";
import type { FlowOptions, PushOptions, RateOptions } from "./options.ts";
import { parseContract } from "./parse.ts";
import { contractInvalid, problem } from "./problems.ts";
import type { Problem } from "./problems.ts";
import { fieldNames } from "./schema.ts";

export const policyFields = [
  "retry",
  "window",
  "rate",
  "boundary",
  "buffer",
  "classes",
  "lease",
] as const;

/** Fields to change; what is absent stays, null goes back to the default (RFC 7396). */
export type PolicyPatch = {
  readonly [Field in (typeof policyFields)[number]]?: Patch<NonNullable<FlowOptions[Field]>> | null;
};
type Patch<T> = T extends object
  ? T extends readonly unknown[]
    ? T
    : { readonly [Name in keyof T]?: Patch<T[Name]> | null }
  : T;

/**
 * Derived defaults (a burst, the start of a window, the lower classes) follow a changed field.
 *
 * @returns The changed contract; the given one stays as it is.
 * @throws {SpillwayError} contract_invalid
 */
export function changePolicy(contract: Contract, patch: PolicyPatch): Contract {
  const problems: Problem[] = [];
  const names = typeof patch === "object" && patch !== null ? Object.keys(patch) : [];
  for (const name of names) {
    if (fieldNames().includes(name) && !(policyFields as readonly string[]).includes(name)) {
      const value = (patch as Readonly<Record<string, unknown>>)[name];
      const allowed = `one of ${policyFields.join(", ")}`;
      problems.push(problem(name, value, allowed, "cannot change while the flow exists"));
    }
  }
  if (!isPlain(patch)) problems.push(problem("", patch, "an object of changes"));
  if (problems.length > 0) throw contractInvalid(contract.name, problems);
  return parseContract(contract.name, merge(optionsOf(contract), patch) as FlowOptions);
}

/** The options that give this contract, without what follows from others: K2, and fit to be stored. */
export function optionsOf(contract: Contract): FlowOptions {
  const { name, buffer, classes, retry, window, rate, boundary, groups, partitions } = contract;
  const levels = messageClasses.map((each) => [
    each,
    classes[each] === defaults.classesDefault[each] ? undefined : classes[each],
  ]);
  const derivedStart = defaults.windowStart(window.min, window.max);
  const derivedBytes = defaults.messageBytesMax(buffer.bytes);
  return withoutAbsent({
    partitions,
    buffer,
    order: contract.order,
    dedup: { window: contract.dedup.windowMs },
    classes: Object.fromEntries(levels) as Record<string, number>,
    deadline: contract.deadlineMs,
    discard: contract.discard,
    retry: {
      attempts: retry.attempts,
      delay: [retry.delayBaseMs, retry.delayMaxMs],
      budget: retry.budget,
    },
    lease: contract.leaseMs,
    window: { ...window, start: window.start === derivedStart ? undefined : window.start },
    rate: rateOptions(rate, defaults.rateBurst),
    expectedRate: contract.expectedRate,
    boundary: {
      rate: rateOptions(boundary.rate, defaults.boundaryBurst),
      groupRate: rateOptions(boundary.groupRate, defaults.boundaryBurst),
      learn: boundary.learn,
      surges: boundary.surges.map(({ fromMs, toMs, factor }) => ({
        from: fromMs,
        to: toMs,
        factor,
      })),
    },
    groups: {
      weights: groups.weights,
      shards: groups.shards === defaults.groupShards(partitions) ? undefined : groups.shards,
    },
    messageBytesMax:
      contract.messageBytesMax === derivedBytes ? undefined : contract.messageBytesMax,
    credit: contract.credit,
    readAhead: contract.readAhead,
    target: contract.target === name ? undefined : contract.target,
    budget: { endToEnd: contract.budget.endToEndMs },
    deliver: pushOptions(contract.deliver),
    payload: contract.payload,
  });
}

function pushOptions(push: Push | undefined): PushOptions | undefined {
  if (push === undefined) return undefined;
  const { timeoutMs, connectTimeoutMs, secrets, batchMessages, headers, ...same } = push;
  return {
    ...same,
    timeout: timeoutMs,
    connectTimeout: connectTimeoutMs,
    ...(secrets.length > 0 && { secret: secrets }),
    ...(Object.keys(headers).length > 0 && { headers }),
    ...(batchMessages > 1 && { batch: { messages: batchMessages } }),
  };
}

function rateOptions(
  rate: Rate | undefined,
  burstDefault: (perSecond: number) => number,
): RateOptions | undefined {
  if (rate === undefined) return undefined;
  return rate.burst === burstDefault(rate.perSecond) ? { perSecond: rate.perSecond } : rate;
}

/** A copy without fields that are undefined, two levels deep. */
function withoutAbsent(value: object, depth = 2): object {
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(
    entries.map(([name, inner]) => [
      name,
      depth > 1 && isPlain(inner) ? withoutAbsent(inner, depth - 1) : inner,
    ]),
  );
}

/** RFC 7396, three levels deep, which is as deep as options go; keys are copied, never assigned. */
function merge(base: unknown, patch: unknown, depth = 3): unknown {
  if (!isPlain(patch) || depth === 0) return patch;
  const merged = new Map(isPlain(base) ? Object.entries(base) : []);
  for (const [name, value] of Object.entries(patch)) {
    if (value === undefined) continue;
    if (value === null) merged.delete(name);
    else merged.set(name, merge(merged.get(name), value, depth - 1));
  }
  return Object.fromEntries(merged);
}

function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * From what users write to a contract.
 *
 * K1  Any JSON value given as options becomes a contract or a `contract_invalid` that names every
 *     problem; nothing else happens.
 * K2  A contract written back as options and parsed again is the same contract.
 * K3  Critical stops last: classes.critical >= classes.normal >= classes.bulk.
 * K4  A largest message fits into the buffer.
 */
import type { Contract, Push, Rate } from "./contract.ts";
import { contradictions } from "./contradictions.ts";
import * as defaults from "./defaults.ts";
import { isName, nameAllowed } from "./fields.ts";
import type { FlowOptions } from "./options.ts";
import { contractInvalid, problem } from "./problems.ts";
import { readShape } from "./schema.ts";
import type { Given, GivenRate } from "./schema.ts";

/**
 * Checks what a user wrote and fills in the defaults.
 *
 * @param name Of the flow: 1 to 128 of A-Z a-z 0-9 . _ -
 * @returns The contract, frozen to its depth.
 * @throws {SpillwayError} contract_invalid, with `details.problems` (`Problem[]`)
 */
export function parseContract(name: string, options: FlowOptions): Contract {
  const { given, problems, unread } = readShape(options);
  const named = isName(name);
  if (!named) problems.push(problem("name", name, nameAllowed));
  const contract = resolve(named ? name : "?", given);
  for (const { between, ...found } of contradictions(contract)) {
    // What could not be read stands at its default here, which is no ground for a contradiction.
    if (between.every((path) => !unread.has(path))) problems.push(found);
  }
  if (problems.length > 0) throw contractInvalid(contract.name, problems);
  return freeze(contract);
}

function resolve(name: string, given: Given): Contract {
  const { buffer = {}, retry = {}, groups = {} } = given;
  const { delayBaseMs, delayMaxMs } = defaults.retryDefault;
  const [base, max] = retry.delay ?? [delayBaseMs, delayMaxMs];
  const partitions = given.partitions ?? defaults.partitionsDefault;
  const bytes = buffer.bytes ?? defaults.bufferDefault.bytes;
  return {
    name,
    partitions,
    buffer: {
      messages: buffer.messages ?? defaults.bufferDefault.messages,
      bytes,
      ...known("seconds", buffer.seconds),
    },
    order: given.order ?? "key",
    dedup: { windowMs: given.dedup?.window ?? defaults.dedupWindowMsDefault },
    classes: defaults.classLevels(given.classes),
    ...known("deadlineMs", given.deadline),
    discard: [...new Set(given.discard)].toSorted(),
    retry: {
      attempts: retry.attempts ?? defaults.retryDefault.attempts,
      delayBaseMs: base,
      delayMaxMs: max,
      budget: retry.budget ?? defaults.retryDefault.budget,
    },
    leaseMs: given.lease ?? defaults.leaseMsDefault,
    window: resolveWindow(given.window),
    ...known("rate", resolveRate(given.rate, defaults.rateBurst)),
    ...known("expectedRate", given.expectedRate),
    boundary: resolveBoundary(given.boundary),
    groups: {
      weights: Object.setPrototypeOf({ ...groups.weights }, null) as Record<string, number>,
      shards: groups.shards ?? defaults.groupShards(partitions),
    },
    messageBytesMax: given.messageBytesMax ?? defaults.messageBytesMax(bytes),
    credit: { leaseMs: given.credit?.leaseMs ?? defaults.creditLeaseMsDefault },
    readAhead: given.readAhead ?? defaults.readAheadDefault,
    target: given.target ?? name,
    budget: { ...known("endToEndMs", given.budget?.endToEnd) },
    ...known("deliver", resolvePush(given.deliver)),
    payload: given.payload ?? "json",
  };
}

function resolveWindow(given: Given["window"] = {}): Contract["window"] {
  const min = given.min ?? defaults.windowDefault.min;
  const max = given.max ?? defaults.windowDefault.max;
  const start = given.start ?? defaults.windowStart(min, max);
  return { start, min, max, ...known("fixed", given.fixed) };
}

function resolveRate(
  given: GivenRate | undefined,
  burstDefault: (perSecond: number) => number,
): Rate | undefined {
  return (
    given && { perSecond: given.perSecond, burst: given.burst ?? burstDefault(given.perSecond) }
  );
}

function resolvePush(given: Given["deliver"]): Push | undefined {
  if (given?.url === undefined) return undefined; // It was refused.
  const { pushDefault } = defaults;
  return {
    kind: "push",
    url: given.url,
    timeoutMs: given.timeout ?? pushDefault.timeoutMs,
    connectTimeoutMs: given.connectTimeout ?? pushDefault.connectTimeoutMs,
    secrets: given.secret ?? [],
    headers: given.headers ?? {},
    allow: [...new Set(given.allow)].toSorted(),
    ports: given.ports ?? pushDefault.ports,
    rejectAfter: given.rejectAfter ?? pushDefault.rejectAfter,
    batchMessages: given.batch?.messages ?? 1,
  };
}

function resolveBoundary(given: Given["boundary"] = {}): Contract["boundary"] {
  const surges = (given.surges ?? []).map(({ from, to, factor }) => ({
    fromMs: from,
    toMs: to,
    factor,
  }));
  return {
    ...known("rate", resolveRate(given.rate, defaults.boundaryBurst)),
    ...known("groupRate", resolveRate(given.groupRate, defaults.boundaryBurst)),
    learn: given.learn ?? defaults.learnDefault,
    surges: surges.toSorted((a, b) => a.fromMs - b.fromMs),
  };
}

/** A field that is absent where there is no value. */
function known<Name extends string, T>(name: Name, value: T | undefined): { [N in Name]?: T } {
  return (value === undefined ? {} : { [name]: value }) as { [N in Name]?: T };
}

function freeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === "object" && inner !== null) freeze(inner);
  }
  return Object.freeze(value);
}

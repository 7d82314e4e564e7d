import fc from "fast-check";
import { expect, test } from "vitest";
import { isSpillwayError } from "../base/index.ts";
import type { ErrorDetails } from "../base/index.ts";
import { parseContract, warningsOf } from "./index.ts";
import type { FlowOptions, Problem } from "./index.ts";

/** @returns The details of a refusal, undefined for a contract; anything else is thrown on. */
function refusalOf(options: unknown, name = "orders"): ErrorDetails | undefined {
  try {
    warningsOf(parseContract(name, options as FlowOptions));
    return undefined;
  } catch (error) {
    if (!isSpillwayError(error, "contract_invalid")) throw error;
    return error.details;
  }
}

/** The problems of options that must be refused. */
function problemsOf(options: unknown, name?: string): readonly Problem[] {
  const details = refusalOf(options, name);
  if (details === undefined) throw new Error("The contract was accepted.");
  return details["problems"] as Problem[];
}

function warningPaths(options: FlowOptions): string[] {
  return warningsOf(parseContract("orders", options)).map(({ path }) => path);
}

test("an empty contract is valid and has the documented defaults", () => {
  expect(parseContract("orders", {})).toEqual({
    name: "orders",
    partitions: 8,
    buffer: { messages: 1_000_000, bytes: 2_147_483_648 },
    order: "key",
    dedup: { windowMs: 86_400_000 },
    classes: { critical: 1, normal: 0.8, bulk: 0.5 },
    discard: [],
    retry: { attempts: 12, delayBaseMs: 200, delayMaxMs: 900_000, budget: 0.1 },
    leaseMs: 30_000,
    window: { start: 4, min: 1, max: 1000 },
    boundary: { learn: "week", surges: [] },
    groups: { weights: {}, shards: 2 },
    messageBytesMax: 1_048_576,
    credit: { leaseMs: 2000 },
    readAhead: 4096,
    target: "orders",
    budget: {},
    payload: "json",
  });
});

test("every field is read into ms and bytes", () => {
  const contract = parseContract("orders", {
    partitions: 16,
    buffer: { messages: 10_000, bytes: "64 MiB", seconds: "10m" },
    order: "none",
    dedup: { window: "1h" },
    classes: { critical: 0.9, normal: 0.5 },
    deadline: "10m",
    discard: ["shed", "expired", "shed"],
    retry: { attempts: 3, delay: ["1s", 60_000], budget: 0.2 },
    lease: "2m",
    window: { min: 10, max: 20, fixed: 15 },
    rate: { perSecond: 500 },
    expectedRate: 400,
    boundary: {
      rate: { perSecond: 1000 },
      groupRate: { perSecond: 0.5, burst: 7 },
      learn: "day",
      surges: [
        { from: 1_900_000_000_000, to: 1_900_000_001_000, factor: 2 },
        { from: "2026-11-27T00:00Z", to: "2026-11-28T00:00+01:00", factor: 6 },
      ],
    },
    groups: { weights: { acme: 3 }, shards: "off" },
    messageBytesMax: "64 KiB",
    credit: { leaseMs: "1s" },
    readAhead: 64,
    target: "billing",
    budget: { endToEnd: "30s" },
    payload: "bytes",
  });
  expect(contract).toEqual({
    name: "orders",
    partitions: 16,
    buffer: { messages: 10_000, bytes: 67_108_864, seconds: 600 },
    order: "none",
    dedup: { windowMs: 3_600_000 },
    classes: { critical: 0.9, normal: 0.5, bulk: 0.5 },
    deadlineMs: 600_000,
    discard: ["expired", "shed"],
    retry: { attempts: 3, delayBaseMs: 1000, delayMaxMs: 60_000, budget: 0.2 },
    leaseMs: 120_000,
    window: { start: 10, min: 10, max: 20, fixed: 15 },
    rate: { perSecond: 500, burst: 10 },
    expectedRate: 400,
    boundary: {
      rate: { perSecond: 1000, burst: 1000 },
      groupRate: { perSecond: 0.5, burst: 7 },
      learn: "day",
      surges: [
        { fromMs: 1_795_737_600_000, toMs: 1_795_820_400_000, factor: 6 },
        { fromMs: 1_900_000_000_000, toMs: 1_900_000_001_000, factor: 2 },
      ],
    },
    groups: { weights: { acme: 3 }, shards: "off" },
    messageBytesMax: 65_536,
    credit: { leaseMs: 1000 },
    readAhead: 64,
    target: "billing",
    budget: { endToEndMs: 30_000 },
    payload: "bytes",
  });
});

test("seconds of work are taken as a number of seconds or as a span", () => {
  for (const [seconds, expected] of [
    [600, 600],
    ["600s", 600],
    ["250ms", 0.25],
    [0.5, 0.5],
  ] as const) {
    expect(parseContract("orders", { buffer: { seconds } }).buffer.seconds).toBe(expected);
  }
});

test("a field that is undefined is absent", () => {
  const options = { deadline: undefined, buffer: { seconds: undefined }, window: undefined };
  expect(parseContract("orders", options as unknown as FlowOptions)).toEqual(
    parseContract("orders", {}),
  );
});

test("USERS 19: wrong units are refused, with what was probably meant", () => {
  const cases: [options: unknown, path: string, hint: string | undefined][] = [
    [{ classes: { normal: 80 } }, "classes.normal", "did you mean 0.8?"],
    [{ classes: { normal: "80%" } }, "classes.normal", "did you mean 0.8?"],
    [{ retry: { budget: 10 } }, "retry.budget", "did you mean 0.1?"],
    [{ retry: { budget: 1000 } }, "retry.budget", undefined],
    [{ lease: 30 }, "lease", 'did you mean "30s"?'],
    [{ lease: 30_000.5 }, "lease", undefined],
    [{ lease: "30" }, "lease", 'did you mean "30s"?'],
    [{ lease: "1 minute" }, "lease", 'did you mean "1m"?'],
    [{ lease: "1 ms" }, "lease", undefined],
    [{ deadline: "2 Hours" }, "deadline", 'did you mean "2h"?'],
    [{ deadline: "soon" }, "deadline", undefined],
    [{ deadline: 0.5 }, "deadline", 'did you mean "0.5s"?'],
    [{ buffer: { bytes: "2G" } }, "buffer.bytes", 'did you mean "2 GiB"?'],
    [{ buffer: { bytes: "4096 bytes" } }, "buffer.bytes", 'did you mean "4096 B"?'],
    [{ buffer: { messages: "1,000" } }, "buffer.messages", "did you mean 1000?"],
    [{ rate: { perSecond: "50/s" } }, "rate.perSecond", "did you mean 50?"],
    [{ expectedRate: "3000 per minute" }, "expectedRate", "did you mean 50?"],
    [
      { boundary: { surges: [{ from: "2026-11-27", to: 1_795_737_600, factor: 2 }] } },
      "boundary.surges[0].from",
      'did you mean "2026-11-27T00:00Z"?',
    ],
    [
      { boundary: { surges: [{ from: 1_795_737_600, to: 1_795_737_600_001, factor: 2 }] } },
      "boundary.surges[0].from",
      "did you mean 1795737600000?",
    ],
  ];
  for (const [options, path, hint] of cases) {
    const found = problemsOf(options)[0]!;
    expect([found.path, found.hint]).toEqual([path, hint]);
  }
});

test("values that are out of range or of another kind are refused, with what is allowed", () => {
  const cases: [options: unknown, problem: Problem][] = [
    [{ partitions: 2.5 }, at("partitions", "2.5", "a whole number from 1 to 1024")],
    [{ partitions: 1025 }, at("partitions", "1025", "a whole number from 1 to 1024")],
    [{ partitions: 0 }, at("partitions", "0", "a whole number from 1 to 1024")],
    [{ partitions: null }, at("partitions", "null", "a whole number from 1 to 1024")],
    [{ partitions: [8] }, at("partitions", "a list of 1", "a whole number from 1 to 1024")],
    [{ order: "fifo" }, at("order", '"fifo"', '"key" or "none"')],
    [{ discard: ["shed", "old"] }, at("discard[1]", '"old"', '"expired" or "shed"')],
    [{ discard: "shed" }, at("discard", '"shed"', 'a list of "expired" and "shed"')],
    [{ buffer: 7 }, at("buffer", "7", "an object with messages, bytes, seconds")],
    [{ groups: { weights: { a: 0 } } }, at("groups.weights.a", "0", "a number from 0.01 to 100")],
    [
      { groups: { weights: { "": 1 } } },
      at('groups.weights[""]', '""', "groups of 1 to 256 characters"),
    ],
    [{ target: "a/b" }, at("target", '"a/b"', "a name: 1 to 128 of A-Z a-z 0-9 . _ -")],
    [
      { dedup: { window: 0 } },
      at("dedup.window", "0", 'a span from 1s to 90d, as text ("24h") or a number of ms'),
    ],
    [
      { retry: { delay: ["1s"] } },
      at(
        "retry.delay",
        "a list of 1",
        'two spans, the first delay and the longest: ["200ms", "15m"]',
      ),
    ],
  ];
  for (const [options, problem] of cases) expect(problemsOf(options)).toEqual([problem]);
});

test("unknown fields are refused at any depth, with the nearest known name", () => {
  const found = problemsOf({
    partitons: 4,
    buffer: { Mesages: 1, wholly_other: 2 },
    boundary: { surges: [{ form: 1 }] },
  });
  const hints = Object.fromEntries(found.map(({ path, hint }) => [path, hint]));
  expect(hints["partitons"]).toBe('did you mean "partitions"?');
  expect(hints["buffer.Mesages"]).toBe('did you mean "messages"?');
  expect(hints["boundary.surges[0].form"]).toBe('did you mean "from"?');
  expect(found.find(({ path }) => path === "buffer.wholly_other")).toEqual(
    at("buffer.wholly_other", "an unknown field", "one of messages, bytes, seconds"),
  );
});

test("K3 and the other contradictions are refused", () => {
  const cases: [options: FlowOptions, path: string, allowed: string][] = [
    [{ classes: { bulk: 0.9 } }, "classes.bulk", "at most classes.normal, 0.8"],
    [
      { classes: { critical: 0.5, normal: 0.6 } },
      "classes.normal",
      "at most classes.critical, 0.5",
    ],
    [{ classes: { critical: 0 } }, "classes.critical", "above 0, or nothing would be accepted"],
    [{ window: { min: 5, max: 4 } }, "window.min", "at most window.max, 4"],
    [{ window: { min: 2000 } }, "window.min", "at most window.max, 1000"],
    [{ window: { start: 9, max: 8 } }, "window.start", "from window.min to window.max, 1 to 8"],
    [{ window: { fixed: 9, max: 8 } }, "window.fixed", "from window.min to window.max, 1 to 8"],
    [{ retry: { delay: ["15m", "1s"] } }, "retry.delay[0]", "at most the longest delay, 1000 ms"],
    [{ groups: { shards: 9 } }, "groups.shards", 'at most partitions, 8, or "off"'],
    [
      { boundary: { surges: [{ from: "2026-11-28T00:00Z", to: "2026-11-27T00:00Z", factor: 2 }] } },
      "boundary.surges",
      '"to" after "from", 1795824000000',
    ],
    [
      {
        boundary: {
          surges: [
            { from: "2026-11-27T12:00Z", to: "2026-11-28T12:00Z", factor: 2 },
            { from: "2026-11-27T00:00Z", to: "2026-11-27T12:01Z", factor: 2 },
          ],
        },
      },
      "boundary.surges",
      "surges that do not overlap: the one before it ends at 1795780860000",
    ],
  ];
  for (const [options, path, allowed] of cases) {
    expect(problemsOf(options)).toMatchObject([{ path, allowed }]);
  }
});

test("K4 the buffer, one for all partitions, holds the largest message", () => {
  expect(
    problemsOf({ buffer: { bytes: "1 KiB" }, messageBytesMax: "2 KiB", partitions: 9 }),
  ).toMatchObject([{ path: "messageBytesMax", found: "2048" }]);
  const small = parseContract("orders", { buffer: { messages: 1, bytes: "128 KiB" } });
  expect(small.messageBytesMax).toBe(131_072);
});

test("defaults that follow from others give way to them", () => {
  const low = parseContract("orders", { classes: { critical: 0.6 }, window: { max: 2 } });
  expect(low.classes).toEqual({ critical: 0.6, normal: 0.6, bulk: 0.5 });
  expect(low.window.start).toBe(2);
  const shards = [4, 8, 16].map((partitions) => parseContract("o", { partitions }).groups.shards);
  expect(shards).toEqual(["off", 2, 4]);
});

test("K1 every problem is named at once, contradictions among sound fields as well", () => {
  const found = problemsOf(
    {
      partitions: "8",
      classes: { normal: "0.9", bulk: 0.95 },
      retry: { budget: 10, delay: ["2s", "1s"] },
      rate: {},
    },
    "an order",
  );
  expect(found.map(({ path }) => path).toSorted()).toEqual(
    ["name", "partitions", "classes.normal", "retry.budget", "rate.perSecond"].toSorted(),
  );
});

test("K1 a contradiction with a field that cannot be read is not made up", () => {
  const options = { classes: { normal: "0.9", bulk: 0.85 }, retry: { delay: ["2s", "1s"] } };
  expect(problemsOf(options).map(({ path }) => path)).toEqual(["classes.normal", "retry.delay[0]"]);
});

test("a hostile contract gives a bounded error", () => {
  const many = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`x${i}`, 1]));
  expect(refusalOf(many)).toMatchObject({ flow: "orders", omitted: 4900 });
  expect(problemsOf(many).length).toBe(100);
  const [long] = problemsOf({ order: "x".repeat(1e6), ["y".repeat(1e6)]: 1 });
  expect(JSON.stringify(long).length).toBeLessThan(500);
});

test("names are 1 to 128 of the allowed characters", () => {
  for (const name of ["a", "orders.v2_x-1", "x".repeat(128)]) {
    expect(parseContract(name, {}).name).toBe(name);
  }
  for (const name of ["", "x".repeat(129), "a b", "a/b", "ü", "a\n"]) {
    expect(problemsOf({}, name)).toMatchObject([{ path: "name" }]);
  }
});

test("a contract is frozen to its depth", () => {
  const surges = [{ from: "2026-11-27T00:00Z", to: "2026-11-28T00:00Z", factor: 2 }];
  const contract = parseContract("orders", { boundary: { surges } });
  expect(() => Object.assign(contract.boundary.surges[0]!, { factor: 9 })).toThrow(TypeError);
  expect(() => Object.assign(contract.groups.weights, { a: 9 })).toThrow(TypeError);
  expect(() => Object.assign(contract, { name: "x" })).toThrow(TypeError);
});

test("groups may have any name, and none has a weight by accident", () => {
  const options = JSON.parse(
    '{"groups":{"weights":{"__proto__":2,"constructor":3}}}',
  ) as FlowOptions;
  const { weights } = parseContract("orders", options).groups;
  expect([weights["__proto__"], weights["constructor"], weights["toString"]]).toEqual([
    2,
    3,
    undefined,
  ]);
});

test("K1 any JSON value parses or is refused as contract_invalid, and no prototype is touched", () => {
  const before = Object.getOwnPropertyNames(Object.prototype).toSorted();
  const names = fc.constantFrom(...hostileNames, ...knownNames);
  const leaf = fc.oneof(
    fc.constantFrom("10s", "1 MiB", "key", "off", "80%", "2026-11-27T00:00Z", "expired", ""),
    fc.double(),
    fc.integer(),
    fc.string(),
    fc.boolean(),
    fc.constant(null),
  );
  const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      leaf,
      fc.array(tie("tree"), { maxLength: 3 }),
      fc
        .array(fc.tuple(fc.oneof(names, fc.string()), tie("tree")), { maxLength: 5 })
        .map((entries) => Object.fromEntries(entries)),
    ),
  }));
  fc.assert(
    fc.property(tree, (options) => {
      refusalOf(options);
      expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
    }),
    { numRuns: 3000 },
  );
  for (const text of [
    '{"__proto__":{"polluted":1}}',
    '{"buffer":{"__proto__":{"polluted":1}}}',
    '{"constructor":{"prototype":{"polluted":1}}}',
    '{"groups":{"weights":{"__proto__":{"polluted":1}}}}',
  ]) {
    expect(problemsOf(JSON.parse(text)).length).toBeGreaterThan(0);
  }
  expect(Object.getOwnPropertyNames(Object.prototype).toSorted()).toEqual(before);
});

test("a field without effect is a warning, not an error", () => {
  expect(warningPaths({})).toEqual([]);
  expect(warningPaths({ deadline: "10m", buffer: { seconds: 600 } })).toEqual([]);
  expect(warningPaths({ deadline: "11m", buffer: { seconds: 600 } })).toEqual(["deadline"]);
  expect(warningPaths({ deadline: "200ms" })).toEqual(["deadline"]);
  expect(warningPaths({ deadline: "10s", budget: { endToEnd: "11s" } })).toEqual([
    "budget.endToEnd",
  ]);
  expect(warningPaths({ rate: { perSecond: 10 }, expectedRate: 11 })).toEqual(["expectedRate"]);
  const boundary = { rate: { perSecond: 10 }, groupRate: { perSecond: 11 } };
  expect(warningPaths({ boundary })).toEqual(["boundary.groupRate"]);
});

const hostileNames = ["__proto__", "constructor", "prototype", "toString"];
const knownNames = (
  "partitions buffer messages bytes seconds classes critical retry delay window fixed rate " +
  "perSecond boundary surges from groups weights shards discard"
).split(" ");

function at(path: string, found: string, allowed: string): Problem {
  return { path, found, allowed };
}

import fc from "fast-check";
import { expect, test } from "vitest";
import { isSpillwayError } from "../base/index.ts";
import { changePolicy, optionsOf, parseContract } from "./index.ts";
import type { FlowOptions, PolicyPatch, Problem } from "./index.ts";

/** @returns The problems of a refusal, none for a contract; anything else is thrown on. */
function refusal(patch: unknown): readonly Problem[] {
  try {
    changePolicy(parseContract("orders", {}), patch as PolicyPatch);
    return [];
  } catch (error) {
    if (!isSpillwayError(error, "contract_invalid")) throw error;
    return error.details["problems"] as Problem[];
  }
}

test("K2 a contract written as options and parsed again is the same", () => {
  const rate = fc.record(
    {
      perSecond: fc.integer({ min: 1, max: 1e6 }),
      burst: fc.integer({ min: 1, max: 1e6 }),
    },
    { requiredKeys: ["perSecond"] },
  );
  const options: fc.Arbitrary<FlowOptions> = fc.record(
    {
      partitions: fc.constantFrom(1, 7, 8, 16, 1024),
      buffer: fc.record(
        { bytes: fc.constantFrom("1 MiB", "3 GiB"), seconds: fc.integer({ min: 1, max: 9999 }) },
        { requiredKeys: [] },
      ),
      classes: fc.record({ critical: fc.double({ min: 0.1, max: 1, noNaN: true }) }),
      deadline: fc.integer({ min: 1, max: 1e9 }),
      discard: fc.uniqueArray(fc.constantFrom("expired" as const, "shed" as const)),
      window: fc.record({
        min: fc.integer({ min: 1, max: 9 }),
        max: fc.integer({ min: 9, max: 99 }),
      }),
      rate,
      boundary: fc.record(
        { rate, groupRate: rate, learn: fc.constantFrom("day", "week", "off") },
        { requiredKeys: [] },
      ),
      groups: fc.record({
        weights: fc.dictionary(
          fc.string({ minLength: 1 }),
          fc.double({ min: 0.01, max: 100, noNaN: true }),
        ),
        shards: fc.constantFrom(1, "off" as const),
      }),
      target: fc.constantFrom("orders", "billing"),
      budget: fc.record({ endToEnd: fc.integer({ min: 1, max: 1e6 }) }),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(options, (each) => {
      const contract = parseContract("orders", each);
      const stored = JSON.parse(JSON.stringify(optionsOf(contract))) as FlowOptions;
      expect(parseContract("orders", stored)).toEqual(contract);
    }),
  );
});

test("a change touches what it names, and leaves the old contract as it was", () => {
  const old = parseContract("orders", { retry: { attempts: 5 }, deadline: "1h", order: "none" });
  const changed = changePolicy(old, {
    retry: { budget: 0.2 },
    lease: "1m",
    boundary: { rate: { perSecond: 100 } },
    buffer: { seconds: "5m" },
  });
  expect(changed).toEqual({
    ...old,
    retry: { ...old.retry, budget: 0.2 },
    leaseMs: 60_000,
    boundary: { rate: { perSecond: 100, burst: 100 }, learn: "week", surges: [] },
    buffer: { ...old.buffer, seconds: 300 },
  });
  expect(old.leaseMs).toBe(30_000);
});

test("null takes a field back to its default, undefined leaves it", () => {
  const old = parseContract("orders", {
    rate: { perSecond: 5 },
    window: { fixed: 3 },
    retry: { attempts: 2 },
  });
  const changed = changePolicy(old, { rate: null, window: { fixed: null }, retry: null });
  expect(changed).toEqual(parseContract("orders", {}));
  expect(changePolicy(old, { rate: undefined } as unknown as PolicyPatch)).toEqual(old);
});

test("derived defaults follow a change, values that were written stay", () => {
  const derived = parseContract("orders", { rate: { perSecond: 50 } });
  const changed = changePolicy(derived, {
    rate: { perSecond: 5000 },
    window: { max: 2 },
    classes: { critical: 0.6 },
    buffer: { bytes: "128 KiB" },
  });
  expect(changed.rate).toEqual({ perSecond: 5000, burst: 100 });
  expect(changed.window).toEqual({ start: 2, min: 1, max: 2 });
  expect(changed.classes).toEqual({ critical: 0.6, normal: 0.6, bulk: 0.5 });
  expect(changed.messageBytesMax).toBe(131_072);
  const written = parseContract("orders", { rate: { perSecond: 50, burst: 7 } });
  expect(changePolicy(written, { rate: { perSecond: 5000 } }).rate?.burst).toBe(7);
});

test("what says where messages lie cannot change while the flow exists", () => {
  for (const name of ["partitions", "order", "dedup", "target", "groups", "payload", "discard"]) {
    expect(refusal({ [name]: null })).toMatchObject([
      { path: name, hint: "cannot change while the flow exists" },
    ]);
  }
});

test("a change is checked like a contract", () => {
  expect(refusal({ retry: { budget: 10 } })).toMatchObject([
    { path: "retry.budget", hint: "did you mean 0.1?" },
  ]);
  expect(refusal({ retri: {} })).toMatchObject([{ path: "retri", hint: 'did you mean "retry"?' }]);
  expect(refusal({ buffer: { messages: 0 } })).toMatchObject([{ path: "buffer.messages" }]);
  expect(refusal({ classes: { bulk: 0.9 } })).toMatchObject([{ path: "classes.bulk" }]);
  for (const patch of [null, 5, "x", []]) expect(refusal(patch)).toMatchObject([{ path: "" }]);
});

test("K1 any JSON value as a change is a contract or contract_invalid, and no prototype is touched", () => {
  const value = fc.jsonValue({ maxDepth: 5 });
  const patch = fc.dictionary(
    fc.constantFrom("retry", "window", "rate", "boundary", "buffer", "__proto__", "constructor"),
    fc.oneof(value, fc.dictionary(fc.constantFrom("__proto__", "max", "rate", "seconds"), value)),
  );
  fc.assert(
    fc.property(fc.oneof(value, patch), (each) => {
      refusal(JSON.parse(JSON.stringify(each)));
    }),
    { numRuns: 1000 },
  );
  expect(refusal(JSON.parse('{"__proto__":{"polluted":1}}')).length).toBe(1);
  expect(refusal(JSON.parse('{"retry":{"__proto__":{"polluted":1}}}')).length).toBe(1);
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  let deep: unknown = 1;
  for (let i = 0; i < 100_000; i++) deep = { rate: deep };
  expect(refusal({ boundary: deep }).length).toBeGreaterThan(0);
});

/**
 * The conformance suite of the storage port: every engine, ours or another's, passes the same cases.
 * Their names cite the guarantees of `engine.ts`. It registers tests with the runner it is given, and
 * a guarantee that a harness cannot put to the test is skipped with the reason.
 *
 *     conformance({ test, fc }, "memory", async () => ({ engine, reopen, ... }));
 */
import { around } from "./conformance/around.ts";
import { Bench } from "./conformance/bench.ts";
import type { Case, Harness } from "./conformance/bench.ts";
import { bounds } from "./conformance/bounds.ts";
import { contents } from "./conformance/contents.ts";
import { deduplication } from "./conformance/dedup.ts";
import { fencing } from "./conformance/fencing.ts";
import { histories } from "./conformance/history.ts";
import type { FastCheck } from "./conformance/history.ts";
import { lives } from "./conformance/lives.ts";
import { orders } from "./conformance/orders.ts";
import { reading } from "./conformance/reading.ts";
import { upkeep } from "./conformance/upkeep.ts";
import { writing } from "./conformance/writing.ts";

export type { Harness } from "./conformance/bench.ts";

/** The part of a test runner that the suite needs; vitest's `test` fits. */
export interface TestTools {
  readonly test: (name: string, run: (context: TestContext) => Promise<void>) => void;
  /** fast-check. */
  readonly fc: FastCheck;
}

interface TestContext {
  /** Ends the test at once. */
  skip(note: string): unknown;
}

const cases: readonly Case[] = [
  ...writing,
  ...bounds,
  ...deduplication,
  ...fencing,
  ...lives,
  ...contents,
  ...reading,
  ...orders,
  ...upkeep,
  ...around,
];

/** @param open A fresh, empty, opened store for each test. */
export function conformance(tools: TestTools, name: string, open: () => Promise<Harness>): void {
  for (const { name: promise, unless, run } of cases) {
    tools.test(`${name}: ${promise}`, async (context) => {
      await using harness = await open();
      const reason = unless?.(harness);
      if (reason !== undefined) {
        context.skip(reason);
        return;
      }
      const bench = await Bench.own(harness, { flow: "orders", partition: 0 });
      await run(bench);
      await bench.audit();
    });
  }
  tools.test(`${name}: E2 to E17 random histories give what the oracle gives`, async () => {
    await using harness = await open();
    const property = histories(tools.fc, harness, 40);
    // Small numbers mean nothing in a history: drawing them more often would tell less.
    const effort = { numRuns: 150, interruptAfterTimeLimit: 4000, unbiased: true };
    await tools.fc.assert(property, effort);
  });
}

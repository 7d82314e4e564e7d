import * as fc from "fast-check";
import { expect, test } from "vitest";
import { delayMs } from "./retry.ts";

const policy = { baseMs: 200, capMs: 900_000 };

const at = (seed: number, id: string, attempt: number): number =>
  delayMs(policy, seed, id, attempt);

test("R4 the same seed, message and attempt give the same delay; any other gives another", () => {
  expect(at(1, "orders/3/1204", 5)).toBe(at(1, "orders/3/1204", 5));
  const others = [at(2, "orders/3/1204", 5), at(1, "orders/3/1205", 5), at(1, "orders/3/1204", 6)];
  for (const other of others) expect(other).not.toBe(at(1, "orders/3/1204", 5));
});

test("R4 delays are written down: a change would move the retries of a replayed recording", () => {
  const delays = [1, 2, 3, 8, 12].map((attempt) => delayMs(policy, 7, "orders/3/1204", attempt));
  expect(delays).toEqual([31, 544, 287, 271172, 466416]);
});

test("R5 a delay lies between a tenth of its step and the step, and never above the cap", () => {
  fc.assert(
    fc.property(fc.nat(), fc.string(), fc.integer({ min: 1, max: 60 }), (seed, id, attempt) => {
      const stepMs = Math.min(900_000, 200 * 3 ** (attempt - 1));
      const delay = delayMs(policy, seed, id, attempt);
      expect(delay).toBeGreaterThanOrEqual(0.1 * stepMs);
      expect(delay).toBeLessThanOrEqual(stepMs);
    }),
  );
});

test("R5 a minimum is kept, and stretched by up to a tenth so that nobody comes back in step", () => {
  const delays = Array.from({ length: 500 }, (_, i) => delayMs(policy, 1, `m${i}`, 1, 10_000));
  expect(Math.min(...delays)).toBeGreaterThanOrEqual(10_000);
  expect(Math.max(...delays)).toBeLessThanOrEqual(11_000);
  expect(new Set(delays).size).toBeGreaterThan(350);
});

test("twelve attempts span 31 minutes on average, and what failed together is spread evenly", () => {
  const messages = 400;
  let sumMs = 0;
  const tenths = Array.from({ length: 10 }, () => 0);
  for (let i = 0; i < messages; i++) {
    for (let attempt = 1; attempt <= 11; attempt++) sumMs += delayMs(policy, 1, `m${i}`, attempt);
    const tenth = Math.floor((delayMs(policy, 1, `m${i}`, 9) - 90_000) / 81_000);
    tenths[tenth] = (tenths[tenth] ?? 0) + 1;
  }
  expect(sumMs / messages / 60_000).toBeGreaterThan(30);
  expect(sumMs / messages / 60_000).toBeLessThan(32);
  for (const count of tenths) expect(count).toBeGreaterThan(messages / 20);
});

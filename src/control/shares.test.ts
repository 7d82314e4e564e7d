import fc from "fast-check";
import { expect, test } from "vitest";
import * as shares from "./shares.ts";
import type { Share } from "./shares.ts";

function take(share: Share, partPerS: number): boolean {
  if (shares.lacking(share, partPerS) > 0) return false;
  shares.spend(share);
  return true;
}

/** Groups that send at steady rates for so long; what each got per second after the first 5 s. */
function divided(
  ratePerS: number,
  groups: readonly { readonly wantPerS: number; readonly weight: number }[],
  seconds = 30,
): number[] {
  const stepMs = 10;
  const all: Share[] = groups.map(({ weight }) => shares.init(weight));
  const weights = groups.reduce((sum, { weight }) => sum + weight, 0);
  const got = groups.map(() => 0);
  const due = groups.map(() => 0);
  for (let atMs = 0; atMs < seconds * 1000; atMs += stepMs) {
    shares.earn(all, ratePerS, stepMs);
    for (const [at, { wantPerS, weight }] of groups.entries()) {
      due[at]! += (wantPerS * stepMs) / 1000;
      for (; due[at]! >= 1; due[at]!--) {
        if (!take(all[at]!, (ratePerS * weight) / weights)) continue;
        if (atMs >= 5000) got[at]!++;
      }
    }
    shares.check(all);
  }
  return got.map((count) => count / (seconds - 5));
}

/** Max-min by weight, by hand. */
function fairOf(
  ratePerS: number,
  groups: readonly { readonly wantPerS: number; readonly weight: number }[],
): number[] {
  let left = ratePerS;
  const open = new Set(groups.keys());
  const part = groups.map(() => 0);
  for (;;) {
    let weights = 0;
    for (const at of open) weights += groups[at]!.weight;
    const satisfied = [...open].filter(
      (at) => groups[at]!.wantPerS <= (left / weights) * groups[at]!.weight,
    );
    for (const at of satisfied.length > 0 ? satisfied : open) {
      const { wantPerS, weight } = groups[at]!;
      part[at] = satisfied.length > 0 ? wantPerS : (left / weights) * weight;
    }
    if (satisfied.length === 0 || satisfied.length === open.size) return part;
    for (const at of satisfied) {
      open.delete(at);
      left -= part[at]!;
    }
  }
}

test("H2 a group that takes less than its part gets all of it, whatever another wants", () => {
  const [flood, steady] = divided(1000, [
    { wantPerS: 50_000, weight: 1 },
    { wantPerS: 200, weight: 1 },
  ]);
  expect(steady).toBeGreaterThan(199);
  expect(flood).toBeGreaterThan(780);
  expect(flood).toBeLessThan(820);
});

test("H1, H2 and H3: what groups get is max-min fair by weight, to 5 % or a few messages a second", () => {
  const group = fc.record({
    wantPerS: fc.integer({ min: 1, max: 3000 }),
    weight: fc.constantFrom(1, 1, 2, 5),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 50, max: 2000 }),
      fc.array(group, { minLength: 1, maxLength: 6 }),
      (ratePerS, groups) => {
        const got = divided(ratePerS, groups);
        const fair = fairOf(ratePerS, groups);
        for (const [at, part] of fair.entries()) {
          expect(got[at]!).toBeGreaterThan(0.95 * part - 3);
          expect(got[at]!).toBeLessThan(1.05 * part + 3);
        }
        // H1: what is earned in 25 s, and the purses of a second that were full before.
        const sum = got.reduce((total, each) => total + each, 0);
        expect(sum).toBeLessThan((ratePerS * 26) / 25 + groups.length);
      },
    ),
    { numRuns: 60 },
  );
});

test("H2 a purse holds a second of its part: bursts of that size pass whole", () => {
  const all = [shares.init(1), shares.init(1)];
  let passed = 0;
  let flooded = 0;
  for (let atMs = 0; atMs < 20_000; atMs += 10) {
    shares.earn(all, 1000, 10);
    while (take(all[0]!, 500)) flooded++;
    if (atMs % 2000 !== 0) continue;
    for (let k = 0; k < 400; k++) if (take(all[1]!, 500)) passed++;
  }
  expect(passed).toBe(4000);
  expect(flooded).toBeGreaterThan(15_000);
});

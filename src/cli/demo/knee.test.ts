import fc from "fast-check";
import { expect, test } from "vitest";
import { KneeModel, serviceMs } from "./knee.ts";
import type { KneeCall } from "./knee.ts";

function ratePerS(calls: number): number {
  return (calls * 1000) / serviceMs(calls);
}

/** Calls per second of a closed loop of `calls` callers in virtual time, whose timers fire `lateMs` late. */
function closedLoop(calls: number, untilMs: number, lateMs: (at: number) => number): number {
  const model = new KneeModel();
  let nowMs = 0;
  const again = (): void => void model.begin(nowMs, again);
  for (let i = 0; i < calls; i++) again();
  for (let at = 0; nowMs < untilMs; at++) {
    nowMs += Math.max(1, Math.round(model.dueInMs()!)) + lateMs(at);
    model.run(nowMs);
  }
  return (model.served * 1000) / nowMs;
}

test("the curve goes through its three points and has its best at 12", () => {
  expect(ratePerS(1)).toBe(200);
  expect(ratePerS(8)).toBe(1600);
  expect(ratePerS(12)).toBeCloseTo(1659, 6);
  expect(ratePerS(64)).toBeCloseTo(100, 6);
  const rates = Array.from({ length: 200 }, (_, i) => ratePerS(i + 1));
  expect(rates.indexOf(Math.max(...rates))).toBe(11);
});

test("N1 a closed loop is served at the rate of the curve, though timers are coarse and late", () => {
  for (const calls of [1, 8, 12, 16, 64]) {
    const share = closedLoop(calls, 20_000, (at) => (at * 0.37) % 1.3) / ratePerS(calls);
    expect(share).toBeGreaterThan(0.99);
    expect(share).toBeLessThan(1.001);
  }
});

test("N1 a caller that comes late gets no credit for it", () => {
  const model = new KneeModel();
  let nowMs = 0;
  for (let i = 0; i < 100; i++) {
    model.begin(nowMs, () => {});
    nowMs += 7; // Two ms late: the credit is for a call that begins at once.
    model.run(nowMs);
    nowMs += 6; // Later than a credit lives.
    expect(model.parallel).toBe(0);
  }
  model.begin(nowMs, () => {});
  expect(model.dueInMs()).toBe(5);
});

test("N2 however late a timer is, the credit is two ms at most", () => {
  const model = new KneeModel();
  model.begin(0, () => {});
  model.run(1000);
  model.begin(1000, () => {});
  expect(model.dueInMs()).toBe(3);
});

test("N2 a change of parallelism is felt by the calls in progress", () => {
  const model = new KneeModel();
  const ends: number[] = [];
  for (let i = 0; i < 8; i++) model.begin(0, () => ends.push(i));
  for (let i = 8; i < 64; i++) model.begin(2.5, () => ends.push(i));
  // The first eight have half of their work to do, at the pace of 64 calls.
  expect(model.dueInMs()).toBeCloseTo(320, 6);
  model.run(2.5 + 319.9);
  expect(ends).toEqual([]);
  model.run(2.5 + 320.1);
  expect(ends).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(model.parallelMax).toBe(64);
});

test("N3 a dropped call never ends, and the others go on faster", () => {
  const model = new KneeModel();
  const ends: number[] = [];
  const calls = Array.from({ length: 64 }, (_, i) => model.begin(0, () => ends.push(i)));
  for (const call of calls.slice(8)) expect(model.drop(320, call)).toBe(true);
  expect(model.drop(320, calls[8]!)).toBe(false);
  expect(model.dueInMs()).toBeCloseTo(2.5, 6);
  model.run(323);
  expect(ends).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(model.parallel).toBe(0);
  expect(model.dueInMs()).toBeUndefined();
});

test("N2 and N3 hold whatever callers do: each call ends once or was dropped, none too early", () => {
  const step = fc.record({
    waitMs: fc.double({ min: 0, max: 8, noNaN: true }),
    act: fc.constantFrom("begin", "drop", "run"),
    which: fc.nat(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const model = new KneeModel();
      const open = new Map<KneeCall, number>();
      let nowMs = 0;
      let ended = 0;
      let early = 0;
      for (const { waitMs, act, which } of steps) {
        nowMs += waitMs;
        if (act === "run") model.run(nowMs);
        else if (act === "drop") {
          const call = [...open.keys()][which % Math.max(1, open.size)];
          if (call !== undefined && model.drop(nowMs, call)) open.delete(call);
        } else {
          const beganMs = nowMs;
          const call = model.begin(nowMs, () => {
            ended++;
            if (!open.delete(call)) early++;
            if (nowMs - beganMs < 3 - 1e-6) early++; // 5 ms of work, at most 2 ms of it credit.
          });
          open.set(call, nowMs);
        }
        expect(model.parallel).toBe(open.size);
      }
      expect([model.served, early]).toEqual([ended, 0]);
    }),
  );
});

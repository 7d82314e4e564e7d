import * as fc from "fast-check";
import { expect, test } from "vitest";
import { sequence } from "../base/index.ts";
import * as drain from "./drain.ts";

const startMs = 1_764_000_000_000;

/** Settles one by one at a steady rate while `pending` wait; returns the time after. */
function run(
  d: drain.Drain,
  fromMs: number,
  forMs: number,
  ratePerS: number,
  pending = 100,
): number {
  drain.backlog(d, fromMs, pending);
  const gapMs = 1000 / ratePerS;
  for (let at = gapMs; at <= forMs; at += gapMs) {
    drain.handled(d, 5);
    drain.settled(d, fromMs + at, 1);
    drain.check(d);
  }
  return fromMs + forMs;
}

test("B2 the rate is known after four busy cells; before, the contract's expected rate stands in", () => {
  const d = drain.init({ expectedRatePerS: 500 }, startMs);
  expect(drain.ratePerS(d)).toBe(500);
  let nowMs = run(d, startMs, 900, 200);
  expect(drain.isKnown(d)).toBe(false);
  expect(drain.secondsOfWork(d, 1000)).toBe(2);
  nowMs = run(d, nowMs, 200, 200);
  expect(drain.isKnown(d)).toBe(true);
  expect(drain.ratePerS(d)).toBeCloseTo(200, 0);
  expect(drain.secondsOfWork(d, 1000)).toBeCloseTo(5, 1);
  expect(drain.secondsOfWork(drain.init({}, startMs), 1000)).toBeUndefined();
});

test("B2 a slow consumer is learnt as well: cells last for ten settles", () => {
  const d = drain.init({}, startMs);
  run(d, startMs, 60_000, 4);
  expect(drain.ratePerS(d)).toBeCloseTo(4, 1);
});

test("B2 idle time teaches nothing: a consumer at a tenth of its load keeps the rate it can do", () => {
  const d = drain.init({}, startMs);
  let nowMs = run(d, startMs, 5000, 1000);
  const known = drain.ratePerS(d)!;
  expect(known).toBeCloseTo(1000, -1);
  // For a minute each message finds a free place at once, and now and then two meet.
  for (let i = 0; i < 6000; i++) {
    nowMs += 10;
    drain.backlog(d, nowMs, i % 3 === 0 ? 1 : 0);
    drain.backlog(d, nowMs + 2, 0);
    drain.settled(d, nowMs + 5, 1);
    drain.check(d);
  }
  expect(drain.ratePerS(d)).toBe(known);
});

test("B2 a cell counts only if messages waited for more than 90 % of it", () => {
  for (const [idleShare, learns] of [
    [0.08, true],
    [0.12, false],
  ] as const) {
    const d = drain.init({}, startMs);
    for (let i = 0; i < 2000; i++) {
      const nowMs = startMs + i * 10;
      drain.backlog(d, nowMs, 5);
      drain.backlog(d, nowMs + 10 * (1 - idleShare), 0);
      drain.settled(d, nowMs + 10, 1);
    }
    expect(drain.isKnown(d)).toBe(learns);
  }
});

test("B2 each busy time begins a cell of its own: short ones of a slow consumer teach as well", () => {
  const d = drain.init({}, startMs);
  let nowMs = startMs;
  for (let i = 0; i < 4; i++) {
    nowMs = run(d, nowMs + 60_000, 3000, 4);
    drain.backlog(d, nowMs, 0);
  }
  expect(drain.ratePerS(d)).toBeCloseTo(4, 1);
});

test("B2 after a change of capacity the rate follows with a time constant of two busy seconds", () => {
  const d = drain.init({}, startMs);
  let nowMs = run(d, startMs, 20_000, 2000);
  nowMs = run(d, nowMs, 2000, 500);
  const after2 = drain.ratePerS(d)!;
  expect(after2).toBeGreaterThan(500 + 1500 * 0.3);
  expect(after2).toBeLessThan(500 + 1500 * 0.45);
  run(d, nowMs, 10_000, 500);
  expect(drain.ratePerS(d)).toBeCloseTo(500, -1);
});

test("B2 a stall keeps the last healthy rate, and is shown since the last settle", () => {
  const d = drain.init({}, startMs);
  let nowMs = run(d, startMs, 10_000, 1000);
  const known = drain.ratePerS(d)!;
  expect(drain.stalledSinceMs(d, nowMs + 1000, 100, 5)).toBeUndefined();
  expect(drain.stalledSinceMs(d, nowMs + 1001, 100, 5)).toBe(nowMs);
  expect(drain.stalledSinceMs(d, nowMs + 1001, 0, 5)).toBeUndefined();
  expect(drain.stalledSinceMs(d, nowMs + 1001, 100, 100)).toBeUndefined();
  nowMs += 60_000;
  run(d, nowMs, 5000, 1000);
  expect(drain.ratePerS(d)).toBeCloseTo(known, 0);
});

test("a message after an idle hour is not a stall", () => {
  const d = drain.init({}, startMs);
  let nowMs = run(d, startMs, 10_000, 1000);
  drain.backlog(d, nowMs, 0);
  nowMs += 3_600_000;
  drain.backlog(d, nowMs, 1);
  expect(drain.stalledSinceMs(d, nowMs + 500, 1, 5)).toBeUndefined();
  expect(drain.stalledSinceMs(d, nowMs + 1500, 1, 5)).toBe(nowMs);
});

test("B2 settles in large durable batches give the same rate as settles one by one", () => {
  const d = drain.init({}, startMs);
  drain.backlog(d, startMs, 10_000);
  for (let i = 1; i <= 100; i++) drain.settled(d, startMs + i * 90, 90);
  expect(drain.ratePerS(d)).toBeCloseTo(1000, -1);
});

test("B2 holds whatever is called in whatever order", () => {
  const call = fc.record({
    kind: fc.constantFrom("backlog", "settled", "arrived", "handled"),
    gapMs: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 5000, noNaN: true })),
    value: fc.integer({ min: 0, max: 50 }),
  });
  fc.assert(
    fc.property(fc.array(call, { maxLength: 200, size: "max" }), (calls) => {
      const d = drain.init({}, startMs);
      let nowMs = startMs;
      let waiting = false;
      for (const { kind, gapMs, value } of calls) {
        nowMs += gapMs;
        const before = d.ratePerS;
        if (kind === "backlog") drain.backlog(d, nowMs, value);
        else if (kind === "settled") drain.settled(d, nowMs, value);
        else if (kind === "arrived") drain.arrived(d, nowMs, value);
        else drain.handled(d, value);
        drain.check(d);
        // Only a settle at the end of a time in which messages waited can have taught anything.
        expect(d.ratePerS === before || (kind === "settled" && waiting)).toBe(true);
        if (kind === "backlog") waiting ||= value > 0;
        expect(drain.arrivalRatePerS(d, nowMs)).toBeGreaterThanOrEqual(0);
      }
    }),
  );
});

test("the predicted wait is the real one in bursts of 2.5x: p50 and p95 within a tenth", () => {
  const draw = sequence(3);
  const d = drain.init({}, startMs);
  const queue: { atMs: number; predictedMs: number }[] = [];
  const ratios: number[] = [];
  let head = 0;
  const places = 26;
  let inFlight: number[] = [];
  let nextMs = 0;
  // A pool of 20 that serves 4,000/s with exponential times; bursts of 10 s every 30 s.
  for (let ms = 0; ms < 60_000; ms += 1) {
    const lambda = Math.floor(ms / 10_000) % 3 === 1 ? 10 : 2;
    while (nextMs < ms + 1) {
      const waiting = queue.length - head;
      const predictedMs = 1000 * (drain.secondsOfWork(d, waiting) ?? 0);
      queue.push({ atMs: ms, predictedMs });
      nextMs += -Math.log(1 - draw()) / lambda;
    }
    const going = Math.min(20, inFlight.length);
    const done = Math.min(going, Math.floor(going * 0.2 + draw()));
    if (done > 0) drain.settled(d, startMs + ms, done);
    inFlight = inFlight.slice(done);
    while (inFlight.length < places && head < queue.length) {
      const { atMs, predictedMs } = queue[head++]!;
      if (predictedMs > 20) ratios.push((ms - atMs) / predictedMs);
      inFlight.push(ms);
    }
    drain.backlog(d, startMs + ms, queue.length - head);
  }
  ratios.sort((a, b) => a - b);
  expect(ratios.length).toBeGreaterThan(10_000);
  expect(ratios[Math.floor(0.5 * ratios.length)]).toBeCloseTo(1, 1);
  expect(ratios[Math.floor(0.95 * ratios.length)]).toBeLessThan(1.1);
});

test("the arrival rate is right from the first second and follows a change within seconds", () => {
  const d = drain.init({}, startMs);
  let nowMs = startMs;
  const arrive = (forMs: number, everyMs: number): void => {
    for (const endMs = nowMs + forMs; nowMs < endMs; nowMs += everyMs) drain.arrived(d, nowMs, 2);
  };
  arrive(1000, 4);
  expect(drain.arrivalRatePerS(d, nowMs)).toBeCloseTo(500, -1);
  arrive(20_000, 4);
  expect(drain.arrivalRatePerS(d, nowMs)).toBeCloseTo(500, -1);
  arrive(10_000, 40);
  expect(drain.arrivalRatePerS(d, nowMs)).toBeLessThan(50 + 450 * 0.16);
  expect(drain.arrivalRatePerS(d, nowMs + 60_000)).toBeLessThan(0.01);
});

test("the p95 of handler time is within a fifth for exponential, lognormal, bimodal and constant work", () => {
  const draw = sequence(5);
  const normal = (): number =>
    Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
  const kinds: Record<string, [() => number, number]> = {
    exponential: [() => -5 * Math.log(1 - draw()), 5 * Math.log(20)],
    lognormal: [() => 5 * Math.exp(1.5 * normal()), 5 * Math.exp(1.5 * 1.645)],
    bimodal: [() => (draw() < 0.1 ? 200 : 5), 200],
    constant: [() => 5, 5],
    microseconds: [() => 0.05, 0.05],
    minutes: [() => 90_000, 90_000],
  };
  for (const [draw, truth] of Object.values(kinds)) {
    const d = drain.init({}, startMs);
    for (let i = 0; i < 3000; i++) drain.handled(d, draw());
    expect(drain.p95Ms(d) / truth).toBeGreaterThan(0.8);
    expect(drain.p95Ms(d) / truth).toBeLessThan(1.2);
  }
});

test("the p95 follows a consumer that turns ten times slower within a hundred messages", () => {
  const d = drain.init({}, startMs);
  expect(drain.p95Ms(d)).toBe(0);
  for (let i = 0; i < 10_000; i++) drain.handled(d, 5);
  for (let i = 0; i < 112; i++) drain.handled(d, 50);
  expect(drain.p95Ms(d)).toBeGreaterThan(40);
});

test("view tells what is known", () => {
  const d = drain.init({}, startMs);
  expect(drain.view(d, startMs)).toMatchObject({ ratePerS: undefined, known: false });
  const nowMs = run(d, startMs, 10_000, 1000);
  const seen = drain.view(d, nowMs);
  expect(seen.known).toBe(true);
  expect(seen.deviationPerS).toBeLessThan(20);
  expect(seen.meanMs).toBeCloseTo(5);
});

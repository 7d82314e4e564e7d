/**
 * Floors of the window: goodput in % of the best fixed concurrency, in a seeded simulation of
 * targets that know nothing of it. A floor is 3 points below what the rule was designed to give.
 */
import { expect, test } from "vitest";
import { Heap, sequence } from "../base/index.ts";
import * as overload from "./overload.ts";
import * as window from "./window.ts";

type Draw = (random: () => number) => number;
const exponential =
  (meanMs: number): Draw =>
  (random) =>
    -meanMs * Math.log(1 - random());
const steady =
  (ms: number): Draw =>
  (random) =>
    ms * (0.9 + 0.2 * random());
const bimodal: Draw = (random) => (random() < 0.05 ? 200 : 5);
const lognormal: Draw = (random) =>
  5 * Math.exp(1.5 * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()));

interface Target {
  start(nowMs: number, call: number): void;
  /** When its next call ends. */
  next(): number;
  end(nowMs: number): { readonly call: number; readonly outcome: window.Outcome };
  change(nowMs: number, phase: number): void;
}

/** Servers behind a queue of their own. Phases: [servers, slow-down]. */
class Pool implements Target {
  readonly busy = new Heap<number>();
  readonly queue: number[] = [];
  head = 0;
  readonly random: () => number;
  readonly draw: Draw;
  readonly phases: readonly (readonly [number, number])[];
  phase = 0;

  constructor(seed: number, draw: Draw, ...phases: readonly (readonly [number, number])[]) {
    this.random = sequence(seed);
    this.draw = draw;
    this.phases = phases;
  }

  start(nowMs: number, call: number): void {
    this.queue.push(call);
    this.fill(nowMs);
  }

  next(): number {
    return this.busy.least;
  }

  end(nowMs: number): { call: number; outcome: window.Outcome } {
    const call = this.busy.pop()!;
    this.fill(nowMs);
    return { call, outcome: "ok" };
  }

  change(nowMs: number, phase: number): void {
    this.phase = phase;
    this.fill(nowMs);
  }

  fill(nowMs: number): void {
    const [servers, slowDown] = this.phases[this.phase]!;
    while (this.busy.size < servers && this.head < this.queue.length) {
      this.busy.push(nowMs + this.draw(this.random) * slowDown, this.queue[this.head++]!);
    }
    if (this.head > 4096) this.queue.splice(0, this.head);
    if (this.head > this.queue.length || this.head > 4096) this.head = 0;
  }
}

/** Each of n calls progresses at 1 / (1 + (n / k)^3.375): best at 12, collapsed at 64. Phases: k. */
class Knee implements Target {
  readonly work = new Heap<number>();
  readonly random: () => number;
  readonly draw: Draw;
  readonly phases: readonly number[];
  phase = 0;
  done = 0;
  atMs = 0;

  constructor(seed: number, draw: Draw, ...phases: readonly number[]) {
    this.random = sequence(seed);
    this.draw = draw;
    this.phases = phases;
  }

  pace(): number {
    return 1 / (1 + (this.work.size / this.phases[this.phase]!) ** 3.375);
  }

  advance(nowMs: number): void {
    this.done += (nowMs - this.atMs) * this.pace();
    this.atMs = nowMs;
  }

  start(nowMs: number, call: number): void {
    this.advance(nowMs);
    this.work.push(this.done + this.draw(this.random), call);
  }

  next(): number {
    return this.atMs + Math.max(0, this.work.least - this.done) / this.pace();
  }

  end(nowMs: number): { call: number; outcome: window.Outcome } {
    this.advance(nowMs);
    return { call: this.work.pop()!, outcome: "ok" };
  }

  change(nowMs: number, phase: number): void {
    this.advance(nowMs);
    this.phase = phase;
  }
}

/** Turns some calls away at once, in front of another target: `admits` says which. */
class Gate implements Target {
  readonly away = new Heap<number>();
  readonly inner: Target;
  readonly outcome: window.Outcome;
  readonly afterMs: number;
  readonly admits: (nowMs: number, phase: number) => boolean;
  phase = 0;

  constructor(
    inner: Target,
    outcome: window.Outcome,
    afterMs: number,
    admits: (nowMs: number, phase: number) => boolean,
  ) {
    this.inner = inner;
    this.outcome = outcome;
    this.afterMs = afterMs;
    this.admits = admits;
  }

  start(nowMs: number, call: number): void {
    if (this.admits(nowMs, this.phase)) this.inner.start(nowMs, call);
    else this.away.push(nowMs + this.afterMs, call);
  }

  next(): number {
    return Math.min(this.inner.next(), this.away.least);
  }

  end(nowMs: number): { call: number; outcome: window.Outcome } {
    if (this.away.least > this.inner.next()) return this.inner.end(nowMs);
    return { call: this.away.pop()!, outcome: this.outcome };
  }

  change(_nowMs: number, phase: number): void {
    this.phase = phase;
  }
}

function bucket(ratePerS: number, burst: number): (nowMs: number) => boolean {
  let tokens = burst;
  let atMs = 0;
  return (nowMs) => {
    tokens = Math.min(burst, tokens + ((nowMs - atMs) / 1_000) * ratePerS);
    atMs = nowMs;
    if (tokens < 1) return false;
    tokens--;
    return true;
  };
}

function failing(seed: number, ...chances: readonly number[]): (n: number, p: number) => boolean {
  const random = sequence(seed + 7);
  return (_nowMs, phase) => random() >= chances[phase]!;
}

interface Scenario {
  readonly name: string;
  readonly seconds: number;
  /** The fixed concurrency that is best over the whole run. */
  readonly best: number;
  /** Least goodput in % of it, mean of the seeds. */
  readonly floor: number;
  readonly make: (seed: number) => Target;
  /** When the target changes, in s. */
  readonly changes?: readonly number[];
  /** Arrivals per second; absent: there is always work. */
  readonly arrivals?: (nowMs: number) => number;
  /** Time until the window is expected to be right, in s; 10 by default. */
  readonly rampS?: number;
  /** Most calls in flight that are allowed at any moment. */
  readonly most?: number;
}

interface Run {
  readonly good: number;
  readonly refused: number;
  readonly calls: number;
  readonly peak: number;
  /** Successes in each 100 ms. */
  readonly bins: Uint32Array;
  /** Hash of the sequence of limits. */
  readonly trail: number;
  readonly limitMax: number;
  /** The limit at the end of each 100 ms. */
  readonly limitAt: Uint32Array;
}

/** Runs a scenario; every step holds the invariants (W1 to W4, O1). */
function run(scenario: Scenario, seed: number, options: window.WindowOptions): Run {
  const endMs = scenario.seconds * 1_000;
  const target = scenario.make(seed);
  const w = window.init(options, 0);
  const o = overload.init({ seed });
  const random = sequence(seed + 99);
  const open = new Map<number, { atMs: number; tag: window.Tag }>();
  const changes = (scenario.changes ?? []).map((s) => s * 1_000);
  const bins = new Uint32Array(scenario.seconds * 10);
  let trail = 0;
  let limitMax = 0;
  const limitAt = new Uint32Array(bins.length);
  let arrivalMs = scenario.arrivals === undefined ? Infinity : 0;
  let backlog = scenario.arrivals === undefined ? Infinity : 0;
  let nowMs = 0;
  let calls = 0;
  let good = 0;
  let refused = 0;
  let peak = 0;
  let phase = 0;
  for (;;) {
    let readyMs = Infinity;
    while (backlog > 0 && open.size < window.limitOf(w)) {
      readyMs = overload.readyAtMs(o, nowMs, 1);
      if (readyMs > nowMs) break;
      overload.spend(o, nowMs, 1);
      backlog--;
      const tag = window.dispatched(w, nowMs, open.size + 1);
      open.set(calls, { atMs: nowMs, tag });
      target.start(nowMs, calls++);
    }
    if (!(readyMs > nowMs)) readyMs = Infinity;
    peak = Math.max(peak, open.size);
    const changeMs = changes[phase] ?? Infinity;
    nowMs = Math.min(target.next(), readyMs, changeMs, arrivalMs);
    if (nowMs >= endMs) return { good, refused, calls, peak, bins, trail, limitMax, limitAt };
    if (nowMs === changeMs) {
      target.change(nowMs, ++phase);
    } else if (nowMs === arrivalMs) {
      backlog++;
      arrivalMs -= (Math.log(1 - random()) * 1_000) / scenario.arrivals!(nowMs);
    } else if (target.next() <= nowMs) {
      const { call, outcome } = target.end(nowMs);
      const { atMs, tag } = open.get(call)!;
      open.delete(call);
      window.settled(w, nowMs, atMs, tag, outcome);
      overload.settled(o, nowMs, outcome === "overload");
      window.check(w);
      overload.check(o);
      const limit = window.limitOf(w);
      trail = (Math.imul(trail, 31) + limit) | 0;
      limitMax = Math.max(limitMax, limit);
      limitAt[Math.floor(nowMs / 100)] = limit;
      if (outcome === "overload") refused++;
      if (outcome === "ok") {
        good++;
        bins[Math.floor(nowMs / 100)]! += 1;
      }
    }
  }
}

const knee = (seed: number): Target => new Knee(seed, steady(5), 15.24);
const pool20 = (seed: number): Target => new Pool(seed, exponential(5), [20, 1]);
const scenarios: readonly Scenario[] = [
  { name: "a knee", seconds: 60, best: 12, floor: 94, most: 32, make: knee },
  {
    name: "a pool of 4",
    seconds: 30,
    best: 4,
    floor: 95,
    make: (seed) => new Pool(seed, exponential(5), [4, 1]),
  },
  { name: "a pool of 20", seconds: 20, best: 20, floor: 95, make: pool20 },
  {
    name: "a pool of 100",
    seconds: 20,
    best: 100,
    floor: 94,
    make: (seed) => new Pool(seed, exponential(5), [100, 1]),
  },
  {
    name: "a pool of 20 that is 5 for ten seconds",
    seconds: 60,
    best: 20,
    floor: 93,
    changes: [30, 40],
    make: (seed) => new Pool(seed, exponential(5), [20, 1], [5, 1], [20, 1]),
  },
  {
    name: "a knee that falls to a quarter for ten seconds",
    seconds: 90,
    best: 12,
    floor: 95,
    most: 32,
    changes: [30, 40],
    make: (seed) => new Knee(seed, steady(5), 15.24, 3.81, 15.24),
  },
  {
    name: "bimodal work in a pool of 20",
    seconds: 90,
    best: 20,
    floor: 90,
    make: (seed) => new Pool(seed, bimodal, [20, 1]),
  },
  {
    name: "a heavy tail in a pool of 20",
    seconds: 90,
    best: 20,
    floor: 92,
    make: (seed) => new Pool(seed, lognormal, [20, 1]),
  },
  {
    name: "bimodal work at a knee",
    seconds: 90,
    best: 12,
    floor: 89,
    most: 32,
    make: (seed) => new Knee(seed, bimodal, 15.24),
  },
  {
    name: "two seconds a message, eight at a time",
    seconds: 600,
    best: 8,
    rampS: 25,
    floor: 92,
    make: (seed) => new Pool(seed, steady(2_000), [8, 1]),
  },
  {
    name: "a target that turns three times slower without congestion",
    seconds: 60,
    best: 20,
    floor: 94,
    changes: [20],
    make: (seed) => new Pool(seed, exponential(5), [20, 1], [20, 3]),
  },
  {
    name: "light load, then all at once (knee)",
    seconds: 150,
    best: 12,
    floor: 95,
    most: 32,
    arrivals: (nowMs) => (nowMs < 100_000 ? 200 : 5_000),
    make: knee,
  },
  {
    name: "a knee where 30 % fail at once, whatever the load",
    seconds: 60,
    best: 12,
    floor: 95,
    most: 32,
    make: (seed) => new Gate(knee(seed), "failed", 1, failing(seed, 0.3)),
  },
  {
    name: "a knee where everything fails for ten seconds",
    seconds: 60,
    best: 12,
    floor: 94,
    most: 32,
    changes: [20, 30],
    make: (seed) => new Gate(knee(seed), "failed", 1, failing(seed, 0, 1, 0)),
  },
];
const seeds = [1, 2, 3, 4, 5];

/** Successes per second in the worst five seconds after the ramp: a heavy tail may take 7 s of it. */
function worstPerS({ bins }: Run, rampS: number): number {
  let worst = Infinity;
  for (let from = 10 * rampS; from + 50 <= bins.length; from += 50) {
    worst = Math.min(worst, bins.subarray(from, from + 50).reduce((sum, n) => sum + n) / 5);
  }
  return worst;
}

test.each(scenarios)("$name: the window reaches $floor % of the best fixed one", (scenario) => {
  // A fixed window has little luck in it: two seeds tell what it gives.
  const fixed = [1, 2].map((seed) => run(scenario, seed, { fixed: scenario.best }).good);
  const best = (fixed[0]! + fixed[1]!) / 2;
  let good = 0;
  for (const seed of seeds) {
    const ours = run(scenario, seed, {});
    good += ours.good / seeds.length;
    expect(ours.peak).toBeLessThanOrEqual(scenario.most ?? Infinity);
    const steady = scenario.changes === undefined && scenario.arrivals === undefined;
    const halfPerS = steady ? best / scenario.seconds / 2 : 0;
    expect(worstPerS(ours, scenario.rampS ?? 10)).toBeGreaterThanOrEqual(halfPerS);
  }
  expect((100 * good) / best).toBeGreaterThan(scenario.floor);
});

test("a knee that falls to a quarter is met within a second, and its return within four", () => {
  const drop = scenarios.find(({ name }) => name.startsWith("a knee that falls"))!;
  for (const seed of seeds) {
    const { limitAt } = run({ ...drop, seconds: 46 }, seed, {});
    const low = limitAt.subarray(310, 320).filter((limit) => limit <= 6).length;
    const high = limitAt.subarray(440, 450).filter((limit) => limit >= 9).length;
    expect(low).toBeGreaterThanOrEqual(6); // Of ten: dips and the like take the rest.
    expect(high).toBeGreaterThanOrEqual(6);
  }
});

test("429 above 500/s: the rate is used to 97 %, with at most 5.4 % refused", () => {
  const scenario: Scenario = {
    name: "429",
    seconds: 60,
    best: 10,
    floor: 97,
    make: (seed) => new Gate(new Pool(seed, steady(20), [200, 1]), "overload", 2, bucket(500, 50)),
  };
  for (const seed of seeds) {
    const { good, refused, calls } = run(scenario, seed, {});
    expect(good / 60).toBeGreaterThan(485);
    expect(refused / calls).toBeLessThan(0.054);
  }
});

test("W5 the same seed gives the same limits, another seed others", () => {
  const bimodalKnee = scenarios.find(({ name }) => name === "bimodal work at a knee")!;
  const first = run(bimodalKnee, 7, {}).trail;
  expect(run(bimodalKnee, 7, {}).trail).toBe(first);
  expect(run(bimodalKnee, 8, {}).trail).not.toBe(first);
});

test("W2 a load that does not reach the limit never grows the window", () => {
  const idle: Scenario = {
    name: "idle",
    seconds: 30,
    best: 1,
    floor: 0,
    arrivals: () => 200,
    make: pool20,
  };
  expect(run(idle, 1, { start: 8 }).limitMax).toBe(8);
});

import * as fc from "fast-check";
import { expect, test } from "vitest";
import { assert, Heap, isSpillwayError, sequence } from "../base/index.ts";
import * as window from "./window.ts";

interface Call {
  readonly atMs: number;
  tag: window.Tag;
}

/** A source that always has work: every free place is taken, calls end in the order of their ends. */
class Source {
  readonly w: window.Window;
  readonly open = new Heap<Call>();
  nowMs = 0;

  constructor(options: window.WindowOptions = {}) {
    this.w = window.init(options, 0);
  }

  fill(latencyMs: (inFlight: number) => number): void {
    while (this.open.size < window.limitOf(this.w)) {
      const inFlight = this.open.size + 1;
      const call = { atMs: this.nowMs, tag: window.dispatched(this.w, this.nowMs, inFlight) };
      this.open.push(this.nowMs + latencyMs(inFlight), call);
    }
  }

  /** Takes `settles` calls to their end. */
  run(settles: number, latencyMs: (inFlight: number) => number, outcome: window.Outcome = "ok") {
    for (let i = 0; i < settles; i++) {
      this.fill(latencyMs);
      this.nowMs = this.open.least;
      const { atMs, tag } = this.open.pop()!;
      window.settled(this.w, this.nowMs, atMs, tag, outcome);
      window.check(this.w);
    }
    return this;
  }

  /** Takes out a call that has just begun as evidence of this arm: 1 HI, 2 LO. It does not end. */
  take(arm: number, latencyMs: (inFlight: number) => number): Call {
    for (;;) {
      this.run(1, latencyMs).fill(latencyMs);
      const kept: [number, Call][] = [];
      let taken: Call | undefined;
      while (this.open.size > 0) {
        const endMs = this.open.least;
        const call = this.open.pop()!;
        if (call.atMs === this.nowMs && (call.tag & 3) === arm) taken ??= call;
        if (call !== taken) kept.push([endMs, call]);
      }
      for (const [endMs, call] of kept) this.open.push(endMs, call);
      if (taken !== undefined) return taken;
    }
  }
}

/** A target without any limit: every call takes as long, whatever is in flight. */
const linear = (): number => 10;
/** A target that serves 8 at a time: beyond it, calls queue. */
const eight = (inFlight: number): number => (10 * Math.max(8, inFlight)) / 8;
/** A target that turns worse the more is in flight, and past 8 at a loss. */
const worse = (inFlight: number): number => 10 * Math.max(1, (inFlight / 8) ** 3);

test("W1 the limit keeps within its bounds whatever happens in whatever order", () => {
  const step = fc.record({
    kind: fc.constantFrom("start", "start", "start", "end", "end", "hung", "publish", "restart"),
    pick: fc.nat(),
    passMs: fc.constantFrom(0, 0, 1, 5, 50, 2_000, 40_000, 70_000),
    outcome: fc.constantFrom<window.Outcome>("ok", "ok", "ok", "failed", "overload", "released"),
  });
  const options = fc.record({
    start: fc.integer({ min: 1, max: 40 }),
    max: fc.integer({ min: 1, max: 30 }),
  });
  fc.assert(
    fc.property(options, fc.array(step, { maxLength: 400 }), (options, steps) => {
      const w = window.init(options, 0);
      const open: Call[] = [];
      let published = Infinity;
      let nowMs = 0;
      for (const { kind, pick, passMs, outcome } of steps) {
        nowMs += passMs;
        const at = pick % Math.max(1, open.length);
        const call = open[at];
        const before = w.size;
        if (kind === "start") {
          while (open.length < window.limitOf(w)) {
            open.push({ atMs: nowMs, tag: window.dispatched(w, nowMs, open.length + 1) });
          }
        } else if (kind === "publish") {
          published = pick % 3 === 0 ? Infinity : (pick % 12) + 1;
          window.publish(w, published === Infinity ? null : published);
        } else if (kind === "restart") {
          window.restart(w, nowMs, 1);
        } else if (call !== undefined && kind === "hung") {
          call.tag = window.hung(w, nowMs, call.atMs, call.tag);
        } else if (call !== undefined) {
          open.splice(at, 1);
          window.settled(w, nowMs, call.atMs, call.tag, outcome);
        }
        window.check(w);
        expect(window.limitOf(w)).toBeLessThanOrEqual(Math.min(options.max, published));
        expect(w.size).toBeLessThanOrEqual(2 * before); // W2
        const mayGrow = kind === "end" || kind === "hung" || kind === "start";
        expect(w.size > before && !mayGrow).toBe(false); // W2
      }
    }),
  );
});

test("W2 it grows by doubling while more calls bring as much more, and stops where they do not", () => {
  expect(new Source({ max: 64 }).run(3_000, linear).w.size).toBe(64);
  const { size } = new Source().run(20_000, eight).w;
  expect(size).toBeGreaterThan(7);
  expect(size).toBeLessThan(14);
});

test("a slow beginning ends no doubling: it takes two comparisons in a row to speak against more", () => {
  for (let slowMs = 50; slowMs <= 400; slowMs += 25) {
    const source = new Source({ max: 64 });
    const latencyMs = (): number => (source.nowMs < slowMs ? 60 : 10);
    while (source.nowMs < 2_000) source.run(1, latencyMs);
    expect([slowMs, source.w.size]).toEqual([slowMs, 64]);
  }
});

test("W2 calls below the limit are no evidence: an idle window stays as it is", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 50 }), fc.nat(), (start, seed) => {
      const w = window.init({ start }, 0);
      const random = sequence(seed);
      let nowMs = 0;
      for (let i = 0; i < 500; i++) {
        const tag = window.dispatched(w, nowMs, 1 + Math.floor(random() * (start - 1)));
        expect(tag).toBe(0);
        nowMs += 10 * random();
        window.settled(w, nowMs, nowMs - 10 * random(), tag, "ok");
      }
      expect(window.limitOf(w)).toBe(start);
    }),
  );
});

test("W2 a window that was not reached for a minute shrinks to twice what was used", () => {
  const source = new Source({ max: 200 }).run(20_000, linear);
  const { w } = source;
  expect(w.size).toBe(200);
  for (let s = 0; s < 130; s++) {
    const nowMs = source.nowMs + s * 1_000;
    window.settled(w, nowMs + 10, nowMs, window.dispatched(w, nowMs, 1 + (s % 10)), "ok");
  }
  expect(window.limitOf(w)).toBe(20);
  expect(window.view(w).startup).toBe(true);
});

test("W3 a dip is half the window, counts its calls and ends", () => {
  const source = new Source({ start: 8, max: 9 });
  let dips = 0;
  let inDip = 0;
  let onTheWay = 0;
  for (let i = 0; i < 20_000; i++) {
    const before = window.view(source.w).phase;
    source.run(1, eight);
    const { phase, limit } = window.view(source.w);
    const { loAt, hiAt } = source.w;
    onTheWay = limit === (phase === "lo" ? loAt : hiAt) ? 0 : onTheWay + 1;
    expect(onTheWay).toBeLessThanOrEqual(2 * (hiAt - loAt));
    if (phase === "lo" && before !== "lo") dips++;
    inDip = phase === "lo" ? inDip + 1 : 0;
    expect(inDip).toBeLessThan(100);
  }
  expect(dips).toBeGreaterThan(3);
});

test("W3 calls that take equally long are thinned and thickened one by one, others at once", () => {
  const stepsOf = (latencyMs: (inFlight: number) => number): number[] => {
    const source = new Source({ start: 8, max: 9 }).run(500, latencyMs); // It doubles no more.
    const steps = Array.from({ length: 5_000 }, () => {
      const before = window.limitOf(source.w);
      source.run(1, latencyMs);
      return Math.abs(window.limitOf(source.w) - before);
    });
    return [...new Set(steps)].toSorted((a, b) => a - b);
  };
  const random = sequence(5);
  expect(stepsOf(eight)).toEqual([0, 1]);
  expect(stepsOf((inFlight) => -eight(inFlight) * Math.log(1 - random())).at(-1)).toBe(5);
});

test("a window that could grow and must not spends no more on dips than one that is right", () => {
  const source = new Source({ start: 4, max: 8 }).run(500, linear);
  let dips = 0;
  for (let i = 0; i < 10_000; i++) if (source.run(1, linear).w.phase === "lo") dips++;
  expect(window.limitOf(source.w)).toBe(8);
  expect(dips).toBeLessThan(10_000 * 0.05);
});

test("W4 a hung call counts once, as a failure, and a second settle of it changes nothing", () => {
  const w = window.init({}, 0);
  const tags = [1, 2, 3, 4].map((inFlight) => window.dispatched(w, 0, inFlight));
  const tag = tags[3]!; // The one that reached the limit.
  expect(tags.slice(0, 3)).toEqual([0, 0, 0]);
  expect(tag).toBeGreaterThan(0);
  expect(window.hung(w, 29_999, 0, tag)).toBe(tag);
  expect(w.back).toBe(0);
  expect(window.hung(w, 30_000, 0, tag)).toBe(0);
  expect([w.back, w.hi.n, w.hi.good]).toEqual([1, 1, 0]);
  window.settled(w, 90_000, 0, 0, "ok");
  expect([w.back, w.hi.n, w.hi.good]).toEqual([1, 1, 0]);
  expect(window.hungAfterMs(w)).toBe(20 * 90_000); // It does count for the mean, or slow work is hung.
});

test("W4 a dip whose every place is taken by a hung call ends all the same", () => {
  const source = new Source({ start: 4, max: 5 });
  while (source.w.phase !== "lo") source.run(1, linear);
  while (source.open.size >= source.w.loAt) source.run(0, linear).open.pop();
  const calls = [];
  for (let n = source.open.size; n < window.limitOf(source.w); n++) {
    calls.push({ atMs: source.nowMs, tag: window.dispatched(source.w, source.nowMs, n + 1) });
  }
  expect(calls.length).toBeGreaterThan(0);
  for (const { atMs, tag } of calls) window.hung(source.w, atMs + 30_000, atMs, tag);
  expect(source.w.phase).not.toBe("lo");
  expect(window.limitOf(source.w)).toBeGreaterThan(source.w.loAt);
});

test("W4 a dip does not wait for one slow call", () => {
  const source = new Source({ start: 8, max: 16 }).run(5_000, eight);
  const slow = source.take(2, eight);
  expect(source.w.phase).toBe("lo");
  while (source.nowMs - slow.atMs < 1_200) source.run(1, eight);
  expect(source.w.phase).not.toBe("lo");
  expect(source.w.lo.n).toBeGreaterThan(0);
  expect(source.w.lo.sumMs / source.w.lo.n).toBeLessThan(50); // Nor does it outweigh the others.
  const before = structuredClone(source.w);
  window.settled(source.w, source.nowMs, slow.atMs, slow.tag, "failed");
  expect(source.w).toEqual(before); // It was given up: its end says nothing more.
});

test("W4 one slow call moves nothing", () => {
  for (const outcome of ["ok", "failed"] as const) {
    for (const arm of [1, 2]) {
      const source = new Source({ start: 8, max: 9 }).run(5_000, eight);
      for (let round = 0; round < 20; round++) {
        const slow = source.take(arm, eight);
        const { size } = source.w;
        while (source.nowMs - slow.atMs < 900) source.run(1, eight); // Others take 10 ms.
        window.settled(source.w, source.nowMs, slow.atMs, slow.tag, outcome);
        source.run(2_000, eight);
        expect(source.w.size).toBeGreaterThan(0.9 * size);
      }
    }
  }
});

test("W4 after 10^6 settles in any order, with lost and hung calls, nothing has leaked", () => {
  const w = window.init({ max: 50 }, 0);
  const random = sequence(19);
  const open: Call[] = [];
  const outcomes = ["ok", "ok", "ok", "ok", "failed", "overload", "released"] as const;
  let nowMs = 0;
  let settles = 0;
  while (settles < 1_000_000) {
    while (open.length < window.limitOf(w)) {
      open.push({ atMs: nowMs, tag: window.dispatched(w, nowMs, open.length + 1) });
    }
    nowMs += random();
    const at = Math.floor(random() * open.length);
    const call = open[at]!;
    open[at] = open.at(-1)!;
    open.pop();
    if (random() < 0.0005) {
      nowMs += 31_000; // This one is lost: its lease ends, it counts as hung and is gone.
      call.tag = window.hung(w, nowMs, call.atMs, call.tag);
      assert(call.tag === 0, "W4 a hung call is no evidence any more");
      continue;
    }
    const outcome = outcomes[Math.floor(random() * outcomes.length)]!;
    window.settled(w, nowMs, call.atMs, call.tag, outcome);
    settles++;
    if (settles % 1_000 === 0) window.check(w);
  }
  expect(w.cohort).toBeGreaterThan(1_000); // It never stopped comparing.
  window.restart(w, nowMs, 1);
  const after = new Source({ max: 50 });
  Object.assign(after.w, w);
  after.nowMs = nowMs;
  expect(after.run(20_000, linear).w.size).toBe(50);
});

test("failures, overload answers and releases are no latency; a release is not even slot time", () => {
  for (const outcome of ["failed", "overload", "released"] as const) {
    const w = window.init({}, 0);
    window.settled(w, 500, 0, window.dispatched(w, 0, 4), outcome);
    expect(window.meanMs(w)).toBe(0);
    expect(w.back).toBe(1);
    expect(w.hi.n).toBe(outcome === "released" ? 0 : 1);
    expect(w.hi.good).toBe(0);
  }
});

test("a window past the knee is halved at most, and stays below it after that", () => {
  const source = new Source({ start: 32, max: 64 });
  for (let i = 0; i < 20_000; i++) {
    const before = source.w.size;
    source.run(1, worse);
    expect(source.w.size).toBeGreaterThanOrEqual(before / 2);
  }
  expect(source.w.size).toBeLessThan(16);
});

test("a target that is slower at every concurrency keeps its window", () => {
  const source = new Source().run(20_000, eight);
  const before = source.w.size;
  source.run(20_000, (inFlight) => 10 * eight(inFlight));
  expect(source.w.size).toBeGreaterThan(0.7 * before);
});

test("a fixed window learns nothing but the mean; a published capacity still bounds it", () => {
  const source = new Source({ fixed: 7 }).run(2_000, linear);
  expect(window.limitOf(source.w)).toBe(7);
  expect(window.meanMs(source.w)).toBeCloseTo(10);
  window.restart(source.w, source.nowMs, 1);
  expect(window.limitOf(source.w)).toBe(7);
  window.publish(source.w, 3);
  expect(window.limitOf(source.w)).toBe(3);
  window.publish(source.w, null);
  expect(window.limitOf(source.w)).toBe(7);
});

test("W1 a window of at most 1 never tries 2, one that starts at 1 does", () => {
  const one = new Source({ max: 1 });
  const two = new Source({ start: 1, max: 100 });
  let most = 0;
  for (let i = 0; i < 500; i++) most = Math.max(most, window.limitOf(one.run(1, linear).w));
  expect(most).toBe(1);
  expect(two.run(5_000, linear).w.size).toBe(100);
});

test("W1 a published capacity bounds the limit at once and is given back whole", () => {
  const source = new Source({ max: 32 }).run(5_000, linear);
  window.publish(source.w, 6);
  expect(window.limitOf(source.w)).toBe(6);
  while (source.open.size > 0) source.open.pop();
  let most = 0;
  for (let i = 0; i < 5_000; i++) most = Math.max(most, window.limitOf(source.run(1, linear).w));
  expect(most).toBe(6);
  window.publish(source.w, null);
  expect(window.limitOf(source.w)).toBe(32);
  window.publish(source.w, 0);
  expect(window.limitOf(source.w)).toBe(1);
});

test("W2 under a published capacity it grows up to that only: beyond it there is no evidence", () => {
  const source = new Source({ start: 2 });
  window.publish(source.w, 6);
  expect(source.run(5_000, linear).w.size).toBe(6);
  window.publish(source.w, null);
  expect(window.limitOf(source.w)).toBe(6);
});

test("after an outage it begins again at one and doubles", () => {
  const source = new Source({ max: 64 }).run(5_000, linear);
  window.restart(source.w, source.nowMs, 1);
  expect(window.limitOf(source.w)).toBe(1);
  while (source.open.size > 0) source.open.pop();
  expect(source.run(1_000, linear).w.size).toBe(64);
});

test("where nothing succeeds the window stays as it is", () => {
  const source = new Source().run(5_000, eight);
  const before = source.w.size;
  source.run(5_000, () => 1, "failed");
  expect(source.w.size).toBe(before);
});

test("calls that end in the moment they began do no harm", () => {
  const source = new Source({ max: 100 }).run(2_000, () => 0);
  expect(Number.isFinite(source.w.size)).toBe(true);
  expect(source.run(20_000, linear).w.size).toBe(100);
});

test("W5 the same events give the same record", () => {
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      const play = (): window.Window => {
        const random = sequence(seed);
        return new Source().run(2_000, (inFlight) => eight(inFlight) * (0.5 + random())).w;
      };
      expect(play()).toEqual(play());
    }),
    { numRuns: 20 },
  );
});

test("bounds that cannot be are refused at the start", () => {
  const wrong = [{ max: 0 }, { min: 5, max: 4 }, { min: 0.5 }, { fixed: 0.5 }, { start: NaN }];
  for (const options of [...wrong, { max: Infinity }, { fixed: NaN }]) {
    expect(() => window.init(options, 0)).toThrow(
      expect.toSatisfy((error) => isSpillwayError(error, "option_invalid")),
    );
  }
});

test("people see what it does and why", () => {
  const { w } = new Source().run(20_000, eight);
  const view = window.view(w);
  expect(view.limit).toBe(window.limitOf(w));
  expect(view.published).toBeNull();
  expect(view.meanMs).toBeGreaterThan(9);
  expect(view.elasticity).toBeLessThanOrEqual(1);
  expect(window.view(window.init({ fixed: 3 }, 0)).phase).toBe("fixed");
});

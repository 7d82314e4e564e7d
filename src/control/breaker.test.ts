import * as fc from "fast-check";
import { expect, test } from "vitest";
import * as breaker from "./breaker.ts";

const options = { seed: 1, target: "http://a" };
const { settled } = breaker;

function fail(b: breaker.Breaker, nowMs: number, times: number): breaker.Transition | undefined {
  let last: breaker.Transition | undefined;
  for (let i = 0; i < times; i++) last = settled(b, nowMs, "failed", undefined);
  return last;
}

/** An open breaker, and when it ends. */
function opened(seed = 1, nowMs = 0): breaker.Breaker {
  const b = breaker.init({ ...options, seed }, nowMs);
  fail(b, nowMs, 5);
  return b;
}

/** Lets one probe out and settles it. */
function probe(b: breaker.Breaker, atMs: number, outcome: breaker.BreakerOutcome, mu?: number) {
  breaker.started(b, atMs);
  return settled(b, atMs + 5, outcome, mu, atMs);
}

function recovering(mu?: number): breaker.Breaker {
  const b = opened();
  const atMs = b.openUntilMs;
  for (let i = 0; i < 3; i++) probe(b, atMs + 10 * i, "ok", mu);
  expect(b.state).toBe("recovering");
  return b;
}

test("five failures in a row with no success in 10 s open it, four do not", () => {
  const b = breaker.init(options, 0);
  expect(fail(b, 0, 4)).toBeUndefined();
  expect(fail(b, 0, 1)).toEqual({ from: "closed", to: "open" });
  const other = breaker.init(options, 0);
  settled(other, 0, "ok", undefined);
  expect(fail(other, 9_999, 19 - 1)).toBeUndefined();
  const later = breaker.init(options, 0);
  settled(later, 0, "ok", undefined);
  expect(fail(later, 10_001, 5)).toEqual({ from: "closed", to: "open" });
});

test("half of at least 20 settles within 10 s open it, less do not, and old ones are forgotten", () => {
  const b = breaker.init(options, 0);
  for (let i = 0; i < 11; i++) settled(b, 100 * i, "ok", undefined);
  expect(fail(b, 1_500, 10)).toBeUndefined(); // 10 of 21
  expect(fail(b, 1_600, 1)).toEqual({ from: "closed", to: "open" }); // 11 of 22
  const old = breaker.init(options, 0);
  settled(old, 0, "ok", undefined);
  fail(old, 900, 18);
  for (let i = 0; i < 10; i++) settled(old, 10_500, "ok", undefined);
  expect(breaker.view(old)).toMatchObject({ settles: 10, failures: 0, state: "closed" });
});

test("overload answers and releases are no failures", () => {
  const b = breaker.init(options, 0);
  for (let i = 0; i < 1_000; i++) settled(b, i, "neutral", undefined);
  expect(b.state).toBe("closed");
});

test("K2 the cool-down is min(10, 2^k) s x 0.8 to 1.2", () => {
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      const b = opened(seed);
      let atMs = 0;
      for (let k = 0; k < 8; k++) {
        const coolDownMs = breaker.readyAtMs(b, atMs, 0) - atMs;
        const middle = Math.min(10_000, 1_000 * 2 ** k);
        expect(b.k).toBe(k);
        expect(coolDownMs).toBeGreaterThanOrEqual(0.8 * middle);
        expect(coolDownMs).toBeLessThanOrEqual(1.2 * middle);
        expect(breaker.tick(b, b.openUntilMs - 1)).toBeUndefined();
        expect(breaker.tick(b, b.openUntilMs)).toEqual({ from: "open", to: "half_open" });
        atMs = b.openUntilMs + 5;
        expect(probe(b, b.openUntilMs, "failed")).toEqual({ from: "half_open", to: "open" });
        breaker.check(b);
      }
    }),
  );
});

test("K4 the same seed gives the same cool-down, other seeds and targets others", () => {
  const ends = [1, 2, 3, 4, 5].map((seed) => opened(seed).openUntilMs);
  expect(new Set(ends).size).toBe(5);
  expect(opened(3).openUntilMs).toBe(ends[2]);
  const other = breaker.init({ seed: 1, target: "http://b" }, 0);
  fail(other, 0, 5);
  expect(other.openUntilMs).not.toBe(ends[0]);
});

test("R3 half-open lets one probe out, and the next once that one is back", () => {
  const b = opened();
  const atMs = b.openUntilMs;
  breaker.tick(b, atMs);
  expect(breaker.readyAtMs(b, atMs, 3)).toBe(atMs);
  breaker.started(b, atMs);
  expect(breaker.readyAtMs(b, atMs, 1)).toBe(atMs + 30_000);
  settled(b, atMs + 10, "ok", undefined, atMs);
  expect(breaker.readyAtMs(b, atMs + 10, 0)).toBe(atMs + 10);
});

test("R3 a probe that never returns expires as a failure, and its late end changes nothing", () => {
  const b = opened();
  const atMs = b.openUntilMs;
  breaker.started(b, atMs);
  expect(breaker.tick(b, atMs + 29_999)).toBeUndefined();
  expect(breaker.tick(b, atMs + 30_000)).toEqual({ from: "half_open", to: "open" });
  expect(b.k).toBe(1);
  expect(settled(b, atMs + 30_001, "ok", undefined, atMs)).toBeUndefined();
  const nextMs = b.openUntilMs;
  breaker.started(b, nextMs);
  for (let i = 0; i < 5; i++) settled(b, nextMs + 1, "ok", undefined, atMs);
  expect(b.state).toBe("half_open");
  expect(b.okInRow).toBe(0);
});

test("R3 with nothing in flight no probe can be out, and a neutral end gives no verdict", () => {
  const b = opened();
  const atMs = b.openUntilMs;
  breaker.started(b, atMs);
  expect(breaker.readyAtMs(b, atMs + 1, 0)).toBe(atMs + 1);
  expect(settled(b, atMs + 2, "neutral", undefined, atMs)).toBeUndefined();
  expect(b.state).toBe("half_open");
  expect(breaker.readyAtMs(b, atMs + 2, 1)).toBe(atMs + 2);
});

test("three successes in a row begin the recovery, two and a failure do not", () => {
  const b = opened();
  const atMs = b.openUntilMs;
  probe(b, atMs, "ok");
  probe(b, atMs + 10, "ok");
  expect(probe(b, atMs + 20, "failed")).toEqual({ from: "half_open", to: "open" });
  const againMs = b.openUntilMs;
  expect(probe(b, againMs, "ok")).toBeUndefined();
  probe(b, againMs + 10, "ok");
  expect(probe(b, againMs + 20, "ok")).toEqual({ from: "half_open", to: "recovering" });
});

test("K3 while recovering the starts keep below a rate that rises by half each second", () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 5_000, noNaN: true }),
      fc.array(fc.double({ min: 0, max: 30, noNaN: true }), { maxLength: 400 }),
      (mu, waits) => {
        const b = recovering(mu);
        const beginMs = b.sinceMs;
        const base = Math.max(10, 0.1 * mu);
        let nowMs = beginMs;
        let starts = 0;
        for (const waitMs of waits) {
          nowMs += waitMs;
          const t = (nowMs - beginMs) / 1_000;
          if (t >= 6) break;
          while (breaker.readyAtMs(b, nowMs, 1) <= nowMs) {
            breaker.started(b, nowMs);
            breaker.check(b);
            starts++;
          }
          const area = (base * (1.5 ** t - 1)) / Math.log(1.5);
          expect(starts).toBeLessThanOrEqual(area + Math.max(1, 0.02 * base * 1.5 ** t) + 1e-3);
        }
      },
    ),
  );
});

test("K3 the ramp is used: whoever waits for readyAtMs starts what the rate allows", () => {
  const b = recovering(1_000);
  const beginMs = b.sinceMs;
  let starts = 0;
  for (let nowMs = beginMs; nowMs < beginMs + 6_000; nowMs = breaker.readyAtMs(b, nowMs, 1)) {
    if (breaker.readyAtMs(b, nowMs, 1) > nowMs) continue;
    breaker.started(b, nowMs);
    starts++;
  }
  const area = (100 * (1.5 ** 6 - 1)) / Math.log(1.5);
  expect(starts).toBeGreaterThan(0.98 * area);
  expect(starts).toBeLessThan(area + 2);
});

test("K2 the recovery ends after six seconds; the target is well", () => {
  const b = recovering(100);
  expect(breaker.tick(b, b.sinceMs + 5_999)).toBeUndefined();
  expect(breaker.tick(b, b.sinceMs + 6_000)).toEqual({ from: "recovering", to: "closed" });
});

test("half of ten failing while it recovers opens it, with a longer cool-down", () => {
  const b = recovering();
  const atMs = b.sinceMs;
  for (let i = 0; i < 5; i++) expect(settled(b, atMs, "ok", undefined, atMs)).toBeUndefined();
  for (let i = 0; i < 4; i++) expect(settled(b, atMs, "failed", undefined, atMs)).toBeUndefined();
  expect(settled(b, atMs, "failed", undefined, atMs)).toEqual({ from: "recovering", to: "open" });
  expect(b.k).toBe(1);
});

test("calls from before the outage say nothing about the recovery", () => {
  const b = recovering();
  for (let i = 0; i < 50; i++) settled(b, b.sinceMs + i, "failed", undefined, 0);
  expect(b.state).toBe("recovering");
});

/** k of a breaker that opens again after so long. */
function reopenedK(closedMs: number): number {
  const b = recovering();
  b.k = 3;
  const closedAtMs = b.sinceMs + 6_000;
  breaker.tick(b, closedAtMs);
  breaker.tick(b, closedAtMs + closedMs);
  fail(b, closedAtMs + closedMs, 30);
  expect(b.state).toBe("open");
  return b.k;
}

test("k is 0 again after a minute closed, and kept before", () => {
  expect(reopenedK(59_000)).toBe(3);
  expect(reopenedK(60_000)).toBe(0);
});

test("attempts burn only while it is closed", () => {
  const b = breaker.init(options, 0);
  expect(breaker.burnsAttempts(b)).toBe(true);
  expect(breaker.burnsAttempts(opened())).toBe(false);
  expect(breaker.burnsAttempts(recovering())).toBe(false);
});

test("a restart while open goes on where it was, and none keeps it shut for long", () => {
  const before = opened(1, 1_000);
  const saved = breaker.save(before);
  const b = breaker.init(options, 1_100, saved);
  expect(breaker.readyAtMs(b, 1_100, 0)).toBe(before.openUntilMs);
  expect(breaker.tick(b, before.openUntilMs)).toEqual({ from: "open", to: "half_open" });
  const past = breaker.init(options, 1e6, saved);
  expect(breaker.tick(past, 1e6)).toEqual({ from: "open", to: "half_open" });
  const jumped = breaker.init(options, 0, { state: "open", k: 2, openUntilMs: 1e12 });
  breaker.check(jumped);
  expect(breaker.readyAtMs(jumped, 0, 0)).toBeLessThanOrEqual(12_000);
  const recoverer = breaker.init(options, 0, { state: "recovering", k: 2, openUntilMs: 0 });
  expect(recoverer.state).toBe("half_open");
});

test("K1 and K2 whatever happens: one probe at most, and every state is left again", () => {
  const event = fc.record({
    kind: fc.constantFrom("start", "start", "settle", "settle", "tick"),
    passMs: fc.constantFrom(0, 1, 20, 500, 3_000, 40_000),
    outcome: fc.constantFrom<breaker.BreakerOutcome>("ok", "failed", "failed", "neutral"),
    pick: fc.nat(),
    says: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 300 }), (events) => {
      const b = breaker.init(options, 0);
      const open: { atMs: number; probe: boolean }[] = [];
      let nowMs = 0;
      for (const { kind, passMs, outcome, pick, says } of events) {
        nowMs += passMs;
        breaker.tick(b, nowMs);
        if (kind === "start" && breaker.readyAtMs(b, nowMs, open.length) <= nowMs) {
          breaker.started(b, nowMs);
          open.push({ atMs: nowMs, probe: b.state === "half_open" });
        } else if (kind === "settle" && open.length > 0) {
          const [call] = open.splice(pick % open.length, 1);
          settled(b, nowMs, outcome, 5_000, says ? call!.atMs : undefined);
        }
        breaker.check(b);
        const readyMs = breaker.readyAtMs(b, nowMs, open.length);
        expect(readyMs - nowMs).toBeLessThanOrEqual(30_000);
        const probes = open.filter(({ atMs, probe }) => probe && nowMs - atMs < 30_000);
        const out = b.probeAtMs === null ? 0 : 1;
        expect(out).toBeLessThanOrEqual(probes.length === 0 ? 1 : probes.length);
      }
      // From here on every call succeeds: it closes.
      for (let i = 0; i < 200 && b.state !== "closed"; i++) {
        nowMs = Math.max(nowMs + 1, Math.min(breaker.readyAtMs(b, nowMs, 0), nowMs + 500));
        breaker.tick(b, nowMs);
        if (breaker.readyAtMs(b, nowMs, 0) > nowMs) continue;
        breaker.started(b, nowMs);
        settled(b, nowMs, "ok", 5_000, nowMs);
        nowMs += 100;
      }
      breaker.tick(b, nowMs + 6_000);
      expect(b.state).toBe("closed");
    }),
  );
});

test("an outage of a minute costs few probes and its end is noticed within 12 s", () => {
  for (let seed = 0; seed < 50; seed++) {
    const b = breaker.init({ seed, target: "t" }, 0);
    let probes = 0;
    let nowMs = 0;
    fail(b, 0, 5);
    while (b.state !== "recovering") {
      nowMs = breaker.readyAtMs(b, nowMs, 0);
      probe(b, nowMs, nowMs < 60_000 ? "failed" : "ok");
      if (nowMs < 60_000) probes++;
      nowMs += 5;
    }
    expect(probes).toBeLessThanOrEqual(12);
    expect(nowMs).toBeLessThan(72_100);
  }
});

import fc from "fast-check";
import { expect, test } from "vitest";
import type { Grant } from "./frames.ts";
import * as spender from "./spender.ts";

const first: Grant = {
  epoch: 1,
  grantId: 0,
  limitMessages: 10,
  limitBytes: 1_000,
  echoHeartbeatMs: 0,
  leaseMs: 2_000,
};

/** A spender that sent a heartbeat at 0. */
function started(): spender.Spender {
  const s = spender.init();
  spender.heartbeat(s, 0, 1, 100);
  return s;
}

test("C2 credit ends a lease after the heartbeat, however late its grant comes", () => {
  const s = started();
  expect(spender.granted(s, 1_990, first)).toBe(true);
  expect(spender.canSpend(s, 1_999, 100)).toBe(true);
  expect(spender.canSpend(s, 2_000, 100)).toBe(false);
  expect(spender.available(s, 2_000)).toEqual({ messages: 0, bytes: 0 });
  expect(spender.granted(s, 2_000, { ...first, limitMessages: 20 })).toBe(false);
  spender.heartbeat(s, 2_000, 1, 100);
  expect(spender.granted(s, 2_010, { ...first, grantId: 1, echoHeartbeatMs: 2_000 })).toBe(true);
  expect(spender.leaseEndMs(s)).toBe(4_000);
  spender.check(s);
});

test("P1 nothing is sent beyond the limit, in messages or in bytes", () => {
  const s = started();
  spender.granted(s, 10, { ...first, limitMessages: 3, limitBytes: 250 });
  expect(spender.fits(s, 10, [100, 100, 100])).toBe(2);
  expect(spender.fits(s, 10, [100, 20, 20, 20], 1)).toBe(3);
  expect(spender.fits(s, 10, [100], 1)).toBe(0);
  spender.spend(s, 10, 100);
  spender.spend(s, 10, 100);
  expect(spender.canSpend(s, 10, 51)).toBe(false);
  expect(spender.heartbeat(s, 40, 1, 51).headBytes).toBe(51);
  spender.spend(s, 40, 50);
  expect(spender.canSpend(s, 40, 0)).toBe(false);
  expect(() => spender.spend(s, 40, 0)).toThrow(
    expect.objectContaining({ code: "invariant_broken" }),
  );
  spender.check(s);
});

test("C4 grants in any order, doubled or lost, end where the latest heard puts them", () => {
  const grants = Array.from({ length: 12 }, (_, k): Grant => ({
    ...first,
    epoch: 1 + Math.floor(k / 4),
    grantId: k,
    limitMessages: 5 + (k % 4),
    echoHeartbeatMs: 10 * k,
  }));
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 11 }), { minLength: 1 }), (draws) => {
      const s = spender.init();
      for (let k = 0; k < 12; k++) spender.heartbeat(s, 10 * k, 1, 100);
      for (const draw of draws) {
        const { epoch, limit, leaseEndMs } = s;
        spender.granted(s, 200, grants[draw]!);
        expect(s.epoch).toBeGreaterThanOrEqual(epoch);
        expect(s.epoch > epoch || s.limit >= limit).toBe(true);
        expect(s.leaseEndMs).toBeGreaterThanOrEqual(leaseEndMs);
        const before = structuredClone(s);
        expect(spender.granted(s, 200, grants[draw]!)).toBe(false);
        expect(s).toEqual(before);
        spender.check(s);
      }
      const heard = draws.map((draw) => grants[draw]!);
      const epoch = Math.max(...heard.map((g) => g.epoch));
      const current = heard.filter((g) => g.epoch === epoch);
      expect(s.epoch).toBe(epoch);
      expect(s.limit).toBe(Math.max(...current.map((g) => g.limitMessages)));
      expect(s.grantId).toBe(Math.max(...current.map((g) => g.grantId)));
    }),
  );
});

test("C4 a new epoch replaces the limit and begins at position 0; an older one is ignored", () => {
  const s = started();
  spender.granted(s, 10, first);
  spender.spend(s, 10, 100);
  expect(
    spender.granted(s, 20, { ...first, epoch: 2, grantId: 1, limitMessages: 4, limitBytes: 900 }),
  ).toBe(false);
  expect(spender.view(s, 20)).toMatchObject({ epoch: 2, position: 0, messages: 4, bytes: 900 });
  spender.granted(s, 30, { ...first, limitMessages: 99 });
  expect(spender.available(s, 30).messages).toBe(4);
});

test("C4 grants of an earlier connection are void, whatever their epoch", () => {
  const s = started();
  spender.granted(s, 10, first);
  spender.reset(s);
  expect(spender.available(s, 20)).toEqual({ messages: 0, bytes: 0 });
  expect(spender.granted(s, 20, { ...first, epoch: 9 })).toBe(false);
  spender.heartbeat(s, 30, 1, 100);
  expect(spender.granted(s, 40, first)).toBe(false);
  expect(spender.granted(s, 40, { ...first, echoHeartbeatMs: 30 })).toBe(true);
  spender.check(s);
});

test("a stamp names the latest grant and how long it was held (G9)", () => {
  const s = started();
  spender.granted(s, 10, { ...first, grantId: 5 });
  spender.granted(s, 30, { ...first, grantId: 7, limitMessages: 11 });
  spender.granted(s, 40, { ...first, grantId: 6 });
  expect(spender.stamp(s, 55)).toEqual({ epoch: 1, grantId: 7, heldMs: 25 });
});

test("heartbeats go at a quarter of the lease, at once when blocked, and ever rarer while it lasts", () => {
  const s = spender.init();
  expect(spender.heartbeatDue(s, 7, false)).toBe(7);
  spender.heartbeat(s, 90, 0, 0);
  expect(spender.heartbeatDue(s, 100, false)).toBe(590);
  expect(spender.heartbeatDue(s, 100, true)).toBe(100);
  let at = 100;
  const gaps: number[] = [];
  while (gaps.length < 8) {
    spender.heartbeat(s, at, 1, 100);
    const due = spender.heartbeatDue(s, at, true);
    gaps.push(due - at);
    at = due;
  }
  expect(gaps).toEqual([20, 40, 80, 160, 320, 500, 500, 500]);
  at -= 500;
  spender.granted(s, at + 5, { ...first, limitMessages: 1, echoHeartbeatMs: at });
  expect(spender.heartbeatDue(s, at + 5, true)).toBe(at + 500);
  spender.spend(s, at + 5, 100);
  expect(spender.heartbeatDue(s, at + 5, true)).toBe(at + 20);
});

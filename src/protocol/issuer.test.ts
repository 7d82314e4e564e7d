import fc from "fast-check";
import { expect, test } from "vitest";
import { sequence } from "../base/index.ts";
import * as issuer from "./issuer.ts";
import type { Beat } from "./spender.ts";

const room = (messages: number, bytes = Infinity) => ({ messages, bytes });

function open(senders: readonly string[], options: Partial<issuer.IssuerOptions> = {}) {
  const i = issuer.init({ firstEpoch: 0, ...options }, 0);
  for (const id of senders) issuer.join(i, id, 0);
  return i;
}

function beat(heartbeatMs: number, want: number, more: Partial<Beat> = {}): Beat {
  return { heartbeatMs, position: 0, positionBytes: 0, want, wantBytes: 100 * want, ...more };
}

function stamp(i: issuer.Issuer, id: string, grantId = 0, heldMs = 0) {
  return { epoch: i.book.accounts.get(id)!.epoch, grantId, heldMs };
}

function limits(grants: readonly issuer.IssuedGrant[]): Record<string, number> {
  return Object.fromEntries(grants.map((g) => [g.senderId, g.limitMessages]));
}

test("C2 nothing is promised before a heartbeat, and the grant echoes the latest", () => {
  const i = open(["a"]);
  expect(issuer.issue(i, 0, room(10))).toEqual([]);
  issuer.heard(i, "a", 5, beat(1_000, 3));
  issuer.heard(i, "a", 6, beat(900, 99));
  expect(issuer.issue(i, 7, room(10))).toEqual([
    {
      senderId: "a",
      epoch: 1,
      grantId: 7_000,
      limitMessages: 3,
      limitBytes: Infinity,
      echoHeartbeatMs: 1_000,
      leaseMs: 2_000,
    },
  ]);
  issuer.check(i, room(10));
});

test("I2 the room is what may be outstanding in all; it is divided by demand, the rest max-min", () => {
  const i = open(["a", "b", "c", "d"], { toeMessages: 0 });
  issuer.heard(i, "a", 0, beat(0, 100));
  issuer.heard(i, "b", 0, beat(0, 2));
  issuer.heard(i, "c", 0, beat(0, 100));
  issuer.heard(i, "d", 0, beat(0, 0));
  expect(limits(issuer.issue(i, 0, room(20), "rise"))).toEqual({ a: 9, b: 2, c: 9, d: 0 });
  expect(issuer.outstanding(i).messages).toBe(20);
  expect(issuer.arrived(i, "b", 1, stamp(i, "b"), 2)).toMatchObject({ accepted: 2 });
  expect(issuer.issue(i, 1, room(18), "rise")).toEqual([]); // Two are stored, 18 are out.
  expect(limits(issuer.issue(i, 2, room(19), "rise"))).toEqual({ a: 10 });
  expect(issuer.issue(i, 3, room(5), "rise")).toEqual([]); // Less room takes nothing back (I1).
  expect(issuer.outstandingOf(i, "a").messages).toBe(10);
});

test("I3 what lies beyond the limit is refused, and never counted", () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 9 }), { maxLength: 30 }), (draws) => {
      const i = open(["a"]);
      let stored = 0;
      let now = 0;
      for (const draw of draws) {
        now += 10;
        issuer.heard(i, "a", now, beat(now, draw));
        issuer.issue(i, now, room(5 - stored));
        const { accepted } = issuer.arrived(i, "a", now, stamp(i, "a"), draw);
        stored += accepted;
        issuer.check(i, room(5 - stored));
        if (draw % 3 === 0) stored = Math.max(0, stored - 2);
      }
    }),
  );
});

test("C5 a batch is covered from the first on, in messages and in bytes; stale ones not at all", () => {
  const i = open(["a"], { toeMessages: 0, toeBytes: 0 });
  issuer.heard(i, "a", 0, beat(0, 4, { wantBytes: 300 }));
  issuer.issue(i, 0, room(100, 10_000));
  const now = stamp(i, "a");
  expect(issuer.arrived(i, "a", 5, now, 3, [100, 250, 10])).toMatchObject({ accepted: 1 });
  expect(issuer.outstanding(i)).toEqual({ messages: 1, bytes: 0 }); // Refused ones are used up, too.
  expect(issuer.arrived(i, "a", 5, { ...now, epoch: 0 }, 2)).toEqual({ accepted: 0, stale: true });
  expect(issuer.arrived(i, "x", 5, now, 2)).toEqual({ accepted: 0, stale: true });
  expect(issuer.view(i)).toMatchObject({ stale: 4, uncovered: 2 });
});

test("C3 at a bound of 1 the senders take turns", () => {
  const i = open(["a", "b", "c"]);
  const turns: string[] = [];
  for (let now = 0; turns.length < 9; now += 10) {
    for (const id of ["a", "b", "c"]) issuer.heard(i, id, now, beat(now, 50));
    for (const grant of issuer.issue(i, now, room(1))) {
      if (issuer.outstandingOf(i, grant.senderId).messages === 0) continue; // Names the epoch only.
      turns.push(grant.senderId);
      issuer.arrived(i, grant.senderId, now, stamp(i, grant.senderId), 1);
    }
  }
  expect(turns.join("")).toBe("abcabcabc");
});

test("C3 a small rise waits for an eighth of the lease, or for force; then the grant is repeated", () => {
  const i = open(["a"]);
  issuer.heard(i, "a", 0, beat(0, 1_000));
  expect(limits(issuer.issue(i, 0, room(800)))).toEqual({ a: 800 });
  expect(issuer.issueDue(i)).toBe(250);
  issuer.arrived(i, "a", 10, stamp(i, "a"), 15);
  expect(issuer.issue(i, 10, room(800))).toEqual([]); // 15 of 16.
  expect(issuer.issueDue(i)).toBe(250);
  expect(limits(issuer.issue(i, 11, room(800), "rise"))).toEqual({ a: 815 });
  expect(issuer.issueDue(i)).toBe(261);
  expect(issuer.issue(i, 260, room(800))).toEqual([]);
  expect(limits(issuer.issue(i, 261, room(800)))).toEqual({ a: 815 });
});

test("C2 a silent sender's credit comes back a lease, a quarter and a margin after the last grant", () => {
  const i = open(["a", "b"]);
  issuer.heard(i, "a", 0, beat(0, 10));
  issuer.issue(i, 0, room(10));
  for (let now = 500; now < 3_000; now += 250) {
    issuer.heard(i, "b", now, beat(now, 10));
    issuer.issue(i, now, room(10));
  }
  const until = i.book.accounts.get("a")!.untilMs; // Repeated while heard less than half a lease ago.
  expect(until).toBe(750 + 3_000);
  const before = stamp(i, "a");
  issuer.heard(i, "b", until, beat(until, 10));
  expect(limits(issuer.issue(i, until - 1, room(10)))).toEqual({});
  expect(limits(issuer.issue(i, until, room(10)))).toEqual({ b: 10 });
  expect(issuer.arrived(i, "a", until, before, 1).stale).toBe(true);
  expect(issuer.view(i).reclaims).toBe(1);
});

test("C2 a heartbeat from after the lease, with nothing under way, frees the credit at once", () => {
  const i = open(["a"]);
  issuer.heard(i, "a", 0, beat(0, 10));
  issuer.issue(i, 0, room(10));
  const { epoch } = stamp(i, "a");
  issuer.heard(i, "a", 1_500, beat(2_000, 1, { epoch, position: 2 })); // Two may still come.
  expect(issuer.outstanding(i).messages).toBe(10);
  issuer.heard(i, "a", 1_500, beat(2_000, 1, { epoch }));
  expect(issuer.outstanding(i).messages).toBe(0);
  expect(limits(issuer.issue(i, 1_500, room(10)))).toEqual({ a: 2 }); // The toe-hold: 10 / 4.
});

test("an idle sender that holds more than a toe-hold is not renewed; one that wants is", () => {
  for (const [want, until] of [
    [0, 3_000],
    [5, 4_000],
  ] as const) {
    const i = open(["a"]);
    issuer.heard(i, "a", 0, beat(0, 100));
    issuer.issue(i, 0, room(200));
    issuer.heard(i, "a", 1_000, beat(1_000, want, { epoch: stamp(i, "a").epoch }));
    issuer.issue(i, 1_000, room(200));
    expect(i.book.accounts.get("a")!.untilMs).toBe(until);
  }
});

test("a sender that comes again begins anew; its old credit stays reserved unless it is surely dead", () => {
  for (const sure of [true, false]) {
    const i = open(["a"]);
    issuer.heard(i, "a", 0, beat(0, 10));
    issuer.issue(i, 0, room(10));
    const old = stamp(i, "a");
    issuer.leave(i, "a", 100, sure);
    issuer.check(i, room(10));
    expect(issuer.arrived(i, "a", 100, old, 1).accepted).toBe(sure ? 0 : 1);
    issuer.join(i, "a", 200);
    expect(issuer.arrived(i, "a", 200, old, 1).stale).toBe(true);
    expect(issuer.outstandingOf(i, "a").messages).toBe(sure ? 0 : 9);
    issuer.heard(i, "a", 3_000, beat(0, 10));
    issuer.issue(i, 3_000, room(10));
    issuer.check(i, room(10));
    expect(issuer.outstandingOf(i, "a").messages).toBe(10);
  }
});

test("a sender that left holding nothing is forgotten, one that held something once its lease is over", () => {
  const i = open(["a", "b"]);
  issuer.heard(i, "a", 0, beat(0, 10));
  issuer.issue(i, 0, room(10));
  issuer.leave(i, "a", 1, false);
  issuer.leave(i, "b", 1, false);
  issuer.heard(i, "a", 2, beat(2, 10)); // Late, from the dead connection.
  issuer.issue(i, 2_999, room(10));
  expect(issuer.view(i).senders).toBe(1);
  issuer.issue(i, 3_000, room(10));
  expect(issuer.view(i)).toMatchObject({ senders: 0, messages: 0 });
});

test("contract takes unspent credit back at once, tells it once, and refuses what crosses it", () => {
  const i = open(["a"], { toeMessages: 0 });
  issuer.heard(i, "a", 0, beat(0, 10));
  issuer.issue(i, 0, room(10));
  const old = stamp(i, "a");
  issuer.arrived(i, "a", 1, old, 2);
  issuer.contract(i, "a", 1, 99); // Not more than it had.
  expect(issuer.outstanding(i).messages).toBe(8);
  issuer.contract(i, "a", 1, 3);
  expect(issuer.outstanding(i).messages).toBe(3);
  expect(issuer.issue(i, 1, room(3))).toMatchObject([{ limitMessages: 3, limitBytes: Infinity }]);
  expect(issuer.arrived(i, "a", 2, old, 1)).toMatchObject({ stale: true });
  issuer.contract(i, "a", 3, 0);
  expect(issuer.issue(i, 3, room(0))).toMatchObject([{ limitMessages: 0 }]);
  expect(issuer.issue(i, 4, room(0))).toEqual([]);
  issuer.arrived(i, "a", 5, old, 1); // It has not heard: the grant is repeated.
  issuer.heard(i, "a", 300, beat(300, 10, { epoch: old.epoch }));
  expect(issuer.issue(i, 300, room(0))).toMatchObject([{ limitMessages: 0 }]);
});

test("N2 a message larger than a fair part of the bytes is not starved by small ones", () => {
  const i = open(["big", "b", "c"], { toeMessages: 0, toeBytes: 0 });
  let [stored, bigs] = [0, 0];
  for (let now = 0; now < 5_000; now += 10) {
    issuer.heard(i, "big", now, beat(now, 9, { wantBytes: 8_100, headBytes: 900 }));
    for (const id of ["b", "c"]) issuer.heard(i, id, now, beat(now, 500, { headBytes: 10 }));
    issuer.issue(i, now, room(1_000, 1_000 - stored));
    for (const [id, size] of [
      ["big", 900],
      ["b", 10],
      ["c", 10],
    ] as const) {
      const held = issuer.outstandingOf(i, id);
      const count = Math.min(held.messages, Math.floor(held.bytes / size), 5);
      const sizes = Array.from({ length: count }, () => size);
      expect(issuer.arrived(i, id, now, stamp(i, id), count, sizes).accepted).toBe(count);
      stored += count * size;
      if (id === "big") bigs += count;
    }
    issuer.check(i, room(1_000, 1_000 - stored));
    stored = Math.max(0, stored - 30);
  }
  expect(bigs).toBeGreaterThan(5); // Of about 8 that half the drain would carry.
});

test("C1 bytes become limited, or unlimited, while senders hold credit", () => {
  const i = open(["a"]);
  issuer.heard(i, "a", 0, beat(0, 10));
  expect(issuer.issue(i, 0, room(20))).toMatchObject([{ epoch: 1, limitBytes: Infinity }]);
  expect(issuer.issue(i, 1, room(20, 5_000))).toMatchObject([{ epoch: 2, limitBytes: 1_250 }]);
  issuer.check(i, room(20, 5_000));
  expect(issuer.issue(i, 2, room(20))).toMatchObject([{ epoch: 2, limitBytes: Infinity }]);
  expect(issuer.outstanding(i).bytes).toBe(0);
});

test("G9 lag is measured by the receiver's clock alone", () => {
  const i = open(["a"]);
  issuer.heard(i, "a", 0, beat(99_000, 10));
  const grantId = issuer.issue(i, 1_000.5, room(10))[0]!.grantId;
  expect(issuer.arrived(i, "a", 1_080.5, stamp(i, "a", grantId, 50), 1).lagMs).toBeCloseTo(30, 2);
  expect(issuer.arrived(i, "a", 1_090, stamp(i, "a", grantId + 1, 50), 1).lagMs).toBeUndefined();
  expect(issuer.lag(i)).toMatchObject({ count: 1 });
});

function play(): unknown[] {
  const random = sequence(7);
  const i = open(["a", "b", "c", "d", "e"]);
  const told: unknown[] = [];
  for (let now = 0; now < 5_000; now += 10) {
    const id = "abcde"[Math.floor(5 * random())]!;
    issuer.heard(i, id, now, beat(now, Math.floor(40 * random())));
    told.push(...issuer.issue(i, now, room(60, 6_000)));
    issuer.arrived(i, id, now, stamp(i, id), 2, [70, 50]);
  }
  return told;
}

test("G8 the same events give the same grants", () => {
  const told = play();
  expect(told.length).toBeGreaterThan(100);
  expect(play()).toEqual(told);
});

test("C3 a thousand idle senders have no part in the rounds; any of them gets credit when it asks", () => {
  const idle = Array.from({ length: 1000 }, (_, k) => `idle${k}`);
  const i = open(["busy", ...idle]);
  for (const id of idle) issuer.heard(i, id, 0, beat(0, 0));
  issuer.issue(i, 0, room(100));
  for (let now = 500; now <= 2000; now += 500) {
    issuer.heard(i, "busy", now, beat(now, 100));
    issuer.issue(i, now, room(100));
  }
  expect(i.book.order.map(({ id }) => id)).toEqual(["busy"]);
  expect(issuer.outstandingOf(i, "busy").messages).toBe(100);
  expect(issuer.arrived(i, "busy", 2000, stamp(i, "busy"), 50)).toMatchObject({ accepted: 50 });
  issuer.heard(i, "idle7", 2001, beat(2001, 1));
  expect(limits(issuer.issue(i, 2001, room(100)))).toEqual({ idle7: 8 }); // And a toe-hold.
  issuer.check(i, room(100));
});

test("forced, all who want are told again, and those who want nothing are not", () => {
  const i = open(["idle", "wants"]);
  for (const [id, want] of [
    ["idle", 0],
    ["wants", 4],
  ] as const) {
    const { epoch } = i.book.accounts.get(id)!;
    issuer.heard(i, id, 0, beat(0, want, { epoch }));
  }
  issuer.issue(i, 0, room(100), "rise");
  expect(issuer.issue(i, 1, room(100), "rise")).toEqual([]);
  expect(limits(issuer.issue(i, 1, room(100), "all"))).toEqual({ wants: 8 });
});

test("C4 credit that lies idle is not renewed while another waits for its first, and comes to it", () => {
  const i = open(["idle", "waits"]);
  let atMs = 0;
  issuer.heard(i, "idle", 0, beat(0, 1));
  issuer.issue(i, 0, room(1));
  for (let now = 100; now <= 5000 && atMs === 0; now += 100) {
    const { epoch } = i.book.accounts.get("idle")!;
    issuer.heard(i, "idle", now, beat(now, 0, { epoch }));
    issuer.heard(i, "waits", now, beat(now, 1));
    issuer.issue(i, now, room(1));
    if (issuer.outstandingOf(i, "waits").messages > 0) atMs = now;
  }
  expect(atMs).toBeGreaterThanOrEqual(2000);
  expect(atMs).toBeLessThanOrEqual(3000);
});

test("whoever wants is served before anybody's toe-hold", () => {
  const i = open(["idle", "wants"], { toeMessages: 8 });
  issuer.heard(i, "idle", 0, beat(0, 0));
  issuer.heard(i, "wants", 0, beat(0, 20));
  issuer.issue(i, 0, room(20), "rise");
  expect(issuer.outstandingOf(i, "wants").messages).toBe(20);
  expect(issuer.outstandingOf(i, "idle").messages).toBe(0);
});

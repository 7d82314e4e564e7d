/**
 * Issuer and spenders on a wire that is the set of all grants and heartbeats ever sent: any of them may
 * arrive at any time, again or never. Sends keep their order until their connection is cut. Clocks run
 * at 0.5 to 1.5 of real time; connections, the receiver and its room change at random. After every
 * single event all invariants are checked. One seed is one history.
 */
import { expect, test } from "vitest";
import { assert, sequence, SpillwayError } from "../base/index.ts";
import type { Grant, Stamp } from "./frames.ts";
import * as issuer from "./issuer.ts";
import * as spender from "./spender.ts";

interface Options {
  readonly bound: number;
  readonly boundBytes?: number;
  readonly senders?: number;
  /** Only events that leave credit alone: no cut, no restart, no contraction. */
  readonly calm?: boolean;
  /** Canaries: a rule taken wrongly. */
  readonly granted?: (s: spender.Spender, nowMs: number, grant: Grant, raise: number) => boolean;
  readonly keepEpoch?: boolean;
}

interface Send {
  readonly stamp: Stamp;
  readonly sizes: readonly number[];
  readonly sentMs: number;
}

interface Sender {
  readonly id: string;
  readonly rate: number;
  readonly s: spender.Spender;
  grants: { readonly grant: issuer.IssuedGrant; readonly raise: number }[];
  beats: spender.Beat[];
  sends: Send[];
  /** Size of the message that waits. */
  next: number;
  accepted: number;
  refused: number;
  sent: number;
  lost: number;
  /** The latest epoch that was void before its lease was over, by a contraction or a cut. */
  voidEpoch: number;
}

const ttlMs = 2_000;

class World {
  now = 0;
  occupied: number[] = [];
  i: issuer.Issuer;
  readonly senders: Sender[];
  readonly #o: Options;
  readonly #random: () => number;
  /** Bytes that nobody could use are taken back early (N2). */
  readonly #mayTakeBack: boolean;
  #epochs = 1;

  constructor(options: Options, seed: number) {
    this.#o = options;
    this.#random = sequence(seed);
    this.#mayTakeBack = options.boundBytes !== undefined;
    this.i = issuer.init({ firstEpoch: this.#epochs, ttlMs }, this.now);
    this.senders = Array.from({ length: options.senders ?? 3 }, (_, k) => ({
      id: `s${k}`,
      rate: 0.5 + this.#random(),
      s: spender.init({ ttlMs }),
      grants: [],
      beats: [],
      sends: [],
      next: this.#size(),
      accepted: 0,
      refused: 0,
      sent: 0,
      lost: 0,
      voidEpoch: 0,
    }));
    for (const s of this.senders) issuer.join(this.i, s.id, this.now);
  }

  room(): { messages: number; bytes: number } {
    const bytes = this.#o.boundBytes ?? Infinity;
    return {
      messages: this.#o.bound - this.occupied.length,
      bytes: bytes - this.occupied.reduce((sum, size) => sum + size, 0),
    };
  }

  mine(x: Sender): number {
    return 500 + this.now * x.rate;
  }

  /** One event, drawn. */
  step(): void {
    const x = this.senders[this.#draw(this.senders.length)]!;
    const kind = this.#draw(40);
    if (kind < 6) this.beat(x, this.#draw(4));
    else if (kind < 12) this.hear(x, x.beats[this.#draw(x.beats.length)]);
    else if (kind < 18) this.issue(([undefined, undefined, "rise", "all"] as const)[this.#draw(4)]);
    else if (kind < 25) this.grant(x, x.grants[this.#draw(x.grants.length)]);
    else if (kind < 29) this.send(x, 1 + this.#draw(3));
    else if (kind < 33) this.arrive(x);
    else if (kind < 36) this.occupied.pop();
    else if (kind < 38)
      this.now += this.#draw(8) === 0 ? this.#random() * ttlMs : this.#random() * 300;
    else if (this.#o.calm !== true) this.#upset(x);
    this.check();
  }

  beat(x: Sender, want: number): void {
    const beat = spender.heartbeat(x.s, this.mine(x), want, want * x.next);
    x.beats.push(beat);
  }

  hear(x: Sender, beat: spender.Beat | undefined): void {
    if (beat !== undefined) this.#guard(() => issuer.heard(this.i, x.id, this.now, beat));
  }

  issue(force?: "rise" | "all"): void {
    const limits = this.senders.map((x) => this.i.book.accounts.get(x.id)!.limit);
    const grants = this.#guard(() => [...issuer.issue(this.i, this.now, this.room(), force)]);
    for (const grant of grants) {
      const k = this.senders.findIndex((x) => x.id === grant.senderId);
      const raise = Math.max(0, grant.limitMessages - limits[k]!);
      this.senders[k]!.grants.push({ grant: this.#rewrite(grant), raise });
    }
  }

  grant(x: Sender, heard: Sender["grants"][number] | undefined): void {
    if (heard === undefined) return;
    const take = this.#o.granted ?? spender.granted;
    take(x.s, this.mine(x), heard.grant, heard.raise);
    const before = JSON.stringify(x.s);
    take(x.s, this.mine(x), heard.grant, heard.raise);
    assert(JSON.stringify(x.s) === before, "C4 replaying a grant changes nothing");
  }

  send(x: Sender, messages: number): void {
    const sizes: number[] = [];
    while (sizes.length < messages && spender.canSpend(x.s, this.mine(x), x.next)) {
      spender.spend(x.s, this.mine(x), x.next);
      sizes.push(x.next);
      x.next = this.#size();
    }
    if (sizes.length === 0) return;
    x.sent += sizes.length;
    x.sends.push({ stamp: spender.stamp(x.s, this.mine(x)), sizes, sentMs: this.now });
  }

  arrive(x: Sender): void {
    const send = x.sends.shift();
    if (send === undefined) return;
    const { stamp, sizes, sentMs } = send;
    const bytes = this.#o.boundBytes === undefined ? undefined : sizes;
    const { accepted } = issuer.arrived(this.i, x.id, this.now, stamp, sizes.length, bytes);
    this.occupied.push(...sizes.slice(0, accepted));
    x.accepted += accepted;
    x.refused += sizes.length - accepted;
    if (this.#mayTakeBack || x.rate < 0.8 || stamp.epoch <= x.voidEpoch || this.now - sentMs > 500)
      return;
    assert(accepted === sizes.length, "C1 what live credit sent is never refused");
  }

  /** Everything that must hold between any two events. */
  check(): void {
    assert(this.occupied.length <= this.#o.bound, "C1 occupied <= bound");
    issuer.check(this.i, this.room());
    for (const x of this.senders) {
      spender.check(x.s);
      assert(x.sent === x.accepted + x.refused + x.lost + inFlight(x), "C5 no message is skipped");
      const a = this.i.book.accounts.get(x.id)!;
      const live = spender.available(x.s, this.mine(x)).messages > 0;
      if (x.s.epoch === a.epoch) {
        assert(x.s.limit <= a.limit, "C1 live credit is backed by a reservation");
        assert(x.s.position === a.got + inFlight(x, a.epoch), "C5 positions agree");
      } else if (live && !this.#mayTakeBack && x.rate >= 0.8 && x.s.epoch > x.voidEpoch) {
        assert(false, "C2 no lease outlives its reservation");
      }
    }
  }

  /** A good wire: everybody wants one more, hears and sends; the consumer takes what comes. */
  recover(rounds: number): void {
    for (let round = 0; round < rounds; round++) {
      this.now += 100;
      for (const x of this.senders) {
        if (spender.heartbeatDue(x.s, this.mine(x), true) <= this.mine(x)) {
          this.beat(x, 1);
          this.hear(x, x.beats.at(-1));
        }
      }
      const known = this.senders.map((x) => x.grants.length);
      this.issue();
      this.senders.forEach((x, k) => {
        for (const heard of x.grants.slice(known[k])) this.grant(x, heard);
        this.send(x, 1);
        while (x.sends.length > 0) this.arrive(x);
      });
      this.check();
      this.occupied.length = 0;
    }
  }

  #upset(x: Sender): void {
    const kind = this.#draw(4);
    if (kind === 0) issuer.contract(this.i, x.id, this.now, this.#draw(2));
    else if (kind === 1) this.#cut(x, this.#draw(2) === 0);
    else if (kind === 2 && this.#draw(3) === 0) {
      this.#epochs += 1_000;
      this.i = issuer.init({ firstEpoch: this.#epochs, ttlMs }, this.now);
      for (const y of this.senders) this.#cut(y, true);
    }
    for (const y of this.senders) y.voidEpoch = this.i.book.epoch;
  }

  #cut(x: Sender, sure: boolean): void {
    if (this.#draw(2) === 0) issuer.leave(this.i, x.id, this.now, sure);
    issuer.join(this.i, x.id, this.now);
    spender.reset(x.s);
    x.lost += inFlight(x);
    x.sends = [];
    x.beats = [];
  }

  /** Bytes of a message: up to half of the bound, so that few fit. */
  #size(): number {
    return 1 + Math.floor((this.#random() * (this.#o.boundBytes ?? 100)) / 2);
  }

  #draw(below: number): number {
    return Math.floor(this.#random() * below);
  }

  /** The canary of reclaim without an epoch: positions go on and the old epoch stays. */
  #guard<T>(call: () => T): T {
    if (this.#o.keepEpoch !== true) return call();
    const accounts = [...this.i.book.accounts.values()];
    const before = accounts.map((a) => ({ epoch: a.epoch, got: a.got }));
    const result = call();
    accounts.forEach((a, k) => {
      const old = before[k]!;
      if (a.epoch === old.epoch) return;
      this.#rewritten.set(a.epoch, old);
      a.epoch = old.epoch;
      a.got += old.got;
      a.limit += old.got;
      a.told += old.got;
      a.wantTo += old.got;
    });
    return result;
  }

  readonly #rewritten = new Map<number, { epoch: number; got: number }>();

  #rewrite(grant: issuer.IssuedGrant): issuer.IssuedGrant {
    const old = this.#rewritten.get(grant.epoch);
    if (old === undefined) return grant;
    return { ...grant, epoch: old.epoch, limitMessages: grant.limitMessages + old.got };
  }
}

function inFlight(x: Sender, epoch?: number): number {
  const sends = x.sends.filter((send) => epoch === undefined || send.stamp.epoch === epoch);
  return sends.reduce((sum, send) => sum + send.sizes.length, 0);
}

/** @returns The invariant that the first bad history breaks, with its seed; undefined if none does. */
function firstBreak(options: Options, seeds: number, steps = 150): string | undefined {
  for (let seed = 1; seed <= seeds; seed++) {
    const world = new World(options, seed);
    try {
      for (let step = 0; step < steps; step++) world.step();
      const before = world.senders.map((x) => x.accepted);
      world.recover(100);
      const stuck = world.senders.findIndex((x, k) => x.accepted - before[k]! < 3);
      assert(stuck === -1, "C3 who wants is served while there is room");
    } catch (error) {
      if (!(error instanceof SpillwayError)) throw error;
      return `${String(error.details["invariant"])} (seed ${seed})`;
    }
  }
  return undefined;
}

for (const bound of [1, 2, 3, 7]) {
  test(`I1-I3 and C1-C5 hold for a bound of ${bound}, whatever the wire does`, () => {
    expect(firstBreak({ bound }, 400)).toBeUndefined();
    expect(firstBreak({ bound, calm: true }, 200)).toBeUndefined();
  });
}

test("I1-I3 and C1-C5 hold for bounds in bytes that take two messages at once (N2)", () => {
  expect(firstBreak({ bound: 50, boundBytes: 1_000 }, 300)).toBeUndefined();
  expect(firstBreak({ bound: 2, boundBytes: 50, senders: 5 }, 200)).toBeUndefined();
});

// Canaries: each rule is taken wrongly, here only, and the check that guards it has to say so.

function adding(s: spender.Spender, nowMs: number, grant: Grant, raise: number): boolean {
  const before = grant.epoch === s.epoch ? s.limit : 0;
  const more = spender.granted(s, nowMs, grant);
  if (grant.epoch === s.epoch) s.limit = before + raise;
  return more;
}

function leasedFromReceipt(s: spender.Spender, nowMs: number, grant: Grant): boolean {
  return spender.granted(s, nowMs, { ...grant, echoHeartbeatMs: nowMs });
}

test("canary: credit that adds instead of setting breaks C4", () => {
  expect(firstBreak({ bound: 3, granted: adding }, 400)).toMatch(
    /^C4 replaying a grant changes nothing/,
  );
});

test("canary: a lease that runs from the grant's arrival breaks C2", () => {
  const broken = firstBreak({ bound: 3, granted: leasedFromReceipt }, 400);
  expect(broken).toMatch(/^C2 a lease runs from an own heartbeat/);
});

test("canary: reclaim without a new epoch revives credit that was given to others (C1)", () => {
  const broken = firstBreak({ bound: 3, calm: true, keepEpoch: true }, 400);
  expect(broken).toMatch(/^C1 live credit is backed by a reservation/);
});

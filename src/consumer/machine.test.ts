import fc from "fast-check";
import { expect, test } from "vitest";
import type { Verdict } from "../flow/index.ts";
import { spender } from "../protocol/index.ts";
import type { ConsumerFrame, Delivered, Settlement, Spender } from "../protocol/index.ts";
import { TargetMachine } from "./machine.ts";
import type { Run, TargetEffect, TargetOptions } from "./machine.ts";

const base: TargetOptions = {
  name: "target",
  window: { start: 4, min: 1, max: 40 },
  creditLeaseMs: 2000,
  seed: 1,
};
const fixed = (size: number): TargetOptions["window"] => ({
  start: 4,
  min: 1,
  max: 40,
  fixed: size,
});

/** The queue's end of a stream: what it has, what it sent, and what came of it. */
class Queue {
  readonly id: string;
  readonly spender: Spender = spender.init();
  /** Deliveries that wait for credit. */
  backlog = 0;
  readonly settlements: Settlement[] = [];
  #seq = 0;

  constructor(id: string) {
    this.id = id;
  }

  next(): Delivered {
    this.#seq++;
    return {
      partition: 0,
      seq: this.#seq,
      attempt: 1,
      class: "normal",
      cost: 1,
      acceptedAtMs: 0,
      leaseMs: 30_000,
      headers: new Uint8Array(0),
      payload: new Uint8Array(0),
    };
  }
}

class World {
  readonly machine: TargetMachine;
  readonly queues: Queue[];
  nowMs = 1_000_000;
  readonly runs: Run[] = [];
  /** How often each run ended. */
  readonly ends = new Map<Run, number>();
  readonly breaker: string[] = [];
  delivered = 0;

  constructor(options: Partial<TargetOptions> = {}, queues = 2) {
    this.machine = new TargetMachine({ ...base, ...options }, this.nowMs);
    this.queues = Array.from({ length: queues }, (_, at) => new Queue(`q${at}`));
    for (const { id } of this.queues) {
      this.machine.queueJoined(id, this.nowMs);
      this.machine.setDemand(id, Infinity, this.nowMs);
    }
  }

  /** What the queue's machine does in a turn: it spends what it may, and says what it wants. */
  push(queue: Queue): void {
    const messages: Delivered[] = [];
    while (queue.backlog > 0 && spender.canSpend(queue.spender, this.nowMs, 0)) {
      spender.spend(queue.spender, this.nowMs, 0);
      queue.backlog--;
      messages.push(queue.next());
    }
    const stamp = spender.stamp(queue.spender, this.nowMs);
    const beat = spender.heartbeat(queue.spender, this.nowMs, queue.backlog, 0);
    const before = this.runs.length;
    if (messages.length === 0) {
      this.machine.frame(queue.id, { kind: "want", beat }, this.nowMs);
      return;
    }
    this.machine.frame(queue.id, { kind: "deliver", stamp, messages, beat }, this.nowMs);
    this.#take();
    this.delivered += this.runs.length - before;
  }

  end(at: number, verdict: Verdict): void {
    const [run] = this.runs.splice(at % Math.max(1, this.runs.length), 1);
    if (run === undefined) return;
    expect(this.machine.settle(run, verdict, this.nowMs)).toBe(true);
    this.#ended(run);
    expect(this.machine.settle(run, verdict, this.nowMs), "T3 once").toBe(false);
  }

  lose(at: number): void {
    const run = this.runs[at % Math.max(1, this.runs.length)];
    if (run === undefined) return;
    const { partition, seq, attempt } = run.delivered;
    this.machine.frame(run.queue, { kind: "lost", partition, seq, attempt }, this.nowMs);
    this.#take();
  }

  turn(): void {
    this.machine.turn(this.nowMs);
    this.#take();
    this.check();
  }

  #ended(run: Run): void {
    const ends = (this.ends.get(run) ?? 0) + 1;
    this.ends.set(run, ends);
    expect(ends, "T3 a delivery ends once").toBe(1);
  }

  #take(): void {
    for (const effect of this.machine.take()) this.#carryOut(effect);
  }

  #carryOut(effect: TargetEffect): void {
    switch (effect.kind) {
      case "run":
        this.runs.push(effect.run);
        break;
      case "lost":
        this.runs.splice(this.runs.indexOf(effect.run), 1);
        this.#ended(effect.run);
        break;
      case "breaker":
        this.breaker.push(effect.to);
        break;
      case "confirmed":
      case "unconfirmed":
        break;
      case "frame":
        this.#frame(
          this.queues.find(({ id }) => id === effect.queue)!,
          effect.frame,
        );
        break;
    }
  }

  #frame(queue: Queue, frame: ConsumerFrame): void {
    if (frame.kind === "credit") spender.granted(queue.spender, this.nowMs, frame.grant);
    if (frame.kind === "settle") queue.settlements.push(...frame.settlements);
  }

  credit(queue: Queue): number {
    return spender.available(queue.spender, this.nowMs).messages;
  }

  check(): void {
    this.machine.check();
    const { window, inFlight } = this.machine.view();
    expect(inFlight).toBe(this.runs.length);
    const out = this.queues.reduce((sum, queue) => sum + this.credit(queue), 0);
    expect(out, "T1 credit <= window - in flight").toBeLessThanOrEqual(
      Math.max(0, window.limit - inFlight),
    );
  }
}

const verdicts: readonly Verdict[] = [
  { kind: "ack" },
  { kind: "ack" },
  { kind: "ack" },
  { kind: "nack", error: "no" },
  { kind: "nack", error: "away", fault: "target" },
  { kind: "release" },
  { kind: "release", overload: true, delayMs: 100 },
  { kind: "term", reason: "bad" },
];
const moves = fc.array(fc.tuple(fc.nat(29), fc.nat(99), fc.nat(99)), {
  minLength: 50,
  maxLength: 200,
  size: "max",
});

function move(world: World, [kind, a, b]: readonly [number, number, number]): void {
  const queue = world.queues[a % world.queues.length]!;
  if (kind < 5) queue.backlog += b % 7;
  else if (kind < 11) world.push(queue);
  else if (kind < 17) world.turn();
  else if (kind < 23) world.end(a, verdicts[b % verdicts.length]!);
  else if (kind === 23) world.lose(a);
  else if (kind < 26) world.nowMs += b * (kind === 24 ? 5 : 100);
  else if (kind === 26) {
    world.machine.setDemand(queue.id, b % 3 === 0 ? Infinity : b % 5, world.nowMs);
  } else if (kind === 27) world.machine.published(b % 2 === 0 ? null : 1 + (b % 6));
  else if (kind === 28 && b % 4 === 0) {
    world.machine.change({ window: b % 8 === 0 ? base.window : fixed(1 + (b % 9)) }, world.nowMs);
  }
}

test.each([
  ["an adaptive window", {}],
  ["a fixed window", { window: fixed(5) }],
  ["a rate limit", { rate: { perSecond: 20, burst: 3 } }],
] as const)("T1 and T3 hold, and everything is delivered in the end: %s", (_name, options) => {
  fc.assert(
    fc.property(moves, (history) => {
      const world = new World(options);
      for (const each of history) {
        move(world, each);
        world.machine.check();
      }
      for (const { id } of world.queues) world.machine.setDemand(id, Infinity, world.nowMs);
      world.machine.published(null);
      const left = (): number => world.queues.reduce((sum, { backlog }) => sum + backlog, 0);
      for (let turns = 0; left() + world.runs.length > 0; turns++) {
        expect(turns, "G11").toBeLessThan(4000);
        while (world.runs.length > 0) world.end(0, { kind: "ack" });
        world.turn();
        const dueMs = (queue: Queue): number =>
          spender.heartbeatDue(queue.spender, world.nowMs, queue.backlog > 0);
        for (const queue of world.queues) {
          if (world.credit(queue) > 0 || dueMs(queue) <= world.nowMs) world.push(queue);
        }
        world.turn();
        if (world.runs.length > 0) continue;
        const wakeMs = world.machine.nextWakeAtMs(world.nowMs);
        const beatMs = Math.min(...world.queues.map(dueMs));
        world.nowMs = Math.max(world.nowMs + 1, Math.min(wakeMs, beatMs));
      }
    }),
    { numRuns: 80, endOnFailure: true },
  );
});

/** Lets both ends talk until nothing changes. */
function settleDown(world: World): void {
  for (let round = 0; round < 4; round++) {
    for (const queue of world.queues) world.push(queue);
    world.turn();
  }
}

test("T1 a window that shrinks takes unspent credit back", () => {
  const world = new World({ window: fixed(10) }, 1);
  const [queue] = world.queues as [Queue];
  queue.backlog = 4;
  settleDown(world);
  expect(world.runs).toHaveLength(4);
  queue.backlog = 6;
  const beat = spender.heartbeat(queue.spender, world.nowMs, 6, 0);
  world.machine.frame(queue.id, { kind: "want", beat }, world.nowMs);
  world.turn();
  expect(world.credit(queue)).toBe(6);
  world.machine.change({ window: fixed(5) }, world.nowMs);
  world.turn();
  expect(world.credit(queue)).toBe(1);
});

test("T1 what the target says of its rate, its capacity and its return bounds the credit, and outlives a change", () => {
  const world = new World({ window: fixed(10), rate: { perSecond: 1000, burst: 20 } }, 1);
  const [queue] = world.queues as [Queue];
  queue.backlog = 100;
  const runningAfter = (ms: number): number => {
    world.nowMs += ms;
    settleDown(world);
    return world.runs.length;
  };
  const endAll = (): void => {
    while (world.runs.length > 0) world.end(0, { kind: "ack" });
  };
  world.machine.published(4);
  expect(runningAfter(1)).toBe(4);
  world.machine.change({ window: fixed(20) }, world.nowMs);
  endAll();
  expect(runningAfter(1)).toBe(4);
  world.machine.published(null);
  endAll();
  expect(runningAfter(1)).toBeGreaterThan(10);
  world.machine.publishedRate(2, world.nowMs);
  world.machine.change({ window: fixed(20) }, world.nowMs);
  endAll();
  expect(runningAfter(1000)).toBe(1); // A burst of one.
  endAll();
  expect(runningAfter(100)).toBe(0);
  expect(runningAfter(500)).toBe(1);
  world.machine.publishedRate(null, world.nowMs);
  world.machine.publishedPause(5000, world.nowMs);
  endAll();
  expect(runningAfter(4900)).toBe(0);
  expect(runningAfter(1000)).toBeGreaterThan(1);
});

test("T2 what comes without live credit goes back untried, and is not run", () => {
  const world = new World({ window: fixed(2) }, 1);
  const [queue] = world.queues as [Queue];
  queue.backlog = 2;
  settleDown(world);
  const stamp = spender.stamp(queue.spender, world.nowMs);
  const beat = spender.heartbeat(queue.spender, world.nowMs, 0, 0);
  const messages = [queue.next()];
  world.machine.frame(queue.id, { kind: "deliver", stamp, messages, beat }, world.nowMs);
  world.turn();
  expect(world.runs).toHaveLength(2);
  expect(queue.settlements).toMatchObject([{ seq: 3, verdict: { kind: "release" } }]);
});

test("T3 a settle after the lease has ended changes nothing", () => {
  const world = new World({}, 1);
  const [queue] = world.queues as [Queue];
  queue.backlog = 1;
  settleDown(world);
  const [run] = world.runs as [Run];
  world.lose(0);
  expect(run.state).toBe("lost");
  expect(world.machine.settle(run, { kind: "ack" }, world.nowMs)).toBe(false);
  world.turn();
  expect(queue.settlements).toEqual([]);
});

test("T4 while the target is away its failures cost no attempt", () => {
  const world = new World({ window: fixed(40) }, 1);
  const [queue] = world.queues as [Queue];
  queue.backlog = 40;
  settleDown(world);
  while (world.runs.length > 0) world.end(0, { kind: "nack", error: "away", fault: "target" });
  world.turn();
  const kinds = queue.settlements.map(({ verdict }) => verdict.kind);
  expect(world.breaker).toEqual(["open"]);
  expect(kinds.indexOf("release")).toBeGreaterThan(0);
  expect(kinds.lastIndexOf("nack")).toBe(kinds.indexOf("release") - 1);
});

test("one probe at a time is out, whatever else comes back meanwhile", () => {
  const world = new World({ window: fixed(40) }, 1);
  const [queue] = world.queues as [Queue];
  queue.backlog = 30;
  settleDown(world);
  while (world.runs.length > 2) world.end(0, { kind: "nack", error: "away", fault: "target" });
  queue.backlog = 9;
  world.nowMs += 1500;
  settleDown(world);
  expect(world.runs).toHaveLength(3);
  world.nowMs += 1;
  world.end(0, { kind: "release" });
  world.end(0, { kind: "term", reason: "bad" });
  settleDown(world);
  expect(world.runs, "the probe, and no other").toHaveLength(1);
});

test("several queues share a target: who wants nothing holds nothing, and the others have it all", () => {
  const world = new World({ window: fixed(12) }, 3);
  const [first, second, third] = world.queues as [Queue, Queue, Queue];
  for (const queue of world.queues) queue.backlog = 50;
  settleDown(world);
  const held = (queue: Queue): number =>
    world.runs.filter(({ queue: id }) => id === queue.id).length;
  expect([held(first), held(second), held(third)]).toEqual([4, 4, 4]);
  first.backlog = 0;
  for (let round = 0; round < 30; round++) {
    world.end(0, { kind: "ack" });
    settleDown(world);
    expect(world.credit(first)).toBe(0);
  }
  expect([held(first), held(second) + held(third)]).toEqual([0, 12]);
});

test("demand-driven: a puller gets as many as it asks for, and no more", () => {
  const world = new World({ window: fixed(12) }, 1);
  const [queue] = world.queues as [Queue];
  world.machine.setDemand(queue.id, 0, world.nowMs);
  queue.backlog = 50;
  settleDown(world);
  expect(world.runs).toHaveLength(0);
  world.machine.setDemand(queue.id, 3, world.nowMs);
  settleDown(world);
  expect(world.runs).toHaveLength(3);
  settleDown(world);
  expect(world.runs).toHaveLength(3);
});

test("credit that a queue does not want any more is another's at once", () => {
  const world = new World({ window: fixed(6) }, 2);
  const [first, second] = world.queues as [Queue, Queue];
  const want = (queue: Queue, count: number): void => {
    const beat = spender.heartbeat(queue.spender, world.nowMs, count, 0);
    world.machine.frame(queue.id, { kind: "want", beat }, world.nowMs);
    world.turn();
  };
  want(first, 6);
  expect(world.credit(first)).toBe(6);
  want(first, 0);
  expect(world.credit(first)).toBe(0);
  want(second, 6);
  expect(world.credit(second)).toBe(6);
});

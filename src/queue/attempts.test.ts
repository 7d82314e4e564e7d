/** How an attempt begins and ends: one history for each invariant, step by step. */
import { expect, test } from "vitest";
import { out, runOf, store, world } from "../../test/support/small-flow.ts";

test("P1 one write at a time; what comes meanwhile is merged into the next", () => {
  const flow = world({ order: "none" });
  flow.send("p0", 0, {});
  flow.turn();
  flow.grant("c0");
  for (let at = 0; at < 3; at++) {
    flow.send("p0", 0, {});
    flow.turn();
  }
  expect(flow.writes).toHaveLength(1);
  flow.answer(flow.writes[0]!);
  flow.turn();
  expect(flow.writes).toHaveLength(1);
  expect(flow.writes[0]!.write.appends).toHaveLength(3);
});

test("P2 a message stays in the books until its end is durable", () => {
  const flow = world();
  store(flow, {});
  flow.pump();
  flow.settle(runOf(flow, 1), { kind: "ack" });
  flow.turn();
  expect(flow.machine.stored().messages).toBe(1);
  expect(flow.settledFrames).toEqual([]);
  flow.settleStore();
  expect(flow.machine.stored().messages).toBe(0);
  expect(flow.settledFrames).toMatchObject([{ seq: 1, effective: true }]);
});

test("P3 the next of a key starts in the write that carries the verdict on the one before", () => {
  const flow = world();
  store(flow, { keyHash: 1 }, { keyHash: 1 });
  flow.pump();
  expect(out(flow)).toEqual([1]);
  flow.settle(runOf(flow, 1), { kind: "ack" });
  flow.turn();
  expect(flow.writes[0]!.write.changes).toEqual([
    { seq: 1, kind: "ack" },
    { seq: 2, kind: "started" },
  ]);
  expect(out(flow)).toEqual([]);
});

test("P3 a retry keeps its place before the others of its key", () => {
  const flow = world();
  store(flow, { keyHash: 1 }, { keyHash: 1 });
  flow.pump();
  flow.settle(runOf(flow, 1), { kind: "nack", error: "no" });
  flow.pump();
  expect(out(flow)).toEqual([]);
  flow.nowMs += 2000;
  flow.pump();
  expect(out(flow)).toEqual([1]);
});

test("M2 an attempt ends once: a second verdict, and one after the lease, change nothing", () => {
  const flow = world();
  store(flow, {});
  flow.pump();
  const run = runOf(flow, 1);
  flow.nowMs += 2000;
  flow.turn();
  expect(out(flow), "its lease is over").toEqual([]);
  flow.says("c0", {
    kind: "settle",
    settlements: [
      { partition: 0, seq: 1, attempt: 1, verdict: { kind: "ack" }, durationMs: 1, confirm: true },
    ],
  });
  flow.settleStore();
  expect(flow.settledFrames).toMatchObject([{ seq: 1, attempt: 1, effective: false }]);
  expect(flow.machine.stored().messages).toBe(1);
  flow.nowMs += 2000;
  flow.pump();
  const again = runOf(flow, 1);
  expect(again.delivered.attempt).toBe(2);
  flow.settle(run, { kind: "ack" });
  flow.settle(again, { kind: "ack" });
  flow.settle(again, { kind: "nack", error: "no" });
  flow.turn();
  flow.settleStore();
  expect(flow.settledFrames.slice(1)).toMatchObject([
    { attempt: 1, effective: false },
    { attempt: 2, effective: false },
    { attempt: 2, effective: true },
  ]);
  expect(flow.machine.view(flow.nowMs).counters).toMatchObject({
    accepted: 1,
    acked: 1,
    pending: 0,
  });
});

test("M2 what a consumer had when it left counts as failed, and is tried again", () => {
  const flow = world();
  store(flow, {});
  flow.pump();
  expect(out(flow)).toEqual([1]);
  flow.leaveConsumer("c0");
  flow.joinConsumer("c1");
  flow.nowMs += 2000;
  flow.pump();
  expect(runOf(flow, 1).delivered.attempt).toBe(2);
});

test("M3 suspects run one at a time, and a third crash ends one", () => {
  const flow = world({ retry: { attempts: 12 } });
  store(flow, { keyHash: 1 }, { keyHash: 2 }, { keyHash: 3 });
  flow.pump();
  expect(out(flow)).toEqual([1, 2, 3]);
  flow.begin();
  flow.pump(6);
  expect(out(flow)).toEqual([1]);
  flow.settle(runOf(flow, 1), { kind: "ack" });
  flow.pump(6);
  expect(out(flow)).toEqual([2]);
  flow.begin();
  flow.pump(6);
  expect(runOf(flow, 2).delivered.attempt).toBe(3);
  flow.facts.length = 0;
  flow.begin();
  flow.drainAll();
  const dead = flow.facts.filter(({ kind }) => kind === "dead");
  expect(dead).toMatchObject([{ seq: 2, reason: "crash_suspect" }]);
});

test("M3 a suspect whose partition stops holds up no other", () => {
  const flow = world({ partitions: 2 });
  for (const partition of [0, 1]) flow.send("p0", partition, {});
  flow.turn();
  flow.settleStore();
  flow.pump();
  expect(flow.runs).toHaveLength(2);
  flow.begin();
  flow.pump(6);
  expect(flow.runs).toHaveLength(1);
  flow.stop(flow.runs[0]!.delivered.partition);
  flow.pump(6);
  expect(flow.runs).toHaveLength(1);
  flow.drainAll();
});

test("M4 and R1 retries take tokens: beyond them they wait, and then go in the order of due times", () => {
  const flow = world({ order: "none", retry: { attempts: 3, delay: [100, 100] } }, 40);
  store(flow, ...Array.from({ length: 20 }, () => ({})));
  flow.pump(20);
  for (const run of flow.runs) flow.settle(run, { kind: "nack", error: "no" });
  flow.pump(4);
  flow.nowMs += 500;
  flow.pump(20);
  // Ten tokens are kept, a first attempt earns a tenth.
  expect(flow.runs.length).toBeGreaterThanOrEqual(10);
  expect(flow.runs.length).toBeLessThanOrEqual(13);
  flow.drainAll();
});

test("D1 and D2 a paused partition is passed over, and what it had ready comes back with it", () => {
  const flow = world({ partitions: 2, order: "none" }, 10);
  for (let at = 0; at < 8; at++) flow.send("p0", at % 2, {});
  flow.machine.pause(0);
  flow.turn();
  flow.settleStore();
  flow.pump(12);
  expect(flow.runs.map(({ delivered }) => delivered.partition)).toEqual([1, 1, 1, 1]);
  flow.machine.resume(0);
  flow.pump(12);
  expect(flow.runs).toHaveLength(8);
});

test("V1 nothing goes out on credit whose lease is over, and new credit is asked for", () => {
  const flow = world();
  store(flow, {});
  flow.pump(1);
  flow.grant("c0");
  flow.nowMs += 2001;
  flow.turn();
  flow.settleStore();
  flow.turn();
  expect(out(flow)).toEqual([]);
  flow.pump();
  expect(out(flow)).toEqual([1]);
});

test("V4 working extends a lease; without it the attempt ends as failed", () => {
  const flow = world();
  store(flow, {}, {});
  flow.pump();
  flow.nowMs += 1900;
  flow.says("c0", { kind: "working", partition: 0, seq: 1, attempt: 1, extendMs: 5000 });
  flow.nowMs += 200;
  flow.turn();
  expect(out(flow)).toEqual([1]);
  expect(flow.facts.filter(({ kind }) => kind === "leaseEnded")).toMatchObject([{ seq: 2 }]);
  flow.nowMs += 5000;
  flow.turn();
  expect(out(flow)).toEqual([]);
});

test("an owner that closes takes back every attempt that no handler has", () => {
  const flow = world({ order: "none" }, 1);
  store(flow, {}, {}, {}, {});
  flow.pump();
  flow.send("p0", 0, {});
  flow.turn();
  expect(out(flow)).toEqual([1]);
  flow.machine.close();
  for (let round = 0; round < 4; round++) {
    flow.turn();
    flow.settleStore();
  }
  flow.settle(runOf(flow, 1), { kind: "ack" });
  for (let round = 0; round < 4; round++) {
    flow.turn();
    flow.settleStore();
  }
  expect(flow.machine.isIdle).toBe(true);
  expect(flow.stores[0]!.claim("next").interrupted).toEqual([]);
});

test("an owner that closes takes back what was being started", () => {
  const flow = world();
  store(flow, {});
  flow.pump();
  flow.settle(runOf(flow, 1), { kind: "ack" });
  flow.send("p0", 0, {});
  flow.turn();
  expect(flow.writes[0]!.write.appends).toMatchObject([{ started: true }]);
  flow.machine.close();
  flow.settleStore();
  flow.turn();
  flow.settleStore();
  expect(flow.machine.isIdle).toBe(true);
  expect(flow.stores[0]!.claim("next").interrupted).toEqual([]);
});

test("after an outage what is fresh gets a share of its own, and the backlog the rest", () => {
  const flow = world({ order: "none", buffer: { messages: 400 }, readAhead: 1000 }, 4);
  for (let at = 0; at < 100; at++) {
    flow.send("p0", 0, {});
    if (at % 8 === 7) {
      flow.turn();
      flow.settleStore();
    }
  }
  flow.pump(12);
  const outBefore = new Set(out(flow));
  flow.says("c0", { kind: "recovered" });
  for (let at = 0; at < 20; at++) {
    flow.send("p0", 0, {});
    flow.turn();
    flow.settleStore();
  }
  const order: number[] = [];
  for (let end = 0; end < 40; end++) {
    flow.nowMs += 5;
    const run = flow.runs[0]!;
    if (!outBefore.has(run.delivered.seq)) order.push(run.delivered.seq);
    flow.settle(run, { kind: "ack" });
    flow.pump();
  }
  const fresh = order.filter((seq) => seq > 100).length;
  expect(fresh).toBeGreaterThan(5);
  expect(order.length - fresh).toBeGreaterThan(2);
  flow.drainAll();
});

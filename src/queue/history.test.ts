/** Histories that broke the machine once, and those that each invariant names. */
import { expect, test } from "vitest";
import { MachineHarness } from "../../test/support/machine-harness.ts";
import type { Run } from "../../test/support/machine-harness.ts";

function world(
  more: ConstructorParameters<typeof MachineHarness>[0] = {},
  window = 3,
): MachineHarness {
  return new MachineHarness(
    {
      partitions: 1,
      order: "key",
      buffer: { messages: 60 },
      classes: { critical: 1, normal: 1, bulk: 1 },
      retry: { attempts: 3, delay: [100, 1000] },
      lease: 2000,
      ...more,
    },
    window,
  );
}

function runOf(of: MachineHarness, seq: number): Run {
  const run = of.runs.find(({ delivered }) => delivered.seq === seq);
  expect(run, `${seq} is out`).toBeDefined();
  return run!;
}

function out(of: MachineHarness): number[] {
  return of.runs.map(({ delivered }) => delivered.seq).toSorted((a, b) => a - b);
}

function isSeq(row: unknown, seq: number): boolean {
  return (row as { readonly seq: number }).seq === seq;
}

function store(of: MachineHarness, ...sent: Parameters<MachineHarness["send"]>[2][]): void {
  for (const each of sent) expect(of.send("p0", 0, each)).toBe(true);
  of.turn();
  of.settleStore();
}

test("L1 a message whose delay has passed when it is stored, and that finds no place, comes", () => {
  const flow = world({ order: "none" });
  for (let at = 0; at < 6; at++) flow.send("p0", 0, {});
  flow.send("p0", 0, { delayMs: 5 });
  flow.nowMs += 10;
  flow.turn();
  flow.settleStore();
  flow.check();
  flow.drainAll();
});

test.each([
  ["is on its way to the store", false],
  ["has become durable since the read began", true],
])("L1 a follower is found though its head has ended here and that %s", (_name, isDurable) => {
  const flow = world({ readAhead: 1 });
  store(flow, { keyHash: 1, class: "critical" });
  flow.pump();
  // While these are being written the head ends; its lane has no room for the follower.
  flow.machine.pause();
  for (const sent of [{}, {}, { keyHash: 1 }]) flow.send("p0", 0, sent);
  flow.turn();
  const [write] = flow.writes;
  flow.settle(runOf(flow, 1), { kind: "ack" });
  flow.answer(write!);
  flow.machine.resume();
  for (let round = 0; round < 4; round++) {
    flow.turn();
    const [read] = flow.readsOf("scan");
    if (read === undefined) continue;
    flow.show(read);
    const shows = (read.rows as { seq: number }[]).map(({ seq }) => seq);
    if (isDurable && shows.includes(4)) for (const ack of flow.writes.slice()) flow.answer(ack);
    flow.advance(read);
    flow.check();
  }
  flow.drainAll();
});

test("L1 a letter redriven while an older read is on its way is read again", () => {
  const flow = world();
  store(
    flow,
    { keyHash: 1 },
    { keyHash: 1 },
    ...Array.from({ length: 40 }, () => ({ keyHash: 2 })),
  );
  flow.pump();
  for (let end = 0; end < 34; end++) {
    const run = flow.runs.find(({ delivered }) => delivered.seq > 2);
    if (run === undefined) break;
    flow.settle(run, { kind: "ack" });
    flow.turn();
    for (const write of flow.writes.slice()) flow.answer(write);
    flow.grant("c0");
    flow.turn();
    for (const write of flow.writes.slice()) flow.answer(write);
    flow.turn();
    if (flow.readsOf("readKey").length > 0) break;
  }
  expect(flow.readsOf("readKey"), "the followers of key 2 are being read").toHaveLength(1);
  const run = flow.runs.find(({ delivered }) => delivered.seq === 1)!;
  flow.settle(run, { kind: "term", reason: "bad" });
  flow.turn();
  for (const write of flow.writes.slice()) flow.answer(write);
  flow.machine.redrive(0, flow.stores[0]!.list("dead", 0, 9));
  flow.turn();
  for (const write of flow.writes.slice()) flow.answer(write);
  for (const read of flow.readsOf("scan")) while (flow.reads.includes(read)) flow.advance(read);
  flow.check();
  flow.drainAll();
});

test("P2 what ended while a scan was on its way is not taken for pending", () => {
  const flow = world({ readAhead: 1, classes: { critical: 1, normal: 1, bulk: 1 } });
  store(flow, { keyHash: 1 }, {}, { keyHash: 1 }, {});
  flow.begin();
  for (let round = 0; round < 12; round++) {
    flow.turn();
    for (const read of flow.reads.slice()) {
      if (read.effect.kind === "scan" && read.rows === undefined) flow.advance(read);
      if (read.rows?.some((row) => isSeq(row, 3)) !== true || read.effect.kind !== "scan") {
        while (flow.reads.includes(read)) flow.advance(read);
      } else if (read.heads === undefined && flow.stores[0]!.keyHead(1) === 3) flow.advance(read);
    }
    for (const write of flow.writes.slice()) flow.answer(write);
    flow.grant("c0");
    for (const run of flow.runs) flow.settle(run, { kind: "ack" });
    flow.check();
  }
  expect(flow.stores[0]!.message(3), "the third has ended").toBeNull();
  const held = flow.readsOf("scan");
  expect(held, "and the scan that shows it has not come back").toHaveLength(1);
  flow.advance(held[0]!);
  flow.check();
  flow.drainAll();
});

test("P2 a head that ended while its followers were being read is not one of them", () => {
  const flow = world();
  store(flow, { keyHash: 1 }, { keyHash: 1 });
  flow.begin();
  for (let round = 0; round < 8 && flow.readsOf("readKey").length === 0; round++) {
    flow.turn();
    for (const read of flow.reads.slice()) {
      while (read.effect.kind !== "readKey" && flow.reads.includes(read)) flow.advance(read);
    }
    for (const run of flow.runs) flow.settle(run, { kind: "ack" });
    if (flow.readsOf("readKey").length > 0) break;
    for (const write of flow.writes.slice()) flow.answer(write);
    flow.grant("c0");
  }
  const [read] = flow.readsOf("readKey");
  flow.show(read!);
  flow.turn();
  for (const write of flow.writes.slice()) flow.answer(write);
  expect(flow.stores[0]!.message(1)).toBeNull();
  flow.advance(read!);
  flow.check();
  flow.drainAll();
});

test("L1 a released retry that memory has no room for is read again, though it has no due time", () => {
  const flow = world();
  store(flow, {});
  flow.pump();
  flow.settle(runOf(flow, 1), { kind: "nack", error: "no" });
  flow.pump();
  flow.nowMs += 2000;
  flow.pump();
  flow.settle(runOf(flow, 1), { kind: "release" });
  flow.startWrites();
  flow.settleStore();
  const [owned] = flow.machine.partitions;
  const entry = owned!.entries.get(1)!;
  expect(entry.state).toBe("delayed");
  owned!.evict(entry);
  entry.state = "settling"; // Its place among those that wait is void.
  flow.turn();
  flow.check();
  flow.drainAll();
});

test("P1 a letter redriven twice reserves one place, and gives it back", () => {
  const flow = world();
  store(flow, {});
  flow.pump();
  flow.settle(runOf(flow, 1), { kind: "term", reason: "bad" });
  flow.turn();
  flow.settleStore();
  const letters = flow.stores[0]!.list("dead", 0, 9);
  expect(flow.machine.redrive(0, letters)).toBe(1);
  expect(flow.machine.redrive(0, letters)).toBe(1);
  flow.turn();
  flow.settleStore();
  expect(flow.machine.stored()).toMatchObject({ messages: 1, unwritten: 0 });
  flow.drainAll();
  expect(flow.machine.stored().messages).toBe(0);
});

test("L1 what a group holds is read on after a split that came before its read", () => {
  const flow = world({ order: "none" });
  store(flow, { group: "a" }, { group: "a" });
  flow.begin();
  store(flow, { group: "a" });
  flow.reads = flow.reads.slice();
  flow.says("c0", { kind: "recovered" });
  flow.check();
  flow.drainAll();
});

test("G3 what may have been stored when its partition stopped keeps its place in the buffer", () => {
  const flow = world({ partitions: 2, buffer: { messages: 10 } });
  for (let at = 0; at < 6; at++) flow.send("p0", 0, {});
  flow.turn();
  flow.apply(flow.writes[0]!);
  flow.stop(0);
  for (let at = 0; at < 20; at++) {
    flow.send("p0", 1, {});
    flow.turn();
    flow.settleStore();
    flow.check();
  }
  expect(flow.stores[1]!.audit().counters.pending).toBe(4);
});

test("what starts with its append is in the books once, though a group of it is being read", () => {
  const flow = world({ order: "none" }, 10);
  store(flow, {}, { group: "a" });
  flow.begin();
  for (let round = 0; round < 8; round++) {
    flow.turn();
    for (const read of flow.reads.slice()) {
      while (read.effect.kind !== "groups" && flow.reads.includes(read)) flow.advance(read);
    }
    for (const write of flow.writes.slice()) flow.answer(write);
    flow.grant("c0");
  }
  expect(flow.readsOf("groups")).toHaveLength(1);
  flow.send("p0", 0, { group: "a" });
  flow.turn();
  for (const write of flow.writes) flow.apply(write);
  while (flow.reads.length > 0) flow.advance(flow.reads[0]!);
  flow.pump(8);
  flow.check();
  expect(out(flow)).toEqual([1, 2, 3]);
  for (const run of flow.runs) flow.settle(run, { kind: "ack" });
  flow.pump();
  expect(flow.machine.isIdle, "nothing is being started any more").toBe(true);
});

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

test("P4 memory is bounded by the read-ahead, whatever the backlog", () => {
  const flow = world({ buffer: { messages: 2000 }, readAhead: 8 });
  for (let at = 0; at < 1500; at++) {
    while (!flow.send("p0", 0, { keyHash: at % 400 })) {
      flow.turn();
      flow.settleStore();
    }
  }
  flow.pump(10);
  flow.check();
  // The read-ahead, what is on its way, and the followers of the few heads at hand.
  expect(flow.machine.partitions[0]!.entries.size).toBeLessThan(8 + 10 + 20 * 4);
  flow.drainAll();
});

test("L3 at the tail what is stored joins at once, without a read", () => {
  const flow = world({ readAhead: 8 });
  store(flow, {}, {});
  expect(flow.reads).toEqual([]);
  flow.pump();
  expect(out(flow)).toEqual([1, 2]);
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

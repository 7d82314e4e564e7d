/** What is pending is known, or something will bring it: histories that broke it once, and others. */
import { expect, test } from "vitest";
import { isSeq, out, runOf, store, world } from "../../test/support/small-flow.ts";

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

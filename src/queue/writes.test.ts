import fc from "fast-check";
import { expect, test } from "vitest";
import { contractOf, draftOf } from "../../test/support/machine-harness.ts";
import { SpillwayError } from "../base/index.ts";
import type { Engine, PartitionWrite, WriteResult } from "../engines/engine.ts";
import { Partition as Store } from "../engines/memory/partition.ts";
import type { ConsumerFrame, Grant, ProducerFrame, SendResult } from "../protocol/index.ts";
import { QueueMachine } from "./machine.ts";
import { Writes } from "./writes.ts";
import type { Writer } from "./writes.ts";

/** A batch that the engine has and has not answered. */
interface Batch {
  readonly writes: readonly PartitionWrite[];
  readonly resolve: (results: WriteResult[]) => void;
  readonly reject: (error: SpillwayError) => void;
}

const partitions = 2;
const nowMs = 1_000_000;

/** Two flows, each with two partitions, one engine, and consumers that take what comes. */
class Pipeline {
  readonly batches: Batch[] = [];
  readonly flows: Flow[];
  readonly writes: Writes;

  /** @param isReversed The flow that is sent to has its writes put together first. */
  constructor(isReversed = false) {
    const write = (writes: readonly PartitionWrite[]): Promise<WriteResult[]> =>
      new Promise((resolve, reject) => this.batches.push({ writes, resolve, reject }));
    this.writes = new Writes({ write } as unknown as Engine);
    this.flows = ["first", "second"].map((name) => new Flow(name));
    for (const flow of isReversed ? this.flows.toReversed() : this.flows) this.writes.add(flow);
  }

  turn(): void {
    for (const flow of this.flows) {
      flow.turn();
      this.writes.flush(flow, nowMs);
      flow.turn();
    }
  }

  async answer(at = 0): Promise<void> {
    const [batch] = this.batches.splice(at, 1);
    if (batch === undefined) return;
    const results = batch.writes.map((write) => {
      const store = this.flows.find(({ name }) => name === write.claim.ref.flow)!.stores;
      const to = store[write.claim.ref.partition]!;
      return to.commit(to.plan(write));
    });
    batch.resolve(results);
    await Promise.resolve();
    await Promise.resolve();
  }

  async refuse(at: number): Promise<void> {
    const [batch] = this.batches.splice(at, 1);
    batch?.reject(new SpillwayError("bound_reached", {}));
    await Promise.resolve();
    await Promise.resolve();
  }

  /** The settle of a delivery of the first flow, and a message of the second that it leads to. */
  forward(seq: number, from: number, to: number): number {
    const joint = this.writes.beginJoint();
    const [first, second] = this.flows as [Flow, Flow];
    second.send(to, joint);
    first.settle(from, seq, joint);
    return joint;
  }

  async quiet(): Promise<void> {
    for (let round = 0; round < 60; round++) {
      this.turn();
      while (this.batches.length > 0) await this.answer();
    }
  }
}

class Flow implements Writer {
  readonly name: string;
  readonly machine: QueueMachine;
  readonly stores: Store[];
  readonly out: { partition: number; seq: number; attempt: number }[] = [];
  readonly results: SendResult[] = [];
  readonly #grants: (Grant | undefined)[] = [];
  #position: number[] = [0, 0];
  #wants = false;

  constructor(name: string) {
    this.name = name;
    const options = { partitions, order: "none", buffer: { messages: 1000 } } as const;
    const contract = { ...contractOf({ ...options, readAhead: 64 }), name };
    this.machine = new QueueMachine(contract, 1, nowMs);
    this.stores = [0, 1].map((partition) => new Store({ flow: name, partition }));
    for (const [partition, store] of this.stores.entries()) {
      this.machine.claimed(partition, store.claim(name), nowMs);
    }
    this.machine.producerJoined("p", nowMs);
    this.machine.consumerJoined("c", nowMs);
  }

  prepare(partition: number, write: Parameters<Writer["prepare"]>[1]): PartitionWrite {
    const claim = this.machine.partitions[partition]!.claim!;
    return { ...write, claim, nowMs };
  }

  written(partition: number, result: WriteResult): void {
    this.machine.written(partition, result, nowMs);
  }

  failed(partition: number): readonly number[] {
    const joints = this.machine.refused(partition, "buffer_full", nowMs);
    this.#take();
    return joints;
  }

  schedule(): void {}

  send(partition: number, joint?: number): void {
    const draft = draftOf(joint === undefined ? {} : { joint });
    const position = this.#position[partition]!++;
    const beat = (want: number): ProducerFrame["beat"] => {
      const { epoch = -1 } = this.#grants[partition] ?? {};
      return { heartbeatMs: nowMs, position, positionBytes: 0, want, wantBytes: 100, epoch };
    };
    this.machine.producerFrame("p", { kind: "beat", partition, beat: beat(4) }, nowMs);
    this.machine.issue(nowMs);
    this.#take();
    const { epoch = -1, grantId = -1 } = this.#grants[partition] ?? {};
    const stamp = { epoch, grantId, heldMs: 0 };
    const frame = { kind: "send", partition, stamp, position, drafts: [draft], beat: beat(0) };
    this.machine.producerFrame("p", frame as ProducerFrame, nowMs);
    this.#take();
  }

  settle(partition: number, seq: number, joint?: number): void {
    const at = this.out.findIndex((run) => run.partition === partition && run.seq === seq);
    const [run] = this.out.splice(at, 1);
    const settlement = {
      ...run!,
      verdict: { kind: "ack" },
      durationMs: 1,
      confirm: true,
      ...(joint === undefined ? {} : { joint }),
    } as const;
    this.#says({ kind: "settle", settlements: [settlement] });
  }

  turn(): void {
    this.machine.turn(nowMs);
    this.#take();
    if (!this.#wants) return;
    this.#wants = false;
    const grant = { epoch: 1, grantId: 1, limitMessages: 1e6, limitBytes: Infinity };
    this.#says({ kind: "credit", grant: { ...grant, echoHeartbeatMs: nowMs, leaseMs: 2000 } });
    this.machine.turn(nowMs);
    this.#take();
  }

  #says(frame: ConsumerFrame): void {
    this.machine.consumerFrame("c", frame, nowMs);
    this.#take();
  }

  #take(): void {
    for (const effect of this.machine.take()) {
      if (effect.kind === "toProducer") {
        const { frame } = effect;
        if (frame.kind === "grant") this.#grants[frame.partition] = frame.grant;
        if (frame.kind === "results") this.results.push(...frame.results);
      } else if (effect.kind === "toConsumer") {
        if (effect.frame.kind === "want") this.#wants = true;
        if (effect.frame.kind === "deliver") {
          for (const { partition, seq, attempt } of effect.frame.messages) {
            this.out.push({ partition, seq, attempt });
          }
        }
      }
    }
  }

  get acked(): number {
    return this.stores.reduce((sum, store) => sum + store.audit().counters.acked, 0);
  }

  get accepted(): number {
    return this.stores.reduce((sum, store) => sum + store.audit().counters.accepted, 0);
  }
}

/** With so many deliveries of the first flow out, on each of its partitions. */
async function pipeline(count: number, isReversed = false): Promise<Pipeline> {
  const all = new Pipeline(isReversed);
  for (let at = 0; at < count; at++) {
    for (let partition = 0; partition < partitions; partition++) {
      all.flows[0]!.send(partition);
      await all.quiet();
    }
  }
  await all.quiet();
  expect(all.flows[0]!.out).toHaveLength(count * partitions);
  return all;
}

test("E2 both halves of a joint write go in one batch, when both partitions are free", async () => {
  const all = await pipeline(1);
  const [first, second] = all.flows as [Flow, Flow];
  second.send(1);
  all.turn();
  expect(all.batches).toHaveLength(1);
  all.forward(1, 0, 1);
  all.turn();
  expect(all.batches, "the half waits for the other").toHaveLength(1);
  await all.answer();
  all.turn();
  const joint = all.batches.find(({ writes }) => writes.length === 2);
  expect(joint?.writes.map(({ claim }) => claim.ref.flow)).toEqual(["first", "second"]);
  await all.quiet();
  expect([first.acked, second.accepted]).toEqual([1, 2]);
});

test("G11 halves whose partitions are busy in turn get their turn", async () => {
  const all = await pipeline(20);
  const [first, second] = all.flows as [Flow, Flow];
  first.settle(0, 1);
  all.turn();
  all.forward(2, 0, 1);
  second.send(1);
  let turns = 0;
  for (let seq = 3; first.stores[0]!.message(2) !== null; seq++) {
    expect(turns++, "the joint write gets its turn").toBeLessThan(8);
    first.settle(0, seq);
    second.send(1);
    all.turn();
    await all.answer();
  }
  await all.quiet();
  expect([first.acked, second.accepted]).toEqual([2 + turns, 2 + turns]);
});

test("a refused joint write ends both halves: the delivery goes back, the message is answered", async () => {
  for (const to of [0, 1]) {
    const all = await pipeline(1, to === 1);
    const [first, second] = all.flows as [Flow, Flow];
    all.forward(1, 0, to);
    all.turn();
    const at = all.batches.findIndex(({ writes }) => writes.length === 2);
    await all.refuse(at);
    expect(second.results).toMatchObject([{ kind: "refused", code: "buffer_full" }]);
    await all.quiet();
    expect([first.acked, second.accepted]).toEqual([0, 0]);
    expect(first.out.filter(({ partition }) => partition === 0)).toMatchObject([{ attempt: 1 }]);
    expect(second.machine.stored().unwritten).toBe(0);
  }
});

test("a joint write that is given up leaves nothing behind, whichever half was there", async () => {
  const all = await pipeline(1);
  const [first, second] = all.flows as [Flow, Flow];
  const joint = all.writes.beginJoint();
  second.send(0, joint);
  all.writes.dropJoint(joint);
  await all.quiet();
  expect(second.results).toMatchObject([{ kind: "refused", code: "delivery_settled" }]);
  expect(second.machine.stored()).toMatchObject({ messages: 0, unwritten: 0 });
  first.settle(0, 1, all.writes.beginJoint());
  all.writes.dropJoint(2);
  await all.quiet();
  expect(first.out).toHaveLength(2);
  expect(first.machine.isIdle).toBe(false);
});

test("E2 and G11 crossing joint writes are whole or not at all, and all end", async () => {
  const move = fc.tuple(fc.nat(9), fc.nat(9), fc.nat(9));
  await fc.assert(
    fc.asyncProperty(
      fc.array(move, { minLength: 10, maxLength: 40, size: "max" }),
      async (moves) => {
        const all = await pipeline(6);
        const [first, second] = all.flows as [Flow, Flow];
        let forwarded = 0;
        for (const [kind, a, b] of moves) {
          const run = first.out[b % Math.max(1, first.out.length)];
          if (kind < 4 && run !== undefined) {
            all.forward(run.seq, run.partition, a % 2);
            forwarded++;
          } else if (kind < 6) all.turn();
          else if (kind < 9) await all.answer(a % Math.max(1, all.batches.length));
          else await all.refuse(a % Math.max(1, all.batches.length));
          expect(first.acked, "E2 no half is durable alone").toBe(second.accepted);
        }
        await all.quiet();
        expect(first.acked).toBe(second.accepted);
        const refused = second.results.filter(({ kind }) => kind === "refused").length;
        expect(second.accepted + refused).toBe(forwarded);
      },
    ),
    { numRuns: 40 },
  );
});

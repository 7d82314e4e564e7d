/**
 * Drives a queue's machine against a model of its store, step by step: every write and read of the
 * store is applied and answered when the test says so, in any order among reads, and a crash may come
 * between any two steps. It judges what the machine does as it goes along.
 */
import { expect } from "vitest";
import type { Descriptor, PartitionWrite, WriteResult } from "../../src/engines/engine.ts";
import { Partition as Store } from "../../src/engines/memory/partition.ts";
import { parseContract } from "../../src/flow/index.ts";
import type { Contract, FlowOptions, MessageClass } from "../../src/flow/index.ts";
import { issuer, spender } from "../../src/protocol/index.ts";
import type {
  ConsumerFrame,
  Delivered,
  Draft,
  FrameVerdict,
  SendResult,
  Settlement,
  ToConsumerFrame,
  ToProducerFrame,
} from "../../src/protocol/index.ts";
import { QueueMachine } from "../../src/queue/index.ts";
import type { QueueEffect, QueueFact } from "../../src/queue/index.ts";

type Read = Extract<QueueEffect, { kind: "scan" | "groups" | "due" | "readKey" | "payloads" }>;

/** A read on its way: what the store showed once it ran, and the heads of keys, looked up after. */
interface PendingRead {
  readonly effect: Read;
  rows?: readonly unknown[];
  heads?: readonly number[];
}

interface PendingWrite {
  readonly partition: number;
  readonly write: PartitionWrite;
  result?: WriteResult;
}

interface Stream {
  readonly spender: ReturnType<typeof spender.init>;
  isOpen: boolean;
  position: number;
  readonly unanswered: Map<number, Draft>;
}

export interface Run {
  readonly consumer: string;
  readonly delivered: Delivered;
}

interface Consumer {
  readonly issuer: ReturnType<typeof issuer.init>;
  readonly runs: Run[];
}

export interface Sent {
  readonly class?: MessageClass;
  readonly keyHash?: number;
  readonly group?: string;
  readonly delayMs?: number;
  readonly deadlineMs?: number;
  readonly bytes?: number;
  readonly id?: number;
  readonly joint?: number;
}

const laneNames = ["critical", "normal", "bulk"] as const;
const none = (_joint: number): boolean => false;
const noBytes = new Uint8Array(0);
/** More than the longest wait of the contract, in turns: beyond, something is stuck. */
const turnsMax = 20_000;

export function contractOf(options: FlowOptions): Contract {
  return parseContract("flow", { readAhead: 2, ...options });
}

export function draftOf(sent: Sent): Draft {
  const { bytes = 1, group, id } = sent;
  const payload = new Uint8Array(Math.max(0, bytes - (group?.length ?? 0)));
  const draft: { -readonly [Field in keyof Draft]: Draft[Field] } = {
    class: sent.class ?? "normal",
    headers: noBytes,
    payload,
    bytes: payload.length + (group?.length ?? 0),
  };
  if (sent.keyHash !== undefined && sent.keyHash > 0) draft.keyHash = sent.keyHash;
  if (group !== undefined && group !== "") draft.group = group;
  if (sent.delayMs !== undefined) draft.delayMs = sent.delayMs;
  if (sent.deadlineMs !== undefined) draft.deadlineMs = sent.deadlineMs;
  if (sent.joint !== undefined) draft.joint = sent.joint;
  if (id !== undefined) {
    draft.idempotency = { id: new Uint8Array(16).fill(id), content: new Uint8Array(8).fill(1) };
  }
  return draft;
}

export class MachineHarness {
  contract: Contract;
  machine!: QueueMachine;
  nowMs = 1_000_000;
  readonly window: number;
  readonly stores: Store[];
  reads: PendingRead[] = [];
  writes: PendingWrite[] = [];
  readonly producers = new Map<string, Stream[]>();
  readonly consumers = new Map<string, Consumer>();
  readonly facts: QueueFact[] = [];
  readonly results: SendResult[] = [];
  readonly settledFrames: Extract<ToConsumerFrame, { kind: "settled" }>[] = [];
  /** Per partition: seqs that the store holds and the machine has not heard of. */
  readonly unheard: Set<number>[];
  /** Brought back by an operator: their place in the order of their key is a new one. */
  readonly redriven = new Set<string>();
  #lives = 0;
  delivered = 0;

  constructor(options: FlowOptions, window = 3) {
    this.contract = contractOf(options);
    this.window = window;
    this.stores = Array.from(
      { length: this.contract.partitions },
      (_, partition) => new Store({ flow: this.contract.name, partition }),
    );
    this.unheard = this.stores.map(() => new Set<number>());
    this.begin();
  }

  // Lives.

  /** A process takes over; whatever was on its way in the one before is gone. */
  begin(): void {
    this.#lives++;
    this.reads = [];
    this.writes = [];
    this.consumers.clear();
    this.producers.clear();
    this.machine = new QueueMachine(this.contract, 1, this.nowMs);
    this.machine.watchesAll = true;
    for (const [partition, store] of this.stores.entries()) {
      this.unheard[partition]!.clear();
      this.machine.claimed(partition, store.claim(`claim${this.#lives}`), this.nowMs);
    }
    for (const name of ["p0", "p1"]) this.joinProducer(name);
    this.joinConsumer("c0");
    this.#drainEffects();
  }

  joinProducer(name: string): void {
    const streams = this.stores.map(() => ({
      spender: spender.init(),
      isOpen: false,
      position: 0,
      unanswered: new Map<number, Draft>(),
    }));
    this.producers.set(name, streams);
    this.machine.producerJoined(name, this.nowMs);
    this.#drainEffects();
  }

  joinConsumer(name: string): void {
    const options = {
      firstEpoch: this.#lives * 1_000_000 + this.nowMs,
      ttlMs: 2000,
      toeMessages: 0,
      toeBytes: 0,
    };
    const consumer = { issuer: issuer.init(options, this.nowMs), runs: [] };
    issuer.join(consumer.issuer, "flow", this.nowMs);
    this.consumers.set(name, consumer);
    this.machine.consumerJoined(name, this.nowMs);
    this.#drainEffects();
  }

  leaveConsumer(name: string): void {
    if (!this.consumers.delete(name)) return;
    this.machine.consumerLeft(name, this.nowMs);
    this.#drainEffects();
  }

  /** The partition's claim is lost; the others go on. */
  stop(partition: number): void {
    this.reads = this.reads.filter(({ effect }) => effect.partition !== partition);
    this.writes = this.writes.filter((write) => write.partition !== partition);
    this.machine.stopped(partition, "fenced", this.nowMs);
    for (const consumer of this.consumers.values()) {
      const others = consumer.runs.filter((run) => run.delivered.partition !== partition);
      consumer.runs.splice(0, consumer.runs.length, ...others);
    }
    this.#drainEffects();
  }

  // Producers.

  /** Sends if there is credit, and asks for it otherwise. @returns Whether it was sent. */
  send(producer: string, partition: number, sent: Sent): boolean {
    const stream = this.producers.get(producer)![partition]!;
    if (!stream.isOpen) return false;
    const draft = draftOf(sent);
    if (!spender.canSpend(stream.spender, this.nowMs, draft.bytes)) {
      const beat = spender.heartbeat(stream.spender, this.nowMs, 4, 4 * draft.bytes);
      this.machine.producerFrame(producer, { kind: "beat", partition, beat }, this.nowMs);
      this.machine.issue(this.nowMs);
      this.#drainEffects();
      if (!spender.canSpend(stream.spender, this.nowMs, draft.bytes)) return false;
    }
    spender.spend(stream.spender, this.nowMs, draft.bytes);
    const stamp = spender.stamp(stream.spender, this.nowMs);
    const position = stream.position++;
    stream.unanswered.set(position, draft);
    const beat = spender.heartbeat(stream.spender, this.nowMs, 0, 0);
    const frame = { kind: "send", partition, stamp, position, drafts: [draft], beat } as const;
    this.machine.producerFrame(producer, frame, this.nowMs);
    this.#drainEffects();
    return true;
  }

  #toProducer(producer: string, frame: ToProducerFrame): void {
    const stream = this.producers.get(producer)?.[frame.partition];
    if (stream === undefined) return;
    switch (frame.kind) {
      case "opened":
        stream.isOpen = true;
        break;
      case "closed":
        stream.isOpen = false;
        break;
      case "grant":
        spender.granted(stream.spender, this.nowMs, frame.grant);
        break;
      case "held":
        break;
      case "results":
        for (const result of frame.results) {
          const count = result.kind === "accepted" ? result.count : 1;
          for (let at = 0; at < count; at++) {
            const known = stream.unanswered.delete(result.position + at);
            expect(known, "M2 an append is answered once").toBe(true);
          }
          this.results.push(result);
        }
        break;
    }
  }

  // Consumers.

  grant(name: string): void {
    const consumer = this.consumers.get(name);
    if (consumer === undefined) return;
    const room = { messages: this.window - consumer.runs.length, bytes: Infinity };
    for (const { senderId: _, ...grant } of issuer.issue(consumer.issuer, this.nowMs, room)) {
      this.#consumerSays(name, { kind: "credit", grant });
    }
  }

  #consumerSays(name: string, frame: ConsumerFrame): void {
    this.machine.consumerFrame(name, frame, this.nowMs);
    this.#drainEffects();
  }

  says(name: string, frame: ConsumerFrame): void {
    this.#consumerSays(name, frame);
  }

  #toConsumer(name: string, frame: ToConsumerFrame): void {
    const consumer = this.consumers.get(name);
    if (consumer === undefined) return;
    switch (frame.kind) {
      case "want":
        issuer.heard(consumer.issuer, "flow", this.nowMs, frame.beat);
        break;
      case "deliver": {
        const { accepted } = issuer.arrived(
          consumer.issuer,
          "flow",
          this.nowMs,
          frame.stamp,
          frame.messages.length,
        );
        expect(accepted, "V1 what goes out is on live credit").toBe(frame.messages.length);
        issuer.heard(consumer.issuer, "flow", this.nowMs, frame.beat);
        for (const delivered of frame.messages) this.#deliver(name, consumer, delivered);
        expect(consumer.runs.length, "G3 in flight <= window").toBeLessThanOrEqual(this.window);
        break;
      }
      case "lost": {
        const at = consumer.runs.findIndex(
          ({ delivered }) =>
            delivered.partition === frame.partition &&
            delivered.seq === frame.seq &&
            delivered.attempt === frame.attempt,
        );
        if (at >= 0) consumer.runs.splice(at, 1);
        break;
      }
      case "settled":
        this.settledFrames.push(frame);
        break;
    }
  }

  #deliver(name: string, consumer: Consumer, delivered: Delivered): void {
    const { partition, seq, attempt } = delivered;
    this.delivered++;
    const store = this.stores[partition]!;
    const row = store.message(seq);
    expect(row, "P2 only what is pending is delivered").not.toBeNull();
    expect(row!.attempts, "V2 its attempt is durable").toBe(attempt);
    for (const { runs } of this.consumers.values()) {
      for (const { delivered: other } of runs) {
        const same = other.partition === partition && other.seq === seq;
        expect(same, "G4 one attempt of a message at a time").toBe(false);
      }
    }
    if (row!.keyHash !== undefined && this.contract.order === "key") {
      const before = store
        .readKey(row!.keyHash, 0, 10_000)
        .filter((other) => other.seq < seq && !this.redriven.has(`${partition}:${other.seq}`));
      expect(before, "G4 nothing of its key is pending before it").toEqual([]);
      for (const { runs } of this.consumers.values()) {
        for (const { delivered: other } of runs) {
          if (other.partition !== partition) continue;
          const otherRow = store.message(other.seq);
          expect(otherRow?.keyHash, "K1 one of a key is out").not.toBe(row!.keyHash);
        }
      }
    }
    consumer.runs.push({ consumer: name, delivered });
  }

  get runs(): Run[] {
    return [...this.consumers.values()].flatMap(({ runs }) => runs);
  }

  settle(run: Run, verdict: FrameVerdict, more: Partial<Settlement> = {}): void {
    const consumer = this.consumers.get(run.consumer);
    const at = consumer?.runs.indexOf(run) ?? -1;
    if (at >= 0) consumer!.runs.splice(at, 1);
    const { partition, seq, attempt } = run.delivered;
    const settlement = { partition, seq, attempt, verdict, durationMs: 1, confirm: true, ...more };
    this.#consumerSays(run.consumer, { kind: "settle", settlements: [settlement] });
  }

  // Turns and effects.

  turn(): void {
    this.machine.turn(this.nowMs);
    this.#drainEffects();
    this.startWrites();
  }

  startWrites(isWhole = none, isSoon = none): void {
    for (const { partition, write } of this.machine.writes(this.nowMs, isWhole, isSoon)) {
      const { claim } = this.machine.partitions[partition]!;
      const { writeId, appends, changes, limits } = write;
      this.writes.push({
        partition,
        write: { claim: claim!, writeId, nowMs: this.nowMs, appends, changes, limits },
      });
    }
  }

  #drainEffects(): void {
    for (let effects = this.machine.take(); effects.length > 0; effects = this.machine.take()) {
      for (const effect of effects) {
        switch (effect.kind) {
          case "toProducer":
            this.#toProducer(effect.producer, effect.frame);
            break;
          case "toConsumer":
            this.#toConsumer(effect.consumer, effect.frame);
            break;
          case "fact":
            this.facts.push(effect.fact);
            break;
          default:
            this.reads.push({ effect });
        }
      }
    }
  }

  // The store.

  /** Applies a write: it is durable from now on, though the machine has not heard of it. */
  apply(pending: PendingWrite): void {
    if (pending.result !== undefined) return;
    const store = this.stores[pending.partition]!;
    try {
      pending.result = store.commit(store.plan(pending.write));
    } catch {
      this.refuse(pending, "buffer_full");
      return;
    }
    const unheard = this.unheard[pending.partition]!;
    for (const { kind, seq } of pending.result.appended) if (kind === "stored") unheard.add(seq);
    for (const { kind, seq } of pending.write.changes) {
      if (kind === "redrive" && store.message(seq) !== null) {
        unheard.add(seq);
        this.redriven.add(`${pending.partition}:${seq}`);
      }
    }
  }

  refuse(pending: PendingWrite, code: "store_full" | "buffer_full"): number[] {
    this.writes = this.writes.filter((other) => other !== pending);
    const joints = this.machine.refused(pending.partition, code, this.nowMs);
    this.#drainEffects();
    return joints;
  }

  answer(pending: PendingWrite): void {
    this.apply(pending);
    if (pending.result === undefined) return;
    this.writes = this.writes.filter((other) => other !== pending);
    const unheard = this.unheard[pending.partition]!;
    for (const { seq } of pending.result.appended) unheard.delete(seq);
    for (const { seq } of pending.write.changes) unheard.delete(seq);
    this.machine.written(pending.partition, pending.result, this.nowMs);
    this.#drainEffects();
  }

  /** One step of a read: the rows, then the heads of their keys, then the answer. */
  advance(read: PendingRead): void {
    const { effect } = read;
    const store = this.stores[effect.partition]!;
    if (read.rows === undefined) {
      read.rows = rowsOf(store, effect);
    } else if (read.heads === undefined && (effect.kind === "scan" || effect.kind === "due")) {
      const isOrdered = this.contract.order === "key";
      read.heads = (read.rows as readonly Descriptor[]).map(({ keyHash }) =>
        keyHash === undefined || !isOrdered ? 0 : store.keyHead(keyHash),
      );
    } else {
      this.reads = this.reads.filter((other) => other !== read);
      this.#answerRead(read);
      this.#drainEffects();
    }
  }

  #answerRead({ effect, rows, heads }: PendingRead): void {
    const { machine, nowMs } = this;
    const descriptors = rows as readonly Descriptor[];
    switch (effect.kind) {
      case "scan":
        return machine.scanned(effect, descriptors, heads!, nowMs);
      case "due":
        return machine.dueRead(effect, descriptors, heads!, nowMs);
      case "readKey":
        return machine.keyRead(effect, descriptors, nowMs);
      case "groups":
        return machine.groupsRead(effect, rows as readonly string[], nowMs);
      case "payloads":
        return machine.loaded(effect, rows as Parameters<QueueMachine["loaded"]>[1], nowMs);
    }
  }

  /** Reads of a kind that are on their way. */
  readsOf(kind: Read["kind"]): PendingRead[] {
    return this.reads.filter(({ effect }) => effect.kind === kind);
  }

  /** Runs a read now; it is answered by the next `advance`. */
  show(read: PendingRead): void {
    this.advance(read);
    if (read.effect.kind === "scan" || read.effect.kind === "due") this.advance(read);
  }

  /** Answers everything that is on its way, as often as it takes. */
  settleStore(): void {
    for (let round = 0; this.reads.length + this.writes.length > 0; round++) {
      expect(round, "reads and writes come to an end").toBeLessThan(turnsMax);
      for (const read of this.reads.slice()) {
        while (this.reads.includes(read)) this.advance(read);
      }
      for (const write of this.writes.slice()) this.answer(write);
    }
  }

  /** Lets the machine get on: the store answers, and the consumers say what they have room for. */
  pump(rounds = 4): void {
    for (let round = 0; round < rounds; round++) {
      this.turn();
      this.settleStore();
      for (const name of this.consumers.keys()) this.grant(name);
    }
    this.turn();
  }

  /** Everything pending, whatever its state. */
  pending(partition: number): Descriptor[] {
    const store = this.stores[partition]!;
    const rows: Descriptor[] = [];
    for (const lane of laneNames) {
      rows.push(...store.scan({ lane, afterSeq: 0, limit: 1e6, nowMs: Infinity }));
    }
    return rows.toSorted((a, b) => a.seq - b.seq);
  }

  // Judges.

  check(): void {
    this.machine.check();
    let messages = 0;
    let bytes = 0;
    for (const store of this.stores) {
      const { counters } = store.audit();
      const { accepted, acked, dead, discarded, pending } = counters;
      expect(accepted, "G2").toBe(acked + dead + discarded + pending);
      messages += pending;
      bytes += counters.bytes;
    }
    const { buffer } = this.contract;
    expect(messages, "G3 stored <= limit").toBeLessThanOrEqual(buffer.messages);
    expect(bytes, "G3 stored <= limit, bytes").toBeLessThanOrEqual(buffer.bytes);
    const { depth, creditsOut } = this.machine.view(this.nowMs);
    expect(depth + creditsOut, "N1 stored + credit <= limit").toBeLessThanOrEqual(buffer.messages);
    this.checkKnown();
  }

  /** L1, P2 and P5: whatever is pending is known, or something will bring it; nothing else is. */
  checkKnown(): void {
    for (const owned of this.machine.partitions) {
      if (!owned.isOpen) continue;
      for (const [seq, { state }] of owned.entries) {
        const isThere = state === "settling" || this.stores[owned.index]!.message(seq) !== null;
        if (!isThere) throw new Error(`P2 ${owned.index}/${seq} has ended, and is ${state}`);
      }
      for (const row of this.pending(owned.index)) {
        if (this.unheard[owned.index]!.has(row.seq)) continue;
        const how = this.#knownBy(owned.index, row);
        if (how === undefined) {
          throw new Error(
            `L1 nothing will bring ${owned.index}/${row.seq}: ${JSON.stringify(row)}`,
          );
        }
        if (owned.reading.complete && how !== "entry" && how !== "chain") {
          throw new Error(`P5 complete, but ${owned.index}/${row.seq} is only ${how}`);
        }
      }
    }
  }

  #knownBy(partition: number, row: Descriptor): string | undefined {
    const owned = this.machine.partitions[partition]!;
    const { seq, class: lane } = row;
    if (owned.entries.has(seq)) return "entry";
    const rank = laneNames.indexOf(lane);
    const group = row.group ?? "";
    if (this.contract.order === "key" && row.keyHash !== undefined) {
      const chain = owned.keys.get(row.keyHash);
      if (chain !== undefined && (chain.more || chain.reading)) return "chain";
    }
    if (row.dueAtMs === undefined) {
      const source = [...owned.sources.all()].find(
        (one) => one.rank === rank && one.group === group && seq <= one.untilSeq,
      );
      if (source !== undefined && !source.atTail && source.cursor < seq) {
        if (source.reading || source.ready.size > 0) return "source";
        return undefined;
      }
    } else {
      const { storeDueAtMs } = owned.reading;
      if (storeDueAtMs !== undefined && storeDueAtMs <= row.dueAtMs) return "due";
    }
    for (const { effect } of this.reads) {
      if (effect.partition !== partition) continue;
      if (effect.kind === "groups" && effect.lane === lane && group > (effect.after ?? "")) {
        return "groups";
      }
      if (effect.kind === "due" && row.dueAtMs !== undefined) return "due read";
    }
    if (this.contract.order === "key" && row.keyHash !== undefined) {
      const head = this.stores[partition]!.keyHead(row.keyHash);
      if (head === seq) return undefined;
      const [first] = this.stores[partition]!.readKey(row.keyHash, 0, 1);
      if (this.unheard[partition]!.has(head)) return "head unheard";
      const by = this.#knownBy(partition, first!);
      // A head that is at hand has a chain, and the chain knows whether more follows.
      return by === undefined || by === "entry" ? undefined : `head ${by}`;
    }
    return undefined;
  }

  /** G11: with a store that answers and consumers that work, what open partitions hold ends. */
  drainAll(): void {
    const isOpen = (partition: number): boolean => this.machine.partitions[partition]!.isOpen;
    this.machine.resume();
    for (const { index } of this.machine.partitions) this.machine.resume(index);
    if (this.consumers.size === 0) this.joinConsumer("c0");
    let idle = 0;
    for (let round = 0; round < turnsMax; round++) {
      this.settleStore();
      for (const name of this.consumers.keys()) this.grant(name);
      for (const run of this.runs) this.settle(run, { kind: "ack" });
      this.turn();
      this.check();
      const left = this.stores.some(
        (store, at) => isOpen(at) && store.audit().counters.pending > 0,
      );
      if (!left && this.reads.length + this.writes.length === 0) return;
      if (this.reads.length + this.writes.length + this.runs.length > 0) idle = 0;
      else idle++;
      if (idle > 3) {
        const atMs = this.machine.nextWakeAtMs(this.nowMs);
        if (atMs === Infinity || idle > 2000) break;
        this.nowMs = Math.max(this.nowMs + 1, Math.ceil(atMs));
      }
    }
    const stuck = this.stores.flatMap((_, at) =>
      this.pending(at).map(
        (row) =>
          `${at}/${row.seq} ${JSON.stringify(this.machine.why(at, row.seq, this.nowMs) ?? row)}`,
      ),
    );
    throw new Error(`G11 stuck: ${stuck.join("; ")}`);
  }
}

function rowsOf(store: Store, effect: Read): readonly unknown[] {
  switch (effect.kind) {
    case "scan":
      return store.scan(effect.query);
    case "groups":
      return store.groups(effect.lane, effect.after, effect.limit);
    case "due":
      return store.due(effect.untilMs, effect.after, effect.limit);
    case "readKey":
      return store.readKey(effect.keyHash, 0, effect.limit);
    case "payloads":
      return effect.seqs.map((seq) => store.message(seq));
  }
}

/**
 * Turns what comes into events for the machine of one flow, and its effects into calls of the engine
 * and frames on links. All that one turn of the event loop brings is decided together.
 */
import { isSpillwayError, SpillwayError, textOf } from "../base/index.ts";
import type { Clock, ErrorCode, Timer } from "../base/index.ts";
import type { Claim, Engine, PartitionWrite, WriteResult } from "../engines/engine.ts";
import type { Contract } from "../flow/index.ts";
import type {
  ConsumerFrame,
  Link,
  ProducerFrame,
  RefusalCode,
  ToConsumerFrame,
  ToProducerFrame,
} from "../protocol/index.ts";
import { addDigests } from "./digests.ts";
import type { QueueEffect, QueueFact, QueueWrite } from "./effects.ts";
import { QueueMachine } from "./machine.ts";
import { Shelves } from "./shelves.ts";
import type { QueueView } from "./view.ts";
import type { Reason } from "./why.ts";
import { explainStored } from "./why.ts";
import type { Writer, Writes } from "./writes.ts";

export interface QueueOptions {
  readonly contract: Contract;
  readonly node: string;
  readonly seed: number;
  /** Of a partition's claim, where the engine has several nodes. */
  readonly claimLeaseMs: number;
}

export interface QueueDeps {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly writes: Writes;
  /** Called for what happens; never while the machine decides. */
  readonly onFact: (fact: QueueFact) => void;
  /** A defect or a failed store: the partition stopped, and this is why. */
  readonly onError: (error: SpillwayError) => void;
}

const maintainEveryMs = 1000;
const maintainBudgetMs = 5;
const claimRetryMs = 250;
/** An unknown outcome is asked for again this often, then the partition stops. */
const repeatsMax = 5;
const repeatDelayMs = 100;

export class QueueDriver implements Writer {
  readonly machine: QueueMachine;
  readonly shelves: Shelves;
  readonly #options: QueueOptions;
  readonly #deps: QueueDeps;
  readonly #producers = new Map<string, Link<ToProducerFrame, ProducerFrame>>();
  readonly #consumers = new Map<string, Link<ToConsumerFrame, ConsumerFrame>>();
  /** By partition. */
  readonly #writing: ({ write: PartitionWrite; repeats: number } | undefined)[] = [];
  readonly #timers = new Set<Timer>();
  #turnTimer: Timer | undefined;
  #turnAtMs = Infinity;
  #isScheduled = false;
  #isClosed = false;
  #maintained = 0;
  #onIdle: (() => void) | undefined;

  constructor(options: QueueOptions, deps: QueueDeps) {
    this.#options = options;
    this.#deps = deps;
    this.machine = new QueueMachine(options.contract, options.seed, deps.clock.now());
    this.shelves = new Shelves(options.contract.name, this.machine, {
      engine: deps.engine,
      onChange: () => this.schedule(),
      onError: deps.onError,
    });
    deps.writes.add(this);
  }

  /** Claims every partition; resolves when all of them are open. */
  async open(): Promise<void> {
    const claims = this.machine.partitions.map((owned) => this.#claim(owned.index));
    await Promise.all(claims);
    this.#every(maintainEveryMs, () => void this.#maintain());
    if (this.#deps.engine.profile.nodes === "many") {
      this.#every(this.#options.claimLeaseMs / 3, () => this.#renew());
    }
  }

  async #claim(partition: number): Promise<void> {
    const { contract, node, claimLeaseMs } = this.#options;
    const { engine, clock } = this.#deps;
    const ref = { flow: contract.name, partition };
    for (;;) {
      const result = await engine.claim(ref, { node, address: "" }, claimLeaseMs);
      if (this.#isClosed) return;
      if (result.kind === "claimed") {
        this.machine.claimed(partition, result.claim, clock.now());
        return this.schedule();
      }
      await this.#pause(Math.max(claimRetryMs, result.retryAfterMs));
    }
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.#after(delayMs, resolve));
  }

  // Links.

  addProducer(id: string, link: Link<ToProducerFrame, ProducerFrame>): void {
    this.#producers.set(id, link);
    link.onFrame = (frame) => {
      const nowMs = this.#deps.clock.now();
      if (frame.kind === "send") addDigests(frame.drafts);
      this.machine.producerFrame(id, frame, nowMs);
      // A heartbeat alone asks for credit: over a function call the answer comes within the call.
      if (frame.kind === "beat") {
        this.machine.issue(nowMs);
        this.#carryOut(this.machine.take());
      }
      this.schedule();
    };
    this.machine.producerJoined(id, this.#deps.clock.now());
    this.schedule();
  }

  removeProducer(id: string): void {
    if (!this.#producers.delete(id)) return;
    this.machine.producerLeft(id, this.#deps.clock.now(), true);
    this.schedule();
  }

  addConsumer(id: string, link: Link<ToConsumerFrame, ConsumerFrame>, isRemote = false): void {
    this.#consumers.set(id, link);
    link.onFrame = (frame) => {
      this.machine.consumerFrame(id, frame, this.#deps.clock.now());
      this.schedule();
    };
    this.machine.consumerJoined(id, this.#deps.clock.now(), isRemote);
    this.schedule();
  }

  removeConsumer(id: string): void {
    if (!this.#consumers.delete(id)) return;
    this.machine.consumerLeft(id, this.#deps.clock.now());
    this.schedule();
  }

  // Operators.

  change(contract: Contract): void {
    this.machine.change(contract, this.#deps.clock.now());
    this.schedule();
  }

  pause(partition?: number): void {
    this.machine.pause(partition);
    this.schedule();
  }

  resume(partition?: number): void {
    this.machine.resume(partition);
    this.schedule();
  }

  setIntake(isClosed: boolean, partition?: number): void {
    this.machine.setIntake(isClosed, partition);
    this.schedule();
  }

  view(): QueueView {
    return this.machine.view(this.#deps.clock.now());
  }

  /** Why a message waits; where it ended if it did; undefined: it is not known. */
  async why(partition: number, seq: number): Promise<Reason | undefined> {
    const owned = this.machine.partitions[partition];
    if (owned === undefined) return undefined;
    const nowMs = this.#deps.clock.now();
    const known = this.machine.why(partition, seq, nowMs);
    if (known !== undefined) return known;
    const { engine } = this.#deps;
    const ref = this.#ref(partition);
    const [stored] = await engine.payloads(ref, [seq]);
    if (stored !== null && stored !== undefined) {
      const heads =
        stored.keyHash === undefined ? [0] : await engine.keyHeads(ref, [stored.keyHash]);
      return explainStored(owned, stored, heads[0]!, nowMs);
    }
    const shelved = await this.shelves.find(partition, seq);
    if (shelved !== undefined) {
      const { shelf, message } = shelved;
      return { reason: shelf, text: `it ended as ${shelf}: ${message.reason}` };
    }
    if (seq > owned.counters.accepted) return undefined;
    return { reason: "acked", text: "it was handled and acknowledged" };
  }

  // Turns.

  schedule(): void {
    if (this.#isScheduled || this.#isClosed) return;
    this.#isScheduled = true;
    this.#deps.clock.defer(() => this.#turn());
  }

  #turn(): void {
    this.#isScheduled = false;
    if (this.#isClosed) return;
    try {
      const nowMs = this.#deps.clock.now();
      this.machine.turn(nowMs);
      this.#carryOut(this.machine.take());
      this.#deps.writes.flush(this, nowMs);
      this.#arm();
      if (this.#onIdle !== undefined && this.#isIdle()) this.#onIdle();
    } catch (error) {
      this.#broken(error);
    }
  }

  #arm(): void {
    const { clock } = this.#deps;
    const nowMs = clock.now();
    const atMs = this.machine.nextWakeAtMs(nowMs);
    if (atMs === this.#turnAtMs && this.#turnTimer !== undefined) return;
    this.#turnTimer?.cancel();
    this.#turnTimer = undefined;
    this.#turnAtMs = atMs;
    if (atMs === Infinity) return;
    this.#turnTimer = clock.after(Math.max(1, atMs - nowMs), () => {
      this.#turnTimer = undefined;
      this.schedule();
    });
  }

  #carryOut(effects: readonly QueueEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "toProducer":
          this.#producers.get(effect.producer)?.send(effect.frame);
          break;
        case "toConsumer":
          this.#consumers.get(effect.consumer)?.send(effect.frame);
          break;
        case "fact":
          this.#deps.onFact(effect.fact);
          break;
        default:
          this.#read(effect).catch((error: unknown) => this.#readFailed(effect, error));
      }
    }
  }

  async #read(
    effect: Extract<QueueEffect, { kind: "scan" | "groups" | "due" | "readKey" | "payloads" }>,
  ): Promise<void> {
    const { engine, clock } = this.#deps;
    const ref = this.#ref(effect.partition);
    switch (effect.kind) {
      case "scan": {
        const descriptors = await engine.scan(ref, effect.query);
        const heads = await this.#heads(ref, descriptors);
        this.machine.scanned(effect, descriptors, heads, clock.now());
        break;
      }
      case "due": {
        const descriptors = await engine.due(ref, effect.untilMs, effect.after, effect.limit);
        const heads = await this.#heads(ref, descriptors);
        this.machine.dueRead(effect, descriptors, heads, clock.now());
        break;
      }
      case "groups": {
        const groups = await engine.groups(ref, effect.lane, effect.after, effect.limit);
        this.machine.groupsRead(effect, groups, clock.now());
        break;
      }
      case "readKey": {
        const descriptors = await engine.readKey(ref, effect.keyHash, 0, effect.limit);
        this.machine.keyRead(effect, descriptors, clock.now());
        break;
      }
      case "payloads": {
        const messages = await engine.payloads(ref, effect.seqs);
        this.machine.loaded(effect, messages, clock.now());
        break;
      }
    }
    this.schedule();
  }

  /** For each descriptor the first pending seq of its key, 0 without a key. One look-up a key. */
  async #heads(ref: Claim["ref"], descriptors: readonly { keyHash?: number }[]): Promise<number[]> {
    if (this.#options.contract.order !== "key") return descriptors.map(() => 0);
    const keys = new Set<number>();
    for (const { keyHash } of descriptors) if (keyHash !== undefined) keys.add(keyHash);
    if (keys.size === 0) return descriptors.map(() => 0);
    const hashes = [...keys];
    const heads = await this.#deps.engine.keyHeads(ref, hashes);
    const headOf = new Map(hashes.map((hash, at) => [hash, heads[at]!]));
    return descriptors.map(({ keyHash }) => (keyHash === undefined ? 0 : headOf.get(keyHash)!));
  }

  #readFailed(effect: QueueEffect, error: unknown): void {
    if (this.#isClosed) return;
    if (effect.kind === "payloads" && isSpillwayError(error, "store_corrupt")) {
      void this.#readOneByOne(effect);
      return;
    }
    if (isSpillwayError(error, "store_unavailable")) {
      this.#after(repeatDelayMs, () => this.#carryOut([effect]));
      return;
    }
    if ("partition" in effect) this.#stop(effect.partition, error);
  }

  /** A damaged message must not hold up those that were asked for with it. */
  async #readOneByOne(effect: Extract<QueueEffect, { kind: "payloads" }>): Promise<void> {
    const { engine, clock } = this.#deps;
    for (const seq of effect.seqs) {
      try {
        const messages = await engine.payloads(this.#ref(effect.partition), [seq]);
        this.machine.loaded({ ...effect, seqs: [seq] }, messages, clock.now());
      } catch (error) {
        if (!isSpillwayError(error, "store_corrupt")) return this.#stop(effect.partition, error);
        this.#deps.onError(error);
        this.machine.damaged(effect.partition, seq, clock.now());
      }
    }
    this.schedule();
  }

  // Writes.

  prepare(partition: number, write: QueueWrite): PartitionWrite {
    const prepared: PartitionWrite = {
      claim: this.machine.partitions[partition]!.claim!,
      writeId: write.writeId,
      nowMs: Math.floor(this.#deps.clock.now()),
      appends: write.appends,
      changes: write.changes,
      limits: write.limits,
    };
    this.#writing[partition] = { write: prepared, repeats: 0 };
    return prepared;
  }

  written(partition: number, result: WriteResult): void {
    this.#writing[partition] = undefined;
    if (this.#isClosed) return;
    try {
      this.machine.written(partition, result, this.#deps.clock.now());
    } catch (error) {
      this.#stop(partition, error);
    }
    this.schedule();
  }

  failed(partition: number, error: unknown): readonly number[] {
    const writing = this.#writing[partition];
    if (this.#isClosed || writing === undefined) return [];
    const nowMs = this.#deps.clock.now();
    const code = isSpillwayError(error) ? error.code : undefined;
    if (code === "store_full" || code === "bound_reached") {
      this.#writing[partition] = undefined;
      this.schedule();
      const answer = code === "store_full" ? code : "buffer_full";
      return this.machine.refused(partition, answer, nowMs);
    }
    const mayRepeat = code === "outcome_unknown" || code === "store_unavailable";
    if (mayRepeat && writing.repeats < repeatsMax) {
      writing.repeats++;
      this.#after(repeatDelayMs * writing.repeats, () => {
        if (this.#writing[partition] !== writing) return;
        this.#deps.writes.repeat(this, partition, writing.write);
      });
      return [];
    }
    this.#writing[partition] = undefined;
    this.#stop(partition, error);
    return [];
  }

  /** The partition cannot go on: its store, its claim or an invariant failed. Others are untouched. */
  #stop(partition: number, error: unknown): void {
    const known = isSpillwayError(error)
      ? error
      : new SpillwayError(
          "invariant_broken",
          { partition, found: textOf(error) },
          { cause: error },
        );
    this.machine.stopped(partition, refusalOf(known.code), this.#deps.clock.now());
    this.#deps.onError(known);
    this.schedule();
  }

  #broken(error: unknown): void {
    for (const owned of this.machine.partitions) this.#stop(owned.index, error);
    this.#carryOut(this.machine.take());
  }

  // Upkeep.

  async #maintain(): Promise<void> {
    const { engine, clock } = this.#deps;
    const { partitions } = this.machine;
    const owned = partitions[this.#maintained++ % partitions.length]!;
    if (!owned.isOpen) return;
    try {
      const nowMs = Math.floor(clock.now());
      const { more } = await engine.maintain(owned.claim!, nowMs, maintainBudgetMs);
      if (more && !this.#isClosed) this.#after(4 * maintainBudgetMs, () => void this.#maintain());
    } catch (error) {
      if (!this.#isClosed && !isSpillwayError(error, "store_full")) this.#stop(owned.index, error);
    }
  }

  #renew(): void {
    for (const owned of this.machine.partitions) {
      if (!owned.isOpen) continue;
      this.#deps.engine
        .renew(owned.claim!, this.#options.claimLeaseMs)
        .catch((error: unknown) => this.#stop(owned.index, error));
    }
  }

  #after(delayMs: number, call: () => void): void {
    const timer = this.#deps.clock.after(delayMs, () => {
      this.#timers.delete(timer);
      if (!this.#isClosed) call();
    });
    this.#timers.add(timer);
  }

  #every(delayMs: number, call: () => void): void {
    this.#after(delayMs, () => {
      call();
      this.#every(delayMs, call);
    });
  }

  #ref(partition: number): Claim["ref"] {
    return { flow: this.#options.contract.name, partition };
  }

  // The end.

  /** Starts nothing new and takes back what was not handed out. */
  drain(): void {
    this.machine.close();
    this.schedule();
  }

  /** The owner closes: what consumers still have was a failed attempt, and no crash. */
  release(): void {
    for (const id of this.#consumers.keys()) this.machine.consumerLeft(id, this.#deps.clock.now());
    this.schedule();
  }

  /** Resolves when everything decided is durable: nothing in flight, nothing to write. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#isIdle()) return resolve();
      const before = this.#onIdle;
      this.#onIdle = () => {
        this.#onIdle = undefined;
        before?.();
        resolve();
      };
      this.schedule();
    });
  }

  #isIdle(): boolean {
    return this.#isClosed || this.machine.isIdle;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#turnTimer?.cancel();
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#deps.writes.remove(this);
    this.#onIdle?.();
    for (const owned of this.machine.partitions) {
      // A store that cannot take the release has lost the claim by its own means, or will.
      if (owned.isOpen) await this.#deps.engine.release(owned.claim!).catch(() => undefined);
    }
  }
}

const refusals: ReadonlySet<ErrorCode> = new Set<RefusalCode>([
  "fenced",
  "store_failed",
  "store_corrupt",
  "store_unavailable",
  "outcome_unknown",
  "invariant_broken",
  "closed",
]);

function refusalOf(code: ErrorCode): RefusalCode {
  return refusals.has(code) ? (code as RefusalCode) : "store_failed";
}

/**
 * The memory engine: the port in its simplest correct form. It is the oracle of the conformance
 * suite, the store of simulations and of tests; nothing survives the process (E1 says "memory").
 * The object keeps its content when it is closed: `open` and a new `claim` play the restart.
 *
 * M1  Every method does all its work when it is called: a step of the event loop sees no half of it.
 * M2  No clock, and chance only for claim ids: the same calls give the same content and results.
 * M3  A `write` is weighed as a whole before anything changes (E2, E7, E20).
 * M4  Claims never expire: a new one always succeeds and voids the older (profile.nodes "one").
 * M5  A batch names each partition once: its owner has merged what waits.
 *
 * Buffers are kept as they come, not copied: callers do not change what they have handed over.
 */
import { randomBytes } from "node:crypto";
import { SpillwayError } from "../../base/index.ts";
import type { KeyHash, MessageClass, Seq } from "../../flow/index.ts";
import { appendBytes } from "../engine.ts";
import type {
  AuditReport,
  Claim,
  ClaimResult,
  Descriptor,
  DueCursor,
  Engine,
  EngineProfile,
  OwnerInfo,
  PartitionRef,
  PartitionWrite,
  ScanQuery,
  Shelf,
  ShelfEntry,
  StoredMessage,
  WriteResult,
} from "../engine.ts";
import { MemoryMeta } from "./meta.ts";
import { Partition } from "./partition.ts";
import type { Plan } from "./partition.ts";
import { LocalSignals } from "../signals.ts";

const mebibyte = 1024 ** 2;

export interface MemoryOptions {
  /** Payload, headers, key and group of one message together; 16 MiB where absent. */
  readonly maxMessageBytes?: number;
  /** From here appends end in `store_full`: bytes of pending messages and dead letters together. */
  readonly fullAtBytes?: number;
  /** In [0, 1), for claim ids; the platform's random bits where absent. */
  readonly random?: () => number;
}

export function memory(options: MemoryOptions = {}): Engine {
  return new MemoryEngine(options);
}

class MemoryEngine implements Engine {
  readonly profile: EngineProfile;
  readonly meta: MemoryMeta = new MemoryMeta(() => this.#needOpen());
  readonly signals: LocalSignals = new LocalSignals();
  readonly #partitions = new Map<string, Partition>();
  readonly #fullAtBytes: number;
  readonly #random: (() => number) | undefined;
  #opened = false;

  constructor(options: MemoryOptions) {
    const maxMessageBytes = options.maxMessageBytes ?? 16 * mebibyte;
    this.profile = {
      name: "memory",
      durability: "memory",
      survivesNodeLoss: false,
      atomicAcross: "store",
      maxBatchBytes: 4 * maxMessageBytes,
      maxMessageBytes,
      nodes: "one",
    };
    this.#fullAtBytes = options.fullAtBytes ?? Infinity;
    this.#random = options.random;
  }

  async open(): Promise<void> {
    this.#opened = true;
  }

  async claim(ref: PartitionRef, _owner: OwnerInfo, _leaseMs: number): Promise<ClaimResult> {
    this.#needOpen();
    const name = nameOf(ref);
    let partition = this.#partitions.get(name);
    if (partition === undefined) {
      partition = new Partition(ref);
      this.#partitions.set(name, partition);
    }
    return { kind: "claimed", claim: partition.claim(this.#claimId()) };
  }

  async renew(claim: Claim, _leaseMs: number): Promise<void> {
    this.#owned(claim);
  }

  async release(claim: Claim): Promise<void> {
    this.#needOpen();
    this.#partitions.get(nameOf(claim.ref))?.release(claim);
  }

  async write(batch: readonly PartitionWrite[]): Promise<WriteResult[]> {
    const partitions = batch.map((write) => this.#owned(write.claim));
    if (new Set(partitions).size < partitions.length) {
      throw new SpillwayError("invariant_broken", { invariant: "one write per partition" });
    }
    this.#checkSizes(batch);
    const plans = batch.map((write, i) => partitions[i]!.plan(write));
    this.#checkRoom(plans);
    return plans.map((plan, i) => partitions[i]!.commit(plan));
  }

  async scan(ref: PartitionRef, query: ScanQuery): Promise<Descriptor[]> {
    return this.#read(ref)?.scan(query) ?? [];
  }

  async groups(
    ref: PartitionRef,
    lane: MessageClass,
    after: string | null,
    limit: number,
  ): Promise<string[]> {
    return this.#read(ref)?.groups(lane, after, limit) ?? [];
  }

  async due(
    ref: PartitionRef,
    untilMs: number,
    after: DueCursor | null,
    limit: number,
  ): Promise<Descriptor[]> {
    return this.#read(ref)?.due(untilMs, after, limit) ?? [];
  }

  async keyHeads(ref: PartitionRef, keyHashes: readonly KeyHash[]): Promise<Seq[]> {
    const partition = this.#read(ref);
    return keyHashes.map((keyHash) => partition?.keyHead(keyHash) ?? 0);
  }

  async readKey(
    ref: PartitionRef,
    keyHash: KeyHash,
    afterSeq: Seq,
    limit: number,
  ): Promise<Descriptor[]> {
    return this.#read(ref)?.readKey(keyHash, afterSeq, limit) ?? [];
  }

  async payloads(ref: PartitionRef, seqs: readonly Seq[]): Promise<(StoredMessage | null)[]> {
    const partition = this.#read(ref);
    return seqs.map((seq) => partition?.message(seq) ?? null);
  }

  async list(ref: PartitionRef, shelf: Shelf, afterSeq: Seq, limit: number): Promise<ShelfEntry[]> {
    return this.#read(ref)?.list(shelf, afterSeq, limit) ?? [];
  }

  async audit(ref: PartitionRef): Promise<AuditReport> {
    return (this.#read(ref) ?? new Partition(ref)).audit();
  }

  async maintain(
    claim: Claim,
    nowMs: number,
    budgetMs: number,
  ): Promise<{ readonly reclaimedBytes: number; readonly more: boolean }> {
    return this.#owned(claim).maintain(nowMs, budgetMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#opened = false;
    this.meta.close();
    this.signals.close();
  }

  #checkSizes(batch: readonly PartitionWrite[]): void {
    let total = 0;
    for (const { appends } of batch) {
      for (const append of appends) {
        const bytes = appendBytes(append);
        total += bytes;
        if (bytes > this.profile.maxMessageBytes) {
          const limit = this.profile.maxMessageBytes;
          throw new SpillwayError("message_too_large", { bytes, limit });
        }
      }
    }
    if (total > this.profile.maxBatchBytes) {
      const limit = this.profile.maxBatchBytes;
      throw new SpillwayError("message_too_large", { batchBytes: total, limit });
    }
  }

  /** E20: what is stored counts, what waits on the discarded shelf does not. Settles never grow it. */
  #checkRoom(plans: readonly Plan[]): void {
    if (this.#fullAtBytes === Infinity) return;
    let bytes = 0;
    for (const partition of this.#partitions.values()) bytes += partition.heldBytes;
    for (const plan of plans) bytes += plan.grows;
    if (bytes > this.#fullAtBytes) {
      throw new SpillwayError("store_full", { bytes, limit: this.#fullAtBytes });
    }
  }

  #owned(claim: Claim): Partition {
    this.#needOpen();
    const partition = this.#partitions.get(nameOf(claim.ref));
    if (partition === undefined || !partition.isOwnedBy(claim)) {
      const { flow, partition: number } = claim.ref;
      throw new SpillwayError("fenced", { flow, partition: number, fence: claim.fence });
    }
    return partition;
  }

  #read(ref: PartitionRef): Partition | undefined {
    this.#needOpen();
    return this.#partitions.get(nameOf(ref));
  }

  #needOpen(): void {
    if (!this.#opened) throw new SpillwayError("closed", { engine: "memory" });
  }

  #claimId(): string {
    const random = this.#random;
    if (random === undefined) return randomBytes(16).toString("hex");
    const word = (): string =>
      Math.floor(random() * 4294967296)
        .toString(16)
        .padStart(8, "0");
    return word() + word() + word() + word();
  }
}

function nameOf(ref: PartitionRef): string {
  return `${ref.partition}/${ref.flow}`;
}

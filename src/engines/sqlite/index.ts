/**
 * The embedded store: one directory, one process, one thread that writes. Accepted means synced to
 * disk (profile.durability "fsync"). A directory is held by one engine at a time; a claim of a partition
 * always succeeds at once and voids the older one, for there is nobody else to ask.
 *
 * The discarded shelf is kept without a bound.
 */
import { resolve } from "node:path";
import { SpillwayError } from "../../base/index.ts";
import type { KeyHash, MessageClass, Seq } from "../../flow/index.ts";
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
  Signals,
  StoredMessage,
  WriteResult,
} from "../engine.ts";
import { LocalSignals } from "../signals.ts";
import { Link } from "./link.ts";
import { Meta } from "./meta-store.ts";
import { encodeWrite, op } from "./wire.ts";
import type { Op, Requests } from "./wire.ts";

export { auditStore } from "./audit.ts";
export type { PartitionAudit } from "./audit.ts";
export { backupStore, leftOvers } from "./backup.ts";
export type { BackupOptions, Manifest } from "./backup.ts";
export { inspectStore, sqliteFault } from "./inspect.ts";
export type { StoreLook } from "./inspect.ts";
export { restoreStore } from "./restore.ts";
export type { Restored } from "./restore.ts";

const mebibyte = 1024 ** 2;

export interface SqliteOptions {
  /** The data directory; it is made where absent. */
  readonly dir: string;
  /** Payload, headers, key and group of one message together; 16 MiB where absent. */
  readonly maxMessageBytes?: number;
  /** A file that is released when the disk is full, so that settles still commit; 32 MiB where absent. */
  readonly reserveBytes?: number;
  /** Below this much free space appends are refused; 32 MiB where absent. */
  readonly minFreeBytes?: number;
  /**
   * Calls at the end of a turn: what is asked of the store until then travels together. `setImmediate`
   * where absent; who batches turns of another kind gives its own.
   */
  readonly defer?: (call: () => void) => void;
  /** Added to every commit. For benchmarks and tests only. */
  readonly slowDiskMs?: number;
  /** "unsafe-normal" loses acknowledged messages with the power. For the canary of tests only. */
  readonly synchronous?: "full" | "unsafe-normal";
}

export function sqlite(options: SqliteOptions): Engine {
  return new SqliteEngine(options);
}

class SqliteEngine implements Engine {
  readonly profile: EngineProfile;
  readonly signals: Signals;
  readonly meta: Meta;
  readonly #options: SqliteOptions;
  readonly #dir: string;
  readonly #signals = new LocalSignals();
  #opening: Promise<Link> | undefined;
  #link: Link | undefined;

  constructor(options: SqliteOptions) {
    const maxMessageBytes = options.maxMessageBytes ?? 16 * mebibyte;
    this.#options = options;
    this.#dir = resolve(options.dir);
    this.profile = {
      name: "sqlite",
      durability: options.synchronous === "unsafe-normal" ? "page-cache" : "fsync",
      survivesNodeLoss: false,
      atomicAcross: "store",
      maxBatchBytes: 4 * maxMessageBytes,
      maxMessageBytes,
      nodes: "one",
    };
    this.signals = this.#signals;
    this.meta = new Meta((kind, request) => this.#ask(kind, request));
  }

  /** Opening again after a failure reads the store anew; opening what is open does nothing. */
  async open(): Promise<void> {
    const { reserveBytes = 32 * mebibyte, minFreeBytes = 32 * mebibyte } = this.#options;
    if (this.#link?.isOpen === true) return;
    await this.#link?.close();
    this.#opening ??= Link.open(
      {
        dir: this.#dir,
        reserveBytes,
        minFreeBytes,
        slowDiskMs: this.#options.slowDiskMs ?? 0,
        synchronous: this.#options.synchronous === "unsafe-normal" ? "NORMAL" : "FULL",
      },
      this.#options.defer ?? setImmediate,
    );
    try {
      this.#link = await this.#opening;
    } finally {
      this.#opening = undefined;
    }
  }

  async claim(partition: PartitionRef, _owner: OwnerInfo, _leaseMs: number): Promise<ClaimResult> {
    const claim = (await this.#ask(op.claim, [refOf(partition)])) as Claim;
    return { kind: "claimed", claim };
  }

  async renew(claim: Claim, _leaseMs: number): Promise<void> {
    await this.#ask(op.renew, [heldOf(claim)]);
  }

  async release(claim: Claim): Promise<void> {
    await this.#ask(op.release, [heldOf(claim)]);
  }

  write(batch: readonly PartitionWrite[]): Promise<WriteResult[]> {
    const link = this.#link;
    if (link === undefined) return Promise.reject(this.#closed());
    const { profile } = this;
    const encode = (to: Parameters<typeof encodeWrite>[0]): void => encodeWrite(to, batch, profile);
    return link.call(op.write, encode, batch.length) as Promise<WriteResult[]>;
  }

  async scan(partition: PartitionRef, query: ScanQuery): Promise<Descriptor[]> {
    const { lane, afterSeq, limit, nowMs, group } = query;
    const sent = { lane, afterSeq, limit: finite(limit), nowMs: finite(nowMs) };
    const request = group === undefined ? sent : { ...sent, group };
    return (await this.#ask(op.scan, [refOf(partition), request])) as Descriptor[];
  }

  async groups(
    partition: PartitionRef,
    lane: MessageClass,
    after: string | null,
    limit: number,
  ): Promise<string[]> {
    const request = [refOf(partition), lane, after, finite(limit)] as const;
    return (await this.#ask(op.groups, request)) as string[];
  }

  async due(
    partition: PartitionRef,
    untilMs: number,
    after: DueCursor | null,
    limit: number,
  ): Promise<Descriptor[]> {
    const request = [refOf(partition), finite(untilMs), after, finite(limit)] as const;
    return (await this.#ask(op.due, request)) as Descriptor[];
  }

  async keyHeads(partition: PartitionRef, keyHashes: readonly KeyHash[]): Promise<Seq[]> {
    return (await this.#ask(op.keyHeads, [refOf(partition), keyHashes])) as Seq[];
  }

  async readKey(
    partition: PartitionRef,
    keyHash: KeyHash,
    afterSeq: Seq,
    limit: number,
  ): Promise<Descriptor[]> {
    const request = [refOf(partition), keyHash, afterSeq, finite(limit)] as const;
    return (await this.#ask(op.readKey, request)) as Descriptor[];
  }

  async payloads(partition: PartitionRef, seqs: readonly Seq[]): Promise<(StoredMessage | null)[]> {
    return (await this.#ask(op.payloads, [refOf(partition), seqs])) as (StoredMessage | null)[];
  }

  async list(
    partition: PartitionRef,
    shelf: Shelf,
    afterSeq: Seq,
    limit: number,
  ): Promise<ShelfEntry[]> {
    const request = [refOf(partition), shelf, afterSeq, finite(limit)] as const;
    return (await this.#ask(op.list, request)) as ShelfEntry[];
  }

  async audit(partition: PartitionRef): Promise<AuditReport> {
    return (await this.#ask(op.audit, [refOf(partition)])) as AuditReport;
  }

  async maintain(
    claim: Claim,
    nowMs: number,
    budgetMs: number,
  ): Promise<{ readonly reclaimedBytes: number; readonly more: boolean }> {
    const request = [heldOf(claim), finite(nowMs), finite(budgetMs)] as const;
    return (await this.#ask(op.maintain, request)) as Awaited<ReturnType<Engine["maintain"]>>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opening?.catch(() => {}); // Who opened it has been told.
    this.meta.close();
    this.#signals.close();
    await this.#link?.close();
    this.#link = undefined;
  }

  #ask(kind: Op, request: Requests[keyof Requests]): Promise<unknown> {
    const link = this.#link;
    if (link === undefined) return Promise.reject(this.#closed());
    return link.call(kind, (to) => to.text(JSON.stringify(request)));
  }

  #closed(): SpillwayError {
    return new SpillwayError("closed", { engine: "sqlite", dir: this.#dir });
  }
}

/** What travels is what was asked for, whatever else the caller's object holds. */
function refOf({ flow, partition }: PartitionRef): PartitionRef {
  return { flow, partition };
}

function heldOf({ ref, fence, claimId }: Claim): Requests["held"][0] {
  return { ref: refOf(ref), fence, claimId };
}

/** JSON knows no infinity. */
function finite(value: number): number {
  return Math.min(Number.MAX_SAFE_INTEGER, Math.max(Number.MIN_SAFE_INTEGER, value));
}

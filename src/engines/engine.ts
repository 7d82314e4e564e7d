/**
 * The storage port: what a partition's owner asks of a store. Every write to a partition goes through
 * its owner, under one fence, in one verb; a store makes it durable as a whole or refuses it whole.
 * Times are integers in ms since the epoch (`...AtMs`, `nowMs`, from the owner's clock) or spans
 * (`...Ms`); sizes are bytes. Every method rejects with a `SpillwayError`.
 *
 * Guarantees (the conformance suite cites them):
 * E1   A resolved `write` survives kill -9; durability `fsync`: also the loss of power.
 * E2   A `write` is all or nothing, also across partitions where `atomicAcross` is "store".
 * E3   After `claim` resolves, every `write`, `renew` and `maintain` of an earlier claim ends in
 *      `fenced` and changes nothing. Fence and claim id are both compared.
 * E4   `claim` succeeds within leaseMs + 1 s of the owner's last renewal, even if it is stopped.
 * E5   Expiry is judged by one clock.
 * E6   Seqs rise in the order of the appends within and across writes, dense; a duplicate takes none.
 * E7   `pending` and `bytes` never pass `limits`: a write whose appends would is refused whole with
 *      `bound_reached`. Settles alone are never refused.
 * E8   The same idempotency id within its window: `duplicate` with the first seq, or `conflict` if the
 *      content differs; also after the first one ended, after restart and takeover, twice in one batch.
 * E9   `started`, as a change or with the append, is durable before `write` resolves; after a crash it
 *      counts as an attempt and a crash, and `claim` lists it in `interrupted`.
 * E10  A change of a seq that is not pending is ignored and not counted: settling twice counts once.
 * E11  `claim` costs O(window), `scan`, `due` and `readKey` O(limit) plus what was settled since the
 *      last `maintain`.
 * E12  `scan` from any cursor returns every pending, ready message of the lane once, ascending.
 * E13  `keyHeads` sees every pending message of the key: ready, delayed, waiting, in flight, any lane.
 * E14  accepted = acked + dead + discarded + pending at every moment, and the rows agree.
 * E15  `redrive` brings a dead letter back under its seq with no attempts; purging one is a `discard`.
 * E16  After a spike is drained, `maintain` gives the space back in slices, each within its budget.
 * E17  The same `writeId` sent again is applied once and gets the same result.
 * E18  `meta.set` is compare-and-set; `watch` misses no last value.
 * E19  Losing every signal changes latency only.
 * E20  A full store refuses appends and still takes settles.
 */
import type { KeyHash, MessageClass, Seq } from "../flow/index.ts";

export interface Engine extends AsyncDisposable {
  readonly profile: EngineProfile;
  /**
   * Opens the store, checks its settings and migrates an older schema.
   * @throws {SpillwayError} store_locked, store_newer, store_unsafe, store_corrupt
   */
  open(): Promise<void>;
  /** Becomes the owner, or says who is. Never waits for the old owner; voids every earlier claim. */
  claim(partition: PartitionRef, owner: OwnerInfo, leaseMs: number): Promise<ClaimResult>;
  /** @throws {SpillwayError} fenced */
  renew(claim: Claim, leaseMs: number): Promise<void>;
  /** Lets go of a partition; doing it twice does nothing. */
  release(claim: Claim): Promise<void>;
  /**
   * The only way to change messages; durable when it resolves. More than one element is allowed
   * where `profile.atomicAcross` is "store", and then all of them happen or none.
   * @throws {SpillwayError} fenced, bound_reached, message_too_large, store_full, store_failed,
   *   store_unavailable (nothing was done), outcome_unknown (send the same write again)
   */
  write(batch: readonly PartitionWrite[]): Promise<WriteResult[]>;
  /** Pending messages of a lane, ascending by seq, without those whose `dueAtMs` lies after `nowMs`. */
  scan(partition: PartitionRef, query: ScanQuery): Promise<Descriptor[]>;
  /** Groups that have pending messages in a lane, ascending after `after`. */
  groups(
    partition: PartitionRef,
    lane: MessageClass,
    after: string | null,
    limit: number,
  ): Promise<string[]>;
  /** Pending messages with `dueAtMs` <= `untilMs`, ascending by (dueAtMs, seq), after the cursor. */
  due(
    partition: PartitionRef,
    untilMs: number,
    after: DueCursor | null,
    limit: number,
  ): Promise<Descriptor[]>;
  /** For each key the first pending seq of any state, 0 where none is pending. */
  keyHeads(partition: PartitionRef, keyHashes: readonly KeyHash[]): Promise<Seq[]>;
  /** Pending messages of one key in any lane and state, ascending after a seq. */
  readKey(
    partition: PartitionRef,
    keyHash: KeyHash,
    afterSeq: Seq,
    limit: number,
  ): Promise<Descriptor[]>;
  /**
   * For each seq its message, null where it is not pending. Checked against its CRC.
   * @throws {SpillwayError} store_corrupt
   */
  payloads(partition: PartitionRef, seqs: readonly Seq[]): Promise<(StoredMessage | null)[]>;
  list(partition: PartitionRef, shelf: Shelf, afterSeq: Seq, limit: number): Promise<ShelfEntry[]>;
  /** The counters, and the same numbers counted from the rows. */
  audit(partition: PartitionRef): Promise<AuditReport>;
  /** Expiry of idempotency ids and compaction, for about `budgetMs`. */
  maintain(
    claim: Claim,
    nowMs: number,
    budgetMs: number,
  ): Promise<{ readonly reclaimedBytes: number; readonly more: boolean }>;
  readonly meta: MetaStore;
  readonly signals: Signals;
}

export interface EngineProfile {
  readonly name: string;
  readonly durability: "memory" | "fsync" | "quorum" | "page-cache";
  readonly survivesNodeLoss: boolean;
  readonly atomicAcross: "partition" | "store";
  readonly maxBatchBytes: number;
  readonly maxMessageBytes: number;
  readonly nodes: "one" | "many";
}

export interface PartitionRef {
  readonly flow: string;
  readonly partition: number;
}

export interface OwnerInfo {
  readonly node: string;
  readonly address: string;
}

export type ClaimResult =
  | { readonly kind: "claimed"; readonly claim: Claim }
  | { readonly kind: "held"; readonly by: OwnerInfo; readonly retryAfterMs: number };

export interface Claim {
  readonly ref: PartitionRef;
  /** Rises with every claim of the partition. */
  readonly fence: number;
  /** 128 random bits as hex: a store that went back in time cannot honour two owners. */
  readonly claimId: string;
  readonly nextSeq: Seq;
  readonly counters: Counters;
  /** First pending seq of each lane, 0 where it is empty. */
  readonly laneHeads: Readonly<Record<MessageClass, Seq>>;
  /** Started and never settled before this claim: at most a window. Their attempt and crash count. */
  readonly interrupted: readonly Descriptor[];
  readonly nextDueAtMs: number | null;
}

export interface PartitionWrite {
  readonly claim: Claim;
  readonly writeId: string;
  readonly nowMs: number;
  readonly appends: readonly Append[];
  readonly changes: readonly Change[];
  /** Applied to the partition when there are appends (E7). */
  readonly limits: { readonly messages: number; readonly bytes: number };
}

export interface Append {
  readonly class: MessageClass;
  readonly keyHash?: KeyHash;
  readonly key?: string;
  readonly group?: string;
  /** How much of the target's window and rate it uses; 1 where absent. */
  readonly cost?: number;
  readonly dueAtMs?: number;
  readonly deadlineAtMs?: number;
  readonly idempotency?: {
    /** 16 bytes: hash of the idempotency key. */
    readonly id: Uint8Array;
    /** 8 bytes: hash of the payload. */
    readonly content: Uint8Array;
    readonly untilMs: number;
  };
  /** Its first attempt starts with it: one commit instead of two. A duplicate starts nothing. */
  readonly started?: boolean;
  readonly headers: Uint8Array;
  readonly payload: Uint8Array;
}

export type Change = { readonly seq: Seq } & (
  | /** One more attempt, before the handler runs. */ { readonly kind: "started" }
  | /** Takes that attempt back; due at once or later. */ {
      readonly kind: "released";
      readonly dueAtMs?: number;
    }
  | /** Keeps the attempt. */ {
      readonly kind: "retry";
      readonly dueAtMs: number;
      readonly error: string;
    }
  | { readonly kind: "ack" }
  | { readonly kind: "dead"; readonly reason: string }
  | /** Of a pending message (expired, shed) or of a dead letter (purged). */ {
      readonly kind: "discard";
      readonly reason: string;
    }
  | /** Dead letter to pending: the same seq, no attempts. */ { readonly kind: "redrive" }
);

export interface WriteResult {
  /** For each append, in order. */
  readonly appended: readonly AppendResult[];
  readonly counters: Counters;
}

export interface AppendResult {
  readonly kind: "stored" | "duplicate" | "conflict";
  /** Its seq, or the seq of the first one. */
  readonly seq: Seq;
}

export interface ScanQuery {
  readonly lane: MessageClass;
  readonly afterSeq: Seq;
  readonly limit: number;
  readonly nowMs: number;
  /** A group's messages only; null: those without a group; absent: all. */
  readonly group?: string | null;
}

export interface DueCursor {
  readonly dueAtMs: number;
  readonly seq: Seq;
}

export interface Descriptor {
  readonly seq: Seq;
  readonly class: MessageClass;
  readonly keyHash?: KeyHash;
  readonly group?: string;
  readonly cost?: number;
  /** Payload, headers, key and group together: what counts against the bound in bytes. */
  readonly bytes: number;
  readonly attempts: number;
  /** How often a process died while it was being handled. */
  readonly crashes: number;
  readonly dueAtMs?: number;
  readonly deadlineAtMs?: number;
  readonly acceptedAtMs: number;
}

export interface StoredMessage extends Descriptor {
  readonly key?: string;
  readonly error?: string;
  readonly headers: Uint8Array;
  readonly payload: Uint8Array;
}

export type Shelf = "dead" | "discarded";

/** A discarded message keeps no payload: `payload` is empty. */
export interface ShelfEntry extends StoredMessage {
  readonly reason: string;
  readonly shelvedAtMs: number;
}

export interface Counters {
  readonly accepted: number;
  readonly acked: number;
  readonly dead: number;
  readonly discarded: number;
  readonly pending: number;
  /** Of the pending messages. */
  readonly bytes: number;
}

export interface AuditReport {
  readonly counters: Counters;
  readonly counted: Pick<Counters, "dead" | "pending" | "bytes">;
  /** Rows whose CRC does not fit. */
  readonly damaged: readonly Seq[];
  readonly firstDifference?: string;
}

/** Policies, controls and membership: small and durable. */
export interface MetaStore {
  get(key: string): Promise<MetaEntry | null>;
  list(prefix: string): Promise<MetaEntry[]>;
  /**
   * @param expectedRevision 0: there is none yet.
   * @returns The new revision.
   * @throws {SpillwayError} revision_conflict
   */
  set(key: string, value: Uint8Array | null, expectedRevision: number): Promise<number>;
  /** Every change under the prefix, at the latest a second late; values in between may be skipped. */
  watch(prefix: string, signal: AbortSignalLike): AsyncIterable<MetaEntry>;
}

export interface MetaEntry {
  readonly key: string;
  readonly value: Uint8Array | null;
  readonly revision: number;
}

/** Lossy, unordered, small: hints between nodes. */
export interface Signals {
  publish(topic: string, body: Uint8Array): void;
  subscribe(topic: string, on: (body: Uint8Array) => void): Disposable;
}

/** The part of `AbortSignal` that the port needs; the port itself compiles without a platform. */
export interface AbortSignalLike {
  readonly aborted: boolean;
  addEventListener(type: "abort", listener: () => void): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

/** What a message counts against the bound in bytes. UTF-16 length stands for key and group. */
export function appendBytes(append: Append): number {
  return (
    append.payload.length +
    append.headers.length +
    (append.key?.length ?? 0) +
    (append.group?.length ?? 0)
  );
}

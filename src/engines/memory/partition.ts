/**
 * One partition in memory: who owns it, what it holds, and its one write at a time.
 *
 * A write is planned without changing anything, then committed: the changes in their order, then the
 * appends. So a change never meets a message of its own write.
 *
 * W1  accepted = acked + dead + discarded + pending, and accepted = nextSeq - 1 (E6, E14).
 * W2  The last write of a partition, whoever sent it, is remembered with its result (E17).
 * W3  A write that stores anything leaves the partition within its limits (E7).
 */
import { assert, SpillwayError } from "../../base/index.ts";
import type { KeyHash, MessageClass, Seq } from "../../flow/index.ts";
import { appendBytes } from "../engine.ts";
import type {
  AppendResult,
  AuditReport,
  Change,
  Claim,
  Counters,
  Descriptor,
  DueCursor,
  PartitionRef,
  PartitionWrite,
  ScanQuery,
  Shelf,
  ShelfEntry,
  StoredMessage,
  WriteResult,
} from "../engine.ts";
import { Dedup, knownOf, textOf } from "./dedup.ts";
import type { Known } from "./dedup.ts";
import { Pending } from "./pending.ts";
import { newRow } from "./rows.ts";
import type { Row } from "./rows.ts";
import { ShelfRows } from "./shelf.ts";

/** Ids looked at per millisecond of `maintain`: a plain number keeps the engine without a clock. */
const idsPerMs = 1000;
const noBytes = new Uint8Array(0);

/** What a write will do: its appends' results, or that it is a repeat. */
export interface Plan {
  readonly write: PartitionWrite;
  readonly appended: readonly AppendResult[];
  readonly repeats: WriteResult | undefined;
  readonly stores: boolean;
  /** By how many bytes pending messages and dead letters together grow. */
  readonly grows: number;
}

type Place = "pending" | "dead" | "gone";

export class Partition {
  readonly #ref: PartitionRef;
  readonly #pending = new Pending();
  readonly #shelves: Readonly<Record<Shelf, ShelfRows>> = {
    dead: new ShelfRows(),
    discarded: new ShelfRows(),
  };
  readonly #dedup = new Dedup();
  #deadBytes = 0;
  #accepted = 0;
  #acked = 0;
  #fence = 0;
  #claimId: string | null = null;
  #last: { readonly writeId: string; readonly result: WriteResult } | undefined;

  constructor(ref: PartitionRef) {
    this.#ref = { flow: ref.flow, partition: ref.partition };
  }

  /** Of pending messages and dead letters. */
  get heldBytes(): number {
    return this.#pending.bytes + this.#deadBytes;
  }

  claim(claimId: string): Claim {
    this.#fence++;
    this.#claimId = claimId;
    return {
      ref: this.#ref,
      fence: this.#fence,
      claimId,
      nextSeq: this.#accepted + 1,
      interrupted: this.#pending.interrupt(),
      counters: this.#counters(),
      laneHeads: this.#pending.laneHeads,
      nextDueAtMs: this.#pending.nextDueAtMs,
    };
  }

  isOwnedBy(claim: Claim): boolean {
    return claim.fence === this.#fence && claim.claimId === this.#claimId;
  }

  release(claim: Claim): void {
    if (this.isOwnedBy(claim)) this.#claimId = null;
  }

  /** @throws {SpillwayError} bound_reached */
  plan(write: PartitionWrite): Plan {
    if (write.writeId === this.#last?.writeId) {
      return { write, appended: [], repeats: this.#last.result, stores: false, grows: 0 };
    }
    const appended = this.#number(write);
    const stored = write.appends.filter((_, i) => appended[i]!.kind === "stored");
    if (stored.length === 0) {
      return { write, appended, repeats: undefined, stores: false, grows: 0 };
    }
    const { limits } = write;
    const added = stored.reduce((sum, append) => sum + appendBytes(append), 0);
    const after = this.#weigh(write.changes);
    const [pending, bytes] = [after.pending + stored.length, after.bytes + added];
    if (pending > limits.messages || bytes > limits.bytes) {
      throw new SpillwayError("bound_reached", { ...this.#ref, pending, bytes, limits });
    }
    const grows = after.held + added - this.heldBytes;
    return { write, appended, repeats: undefined, stores: true, grows };
  }

  commit({ write, appended, repeats, stores }: Plan): WriteResult {
    if (repeats !== undefined) return repeats;
    for (const change of write.changes) this.#apply(change, write.nowMs);
    for (const [i, append] of write.appends.entries()) {
      const { kind, seq } = appended[i]!;
      if (kind !== "stored") continue;
      const row = newRow(append, seq, write.nowMs);
      this.#pending.add(row);
      if (append.started === true) this.#pending.start(row);
      this.#accepted++;
      const { idempotency } = append;
      if (idempotency === undefined) continue;
      this.#dedup.remember(textOf(idempotency.id), knownOf(idempotency, seq));
    }
    const result = { appended, counters: this.#counters() };
    const { messages, bytes } = write.limits;
    const within = this.#pending.size <= messages && this.#pending.bytes <= bytes;
    assert(!stores || within, "W3 what was planned is what was done");
    this.#last = { writeId: write.writeId, result };
    return result;
  }

  scan(query: ScanQuery): Descriptor[] {
    return this.#pending.scan(query);
  }

  groups(lane: MessageClass, after: string | null, limit: number): string[] {
    return this.#pending.groups(lane, after, limit);
  }

  due(untilMs: number, after: DueCursor | null, limit: number): Descriptor[] {
    return this.#pending.due(untilMs, after, limit);
  }

  keyHead(keyHash: KeyHash): Seq {
    return this.#pending.keyHead(keyHash);
  }

  readKey(keyHash: KeyHash, afterSeq: Seq, limit: number): Descriptor[] {
    return this.#pending.readKey(keyHash, afterSeq, limit);
  }

  message(seq: Seq): StoredMessage | null {
    return this.#pending.message(seq);
  }

  list(shelf: Shelf, afterSeq: Seq, limit: number): ShelfEntry[] {
    return this.#shelves[shelf].list(afterSeq, limit);
  }

  /**
   * Memory is never damaged; it may be wrong, which only a defect brings about.
   * @throws {SpillwayError} invariant_broken
   */
  audit(): AuditReport {
    this.#pending.check();
    const { acked, dead, discarded, pending } = this.#counters();
    assert(this.#accepted === acked + dead + discarded + pending, "W1 conservation");
    const counted = { ...this.#pending.count(), dead: this.#shelves.dead.size };
    return { counters: this.#counters(), counted, damaged: [] };
  }

  maintain(nowMs: number, budgetMs: number): { reclaimedBytes: number; more: boolean } {
    const limit = Math.max(1, Math.floor(budgetMs * idsPerMs));
    const forgotten = this.#dedup.expire(nowMs, limit);
    return { reclaimedBytes: forgotten.bytes, more: forgotten.more };
  }

  /** A seq for each append that is new; for the others the one they repeat. */
  #number({ appends, nowMs }: PartitionWrite): AppendResult[] {
    let seq = this.#accepted;
    const fresh = new Map<string, Known>();
    return appends.map(({ idempotency }) => {
      if (idempotency === undefined) return { kind: "stored", seq: ++seq };
      const id = textOf(idempotency.id);
      const known = fresh.get(id) ?? this.#dedup.find(id, nowMs);
      if (known === undefined) {
        fresh.set(id, knownOf(idempotency, ++seq));
        return { kind: "stored", seq };
      }
      const same = known.content === textOf(idempotency.content);
      return { kind: same ? "duplicate" : "conflict", seq: known.seq };
    });
  }

  /** What the partition will hold after the changes, without making them. */
  #weigh(changes: readonly Change[]): { pending: number; bytes: number; held: number } {
    let [pending, bytes, held] = [this.#pending.size, this.#pending.bytes, this.heldBytes];
    const moved = new Map<Seq, Place>();
    for (const { kind, seq } of changes) {
      const row = this.#pending.get(seq) ?? this.#shelves.dead.get(seq);
      if (row === undefined) continue;
      const place = moved.get(seq) ?? (this.#pending.get(seq) === undefined ? "dead" : "pending");
      const next = nextPlace(place, kind);
      if (next === place) continue;
      moved.set(seq, next);
      const counts = (next === "pending" ? 1 : 0) - (place === "pending" ? 1 : 0);
      pending += counts;
      bytes += counts * row.bytes;
      if (next === "gone") held -= row.bytes;
    }
    return { pending, bytes, held };
  }

  #apply(change: Change, nowMs: number): void {
    const row = this.#pending.get(change.seq);
    if (row === undefined) {
      this.#applyToDead(change, nowMs);
      return;
    }
    switch (change.kind) {
      case "started":
        this.#pending.start(row);
        break;
      case "released":
        this.#pending.stop(row, change.dueAtMs, false);
        break;
      case "retry":
        this.#pending.stop(row, change.dueAtMs, true);
        row.error = change.error;
        break;
      case "ack":
        this.#pending.remove(row);
        this.#acked++;
        break;
      case "dead":
        this.#pending.remove(row);
        this.#shelves.dead.put({ ...row, reason: change.reason, shelvedAtMs: nowMs });
        this.#deadBytes += row.bytes;
        break;
      case "discard":
        this.#pending.remove(row);
        this.#discard(row, change.reason, nowMs);
        break;
      case "redrive":
        break; // It is pending already.
    }
  }

  /** E15: a dead letter comes back or is purged; anything else finds nothing (E10). */
  #applyToDead(change: Change, nowMs: number): void {
    const letter = this.#shelves.dead.get(change.seq);
    if (letter === undefined || (change.kind !== "redrive" && change.kind !== "discard")) return;
    this.#shelves.dead.remove(change.seq);
    this.#deadBytes -= letter.bytes;
    if (change.kind === "discard") {
      this.#discard(letter, change.reason, nowMs);
      return;
    }
    const { append, seq, acceptedAtMs } = letter;
    this.#pending.add({ ...newRow(append, seq, acceptedAtMs), dueAtMs: undefined });
  }

  #discard(row: Row, reason: string, nowMs: number): void {
    const append = { ...row.append, payload: noBytes };
    this.#shelves.discarded.put({ ...row, append, reason, shelvedAtMs: nowMs });
  }

  #counters(): Counters {
    return {
      accepted: this.#accepted,
      acked: this.#acked,
      dead: this.#shelves.dead.size,
      discarded: this.#shelves.discarded.size,
      pending: this.#pending.size,
      bytes: this.#pending.bytes,
    };
  }
}

function nextPlace(place: Place, kind: Change["kind"]): Place {
  if (place === "pending") {
    if (kind === "dead") return "dead";
    return kind === "ack" || kind === "discard" ? "gone" : "pending";
  }
  if (place === "dead") {
    if (kind === "redrive") return "pending";
    return kind === "discard" ? "gone" : "dead";
  }
  return "gone";
}

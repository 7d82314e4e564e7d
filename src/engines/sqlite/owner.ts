/**
 * Claims and writes of partitions: the part of a transaction that decides.
 *
 * O1  A write is weighed before anything changes: fence, repeat, bound. What is sure to fit is applied
 *     at once; only a write whose bound depends on its own changes or repeats runs in a savepoint, so
 *     that one refused write does not touch its neighbours in the same transaction (E2, E7).
 * O2  Fence and claim id are both compared (E3).
 */
import { randomBytes } from "node:crypto";
import { SpillwayError } from "../../base/index.ts";
import type { Seq } from "../../flow/index.ts";
import type { Claim, Descriptor, PartitionRef } from "../engine.ts";
import { applyAppends } from "./appends.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { Changes } from "./changes.ts";
import { laneOf, remember, withSide } from "./partition.ts";
import type { Part, Partitions } from "./partition.ts";
import { Results } from "./results.ts";
import { putDescriptor, readMessage } from "./rows.ts";
import type { Row } from "./rows.ts";
import type { Statements } from "./statements.ts";

interface Element {
  readonly part: Part;
  readonly writeId: string;
  readonly nowMs: number;
  readonly limitMessages: number;
  readonly limitBytes: number;
  readonly changes: number;
  readonly appends: number;
  /** Of all appends, repeats included. */
  readonly appendBytes: number;
  /** Whether a change may bring a message back. */
  readonly redrives: boolean;
  /** Where the changes begin. */
  readonly at: number;
}

export type Held = Pick<Claim, "ref" | "fence" | "claimId">;

export class Owner {
  readonly #statements: Statements;
  readonly #partitions: Partitions;
  readonly #changes: Changes;
  readonly #results = new Results();

  constructor(statements: Statements, partitions: Partitions) {
    this.#statements = statements;
    this.#partitions = partitions;
    this.#changes = new Changes(statements);
  }

  /** Within a transaction. */
  claim({ flow, partition }: PartitionRef): Claim {
    const part = this.#partitions.get(flow, partition) ?? this.#partitions.create(flow, partition);
    this.#partitions.touch(part);
    part.fence++;
    part.claimId = randomBytes(16).toString("hex");
    const interrupted = this.#interrupt(part);
    const head = (lane: number): Seq =>
      (this.#statements.laneHead.get(part.p, lane)?.["seq"] as number | undefined) ?? 0;
    const first = (lane: number): Seq => {
      const [loose, grouped] = [head(lane), head(lane + 4)];
      return loose > 0 && grouped > 0 ? Math.min(loose, grouped) : loose + grouped;
    };
    const { accepted, acked, dead, discarded, pending, bytes } = part;
    return {
      ref: { flow, partition },
      fence: part.fence,
      claimId: part.claimId,
      nextSeq: part.nextSeq,
      counters: { accepted, acked, dead, discarded, pending, bytes },
      laneHeads: { critical: first(0), normal: first(1), bulk: first(2) },
      interrupted,
      nextDueAtMs: (this.#statements.dueHead.get(part.p)?.["due"] as number | undefined) ?? null,
    };
  }

  /** @throws {SpillwayError} fenced */
  owned({ ref, fence, claimId }: Held): Part {
    const { flow, partition } = ref;
    const part = this.#partitions.get(flow, partition);
    if (part !== undefined && part.fence === fence && part.claimId === claimId && claimId !== "") {
      return part;
    }
    throw new SpillwayError("fenced", { flow, partition, fence });
  }

  /** Needs no transaction: claims are not stored. */
  release({ ref, fence, claimId }: Held): void {
    const part = this.#partitions.get(ref.flow, ref.partition);
    if (part === undefined || part.fence !== fence || part.claimId !== claimId) return;
    part.claimId = "";
    if (!part.dirty) part.savedClaimId = "";
  }

  /**
   * Within a transaction.
   * @returns The encoded result of each element.
   * @throws {SpillwayError} fenced, bound_reached, store_full: nothing of the write was done.
   */
  write(from: ByteReader, refuseAppends: SpillwayError | undefined): Uint8Array[] {
    const elements = this.#read(from);
    const fresh = elements.filter(({ part, writeId }) => part.lastWrite !== writeId);
    if (refuseAppends !== undefined && fresh.some(({ appends }) => appends > 0)) {
      throw refuseAppends;
    }
    if (fresh.every(fits)) for (const element of fresh) this.#apply(element, from);
    else this.#tryOut(fresh, from);
    return elements.map(({ part }) => part.lastResult);
  }

  /** After a roll back. */
  reset(): void {
    this.#changes.reset();
  }

  #read(from: ByteReader): Element[] {
    const elements: Element[] = [];
    for (let count = from.u32(); count > 0; count--) {
      const end = from.u32() + from.at;
      const ref = { flow: from.text(), partition: from.u32() };
      const held = { ref, fence: from.f64(), claimId: from.text() };
      elements.push({
        part: this.owned(held),
        writeId: from.text(),
        nowMs: from.f64(),
        limitMessages: from.f64(),
        limitBytes: from.f64(),
        changes: from.u32(),
        appends: from.u32(),
        appendBytes: from.f64(),
        redrives: from.u8() === 1,
        at: from.at,
      });
      from.at = end;
    }
    return elements;
  }

  #tryOut(elements: readonly Element[], from: ByteReader): void {
    this.#partitions.save(); // What the savepoint goes back to.
    this.#statements.savepoint.run();
    try {
      for (const element of elements) {
        const { part } = element;
        const before = part.nextSeq;
        this.#apply(element, from);
        if (part.nextSeq > before) needRoom(element);
      }
      this.#statements.releaseTo.run();
    } catch (error) {
      if (!(error instanceof SpillwayError)) throw error;
      this.#statements.rollbackTo.run();
      this.#statements.releaseTo.run();
      this.#changes.reset();
      for (const { part } of elements) this.#partitions.reload(part);
      throw error;
    }
  }

  #apply(element: Element, from: ByteReader): void {
    const { part } = element;
    this.#partitions.touch(part);
    from.at = element.at;
    this.#results.begin();
    this.#changes.apply(part, from, element.changes, element.nowMs);
    const { appends, nowMs } = element;
    applyAppends(part, from, appends, nowMs, this.#statements, this.#results);
    part.lastWrite = element.writeId;
    part.lastResult = this.#results.end(part);
  }

  /** E9: what was in flight has crashed. */
  #interrupt(part: Part): Descriptor[] {
    const to = new ByteWriter(256);
    const seqs = [...part.started.keys()].toSorted((a, b) => a - b);
    for (const seq of seqs) {
      const value = part.started.get(seq)!;
      this.#statements.sideCrash.run(part.p, seq, laneOf(value));
      part.started.delete(seq);
      remember(part, seq, withSide(value));
      putDescriptor(to, this.#statements.describe.get(part.p, seq) as Row, 0);
    }
    const from = new ByteReader(to.bytes);
    return seqs.map(() => readMessage(from)!);
  }
}

/** Sure to fit, whatever its changes do and whichever of its appends are repeats. */
function fits(element: Element): boolean {
  const { part, appends, appendBytes, redrives, limitMessages, limitBytes } = element;
  if (appends === 0) return true;
  if (redrives) return false;
  return part.pending + appends <= limitMessages && part.bytes + appendBytes <= limitBytes;
}

function needRoom({ part, limitMessages, limitBytes }: Element): void {
  const { flow, partition, pending, bytes } = part;
  if (pending <= limitMessages && bytes <= limitBytes) return;
  const limits = { messages: limitMessages, bytes: limitBytes };
  throw new SpillwayError("bound_reached", { flow, partition, pending, bytes, limits });
}

/**
 * What the conformance cases share: the harness an engine gives, a bench that plays the owner of one
 * partition, and ways to compare what engines show.
 *
 * Cases use `node:assert` and plain data only, so that any test runner can register them.
 */
import { deepStrictEqual, fail, ok, rejects, strictEqual } from "node:assert/strict";
import type { ErrorCode } from "../../base/index.ts";
import { messageClasses } from "../../flow/index.ts";
import type { MessageClass, Seq } from "../../flow/index.ts";
import type {
  Append,
  AppendResult,
  AuditReport,
  Change,
  Claim,
  Counters,
  Descriptor,
  Engine,
  OwnerInfo,
  PartitionRef,
  PartitionWrite,
  ShelfEntry,
  StoredMessage,
  WriteResult,
} from "../engine.ts";

/** An opened, empty engine and what can be done to it. What a store cannot do is absent. */
export interface Harness extends AsyncDisposable {
  readonly engine: Engine;
  /** Closes cleanly and opens the same store again; the former engine object is not used any more. */
  reopen(): Promise<Engine>;
  /** Ends the store as kill -9 would and opens it again. */
  crash?(): Promise<Engine>;
  /** Makes the store full: appends of 64 KiB find no space. `makeRoom` undoes it. */
  fill?(): Promise<void>;
  makeRoom?(): Promise<void>;
  /** Spoils the stored bytes of one pending message behind the engine's back. */
  damage?(ref: PartitionRef, seq: Seq): Promise<void>;
  /** Space the store takes on its medium now, after `maintain` said that there is no more to do. */
  usedBytes?(): Promise<number>;
  /** Rows read since the store was opened, for E11. */
  rowsRead?(): number;
}

export type Capability = "crash" | "fill" | "damage" | "usedBytes" | "rowsRead";

/** One promise to be shown. `unless` says why an engine is not asked for it. */
export interface Case {
  readonly name: string;
  readonly unless?: (harness: Harness) => string | undefined;
  readonly run: (bench: Bench) => Promise<void>;
}

const startMs = 1_700_000_000_000;
/** Later than anything in these tests. */
const farMs = 9e12;
export const noLimits: PartitionWrite["limits"] = {
  messages: Number.MAX_SAFE_INTEGER,
  bytes: Number.MAX_SAFE_INTEGER,
};
const owner: OwnerInfo = { node: "bench", address: "local" };

export function without(
  capability: Capability,
  reason: string,
): (harness: Harness) => string | undefined {
  return (harness) => (harness[capability] === undefined ? reason : undefined);
}

/** Where writes across partitions are not atomic, the engine says so. */
export function perPartition({ engine }: Harness): string | undefined {
  return engine.profile.atomicAcross === "store" ? undefined : "atomic within a partition only";
}

/** The owner of one partition of a store. */
export class Bench {
  readonly harness: Harness;
  readonly ref: PartitionRef;
  engine: Engine;
  claim: Claim;
  nowMs: number = startMs;
  #writes = 0;

  private constructor(harness: Harness, engine: Engine, claim: Claim) {
    this.harness = harness;
    this.engine = engine;
    this.claim = claim;
    this.ref = claim.ref;
  }

  static async own(
    harness: Harness,
    ref: PartitionRef,
    engine: Engine = harness.engine,
  ): Promise<Bench> {
    return new Bench(harness, engine, await claimOf(engine, ref));
  }

  /** The same store, another partition. */
  another(ref: PartitionRef): Promise<Bench> {
    return Bench.own(this.harness, ref, this.engine);
  }

  async takeOver(): Promise<Claim> {
    this.claim = await claimOf(this.engine, this.ref);
    return this.claim;
  }

  async reopen(): Promise<Claim> {
    this.engine = await this.harness.reopen();
    return this.takeOver();
  }

  async crash(): Promise<Claim> {
    if (this.harness.crash === undefined) fail("the harness cannot crash");
    this.engine = await this.harness.crash();
    return this.takeOver();
  }

  /** A write of this owner, with an id of its own, now and without limits unless told otherwise. */
  draft(parts: Partial<PartitionWrite>): PartitionWrite {
    return {
      claim: this.claim,
      writeId: `${this.claim.claimId}-${++this.#writes}`,
      nowMs: this.nowMs,
      appends: [],
      changes: [],
      limits: noLimits,
      ...parts,
    };
  }

  async write(parts: Partial<PartitionWrite>): Promise<WriteResult> {
    const [result] = await this.engine.write([this.draft(parts)]);
    ok(result !== undefined, "a write has a result");
    return result;
  }

  async append(...appends: readonly Append[]): Promise<readonly AppendResult[]> {
    return (await this.write({ appends })).appended;
  }

  async change(...changes: readonly Change[]): Promise<Counters> {
    return (await this.write({ changes })).counters;
  }

  async refused(code: ErrorCode, parts: Partial<PartitionWrite>): Promise<void> {
    await refusal(code, this.engine.write([this.draft(parts)]));
  }

  /** Every ready message of a lane at `nowMs`, in pages. */
  async lane(lane: MessageClass, limit = 100): Promise<Descriptor[]> {
    const found: Descriptor[] = [];
    for (;;) {
      const afterSeq = found.at(-1)?.seq ?? 0;
      const query = { lane, afterSeq, limit, nowMs: this.nowMs };
      const page = await this.engine.scan(this.ref, query);
      ok(page.length <= limit, "a page is no longer than its limit");
      ok((page[0]?.seq ?? Infinity) > afterSeq, "a page begins after its cursor");
      found.push(...page);
      if (page.length < limit) return found;
    }
  }

  /** Every ready seq at `nowMs`, ascending, over all lanes. */
  async ready(): Promise<Seq[]> {
    const lanes = await Promise.all(messageClasses.map((lane) => this.lane(lane)));
    return seqsOf(lanes.flat()).toSorted((a, b) => a - b);
  }

  async message(seq: Seq): Promise<StoredMessage | null> {
    const [message] = await this.engine.payloads(this.ref, [seq]);
    ok(message !== undefined, "payloads answers for every seq");
    return message;
  }

  async pending(seq: Seq): Promise<StoredMessage> {
    return (await this.message(seq)) ?? fail(`${seq} is not pending`);
  }

  async shelf(shelf: "dead" | "discarded"): Promise<ShelfEntry[]> {
    return this.engine.list(this.ref, shelf, 0, 1000);
  }

  /** E14, and what a sound store's audit says. */
  async audit(): Promise<Counters> {
    const report = await this.engine.audit(this.ref);
    checkAudit(report);
    return report.counters;
  }
}

function checkAudit({ counters, counted, damaged, firstDifference }: AuditReport): void {
  const { accepted, acked, dead, discarded, pending, bytes } = counters;
  strictEqual(accepted, acked + dead + discarded + pending, "E14 conservation");
  deepStrictEqual({ ...counted }, { dead, pending, bytes }, "E14 counters and rows agree");
  deepStrictEqual([...damaged], [], "no row is damaged");
  strictEqual(firstDifference, undefined, "no difference is named");
}

async function claimOf(engine: Engine, ref: PartitionRef): Promise<Claim> {
  const result = await engine.claim(ref, owner, 10_000);
  return result.kind === "claimed" ? result.claim : fail(`held by ${result.by.node}`);
}

export async function refusal(code: ErrorCode, attempt: Promise<unknown>): Promise<void> {
  await rejects(attempt, { name: "SpillwayError", code });
}

export function seqsOf(rows: readonly { readonly seq: Seq }[]): Seq[] {
  return rows.map((row) => row.seq);
}

export function bytesOf(text: string): Uint8Array {
  return Buffer.from(text, "utf8");
}

/** A small message; whatever is not given is absent. */
export function mail(parts: Partial<Append> = {}): Append {
  return { class: "normal", headers: bytesOf(""), payload: bytesOf("hello"), ...parts };
}

export function mails(count: number, parts: Partial<Append> = {}): Append[] {
  return Array.from({ length: count }, (_, i) => mail({ payload: bytesOf(`#${i}`), ...parts }));
}

export function idempotency(
  id: string,
  untilMs: number,
  content = "same",
): NonNullable<Append["idempotency"]> {
  return { id: bytesOf(id.padEnd(16, ".")), content: bytesOf(content.padEnd(8, ".")), untilMs };
}

/** Plain data that compares by value, whichever class of bytes an engine gives. */
export function plain(message: object): Record<string, unknown> {
  const entries = Object.entries(message).map(([name, value]) => [
    name,
    value instanceof Uint8Array ? Buffer.from(value).toString("base64") : (value as unknown),
  ]);
  return Object.fromEntries(entries) as Record<string, unknown>;
}

/** All that an engine shows of a partition, for comparing before and after. */
export async function contentOf({ engine, ref }: Pick<Bench, "engine" | "ref">): Promise<unknown> {
  const limit = 100_000;
  const read = (lane: MessageClass): Promise<Descriptor[]> =>
    engine.scan(ref, { lane, afterSeq: 0, limit, nowMs: farMs });
  const lanes = await Promise.all(messageClasses.map(read));
  const [due, dead, discarded, report, groups] = await Promise.all([
    engine.due(ref, farMs, null, limit),
    engine.list(ref, "dead", 0, limit),
    engine.list(ref, "discarded", 0, limit),
    engine.audit(ref),
    Promise.all(messageClasses.map((lane) => engine.groups(ref, lane, null, limit))),
  ]);
  checkAudit(report);
  const messages = await engine.payloads(ref, seqsOf(lanes.flat()));
  return {
    counters: { ...report.counters },
    lanes: lanes.map((rows) => rows.map(plain)),
    due: due.map(plain),
    groups,
    dead: dead.map(plain),
    discarded: discarded.map(plain),
    messages: messages.map((message) => message && plain(message)),
  };
}

/**
 * The audit log: what operators did, in the store's meta, one entry under `audit/<number>` for each action.
 *
 * A1  Entries are appended, never changed. Each holds the SHA-256 of the one before, as it is stored.
 * A2  An entry is durable before its action begins: no action is without an entry. An action that then
 *     fails leaves a second entry, which says so.
 * A3  `audit-head` holds number and hash of the newest entry, so that cutting off the end shows, too. It
 *     is written after its entry; a crash between leaves one entry more than it tells of, and no fewer.
 *
 * A chain shows changes by whoever cannot rewrite all of it. Against somebody with the disk, note the head
 * somewhere else from time to time (`docs/security.md`).
 */
import { createHash } from "node:crypto";
import { isSpillwayError } from "../base/index.ts";
import type { Clock } from "../base/index.ts";
import type { MetaStore } from "../engines/index.ts";

export interface AuditEntry {
  /** Id of the token, "anyone" where there are none, or "command line". */
  readonly principal: string;
  /** "token.create", "flow.pause", ... */
  readonly action: string;
  readonly flow?: string;
  readonly partition?: number;
  readonly before?: unknown;
  readonly after?: unknown;
  /** As the operator gave it; cut at 1,000 characters. */
  readonly reason?: string;
  readonly requestId: string;
}

export interface AuditRecord extends AuditEntry {
  /** From 1, without gaps. */
  readonly number: number;
  readonly atMs: number;
  /** SHA-256 of the entry before, hex; 64 zeros before the first. */
  readonly previous: string;
}

export interface AuditHead {
  readonly number: number;
  readonly hash: string;
}

export interface AuditVerdict {
  readonly entries: number;
  readonly head: AuditHead;
  /** At most 20, the oldest first; none: the log is whole. */
  readonly faults: readonly { readonly number: number; readonly fault: string }[];
}

const prefix = "audit/";
const headKey = "audit-head";
const digits = 15;
/** Entries that share all but two digits of their number are read at once. */
const block = 100;
const reasonMax = 1000;
const valueBytesMax = 16 * 1024;
const faultsMax = 20;
const start: AuditHead = { number: 0, hash: "0".repeat(64) };

export class Audit {
  readonly #meta: MetaStore;
  readonly #clock: Clock;
  #head: AuditHead = start;
  #headRevision = 0;
  #last: Promise<unknown> = Promise.resolve();

  static async open(meta: MetaStore, clock: Clock): Promise<Audit> {
    const audit = new Audit(meta, clock);
    await audit.#catchUp();
    return audit;
  }

  private constructor(meta: MetaStore, clock: Clock) {
    this.#meta = meta;
    this.#clock = clock;
  }

  /** Number and hash of the newest entry. */
  get head(): AuditHead {
    return this.#head;
  }

  /** Resolves when the entry is durable. @throws {SpillwayError} of the store: do not act then. */
  record(entry: AuditEntry): Promise<void> {
    const recorded = this.#last.then(() => this.#append(entry));
    this.#last = recorded.catch(() => undefined); // Its caller hears of it; the next one still goes on.
    return recorded;
  }

  /**
   * The newest first.
   * @param query.before Only entries of smaller numbers.
   * @param query.limit 1 to 500.
   */
  async list(query: { readonly before?: number; readonly limit: number }): Promise<AuditRecord[]> {
    const found: AuditRecord[] = [];
    let at = Math.min(this.#head.number, (query.before ?? Infinity) - 1);
    while (at >= 1 && found.length < query.limit) {
      const entries = await blockOf(this.#meta, at);
      const newest = entries.map(({ bytes }) => recordOf(bytes)).toReversed();
      for (const record of newest) {
        if (record.number <= at && found.length < query.limit) found.push(record);
      }
      at = Math.floor(at / block) * block - 1;
    }
    return found;
  }

  async #append(entry: AuditEntry): Promise<void> {
    const { reason } = entry;
    for (;;) {
      const record: AuditRecord = {
        number: this.#head.number + 1,
        atMs: Math.floor(this.#clock.now()),
        ...entry,
        ...(reason === undefined ? {} : { reason: reason.slice(0, reasonMax) }),
        ...("before" in entry ? { before: bounded(entry.before) } : {}),
        ...("after" in entry ? { after: bounded(entry.after) } : {}),
        previous: this.#head.hash,
      };
      const bytes = new TextEncoder().encode(JSON.stringify(record));
      try {
        await this.#meta.set(keyOf(record.number), bytes, 0);
      } catch (error) {
        if (!isSpillwayError(error, "revision_conflict")) throw error;
        await this.#catchUp(); // Another process of this store has recorded meanwhile.
        continue;
      }
      await this.#move({ number: record.number, hash: hashOf(bytes) });
      return;
    }
  }

  async #move(head: AuditHead): Promise<void> {
    this.#head = head;
    const value = new TextEncoder().encode(JSON.stringify(head));
    // The entry is there: a head that is behind is caught up with when it is next read (A3).
    this.#headRevision = await this.#meta
      .set(headKey, value, this.#headRevision)
      .catch(() => this.#headRevision);
  }

  async #catchUp(): Promise<void> {
    const entry = await this.#meta.get(headKey);
    this.#head = entry === null ? start : headOf(entry.value);
    this.#headRevision = entry?.revision ?? 0;
    for (;;) {
      const next = await this.#meta.get(keyOf(this.#head.number + 1));
      if (next?.value == null) return;
      this.#head = { number: this.#head.number + 1, hash: hashOf(next.value) };
    }
  }
}

/** Records, then acts; an action that fails leaves an entry that says so (A2). */
export async function audited<T>(
  audit: Pick<Audit, "record">,
  entry: AuditEntry,
  act: () => Promise<T>,
): Promise<T> {
  await audit.record(entry);
  try {
    return await act();
  } catch (error) {
    const { principal, action, requestId } = entry;
    const code = isSpillwayError(error) ? error.code : "invariant_broken";
    await audit
      .record({ principal, action: `${action}.failed`, requestId, after: { code } })
      .catch(() => undefined); // The store is gone: what was asked is recorded.
    throw error;
  }
}

/** Reads the whole log, a hundred entries at a time, and holds every link of the chain. */
export async function verifyAudit(meta: MetaStore): Promise<AuditVerdict> {
  const entry = await meta.get(headKey);
  const told = entry === null ? start : headOf(entry.value);
  const faults: { number: number; fault: string }[] = [];
  const fault = (number: number, text: string): void => {
    if (faults.length < faultsMax) faults.push({ number, fault: text });
  };
  let at: AuditHead = start;
  let toldHash = told.number === 0 ? start.hash : undefined;
  let entries = 0;
  for (let from = 0; ; from += block) {
    const found = await blockOf(meta, from);
    if (found.length === 0 && from > told.number) break;
    for (const { number, bytes } of found) {
      for (let gap = at.number + 1; gap < number && faults.length < faultsMax; gap++) {
        fault(gap, "is missing");
      }
      const isNext = number === at.number + 1;
      const problem = problemOf(bytes, number, isNext ? at.hash : undefined);
      if (problem !== undefined) fault(number, problem);
      at = { number, hash: hashOf(bytes) };
      if (number === told.number) toldHash = at.hash;
      entries += 1;
    }
  }
  for (let gap = at.number + 1; gap <= told.number && faults.length < faultsMax; gap++) {
    fault(gap, "is missing");
  }
  if (toldHash !== undefined && toldHash !== told.hash) fault(told.number, "was changed");
  if (at.number > told.number + 1) fault(told.number, "the head of the log is too old");
  return { entries, head: at, faults };
}

/** @param previous Undefined: the entry before is missing, which was told already. */
function problemOf(bytes: Uint8Array, number: number, previous: string | undefined) {
  let record: AuditRecord;
  try {
    record = recordOf(bytes);
  } catch {
    return "cannot be read";
  }
  if (record.number !== number) return "has another number";
  if (previous !== undefined && record.previous !== previous) {
    return number === 1 ? "does not begin the chain" : "does not follow the one before it";
  }
  return undefined;
}

/** The stored entries of the block that a number lies in, in their order. */
async function blockOf(
  meta: MetaStore,
  number: number,
): Promise<{ readonly number: number; readonly bytes: Uint8Array }[]> {
  const found = await meta.list(keyOf(number).slice(0, -2));
  return found.map(({ key, value }) => ({
    number: Number(key.slice(prefix.length)),
    bytes: value ?? new Uint8Array(),
  }));
}

function keyOf(number: number): string {
  return prefix + String(number).padStart(digits, "0");
}

function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function headOf(value: Uint8Array | null): AuditHead {
  return JSON.parse(new TextDecoder().decode(value ?? undefined)) as AuditHead;
}

function recordOf(bytes: Uint8Array): AuditRecord {
  return JSON.parse(new TextDecoder().decode(bytes)) as AuditRecord;
}

/** What an entry shows of a value: all of it, or that it is too long. */
function bounded(value: unknown): unknown {
  const bytes = Buffer.byteLength(JSON.stringify(value) ?? "null");
  return bytes <= valueBytesMax ? value : { omitted: `${bytes} bytes` };
}

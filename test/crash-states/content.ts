/**
 * What a store holds, compared with what it must hold after the first k writes of a partition. The
 * store is opened as the product opens it, but in this thread: thousands of states are looked at.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Claim } from "../../src/engines/engine.ts";
import { auditPartition } from "../../src/engines/sqlite/audit.ts";
import { ByteReader, ByteWriter } from "../../src/engines/sqlite/bytes.ts";
import { refuseDamagedLog, storePath } from "../../src/engines/sqlite/directory.ts";
import { idSpan, prepareStore } from "../../src/engines/sqlite/schema.ts";
import { Space } from "../../src/engines/sqlite/space.ts";
import { encodeWrite, op, reply } from "../../src/engines/sqlite/wire.ts";
import { Writer } from "../../src/engines/sqlite/writer.ts";
import { draftOf, flow, limits, writesPerProcess } from "./writes.ts";

/** The product's writer without its thread. */
export class Direct implements Disposable {
  readonly db: DatabaseSync;
  readonly #dir: string;
  #writer: Writer | undefined;

  /** Nothing here needs to survive: syncs are left out where SQLite allows. */
  constructor(dir: string) {
    this.#dir = dir;
    refuseDamagedLog(dir);
    this.db = new DatabaseSync(storePath(dir));
    prepareStore(this.db, undefined, "NORMAL");
  }

  claim(partition: number): Claim {
    const from = this.#call(op.claim, (to) => to.text(JSON.stringify([{ flow, partition }])));
    return JSON.parse(from.text()) as Claim;
  }

  write(claim: Claim, k: number): void {
    const batch = [{ ...draftOf(claim.ref.partition, k), claim, limits }];
    const sizes = { maxMessageBytes: Infinity, maxBatchBytes: Infinity };
    this.#call(op.write, (to) => encodeWrite(to, batch, sizes));
  }

  [Symbol.dispose](): void {
    this.db.close();
  }

  #call(kind: number, encode: (to: ByteWriter) => void): ByteReader {
    const to = new ByteWriter(1024);
    to.u8(kind);
    to.u32(1);
    to.u32(0);
    encode(to);
    to.view.setUint32(5, to.at - 9, true);
    const dir = this.#dir;
    this.#writer ??= new Writer(this.db, new Space(dir, 0, 0), { dir, slowDiskMs: 0 });
    const from = new ByteReader(this.#writer.process(to.copy()));
    from.u8();
    const kindOfReply = from.u8();
    from.u32();
    if (kindOfReply === reply.error) throw new Error(from.text());
    return from;
  }
}

/** A digest of all rows of a partition but its idempotency ids, which `maintain` may drop at any time. */
export function digestOf(db: DatabaseSync, partition: number): string {
  const p = (db.prepare("SELECT p FROM part WHERE flow = ? AND n = ?").get(flow, partition)?.[
    "p"
  ] ?? 0) as number;
  const hash = createHash("sha1");
  for (const sql of [
    `SELECT next_seq, accepted, acked, dead, discarded, pending, bytes, last_write, last_result,
      hex(started) AS started FROM part WHERE p = ?`,
    "SELECT * FROM msg WHERE p = ? ORDER BY lane, seq",
    "SELECT * FROM side WHERE p = ? ORDER BY seq",
    "SELECT * FROM shelf WHERE p = ? ORDER BY kind, seq",
    `SELECT * FROM body WHERE id / ${idSpan} = ? ORDER BY id`,
  ]) {
    for (const row of db.prepare(sql).iterate(p))
      hash.update(Object.values(row).map(show).join("|"));
    hash.update(";");
  }
  return hash.digest("hex");
}

function show(value: unknown): string {
  return value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : String(value);
}

/** @returns What is wrong with the rows of a partition, by the product's own audit. */
export function faultOf(db: DatabaseSync, partition: number): string | undefined {
  const walk = auditPartition(db, { flow, partition });
  for (;;) {
    const step = walk.next();
    if (step.done !== true) continue;
    const { damaged, firstDifference } = step.value;
    return damaged.length > 0 ? `damaged: ${damaged.join()}` : firstDifference;
  }
}

/**
 * What the first k writes of a partition leave, made as it is asked for. A process claims when it begins,
 * and a claim writes down what was in flight: before or after it, both are right.
 */
export class Expected implements Disposable {
  readonly #home: string = mkdtempSync(join(tmpdir(), "spillway-expected-"));
  readonly #store: Direct;
  readonly #claims: Claim[] = [];
  /** By partition and number of writes. */
  readonly #digests: string[][][] = [];

  constructor(partitions: number) {
    this.#store = new Direct(this.#home);
    for (let partition = 0; partition < partitions; partition++) {
      this.#digests.push([[]]);
      this.restart(partition);
    }
  }

  /** A process begins with what is stored by now. */
  restart(partition: number): void {
    this.#claims[partition] = this.#store.claim(partition);
    this.#digests[partition]!.at(-1)!.push(digestOf(this.#store.db, partition));
  }

  has(partition: number, k: number, digest: string): boolean {
    const digests = this.#digests[partition]!;
    while (digests.length <= k) {
      const next = digests.length;
      this.#store.write(this.#claims[partition]!, next);
      digests.push([digestOf(this.#store.db, partition)]);
      if (next % writesPerProcess === 0) this.restart(partition);
    }
    return digests[k]!.includes(digest);
  }

  [Symbol.dispose](): void {
    this.#store[Symbol.dispose]();
    rmSync(this.#home, { recursive: true });
  }
}

/**
 * The floor under the embedded store: plain `node:sqlite` in one thread, on the store's own tables,
 * indexes and settings, doing the row writes of messages that are appended, started and acked. It has
 * no checks, no CRC, no counters that are right after a crash, and nobody to answer.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { StatementSync } from "node:sqlite";
import { hash53 } from "../src/base/index.ts";
import { idSpan, prepareStore } from "../src/engines/sqlite/schema.ts";

export interface RawLoad {
  readonly messages: number;
  /** Messages in one transaction. */
  readonly groupSize: number;
  readonly payloadBytes: number;
  /** With a key and an idempotency key: two more indexes. */
  readonly keyed: boolean;
  /** Appends alone, or the whole life of a message. */
  readonly work: "append" | "cycle";
  /** How acked rows are deleted: one statement for each, or one for each run of neighbours. */
  readonly deletes: "each" | "runs";
  /** Where the file lies; the system's folder for temporary files where absent. */
  readonly folder?: string;
}

export interface RawResult {
  readonly messagesPerS: number;
  /** Of file and log at the end, for each message written. */
  readonly fileBytesPerMessage: number;
}

export function rawSqlite(load: RawLoad): RawResult {
  const dir = mkdtempSync(join(load.folder ?? tmpdir(), "spillway-raw-"));
  const path = join(dir, "store.db");
  const db = new DatabaseSync(path);
  try {
    prepareStore(db);
    db.exec(`INSERT INTO part VALUES(1, 'raw', 0, 1, '', x'', 1, 0, 0, 0, 0, 0, 0, x'')`);
    const groups = Math.ceil(load.messages / load.groupSize);
    const run = new Groups(db, load);
    const beganMs = performance.now();
    for (let group = 0; group < groups; group++) run.commit(group);
    const tookMs = performance.now() - beganMs;
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    const messages = groups * load.groupSize;
    return {
      messagesPerS: Math.round((messages / tookMs) * 1000),
      fileBytesPerMessage: Math.round(statSync(path).size / messages),
    };
  } finally {
    db.close();
    rmSync(dir, { recursive: true });
  }
}

/** One transaction a group: append group g, start group g - 1, ack group g - 2. */
class Groups {
  readonly #db: DatabaseSync;
  readonly #load: RawLoad;
  readonly #payload: Uint8Array;
  readonly #ids: Uint8Array[];
  readonly #keys: { readonly text: string; readonly hash: number }[];
  readonly #insert: StatementSync;
  readonly #dedup: StatementSync;
  readonly #part: StatementSync;
  readonly #remove: StatementSync;

  constructor(db: DatabaseSync, load: RawLoad) {
    this.#db = db;
    this.#load = load;
    this.#payload = new Uint8Array(load.payloadBytes).fill(7);
    // Ids and keys are made before the clock runs: hashing is not the store's work.
    const length = load.keyed ? load.messages + load.groupSize : 0;
    this.#ids = Array.from({ length }, idOf);
    this.#keys = Array.from({ length }, keyOf);
    this.#insert = db.prepare("INSERT INTO msg VALUES(1, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    this.#dedup = db.prepare("INSERT OR IGNORE INTO dedup VALUES(?, ?, ?, ?)");
    this.#part = db.prepare(
      "UPDATE part SET next_seq = ?, accepted = ?, acked = ?, pending = ?, started = ? WHERE p = 1",
    );
    this.#remove = db.prepare("DELETE FROM msg WHERE p = 1 AND lane = 1 AND seq BETWEEN ? AND ?");
  }

  commit(group: number): void {
    const { groupSize, work } = this.#load;
    const first = group * groupSize + 1;
    this.#db.exec("BEGIN IMMEDIATE");
    this.#append(first);
    if (work === "cycle" && group >= 2) this.#ack(first - 2 * groupSize);
    const started = work === "cycle" && group >= 1 ? new Uint8Array(groupSize) : new Uint8Array(0);
    const next = first + groupSize;
    this.#part.run(next, next - 1, first, groupSize, started);
    this.#db.exec("COMMIT");
  }

  #append(first: number): void {
    const { groupSize, keyed, payloadBytes } = this.#load;
    for (let seq = first; seq < first + groupSize; seq++) {
      const key = keyed ? this.#keys[seq - 1]! : undefined;
      if (keyed) {
        const id = this.#ids[seq - 1]!;
        this.#dedup.run(idSpan + seq, 1.8e12, id.subarray(0, 16), id.subarray(16, 24));
      }
      this.#insert.run(
        seq,
        key?.hash ?? null,
        null,
        null,
        null,
        1.7e12,
        seq,
        payloadBytes,
        0,
        key?.text ?? null,
        this.#payload,
      );
    }
  }

  #ack(first: number): void {
    const { groupSize, deletes } = this.#load;
    const step = deletes === "runs" ? groupSize : 1;
    for (let seq = first; seq < first + groupSize; seq += step) {
      this.#remove.run(seq, seq + step - 1);
    }
  }
}

/** As random as the hash of any key, and as long a text as the subject's. */
function keyOf(_: unknown, index: number): { text: string; hash: number } {
  const text = `key-${index * 2_654_435_761}`;
  return { text, hash: hash53(text) };
}

function idOf(_: unknown, index: number): Uint8Array {
  return createHash("sha256").update(`id-${index}`).digest().subarray(0, 24);
}

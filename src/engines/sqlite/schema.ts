/**
 * The tables, the settings and their versions. Documented for those who open a store with the
 * `sqlite3` shell; shared with the benchmark's floor.
 *
 * part   One row a partition: counters, the next seq, the fence, the last write and its result (E17),
 *        and `started`, the seqs in flight (bounded by the window): no row is written for an attempt.
 * msg    One tree for rows and lane order. `lane` is the class (0, 1, 2), plus 4 where the message has
 *        a group, so that a lane's ungrouped messages are a range of their own. `data` is the headers
 *        and the payload; NULL where they stand in `body`.
 * body   What is too large to stand in `msg` without overflow pages; `id` is p * 2^40 + seq.
 * side   Exceptions only: retries, crashes, a due time, the last error.
 * dedup  Idempotency ids; `id` is p * 2^40 + seq, so that expiry walks in the order of acceptance.
 * shelf  Ended messages that are kept: kind 0 dead (with payload), 1 discarded (headers only). The
 *        discarded shelf is not bounded.
 */
import type { DatabaseSync } from "node:sqlite";
import { SpillwayError } from "../../base/index.ts";

/** SQLite's WAL-reset race is fixed from here on (R9). */
const sqliteMin = "3.51.3";

export const pageBytes = 4096;

/**
 * The log is copied into the file when it has grown to this. A page that was written several times
 * since is copied once: with a quarter of this the writer takes a sixth longer for messages with keys.
 */
export const logPagesMax = 4000;

/**
 * Up to here headers and payload stand in `msg`. A row of a WITHOUT ROWID table keeps 1,002 bytes of
 * a 4 KiB page to itself and takes an overflow page beyond; the other columns use up to 120.
 */
export const inlineBytesMax = 880;

/** Partitions are numbered up to 8,191 and seqs up to 2^40: a row's id stays a safe integer. */
export const idSpan = 1_099_511_627_776;
export const partitionsMax = 8191;

const messageColumns = `key INT, grp TEXT, cost REAL, deadline INT, at INT NOT NULL, crc INT,
  bytes INT NOT NULL, hlen INT NOT NULL, ktext TEXT, data BLOB`;

const first = `
CREATE TABLE part(p INTEGER PRIMARY KEY, flow TEXT NOT NULL, n INT NOT NULL, fence INT NOT NULL,
  last_write TEXT NOT NULL, last_result BLOB NOT NULL, next_seq INT NOT NULL, accepted INT NOT NULL,
  acked INT NOT NULL, dead INT NOT NULL, discarded INT NOT NULL, pending INT NOT NULL,
  bytes INT NOT NULL, started BLOB NOT NULL, UNIQUE(flow, n));
CREATE TABLE msg(p INT, lane INT, seq INT, ${messageColumns}, PRIMARY KEY(p, lane, seq)) WITHOUT ROWID;
CREATE INDEX msg_key ON msg(p, key, seq) WHERE key IS NOT NULL;
CREATE INDEX msg_group ON msg(p, lane, grp, seq) WHERE grp IS NOT NULL;
CREATE TABLE body(id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE side(p INT, seq INT, lane INT NOT NULL, attempts INT NOT NULL, crashes INT NOT NULL,
  due INT, error TEXT, PRIMARY KEY(p, seq)) WITHOUT ROWID;
CREATE INDEX side_due ON side(p, due, seq) WHERE due IS NOT NULL;
CREATE TABLE dedup(id INTEGER PRIMARY KEY, until INT NOT NULL, hash BLOB NOT NULL,
  content BLOB NOT NULL);
CREATE UNIQUE INDEX dedup_hash ON dedup(hash);
CREATE TABLE shelf(p INT, kind INT, seq INT, lane INT NOT NULL, shelved INT NOT NULL,
  reason TEXT NOT NULL, attempts INT NOT NULL, crashes INT NOT NULL, due INT,
  error TEXT, ${messageColumns},
  PRIMARY KEY(p, kind, seq)) WITHOUT ROWID;
CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB, revision INT NOT NULL) WITHOUT ROWID;
CREATE TABLE meta_revision(one INTEGER PRIMARY KEY CHECK (one = 1), revision INT NOT NULL);
INSERT INTO meta_revision VALUES(1, 0);
`;

/** The version whose checksums are those of `checksum.ts`: what was stored before goes on without one. */
export const checksumsSince = 2;
const second = `UPDATE msg SET crc = NULL; UPDATE shelf SET crc = NULL;`;

/** Step i leads from version i to i + 1. Steps are never changed once released. */
export const migrations: readonly string[] = [first, second];

/** Settings of a new file; the first two are ignored once there is a table. */
const creation = `PRAGMA page_size=${pageBytes}; PRAGMA auto_vacuum=INCREMENTAL;`;

/** Settings of each connection that writes. */
function settings(synchronous: "FULL" | "NORMAL" = "FULL"): string {
  return `PRAGMA journal_mode=WAL; PRAGMA synchronous=${synchronous}; PRAGMA fullfsync=ON;
    PRAGMA checkpoint_fullfsync=ON; PRAGMA foreign_keys=OFF; PRAGMA mmap_size=0;
    PRAGMA temp_store=MEMORY; PRAGMA cache_size=-16384; PRAGMA wal_autocheckpoint=${logPagesMax};
    PRAGMA journal_size_limit=33554432;`;
}

/**
 * Sets a fresh connection up and reads the settings back.
 *
 * @param synchronous NORMAL exists for the canary of the crash-state replay alone.
 * @throws {SpillwayError} store_unsafe, store_newer
 */
export function prepareStore(
  db: DatabaseSync,
  steps: readonly string[] = migrations,
  synchronous: "FULL" | "NORMAL" = "FULL",
): void {
  const version = pragma(db, "user_version");
  if (version > steps.length) {
    throw new SpillwayError("store_newer", { found: version, known: steps.length });
  }
  if (version === 0) db.exec(creation);
  db.exec(settings(synchronous));
  require(db, "page_size", pageBytes);
  require(db, "journal_mode", "wal");
  require(db, "synchronous", synchronous === "FULL" ? 2 : 1);
  if (pragma(db, "mmap_size", 0) !== 0) throw unsafe("mmap_size", pragma(db, "mmap_size"), 0);
  migrate(db, version, steps);
  require(db, "auto_vacuum", 2);
}

/** Each step and its version number are one transaction: a crash in between repeats the step. */
function migrate(db: DatabaseSync, version: number, steps: readonly string[]): void {
  for (let next = version; next < steps.length; next++) {
    db.exec("BEGIN IMMEDIATE");
    try {
      db.exec(steps[next]!);
      db.exec(`PRAGMA user_version=${next + 1}; COMMIT`);
    } catch (error) {
      if (db.isTransaction) db.exec("ROLLBACK");
      throw error;
    }
  }
}

export function pragma(db: DatabaseSync, name: string, absent = 0): number {
  const value = Object.values(db.prepare(`PRAGMA ${name}`).get() ?? {})[0];
  return typeof value === "number" ? value : absent;
}

function require(db: DatabaseSync, setting: string, needed: number | string): void {
  const found = Object.values(db.prepare(`PRAGMA ${setting}`).get() ?? {})[0];
  if (found !== needed) throw unsafe(setting, found, needed);
}

function unsafe(setting: string, found: unknown, needed: unknown): SpillwayError {
  return new SpillwayError("store_unsafe", { setting, found, needed });
}

/** @throws {SpillwayError} store_unsafe */
export function requireSqlite(found: string): void {
  if (!(versionNumber(found) >= versionNumber(sqliteMin))) {
    throw new SpillwayError("store_unsafe", { setting: "SQLite", found, needed: sqliteMin });
  }
}

function versionNumber(version: string): number {
  return version.split(".").reduce((sum, part) => sum * 1000 + Number(part), 0);
}

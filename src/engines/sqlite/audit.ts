/**
 * Compares a store's counters with its rows, from one snapshot, on a connection that cannot write. It
 * needs no lock: a running store may be audited by another process.
 *
 * A1  accepted = acked + dead + discarded + pending = next seq - 1 (E14).
 * A2  dead, discarded, pending and bytes are what the rows say; every row's content fits its CRC.
 * A3  What is in flight or an exception is pending.
 */
import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { SpillwayError } from "../../base/index.ts";
import type { AuditReport, Counters, PartitionRef } from "../engine.ts";
import { storePath } from "./directory.ts";
import { toSpillwayError } from "./failures.ts";
import { placeSeed } from "./checksum.ts";
import { decodeSeqs } from "./partition.ts";
import { isIntact } from "./rows.ts";
import type { Row } from "./rows.ts";
import { checksumsSince, idSpan, migrations, pragma } from "./schema.ts";

const pageRows = 500;
/** A report names this many damaged rows at the most. */
const damagedMax = 1000;

export interface PartitionAudit {
  readonly ref: PartitionRef;
  readonly report: AuditReport;
}

/**
 * Audits every partition of a store, whether or not a process has it open.
 * @throws {SpillwayError} not_found, store_newer, store_corrupt
 */
export function auditStore(dir: string): PartitionAudit[] {
  const path = storePath(dir);
  if (!existsSync(path)) throw new SpillwayError("not_found", { dir });
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    const version = pragma(db, "user_version");
    if (version > migrations.length) {
      throw new SpillwayError("store_newer", { found: version, known: migrations.length });
    }
    const names = db.prepare("SELECT flow, n FROM part ORDER BY flow, n").all();
    return names.map((row) => {
      const ref = { flow: row["flow"] as string, partition: row["n"] as number };
      const walk = auditPartition(db, ref);
      for (;;) {
        const step = walk.next();
        if (step.done === true) return { ref, report: step.value };
      }
    });
  } catch (error) {
    throw toSpillwayError(error, { dir });
  } finally {
    db.close();
  }
}

const none: Counters = { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0, bytes: 0 };

/** One partition, a page at a time, within a read transaction of its own on `db`. */
export function* auditPartition(
  db: DatabaseSync,
  ref: PartitionRef,
): Generator<void, AuditReport, void> {
  db.exec("BEGIN");
  try {
    const part = db
      .prepare("SELECT * FROM part WHERE flow = ? AND n = ?")
      .get(ref.flow, ref.partition);
    if (part === undefined) {
      return { counters: none, counted: { dead: 0, pending: 0, bytes: 0 }, damaged: [] };
    }
    const seed = placeSeed(ref.flow, ref.partition);
    const pending = yield* count(db, "msg", "lane", part["p"] as number, seed);
    const shelves = yield* count(db, "shelf", "kind", part["p"] as number, seed);
    return report(db, part, pending, shelves);
  } finally {
    db.exec("ROLLBACK");
  }
}

interface Count {
  /** Rows by lane or kind. */
  readonly rows: number[];
  bytes: number;
  readonly damaged: number[];
}

function* count(
  db: DatabaseSync,
  table: "msg" | "shelf",
  column: "lane" | "kind",
  p: number,
  seed: number,
): Generator<void, Count, void> {
  // Checksums of an older version were others; the next start takes them away.
  const crc = pragma(db, "user_version") < checksumsSince ? "NULL AS crc" : "crc";
  const page = db.prepare(`SELECT ${column} AS place, seq, key, ktext, hlen, bytes, ${crc},
    coalesce(data, (SELECT data FROM body WHERE id = p * ${idSpan} + seq)) AS data
    FROM ${table} WHERE p = ? AND (${column}, seq) > (?, ?) ORDER BY ${column}, seq LIMIT ${pageRows}`);
  const found: Count = { rows: [0, 0, 0, 0, 0, 0, 0, 0], bytes: 0, damaged: [] };
  for (let [place, seq] = [-1, 0]; ;) {
    const rows = page.all(p, place, seq) as Row[];
    for (const row of rows) {
      place = row["place"] as number;
      seq = row["seq"] as number;
      found.rows[place] = (found.rows[place] ?? 0) + 1;
      found.bytes += row["bytes"] as number;
      const checked = table === "msg" || place === 0;
      if (checked && found.damaged.length < damagedMax && !isIntact(row, seed)) {
        found.damaged.push(seq);
      }
    }
    if (rows.length < pageRows) return found;
    yield;
  }
}

function report(db: DatabaseSync, part: Row, pending: Count, shelves: Count): AuditReport {
  const number = (name: string): number => part[name] as number;
  const counters: Counters = {
    accepted: number("accepted"),
    acked: number("acked"),
    dead: number("dead"),
    discarded: number("discarded"),
    pending: number("pending"),
    bytes: number("bytes"),
  };
  const rows = pending.rows.reduce((sum, lane) => sum + lane, 0);
  const [dead = 0, discarded = 0] = shelves.rows;
  const counted = { dead, pending: rows, bytes: pending.bytes };
  const ended = counters.acked + counters.dead + counters.discarded;
  const strays = strayRows(db, part);
  const pairs: readonly (readonly [string, number, number])[] = [
    ["accepted and the sum of its ends", counters.accepted, ended + counters.pending],
    ["accepted and the next seq - 1", counters.accepted, number("next_seq") - 1],
    ["dead and its rows", counters.dead, dead],
    ["discarded and its rows", counters.discarded, discarded],
    ["pending and its rows", counters.pending, rows],
    ["bytes and the rows' bytes", counters.bytes, pending.bytes],
    ["rows of nothing pending and none", strays, 0],
  ];
  const differs = pairs.find(([, a, b]) => a !== b);
  const damaged = [...pending.damaged, ...shelves.damaged].toSorted((a, b) => a - b);
  if (differs === undefined) return { counters, counted, damaged };
  const [name, a, b] = differs;
  return { counters, counted, damaged, firstDifference: `${name}: ${a}, ${b}` };
}

/** A3: exceptions and attempts of messages that are not pending, bodies that belong to nobody. */
function strayRows(db: DatabaseSync, part: Row): number {
  const p = part["p"] as number;
  const pending = `SELECT 1 FROM msg m WHERE m.p = ?1 AND m.lane IN (0, 1, 2, 4, 5, 6)`;
  const side = db.prepare(`SELECT count(*) AS n FROM side s WHERE s.p = ?1
    AND NOT EXISTS (SELECT 1 FROM msg m WHERE m.p = s.p AND m.lane = s.lane AND m.seq = s.seq)`);
  const body = db.prepare(`SELECT count(*) AS n FROM body b WHERE b.id > ?1 * ${idSpan}
    AND b.id < (?1 + 1) * ${idSpan} AND NOT EXISTS (${pending} AND m.seq = b.id - ?1 * ${idSpan})
    AND NOT EXISTS (SELECT 1 FROM shelf WHERE p = ?1 AND kind = 0 AND seq = b.id - ?1 * ${idSpan})`);
  const one = db.prepare(`${pending} AND m.seq = ?2`);
  const started = decodeSeqs(part["started"] as Uint8Array);
  const lost = started.filter((seq) => one.get(p, seq) === undefined).length;
  return (side.get(p)!["n"] as number) + (body.get(p)!["n"] as number) + lost;
}

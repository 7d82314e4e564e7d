/** The statements of the writer's connection, prepared once. Parameters are in the order of use. */
import type { DatabaseSync, StatementSync } from "node:sqlite";

type StatementName =
  | "begin"
  | "commit"
  | "savepoint"
  | "rollbackTo"
  | "releaseTo"
  | "partByName"
  | "partLast"
  | "partInsert"
  | "partSave"
  | "messageInsert"
  | "plainInsert"
  | "messageDelete"
  | "messageEntry"
  | "bodyInsert"
  | "bodyDelete"
  | "sideDelay"
  | "sideRetry"
  | "sideRelease"
  | "sideCrash"
  | "sideDelete"
  | "dedupInsert"
  | "dedupFind"
  | "dedupReplace"
  | "dedupPage"
  | "dedupExpire"
  | "shelve"
  | "deadRestore"
  | "deadEntry"
  | "deadDelete"
  | "deadDiscard"
  | "laneHead"
  | "dueHead"
  | "scan"
  | "scanGroup"
  | "groupNext"
  | "groupFirst"
  | "due"
  | "keyHead"
  | "readKey"
  | "message"
  | "describe"
  | "list"
  | "metaGet"
  | "metaList"
  | "metaCount"
  | "metaSet"
  | "metaDelete"
  | "freePages"
  | "allPages";

export type Statements = Readonly<Record<StatementName, StatementSync>>;

const columns = "key, grp, cost, deadline, at, crc, bytes, hlen, ktext";
const described = `m.seq, m.lane, m.key, m.grp, m.cost, m.deadline, m.at, m.bytes, s.attempts,
  s.crashes, s.due, s.p AS side, m.data IS NULL AS body`;
const joined = "msg m LEFT JOIN side s ON s.p = m.p AND s.seq = m.seq";
const stored = `${described}, s.error, m.crc, m.hlen, m.ktext,
  coalesce(m.data, (SELECT data FROM body WHERE id = ?)) AS data`;
const lanes = "(0, 1, 2, 4, 5, 6)";

const sql: Readonly<Record<StatementName, string>> = {
  begin: "BEGIN IMMEDIATE",
  commit: "COMMIT",
  savepoint: "SAVEPOINT one",
  rollbackTo: "ROLLBACK TO one",
  releaseTo: "RELEASE one",
  partByName: "SELECT * FROM part WHERE flow = ? AND n = ?",
  partLast: "SELECT coalesce(max(p), 0) AS last FROM part",
  partInsert: `INSERT INTO part VALUES(?, ?, ?, 0, '', x'', 1, 0, 0, 0, 0, 0, 0, x'')`,
  partSave: `UPDATE part SET fence = ?, last_write = ?, last_result = ?, next_seq = ?, accepted = ?,
    acked = ?, dead = ?, discarded = ?, pending = ?, bytes = ?, started = ? WHERE p = ?`,
  messageInsert: "INSERT INTO msg VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
  /** Without key, group, cost and deadline: a third fewer parameters to bind. */
  plainInsert: "INSERT INTO msg VALUES(?, ?, ?, NULL, NULL, NULL, NULL, ?, ?, ?, ?, NULL, ?)",
  messageDelete: "DELETE FROM msg WHERE p = ? AND lane = ? AND seq BETWEEN ? AND ?",
  messageEntry: `SELECT m.lane, m.bytes, s.p AS side, m.data IS NULL AS body FROM ${joined}
    WHERE m.p = ? AND m.lane IN ${lanes} AND m.seq = ?`,
  bodyInsert: "INSERT INTO body VALUES(?, ?)",
  bodyDelete: "DELETE FROM body WHERE id BETWEEN ? AND ?",
  sideDelay: "INSERT INTO side VALUES(?, ?, ?, 0, 0, ?, NULL)",
  sideRetry: `INSERT INTO side VALUES(?1, ?2, ?3, ?4, 0, ?5, ?6) ON CONFLICT DO UPDATE SET
    attempts = attempts + ?4, due = ?5, error = ?6`,
  sideRelease: `INSERT INTO side VALUES(?1, ?2, ?3, 0, 0, ?4, NULL) ON CONFLICT DO UPDATE SET
    due = ?4`,
  sideCrash: `INSERT INTO side VALUES(?, ?, ?, 1, 1, NULL, NULL) ON CONFLICT DO UPDATE SET
    attempts = attempts + 1, crashes = crashes + 1`,
  sideDelete: "DELETE FROM side WHERE p = ? AND seq BETWEEN ? AND ?",
  dedupInsert: "INSERT OR IGNORE INTO dedup VALUES(?, ?, ?, ?)",
  dedupFind: "SELECT id, until, content FROM dedup WHERE hash = ?",
  dedupReplace: "UPDATE dedup SET id = ?, until = ?, content = ? WHERE hash = ?",
  dedupPage: "SELECT id, until FROM dedup WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
  dedupExpire: "DELETE FROM dedup WHERE id BETWEEN ? AND ? AND until < ?",
  shelve: `INSERT INTO shelf SELECT m.p, ?1, m.seq, m.lane, ?2, ?3, coalesce(s.attempts, 0) + ?4,
    coalesce(s.crashes, 0), s.due, s.error, ${columns
      .split(", ")
      .map((name) => `m.${name}`)
      .join(", ")},
    CASE ?1 WHEN 0 THEN m.data ELSE
      substr(coalesce(m.data, (SELECT data FROM body WHERE id = ?5)), 1, m.hlen) END
    FROM ${joined} WHERE m.p = ?6 AND m.lane = ?7 AND m.seq = ?8`,
  deadRestore: `INSERT INTO msg SELECT p, lane, seq, ${columns}, data FROM shelf
    WHERE p = ? AND kind = 0 AND seq = ?`,
  deadEntry:
    "SELECT bytes, lane, data IS NULL AS body FROM shelf WHERE p = ? AND kind = 0 AND seq = ?",
  deadDelete: "DELETE FROM shelf WHERE p = ? AND kind = 0 AND seq = ?",
  deadDiscard: `UPDATE shelf SET kind = 1, shelved = ?, reason = ?,
    data = substr(coalesce(data, (SELECT data FROM body WHERE id = ?)), 1, hlen)
    WHERE p = ? AND kind = 0 AND seq = ?`,
  laneHead: "SELECT seq FROM msg WHERE p = ? AND lane = ? ORDER BY seq LIMIT 1",
  dueHead: "SELECT due FROM side WHERE p = ? AND due IS NOT NULL ORDER BY due LIMIT 1",
  scan: `SELECT ${described} FROM ${joined} WHERE m.p = ? AND m.lane = ? AND m.seq > ?
    ORDER BY m.seq LIMIT ?`,
  scanGroup: `SELECT ${described} FROM ${joined} WHERE m.p = ? AND m.lane = ? AND m.grp = ?
    AND m.seq > ? ORDER BY m.seq LIMIT ?`,
  groupNext: `SELECT grp FROM msg WHERE p = ? AND lane = ? AND grp IS NOT NULL AND grp > ?
    ORDER BY grp LIMIT 1`,
  groupFirst: `SELECT grp FROM msg WHERE p = ? AND lane = ? AND grp IS NOT NULL ORDER BY grp LIMIT 1`,
  due: `SELECT ${described} FROM side s CROSS JOIN msg m ON m.p = s.p AND m.lane = s.lane
    AND m.seq = s.seq WHERE s.p = ? AND s.due IS NOT NULL AND (s.due, s.seq) > (?, ?) AND s.due <= ?
    ORDER BY s.due, s.seq LIMIT ?`,
  keyHead: "SELECT seq FROM msg WHERE p = ? AND key = ? ORDER BY seq LIMIT 1",
  readKey: `SELECT ${described} FROM ${joined} WHERE m.p = ? AND m.key = ? AND m.seq > ?
    ORDER BY m.seq LIMIT ?`,
  message: `SELECT ${stored} FROM ${joined} WHERE m.p = ? AND m.lane = ? AND m.seq = ?`,
  describe: `SELECT ${described} FROM ${joined} WHERE m.p = ? AND m.lane IN ${lanes} AND m.seq = ?`,
  list: `SELECT *, coalesce(data, (SELECT data FROM body WHERE id = shelf.p * 1099511627776 + seq))
    AS data FROM shelf WHERE p = ? AND kind = ? AND seq > ? ORDER BY seq LIMIT ?`,
  metaGet: "SELECT key, value, revision FROM meta WHERE key = ?",
  metaList:
    "SELECT key, value, revision FROM meta WHERE key >= ?1 AND key < ?1 || char(1114111) ORDER BY key",
  metaCount: "UPDATE meta_revision SET revision = revision + 1 RETURNING revision",
  metaSet: "INSERT OR REPLACE INTO meta VALUES(?, ?, ?)",
  metaDelete: "DELETE FROM meta WHERE key = ?",
  freePages: "PRAGMA freelist_count",
  allPages: "PRAGMA page_count",
};

export function prepareStatements(db: DatabaseSync): Statements {
  const entries = Object.entries(sql).map(([name, text]) => [name, db.prepare(text)] as const);
  return Object.fromEntries(entries) as unknown as Statements;
}

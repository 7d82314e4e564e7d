/**
 * Small values with revisions, in the writer's thread. One counter serves all keys, so that a revision
 * never comes back, not even after its key was removed (E18).
 */
import { SpillwayError } from "../../base/index.ts";
import type { Statements } from "./statements.ts";
import type { WireEntry } from "./wire.ts";

export function metaGet(statements: Statements, key: string): WireEntry | null {
  const row = statements.metaGet.get(key);
  return row === undefined ? null : toEntry(row);
}

export function metaList(statements: Statements, prefix: string): WireEntry[] {
  const found: WireEntry[] = [];
  for (const row of statements.metaList.all(prefix)) {
    if (!(row["key"] as string).startsWith(prefix)) break;
    found.push(toEntry(row));
  }
  return found;
}

/** Within a transaction. @returns The new revision. @throws {SpillwayError} revision_conflict */
export function metaSet(
  statements: Statements,
  key: string,
  base64: string | null,
  expectedRevision: number,
): number {
  const revision = (statements.metaGet.get(key)?.["revision"] as number | undefined) ?? 0;
  if (revision !== expectedRevision) {
    throw new SpillwayError("revision_conflict", { key, revision, expectedRevision });
  }
  const next = statements.metaCount.get()!["revision"] as number;
  if (base64 === null) statements.metaDelete.run(key);
  else statements.metaSet.run(key, Buffer.from(base64, "base64"), next);
  return next;
}

function toEntry(row: Record<string, unknown>): WireEntry {
  const value = row["value"] as Uint8Array;
  return {
    key: row["key"] as string,
    base64: Buffer.from(value.buffer, value.byteOffset, value.length).toString("base64"),
    revision: row["revision"] as number,
  };
}

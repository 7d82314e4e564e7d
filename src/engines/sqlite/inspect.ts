/** A look at a data directory, for people: nothing is changed, and a process may have it open. */
import { existsSync, statfsSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { isSpillwayError } from "../../base/index.ts";
import {
  holderOf,
  networkFileSystem,
  refuseDamagedLog,
  restoringPath,
  storePath,
} from "./directory.ts";
import type { Holder } from "./directory.ts";
import { toSpillwayError } from "./failures.ts";
import { migrations, pageBytes, pragma, requireSqlite } from "./schema.ts";

export interface StoreLook {
  /** Whether a store is there. */
  readonly exists: boolean;
  /** Who has it open; absent: nobody. */
  readonly holder?: Holder;
  /** Of the store and its log. */
  readonly bytes: number;
  /** Of the schema; 0: it is empty. */
  readonly version: number;
  readonly versionKnown: number;
  /** What keeps it from being opened, a line each. */
  readonly faults: readonly string[];
}

/**
 * @param dir Exists.
 * @throws {SpillwayError} store_corrupt, store_failed: it cannot be read
 */
export function inspectStore(dir: string): StoreLook {
  const path = storePath(dir);
  const exists = existsSync(path);
  const holder = holderOf(dir);
  const faults: string[] = [];
  const network = networkFileSystem(statfsSync(dir).type);
  if (network !== undefined) faults.push(`it lies on ${network}, where locks do not hold`);
  if (existsSync(restoringPath(dir))) faults.push("a restore there was not finished");
  const bytes = sizeOf(path) + sizeOf(`${path}-wal`);
  const common = { exists, bytes, versionKnown: migrations.length, ...(holder && { holder }) };
  if (!exists || bytes === 0) return { ...common, version: 0, faults };
  if (holder === undefined) faults.push(...logFaults(dir));
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    const version = pragma(db, "user_version");
    if (version > migrations.length) faults.push(`its version ${version} is newer than this code`);
    for (const [name, needed] of [["page_size", pageBytes] as const, ["auto_vacuum", 2] as const]) {
      const found = pragma(db, name);
      if (version > 0 && found !== needed) faults.push(`its ${name} is ${found}, not ${needed}`);
    }
    return { ...common, version, faults };
  } catch (error) {
    throw toSpillwayError(error, { dir });
  } finally {
    db.close();
  }
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

/** @returns Why this SQLite is refused; undefined: it is not. */
export function sqliteFault(): string | undefined {
  try {
    requireSqlite(process.versions["sqlite"] ?? "0");
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function logFaults(dir: string): string[] {
  try {
    refuseDamagedLog(dir);
    return [];
  } catch (error) {
    if (!isSpillwayError(error, "store_corrupt")) throw error;
    // Who has opened it meanwhile was writing while the log was read.
    return holderOf(dir) === undefined ? ["its log is damaged"] : [];
  }
}

/**
 * The data directory: its rights, its lock, and the files that are made durable before the first
 * receipt.
 *
 * D1  One writer: `lock.db` is held exclusively as long as the returned connection lives. The kernel
 *     drops the lock with the process, stopped or not; there is no stale lock. Whoever lets go of the
 *     connection lets it be collected, and two processes hold the directory: keep it.
 * D2  Files are made by us (0600) and the folder is synced, so that their names survive (G1); SQLite
 *     gives its own files the rights of `store.db`.
 * D3  A directory on a network file system is refused: its locks do not hold.
 * D4  A directory in which a restore was not finished is refused: half a store is not taken for a new one.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { SpillwayError } from "../../base/index.ts";
import { isSqliteError, primaryCode, sqliteCode } from "./failures.ts";
import { scanWal } from "./walscan.ts";

/** `f_type` of statfs(2) on Linux. */
const networkFileSystems: ReadonlyMap<number, string> = new Map([
  [0x6969, "nfs"],
  [0x517b, "smb"],
  [0xfe534d42, "smb2"],
  [0xff534d42, "cifs"],
  [0x564c, "ncp"],
  [0x5346414f, "afs"],
  [0x00c36400, "ceph"],
]);

/** What the holder of a directory wrote about itself: a hint for people, perhaps of an earlier holder. */
export interface Holder {
  readonly pid?: number;
  readonly host?: string;
}

export interface DirectoryLock {
  readonly connection: DatabaseSync;
}

export function storePath(dir: string): string {
  return join(dir, "store.db");
}

/** @throws {SpillwayError} store_unsafe, store_locked, backup_invalid */
export function lockDirectory(dir: string): DirectoryLock {
  const lock = takeLock(dir);
  if (existsSync(restoringPath(dir))) {
    lock.connection.close();
    throw new SpillwayError("backup_invalid", {
      dir,
      found: "a restore that was not finished",
      allowed: "restore again: what the directory holds is not complete",
    });
  }
  touch(storePath(dir));
  syncDirectory(dir);
  return lock;
}

/** There while a restore is under way: what stands beside it is not complete (D4). */
export function restoringPath(dir: string): string {
  return join(dir, "restoring");
}

/**
 * The lock alone, for those who put a store there. @throws {SpillwayError} store_unsafe, store_locked
 */
export function takeLock(dir: string): DirectoryLock {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  refuseNetworkFileSystem(dir, statfsSync(dir).type);
  const path = join(dir, "lock.db");
  touch(path);
  const connection = new DatabaseSync(path, { timeout: 0 });
  try {
    connection.exec("PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE");
  } catch (error) {
    connection.close();
    const busy = isSqliteError(error) && primaryCode(error) === sqliteCode.busy;
    if (!busy) throw error;
    throw new SpillwayError("store_locked", { dir, ...readHolder(dir) });
  }
  const holder = { pid: process.pid, host: hostname(), sinceMs: Date.now() };
  writeFileSync(join(dir, "owner.json"), `${JSON.stringify(holder)}\n`, { mode: 0o600 });
  return { connection };
}

/**
 * Who holds a directory, without touching its lock for longer than a look takes.
 * @returns undefined: nobody.
 */
export function holderOf(dir: string): Holder | undefined {
  const path = join(dir, "lock.db");
  if (!existsSync(path)) return undefined;
  const connection = new DatabaseSync(path, { readOnly: true, timeout: 0 });
  try {
    connection.prepare("SELECT count(*) FROM sqlite_schema").get();
    return undefined;
  } catch (error) {
    if (!isSqliteError(error) || primaryCode(error) !== sqliteCode.busy) throw error;
    return readHolder(dir);
  } finally {
    connection.close();
  }
}

/** @param type `f_type` of statfs(2). @returns Its name, if it is one whose locks do not hold. */
export function networkFileSystem(type: number): string | undefined {
  return networkFileSystems.get(type >>> 0);
}

/** @throws {SpillwayError} store_unsafe */
export function refuseNetworkFileSystem(dir: string, type: number): void {
  const name = networkFileSystem(type);
  if (name === undefined) return;
  throw new SpillwayError("store_unsafe", { dir, setting: "file system", found: name });
}

/** @throws {SpillwayError} store_corrupt */
export function refuseDamagedLog(dir: string): void {
  let log: Buffer;
  try {
    log = readFileSync(`${storePath(dir)}-wal`);
  } catch {
    return; // There is none.
  }
  const { damaged, firstBad, commitsBehind } = scanWal(log);
  if (!damaged) return;
  throw new SpillwayError("store_corrupt", {
    file: `${storePath(dir)}-wal`,
    firstBad,
    commitsBehind,
  });
}

export function syncDirectory(dir: string): void {
  const handle = openSync(dir, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/**
 * Makes a file that is not there. One that is there is not opened: to close it would drop the locks
 * that this process holds on it by another connection (POSIX), and D1 with them.
 */
function touch(path: string): void {
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

function readHolder(dir: string): Holder {
  try {
    const { pid, host } = JSON.parse(readFileSync(join(dir, "owner.json"), "utf8")) as {
      pid: number;
      host: string;
    };
    return { pid, host };
  } catch {
    return {};
  }
}

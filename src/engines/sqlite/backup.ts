/**
 * Backups of a store: a folder with `store.db`, a plain SQLite file without a log, and `backup.json`,
 * which says what it must hold. The store is one file and its log, so one snapshot is the whole of it.
 *
 * B1  The copy is of one snapshot, on a connection that only reads, whether or not a process has the
 *     store open: what was accepted before the backup began is in it, and the writer is not held up.
 *     (Its log is not emptied until the copy is made: it grows by what is written meanwhile.)
 * B2  A backup has its name when it is complete, checked and synced, and not before. What a killed one
 *     leaves behind has another name and no `backup.json`.
 * B3  What a backup says about itself is held against its bytes before anything of it is used.
 */
import { createHash } from "node:crypto";
import { createReadStream, existsSync, fdatasyncSync } from "node:fs";
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  statfs,
} from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { backup, DatabaseSync } from "node:sqlite";
import { SpillwayError } from "../../base/index.ts";
import { auditStore } from "./audit.ts";
import type { PartitionAudit } from "./audit.ts";
import {
  holderOf,
  refuseDamagedLog,
  restoringPath,
  storePath,
  syncDirectory,
} from "./directory.ts";
import { toFileError } from "./failures.ts";
import { pageBytes, pragma } from "./schema.ts";

const manifestName = "backup.json";
const fileName = "store.db";
/** Of this code; what a newer one has written is refused. */
const formatKnown = 1;
/** 1 MiB, some milliseconds: in between, the disk is the writer's, and a signal is heard. */
const pagesPerStep = 256;
const pauseMaxMs = 20;
/** A writer that starts, or a log that is being recovered, takes less. */
const busyMs = 5000;

export interface Manifest {
  readonly format: number;
  /** Version of Spillway that made it. */
  readonly spillway: string;
  readonly storeVersion: number;
  /** ISO 8601: what was accepted before this instant is in it. */
  readonly createdAt: string;
  readonly files: readonly {
    readonly name: string;
    readonly bytes: number;
    readonly sha256: string;
  }[];
  /** The audit of the copy. */
  readonly partitions: readonly PartitionAudit[];
  /** Written last. */
  readonly complete: boolean;
}

export interface BackupOptions {
  /** Of Spillway, for the record. */
  readonly version: string;
  /** @param share Of the pages, 0 to 1. */
  readonly onProgress?: (share: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Backs the store of a data directory up into a new folder.
 * @throws {SpillwayError} not_found, option_invalid (`to` is there and not empty), store_corrupt,
 *   store_newer, store_full, aborted: nothing is left behind.
 */
export async function backupStore(
  dir: string,
  to: string,
  options: BackupOptions,
): Promise<Manifest> {
  const target = resolve(to);
  if (!existsSync(storePath(dir))) throw new SpillwayError("not_found", { dir });
  let partial: string | undefined;
  try {
    await refuseFilled(target);
    refuseBroken(dir);
    await mkdir(dirname(target), { recursive: true });
    partial = await mkdtemp(`${target}.incomplete-`);
    return await makeBackup(dir, partial, target, options);
  } catch (error) {
    if (partial !== undefined) await rm(partial, { recursive: true, force: true });
    throw toFileError(error, { dir, to: target });
  }
}

/** B2. */
async function makeBackup(
  dir: string,
  partial: string,
  target: string,
  options: BackupOptions,
): Promise<Manifest> {
  const createdAt = await copy(dir, partial, options);
  endIfAsked(options);
  checkPages(partial);
  endIfAsked(options);
  const manifest = await manifestOf(partial, createdAt, options.version);
  endIfAsked(options);
  await writeSynced(join(partial, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
  syncDirectory(partial);
  await rename(partial, target);
  syncDirectory(dirname(target));
  return manifest;
}

/** What a backup that was killed on the way to `to` has left behind. */
export async function leftOvers(to: string): Promise<string[]> {
  const target = resolve(to);
  const names = await readdir(dirname(target)).catch(() => []);
  const prefix = `${target}.incomplete-`;
  return names.map((name) => join(dirname(target), name)).filter((path) => path.startsWith(prefix));
}

/**
 * Reads a backup's own record and holds its files against it (B3).
 * @throws {SpillwayError} backup_invalid, store_newer, not_found
 */
export async function readBackup(from: string): Promise<Manifest> {
  if (!existsSync(from)) throw new SpillwayError("not_found", { dir: from });
  const manifest = await readManifest(from);
  for (const { name, bytes, sha256 } of manifest.files) {
    const path = join(from, name);
    const size = await stat(path).then(
      (found) => found.size,
      () => undefined,
    );
    if (size !== bytes) throw invalid(from, `${name}: ${size ?? "no"} bytes, not ${bytes}`);
    if ((await sha256Of(path)) !== sha256) throw invalid(from, `${name}: another SHA-256`);
  }
  return manifest;
}

/** @returns None where there is no such folder. */
export async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
}

export async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 ** 2 })) {
    hash.update(chunk as Uint8Array);
  }
  return hash.digest("hex");
}

export function invalid(dir: string, found: string): SpillwayError {
  return new SpillwayError("backup_invalid", { dir, found });
}

async function refuseFilled(target: string): Promise<void> {
  const names = await namesIn(target);
  if (names.length === 0) return;
  throw new SpillwayError("option_invalid", {
    option: "to",
    path: target,
    found: "it is there and not empty",
    allowed: "a folder that is not there yet",
  });
}

/** A store that nobody has open may have a log that SQLite would cut short without a word. */
function refuseBroken(dir: string): void {
  if (holderOf(dir) !== undefined) return; // It was looked at when it was opened.
  if (existsSync(restoringPath(dir))) throw invalid(dir, "a restore that was not finished");
  try {
    refuseDamagedLog(dir);
  } catch (error) {
    if (holderOf(dir) === undefined) throw error;
    // Who has opened it meanwhile was writing while the log was read.
  }
}

/** B1. @returns When the snapshot was taken, ISO 8601. */
async function copy(dir: string, partial: string, options: BackupOptions): Promise<string> {
  const { onProgress } = options;
  const path = join(partial, fileName);
  // SQLite would make it readable for others. Closed after SQLite has: it drops the file's locks (POSIX).
  const file = await open(path, "wx", 0o600);
  const source = new DatabaseSync(storePath(dir), { readOnly: true, timeout: busyMs });
  try {
    const createdAt = new Date().toISOString();
    source.exec("BEGIN");
    const pages = pragma(source, "page_count"); // The first read takes the snapshot.
    await requireSpace(partial, pages * pageBytes);
    let beganMs = performance.now();
    await backup(source, path, {
      rate: pagesPerStep,
      progress: ({ totalPages, remainingPages }) => {
        endIfAsked(options);
        // A heap of unwritten pages, synced at the end, would hold the writer's own syncs up.
        fdatasyncSync(file.fd);
        wait(Math.min(pauseMaxMs, performance.now() - beganMs));
        beganMs = performance.now();
        onProgress?.(1 - remainingPages / Math.max(1, totalPages));
      },
    });
    return createdAt;
  } finally {
    source.close();
    await file.close();
  }
}

/** SQLite takes the next step when this one is told: to keep it waiting is the only way to be slower. */
function wait(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** @throws {SpillwayError} aborted */
function endIfAsked({ signal }: BackupOptions): void {
  if (signal?.aborted === true) throw new SpillwayError("aborted");
}

async function requireSpace(folder: string, neededBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const freeBytes = bavail * bsize;
  if (freeBytes >= neededBytes) return;
  throw new SpillwayError("store_full", { to: folder, neededBytes, freeBytes });
}

/** SQLite's own structure, and no log beside the file any more. @throws {SpillwayError} store_corrupt */
function checkPages(partial: string): void {
  const path = join(partial, fileName);
  const db = new DatabaseSync(path);
  try {
    db.exec("PRAGMA journal_mode=DELETE");
    const [first] = db.prepare("PRAGMA integrity_check(1)").all();
    const found = Object.values(first ?? {})[0];
    if (found !== "ok") throw new SpillwayError("store_corrupt", { file: path, found });
  } finally {
    db.close();
  }
}

async function manifestOf(partial: string, createdAt: string, version: string): Promise<Manifest> {
  const path = join(partial, fileName);
  const partitions = auditStore(partial);
  const db = new DatabaseSync(path, { readOnly: true });
  const storeVersion = pragma(db, "user_version");
  db.close();
  const file = await open(path, "r+");
  await file.sync();
  const { size } = await file.stat();
  await file.close();
  return {
    format: formatKnown,
    spillway: version,
    storeVersion,
    createdAt,
    files: [{ name: fileName, bytes: size, sha256: await sha256Of(path) }],
    partitions,
    complete: true,
  };
}

async function readManifest(from: string): Promise<Manifest> {
  const path = join(from, manifestName);
  if (!existsSync(path)) {
    throw invalid(from, `no ${manifestName}: it is no backup, or one that was not finished`);
  }
  let manifest: Partial<Manifest> | null;
  try {
    manifest = JSON.parse(await readFile(path, "utf8")) as Partial<Manifest> | null;
  } catch {
    throw invalid(from, `${manifestName} is not JSON`);
  }
  const { format } = manifest ?? {};
  if (typeof format === "number" && format > formatKnown) {
    throw new SpillwayError("store_newer", { file: path, found: format, known: formatKnown });
  }
  // Nothing outside the folder is ever named.
  const [file, ...others] = Array.isArray(manifest?.files) ? manifest.files : [];
  const isWhole =
    format === formatKnown &&
    manifest?.complete === true &&
    Array.isArray(manifest.partitions) &&
    others.length === 0 &&
    file?.name === fileName;
  if (!isWhole) throw invalid(from, `${manifestName} is not complete`);
  return manifest as Manifest;
}

export async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

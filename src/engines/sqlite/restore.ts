/**
 * A store from a backup.
 *
 * R1  The backup is checked before the data directory is touched, and the copy after it was made.
 * R2  The directory's lock is held meanwhile, and a mark says that it is under way: a restore that was
 *     killed leaves a directory that is refused, never one that looks like a new or an older store.
 * R3  Nothing is deleted: a store that was there is moved into a folder beside.
 *
 * A restored store honours no claim of its former life: claim ids are random and live in the process
 * that made them (E3), and the next start raises every fence.
 */
import { existsSync } from "node:fs";
import { chmod, constants, copyFile, mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { SpillwayError } from "../../base/index.ts";
import { auditStore } from "./audit.ts";
import type { PartitionAudit } from "./audit.ts";
import { invalid, namesIn, readBackup, sha256Of, writeSynced } from "./backup.ts";
import type { Manifest } from "./backup.ts";
import { restoringPath, storePath, syncDirectory, takeLock } from "./directory.ts";
import { toFileError } from "./failures.ts";
import { migrations } from "./schema.ts";

export interface Restored {
  readonly manifest: Manifest;
  /** Of the restored store. */
  readonly partitions: readonly PartitionAudit[];
  /** Where the store lies that was there. */
  readonly movedTo?: string;
}

/**
 * Puts a backup's store into a data directory.
 * @param options.force Move a store aside that is there.
 * @throws {SpillwayError} backup_invalid, not_found, store_newer, store_locked, store_unsafe,
 *   option_invalid: the directory is as it was. Anything later leaves it marked as unfinished.
 */
export async function restoreStore(
  from: string,
  dir: string,
  options: { readonly force: boolean },
): Promise<Restored> {
  try {
    return await restore(from, dir, options.force);
  } catch (error) {
    throw toFileError(error, { from, dir });
  }
}

async function restore(from: string, dir: string, force: boolean): Promise<Restored> {
  const manifest = await readBackup(from);
  if (manifest.storeVersion > migrations.length) {
    const found = manifest.storeVersion;
    throw new SpillwayError("store_newer", { dir: from, found, known: migrations.length });
  }
  await refuseFilled(dir, force);
  const lock = takeLock(dir);
  try {
    if (existsSync(storePath(dir))) await refuseFilled(dir, force); // It may be new.
    const mark = restoringPath(dir);
    if (!existsSync(mark)) await writeSynced(mark, `${JSON.stringify({ from })}\n`);
    syncDirectory(dir);
    const movedTo = await moveAside(dir);
    const partitions = await putInPlace(from, dir, manifest);
    await rm(mark);
    syncDirectory(dir);
    return { manifest, partitions, ...(movedTo === undefined ? {} : { movedTo }) };
  } finally {
    lock.connection.close();
  }
}

/** What a lock and its holder leave behind is no store. */
const noStore = /^(lock\.db|lock\.db-journal|owner\.json|reserve|before-restore-.*)$/;

async function refuseFilled(dir: string, force: boolean): Promise<void> {
  const filled = (await namesIn(dir)).filter((name) => !noStore.test(name));
  // One that was not finished may be done again.
  if (filled.length === 0 || existsSync(restoringPath(dir))) return;
  if (!filled.includes("store.db")) {
    throw new SpillwayError("option_invalid", {
      option: "--dir",
      path: dir,
      found: "files that are no store",
      allowed: "an empty or new directory, or a data directory",
    });
  }
  if (force) return;
  throw new SpillwayError("option_invalid", {
    option: "--dir",
    path: dir,
    found: "a store",
    allowed: "an empty or new directory; --force moves the store there aside",
  });
}

/** R3. @returns Where to; undefined where there was none. */
async function moveAside(dir: string): Promise<string | undefined> {
  const path = storePath(dir);
  const there = [path, `${path}-wal`, `${path}-shm`].filter((file) => existsSync(file));
  if (there.length === 0) return undefined;
  const stamp = new Date().toISOString().replaceAll(/[-:.]/g, "");
  const aside = join(dir, `before-restore-${stamp}`);
  await mkdir(aside, { mode: 0o700 });
  // The log first: it must never lie beside another store than its own.
  for (const file of there.toReversed())
    await rename(file, join(aside, file.slice(dir.length + 1)));
  syncDirectory(aside);
  syncDirectory(dir);
  return aside;
}

async function putInPlace(
  from: string,
  dir: string,
  manifest: Manifest,
): Promise<PartitionAudit[]> {
  const { name, sha256 } = manifest.files[0]!;
  const half = `${storePath(dir)}.restoring`;
  await rm(half, { force: true });
  await copyFile(join(from, name), half, constants.COPYFILE_EXCL);
  await chmod(half, 0o600);
  const file = await open(half, "r+");
  await file.sync();
  await file.close();
  if ((await sha256Of(half)) !== sha256) throw invalid(dir, "the copy has another SHA-256");
  await rename(half, storePath(dir));
  syncDirectory(dir);
  const partitions = auditStore(dir);
  if (isDeepStrictEqual(plain(partitions), plain(manifest.partitions))) return partitions;
  throw invalid(dir, "the restored store has other accounts than the backup says");
}

/** As JSON carries it. */
function plain(partitions: readonly PartitionAudit[]): unknown {
  return JSON.parse(JSON.stringify(partitions));
}

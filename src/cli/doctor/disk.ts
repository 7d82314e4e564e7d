/** Where the data lie: the disk and the store. Nothing but a probe file is written, and that is removed. */
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { isSpillwayError, textOf } from "../../base/index.ts";
import type { Config } from "../../config/index.ts";
import { auditStore, inspectStore } from "../../engines/sqlite/index.ts";
import type { StoreLook } from "../../engines/sqlite/index.ts";
import { faultsOf } from "../audit.ts";
import { millis, plural } from "../format.ts";
import { fail, ok, warn } from "./finding.ts";
import type { Finding } from "./finding.ts";

const mebibyte = 1024 ** 2;
/** Below this the store refuses messages: its reserve, and what it keeps free. */
const freeBytesMin = 64 * mebibyte;
const syncs = 20;
const syncSlowMs = 20;
/** A larger store takes a while to be audited. */
const auditBytesMax = 256 * mebibyte;
/** `f_type` of tmpfs and ramfs on Linux. */
const inMemory: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

export function checkDisk({ engine: { dir }, contracts }: Config): Finding[] {
  const place = nearest(dir);
  let syncMs: number[];
  try {
    syncMs = measureSyncs(place);
  } catch (error) {
    return [fail("disk", `${place}: ${textOf(error)}`, "make it writable for this user")];
  }
  const { bavail, bsize, type } = statfsSync(place);
  const found: Finding[] = [];
  if (inMemory.has(type >>> 0)) {
    found.push(
      warn("disk", `${place} lies in memory`, "use a disk: a restart of the machine takes it all"),
    );
  }
  const freeBytes = bavail * bsize;
  const storedBytes = statSync(join(dir, "store.db"), { throwIfNoEntry: false })?.size ?? 0;
  const buffers = Object.values(contracts).reduce((sum, each) => sum + each.buffer.bytes, 0);
  const neededBytes = Math.max(0, buffers - storedBytes) + freeBytesMin;
  const space = `${size(freeBytes)} free, ${size(neededBytes)} needed if all buffers fill`;
  if (freeBytes < freeBytesMin) {
    found.push(fail("disk", space, "free some: new messages are refused with store_full"));
  } else if (freeBytes < neededBytes) {
    found.push(warn("disk", space, "free some, or lower buffer.bytes: the disk fills first"));
  } else found.push(ok("disk", space));
  const sorted = syncMs.toSorted((a, b) => a - b);
  const median = sorted[sorted.length >> 1]!;
  const sync = `fsync takes ${millis(median)}, at most ${millis(sorted.at(-1)!)}`;
  const slow = "every commit waits for it: use a local disk, best with a protected cache";
  found.push(median > syncSlowMs ? warn("disk", sync, slow) : ok("disk", sync));
  return found;
}

export function checkStore({ engine: { dir } }: Config): Finding[] {
  if (!existsSync(dir)) return [ok("data", `${dir} will be made`)];
  let look: StoreLook;
  try {
    look = inspectStore(dir);
  } catch (error) {
    return [fail("data", `${dir}: ${textOf(error)}`, restoreAdvice)];
  }
  const { holder, faults, version, versionKnown } = look;
  const found = faults.map((fault) => fail("data", `${dir}: ${fault}`, faultAdvice(fault)));
  const held =
    holder === undefined
      ? "nobody has it open"
      : `process ${holder.pid ?? "?"} on ${holder.host ?? "?"} has it open; a second start is refused`;
  const migration =
    version > 0 && version < versionKnown ? `, version ${version} becomes ${versionKnown}` : "";
  found.push(ok("data", `${dir}: ${held}${migration}`));
  const { mode, uid } = statSync(dir);
  if ((mode & 0o077) !== 0) {
    const rights = `${dir} is open to others (mode ${(mode & 0o777).toString(8)})`;
    found.push(warn("data", rights, `chmod 700 ${dir}: it holds payloads in the clear`));
  }
  if (uid !== process.getuid?.()) {
    found.push(
      warn("data", `${dir} belongs to user ${uid}`, "run everything that touches it as that user"),
    );
  }
  if (version > 0 && faults.length === 0) found.push(...checkAccounts(dir, look.bytes));
  return found;
}

const restoreAdvice = "copy the directory away, then `spillway restore` a backup";

function faultAdvice(fault: string): string {
  if (fault.includes("locks")) return "use a local disk";
  if (fault.includes("newer")) return "run the version of Spillway that wrote it, or a newer one";
  return fault.includes("restore") ? "restore again" : restoreAdvice;
}

function checkAccounts(dir: string, bytes: number): Finding[] {
  if (bytes > auditBytesMax) {
    return [ok("accounts", `not checked: ${size(bytes)} take a while; \`spillway audit ${dir}\``)];
  }
  try {
    const audits = auditStore(dir);
    const faults = audits.flatMap(faultsOf);
    if (faults.length > 0) {
      return faults.map((fault) => fail("accounts", fault, `spillway audit ${dir} names all`));
    }
    const pending = audits.reduce((sum, { report }) => sum + report.counters.pending, 0);
    return [ok("accounts", `they hold; ${plural(pending, "message")} pending`)];
  } catch (error) {
    return [
      fail("accounts", isSpillwayError(error) ? error.message : textOf(error), restoreAdvice),
    ];
  }
}

/** The folder itself, or the one above in which it will be made. */
function nearest(dir: string): string {
  let place = dir;
  while (!existsSync(place) && dirname(place) !== place) place = dirname(place);
  return place;
}

/** What commits do: a page appended and synced. */
function measureSyncs(place: string): number[] {
  const path = join(place, `.spillway-doctor-${process.pid}`);
  const page = new Uint8Array(4096);
  const handle = openSync(path, "wx", 0o600);
  try {
    return Array.from({ length: syncs }, () => {
      const beganMs = performance.now();
      writeSync(handle, page);
      fsyncSync(handle);
      return performance.now() - beganMs;
    });
  } finally {
    closeSync(handle);
    rmSync(path, { force: true });
  }
}

/** "3.2 GiB" */
function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let at = 0;
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024;
  return `${Number(value.toFixed(1))} ${units[at]!}`;
}

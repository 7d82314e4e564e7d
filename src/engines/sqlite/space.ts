/**
 * Disk space. Appends stop first, settles go on (E20).
 *
 * S1  Below `minFreeBytes`, or after SQLite met a full disk, appends are refused.
 * S2  A full disk releases the reserve file, whose bytes let settles commit.
 * S3  Appends are taken again once there is room for both; the reserve is then made again first.
 * S4  The log is copied into the file when it is half as long as the reserve, or at `logPagesMin` if
 *     that is more: the file may have to grow by as much, and the other half is for settles.
 */
import { closeSync, fsyncSync, openSync, rmSync, statfsSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { SpillwayError } from "../../base/index.ts";
import { logPagesMax, pageBytes } from "./schema.ts";

/** A look at the file system costs some microseconds: not for every commit. */
const lookEveryMs = 50;
/** However small the reserve: a log of a few pages would be copied after every commit. */
const logPagesMin = 256;
/** What a caller is told to wait. */
const retryAfterMs = 1000;

export class Space {
  readonly #dir: string;
  readonly #path: string;
  readonly #reserveBytes: number;
  readonly #minFreeBytes: number;
  #refusing = false;
  #lookAtMs = 0;

  constructor(dir: string, reserveBytes: number, minFreeBytes: number) {
    this.#dir = dir;
    this.#path = join(dir, "reserve");
    this.#reserveBytes = reserveBytes;
    this.#minFreeBytes = minFreeBytes;
  }

  /** S4. A commit may add more than this at once. */
  get logPages(): number {
    const pages = Math.floor(this.#reserveBytes / 2 / pageBytes);
    return Math.min(logPagesMax, Math.max(logPagesMin, pages));
  }

  /** @param nowMs Of a clock that does not jump. */
  refusesAppends(nowMs: number): boolean {
    if (!this.#refusing && nowMs < this.#lookAtMs) return false;
    this.#lookAtMs = nowMs + lookEveryMs;
    const { bavail, bsize } = statfsSync(this.#dir);
    const missing = this.#reserveBytes - this.#reservedBytes();
    const free = bavail * bsize - Math.max(0, missing);
    this.#refusing = free < this.#minFreeBytes || !this.#reserve(missing);
    return this.#refusing;
  }

  /** SQLite met a full disk. */
  release(): void {
    rmSync(this.#path, { force: true });
    this.#refusing = true;
  }

  refusal(): SpillwayError {
    return new SpillwayError("store_full", { dir: this.#dir, retryAfterMs });
  }

  #reservedBytes(): number {
    return statSync(this.#path, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Written, not only sized: a sparse file reserves nothing. */
  #reserve(missing: number): boolean {
    if (missing <= 0) return true;
    try {
      const handle = openSync(this.#path, "w", 0o600);
      try {
        const chunk = new Uint8Array(Math.min(1024 ** 2, this.#reserveBytes));
        for (let left = this.#reserveBytes; left > 0;) {
          left -= writeSync(handle, chunk, 0, Math.min(left, chunk.length));
        }
        fsyncSync(handle);
      } finally {
        closeSync(handle);
      }
      return true;
    } catch {
      rmSync(this.#path, { force: true });
      return false;
    }
  }
}

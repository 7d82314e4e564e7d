/** What an error of SQLite means for the store. https://www.sqlite.org/rescode.html */
import { SpillwayError } from "../../base/index.ts";
import type { ErrorCode } from "../../base/index.ts";

export const sqliteCode = {
  busy: 5,
  locked: 6,
  ioError: 10,
  corrupt: 11,
  full: 13,
  cannotOpen: 14,
  notADatabase: 26,
} as const;

/** The shared-memory file could not grow: no space, though SQLite calls it an I/O error. */
const ioErrorShmSize = 4874;

export interface SqliteError extends Error {
  readonly code: "ERR_SQLITE_ERROR";
  /** Extended result code. */
  readonly errcode: number;
}

export function isSqliteError(error: unknown): error is SqliteError {
  return error instanceof Error && "code" in error && error.code === "ERR_SQLITE_ERROR";
}

export function primaryCode(error: SqliteError): number {
  return error.errcode & 255;
}

/** `full`: refuse appends and go on. `fatal`: the store is dead for writes until it is opened again. */
export type Failure = "full" | "fatal" | "corrupt" | "defect";

export function failureOf(error: unknown): Failure {
  if (!isSqliteError(error)) return "defect";
  if (error.errcode === ioErrorShmSize) return "full";
  switch (primaryCode(error)) {
    case sqliteCode.full:
      return "full";
    case sqliteCode.corrupt:
    case sqliteCode.notADatabase:
      return "corrupt";
    case sqliteCode.ioError:
    case sqliteCode.cannotOpen:
      return "fatal";
    default:
      return "defect";
  }
}

const codes: Readonly<Record<Failure, ErrorCode>> = {
  full: "store_full",
  fatal: "store_failed",
  corrupt: "store_corrupt",
  defect: "invariant_broken",
};

/** An error as callers see it. */
export function toSpillwayError(
  error: unknown,
  details: Record<string, unknown> = {},
): SpillwayError {
  if (error instanceof SpillwayError) return error;
  const cause = error instanceof Error ? error.message : String(error);
  const errcode = isSqliteError(error) ? { errcode: error.errcode } : {};
  return new SpillwayError(
    codes[failureOf(error)],
    { ...details, ...errcode, cause },
    { cause: error },
  );
}

/** An error of the file system, or of SQLite, met while files are made or read for somebody. */
export function toFileError(error: unknown, details: Record<string, unknown>): SpillwayError {
  const { code, syscall, path } = error as NodeJS.ErrnoException;
  if (error instanceof SpillwayError || syscall === undefined || code === undefined) {
    return toSpillwayError(error, details);
  }
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new SpillwayError("store_full", { ...details, path }, { cause: error });
  }
  const allowed = "a place that this user may read and write";
  return new SpillwayError("option_invalid", { path, found: code, allowed }, { cause: error });
}

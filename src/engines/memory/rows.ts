/** A stored message and how it is shown. */
import type { Seq } from "../../flow/index.ts";
import { appendBytes } from "../engine.ts";
import type { Append, Descriptor, ShelfEntry, StoredMessage } from "../engine.ts";

/** `attempts` counts those that ended; one in flight is added when the row is shown. */
export interface Row {
  readonly append: Append;
  readonly seq: Seq;
  readonly bytes: number;
  readonly acceptedAtMs: number;
  attempts: number;
  crashes: number;
  dueAtMs: number | undefined;
  error: string | undefined;
}

export interface ShelfRow extends Row {
  readonly reason: string;
  readonly shelvedAtMs: number;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export function newRow(append: Append, seq: Seq, nowMs: number): Row {
  return {
    append,
    seq,
    bytes: appendBytes(append),
    acceptedAtMs: nowMs,
    attempts: 0,
    crashes: 0,
    dueAtMs: append.dueAtMs,
    error: undefined,
  };
}

export function describe(row: Row, inFlight: boolean): Descriptor {
  const { keyHash, group, cost, deadlineAtMs } = row.append;
  const shown: Writable<Descriptor> = {
    seq: row.seq,
    class: row.append.class,
    bytes: row.bytes,
    attempts: row.attempts + (inFlight ? 1 : 0),
    crashes: row.crashes,
    acceptedAtMs: row.acceptedAtMs,
  };
  if (keyHash !== undefined) shown.keyHash = keyHash;
  if (group !== undefined) shown.group = group;
  if (cost !== undefined) shown.cost = cost;
  if (row.dueAtMs !== undefined) shown.dueAtMs = row.dueAtMs;
  if (deadlineAtMs !== undefined) shown.deadlineAtMs = deadlineAtMs;
  return shown;
}

export function showMessage(row: Row, inFlight: boolean): StoredMessage {
  const { key, headers, payload } = row.append;
  const shown: Writable<StoredMessage> = { ...describe(row, inFlight), headers, payload };
  if (key !== undefined) shown.key = key;
  if (row.error !== undefined) shown.error = row.error;
  return shown;
}

export function showShelved(row: ShelfRow): ShelfEntry {
  return { ...showMessage(row, false), reason: row.reason, shelvedAtMs: row.shelvedAtMs };
}

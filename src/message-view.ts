/** What is shown of a message that the store holds: as a dead letter, and wherever it is. */
import type { ShelfEntry } from "./engines/index.ts";
import type { MessageClass } from "./flow/index.ts";
import { readHeaders } from "./producer/index.ts";
import type { Looked, Reason } from "./queue/index.ts";

export interface DeadLetter {
  readonly id: string;
  readonly reason: string;
  readonly attempts: number;
  readonly key?: string;
  readonly group?: string;
  readonly error?: string;
  readonly shelvedAt: Date;
  readonly headers: Readonly<Record<string, string>>;
  readonly payload: Uint8Array;
}

/** A message as the store has it. */
export interface MessageView {
  readonly id: string;
  /** "pending", or where it ended. */
  readonly state: "pending" | "dead" | "discarded" | "acked";
  readonly why: Reason;
  /** Absent once it is acked, or before it is durable: then nothing else is known. */
  readonly stored?: {
    readonly class: MessageClass;
    readonly key?: string;
    readonly group?: string;
    /** Started so far, and in how many of them a process died. */
    readonly attempts: number;
    readonly crashes: number;
    readonly acceptedAt: Date;
    readonly dueAt?: Date;
    readonly deadline?: Date;
    /** Of the latest attempt that failed. */
    readonly error?: string;
    readonly shelvedAt?: Date;
    readonly reason?: string;
    readonly headers: Readonly<Record<string, string>>;
    /** Empty of a discarded message. */
    readonly payload: Uint8Array;
  };
}

export function deadLetter(id: string, entry: ShelfEntry): DeadLetter {
  const { reason, attempts, key, group, error, shelvedAtMs, headers, payload } = entry;
  return {
    id,
    reason,
    attempts,
    ...(key === undefined ? {} : { key }),
    ...(group === undefined ? {} : { group }),
    ...(error === undefined ? {} : { error }),
    shelvedAt: new Date(shelvedAtMs),
    headers: readHeaders(headers),
    payload,
  };
}

export function messageView(id: string, why: Reason, looked: Looked | undefined): MessageView {
  if (looked === undefined) {
    return { id, state: why.reason === "acked" ? "acked" : "pending", why };
  }
  const { shelf, message } = looked;
  const { key, group, attempts, crashes, dueAtMs, deadlineAtMs, error, payload } = message;
  return {
    id,
    state: shelf,
    why,
    stored: {
      class: message.class,
      ...(key === undefined ? {} : { key }),
      ...(group === undefined ? {} : { group }),
      attempts,
      crashes,
      acceptedAt: new Date(message.acceptedAtMs),
      ...(dueAtMs === undefined ? {} : { dueAt: new Date(dueAtMs) }),
      ...(deadlineAtMs === undefined ? {} : { deadline: new Date(deadlineAtMs) }),
      ...(error === undefined ? {} : { error }),
      ...(looked.shelf === "pending"
        ? {}
        : { shelvedAt: new Date(looked.message.shelvedAtMs), reason: looked.message.reason }),
      headers: readHeaders(message.headers),
      payload,
    },
  };
}

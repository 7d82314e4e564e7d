/** A pending message that its partition's owner knows of: a descriptor and where it stands. */
import type { Member } from "../base/index.ts";
import type { Descriptor } from "../engines/engine.ts";
import type { MessageClass } from "../flow/index.ts";

export type EntryState =
  /** Behind the head of its key. */
  | "behind"
  /** Due later: delayed by its sender, or waiting for a retry. */
  | "delayed"
  /** Was in flight when a process died: runs when no other suspect does. */
  | "suspect"
  /** May be dispatched. */
  | "ready"
  /** Its attempt is being made durable, or its payload read. */
  | "starting"
  /** Durable and at hand: waits for a consumer's credit. */
  | "prepared"
  /** With a consumer. */
  | "out"
  /** Settled; the verdict is being made durable. */
  | "settling";

export interface Message {
  readonly key?: string;
  readonly headers: Uint8Array;
  readonly payload: Uint8Array;
}

/** A consumer, as far as an entry knows it. */
export interface Holder {
  readonly id: string;
  /** How many it has. */
  out: number;
}

export interface Entry extends Member<Entry> {
  readonly partition: number;
  readonly seq: number;
  /** Place in `messageClasses`. */
  readonly rank: 0 | 1 | 2;
  /** 0: no key. */
  readonly keyHash: number;
  /** "": no group. */
  readonly group: string;
  readonly cost: number;
  readonly bytes: number;
  readonly deadlineAtMs: number | undefined;
  readonly acceptedAtMs: number;
  state: EntryState;
  /** Attempts started so far, this one included. */
  attempts: number;
  crashes: number;
  dueAtMs: number;
  /** At hand while memory allows; read from the store again otherwise. */
  message: Message | undefined;
  /** What `starting` still waits for. */
  needsCommit: boolean;
  needsPayload: boolean;
  leaseAtMs: number;
  /** Who has it while it is out, and its neighbours in the order of being handed out. */
  holder: Holder | undefined;
  before: Entry | undefined;
  after: Entry | undefined;
  /** How often it was given back untried, since it is in memory: a loop of that is slowed down. */
  releases: number;
  /** A retry takes its token of the budget when it becomes ready. */
  isRetry: boolean;
}

const ranks: Readonly<Record<MessageClass, 0 | 1 | 2>> = { critical: 0, normal: 1, bulk: 2 };

export function entryOf(
  partition: number,
  descriptor: Descriptor,
  message: Message | undefined,
): Entry {
  return {
    partition,
    seq: descriptor.seq,
    rank: ranks[descriptor.class],
    keyHash: descriptor.keyHash ?? 0,
    group: descriptor.group ?? "",
    cost: descriptor.cost ?? 1,
    bytes: descriptor.bytes,
    deadlineAtMs: descriptor.deadlineAtMs,
    acceptedAtMs: descriptor.acceptedAtMs,
    state: "ready",
    attempts: descriptor.attempts,
    crashes: descriptor.crashes,
    dueAtMs: descriptor.dueAtMs ?? 0,
    message,
    needsCommit: false,
    needsPayload: false,
    leaseAtMs: 0,
    holder: undefined,
    before: undefined,
    after: undefined,
    releases: 0,
    isRetry: descriptor.attempts > 0,
  };
}

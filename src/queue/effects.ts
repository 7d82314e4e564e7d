/** What the queue's machine asks of the world, and what it tells whoever watches. */
import type { Append, Change, DueCursor, ScanQuery } from "../engines/engine.ts";
import type { MessageClass } from "../flow/index.ts";
import type { ToConsumerFrame, ToProducerFrame } from "../protocol/index.ts";
import type { Source } from "./sources.ts";

export interface QueueWrite {
  readonly writeId: string;
  readonly appends: readonly Append[];
  readonly changes: readonly Change[];
  readonly limits: { readonly messages: number; readonly bytes: number };
  /** It holds a half of a joint write: it goes in one batch with the others that do. */
  readonly isJoint: boolean;
}

export type QueueEffect =
  | {
      readonly kind: "scan";
      readonly read: number;
      readonly partition: number;
      readonly source: Source;
      readonly query: ScanQuery;
    }
  | {
      readonly kind: "groups";
      readonly partition: number;
      readonly lane: MessageClass;
      readonly after: string | null;
      readonly limit: number;
    }
  | {
      readonly kind: "due";
      readonly read: number;
      readonly partition: number;
      readonly untilMs: number;
      readonly after: DueCursor | null;
      readonly limit: number;
    }
  | {
      readonly kind: "readKey";
      readonly read: number;
      readonly partition: number;
      readonly keyHash: number;
      readonly limit: number;
    }
  | { readonly kind: "payloads"; readonly partition: number; readonly seqs: readonly number[] }
  | { readonly kind: "toProducer"; readonly producer: string; readonly frame: ToProducerFrame }
  | { readonly kind: "toConsumer"; readonly consumer: string; readonly frame: ToConsumerFrame }
  | { readonly kind: "fact"; readonly fact: QueueFact };

/** What happened, for events, metrics and the recorder. Every change of a message's state is one fact. */
export type QueueFact =
  | { readonly kind: "accepted"; readonly partition: number; readonly seq: number }
  | {
      readonly kind: "acked";
      readonly partition: number;
      readonly seq: number;
      readonly attempt: number;
    }
  | {
      readonly kind: "retrying";
      readonly partition: number;
      readonly seq: number;
      readonly attempt: number;
      readonly dueAtMs: number;
      readonly error: string;
    }
  | { readonly kind: "released"; readonly partition: number; readonly seq: number }
  | {
      readonly kind: "dead";
      readonly partition: number;
      readonly seq: number;
      readonly attempt: number;
      readonly reason: string;
    }
  | {
      readonly kind: "discarded";
      readonly partition: number;
      readonly seq: number;
      readonly reason: string;
    }
  | { readonly kind: "redriven"; readonly partition: number; readonly seq: number }
  | {
      readonly kind: "leaseEnded";
      readonly partition: number;
      readonly seq: number;
      readonly attempt: number;
    }
  | {
      readonly kind: "suspected";
      readonly partition: number;
      readonly seq: number;
      readonly crashes: number;
    }
  | { readonly kind: "stopped"; readonly partition: number; readonly code: string };

/** What a durable change tells; `undefined`: nothing that concerns anybody else. */
export function factOf(change: Change, partition: number, attempt: number): QueueFact | undefined {
  const { seq } = change;
  switch (change.kind) {
    case "started":
      return undefined;
    case "released":
      return { kind: "released", partition, seq };
    case "retry": {
      const { dueAtMs, error } = change;
      return { kind: "retrying", partition, seq, attempt, dueAtMs, error };
    }
    case "ack":
      return { kind: "acked", partition, seq, attempt };
    case "dead":
      return { kind: "dead", partition, seq, attempt, reason: change.reason };
    case "discard":
      return { kind: "discarded", partition, seq, reason: change.reason };
    case "redrive":
      return { kind: "redriven", partition, seq };
    default:
      return change satisfies never;
  }
}

/**
 * The contract of a flow: limits, order, retry and delivery, complete and checked. It is data: frozen,
 * printable, the same wherever it is read. All numbers are ms and bytes unless a name says otherwise.
 */
import type { MessageClass } from "./message.ts";
import type { DiscardReason, SecretRef } from "./options.ts";

export interface Contract {
  readonly name: string;
  readonly partitions: number;
  /** Over all partitions. `seconds` of work, a number of seconds; absent: no such bound. */
  readonly buffer: {
    readonly messages: number;
    readonly bytes: number;
    readonly seconds?: number;
  };
  readonly order: "key" | "none";
  readonly dedup: { readonly windowMs: number };
  /** Stop level of each class, as a share (0..1) of the buffer. */
  readonly classes: Readonly<Record<MessageClass, number>>;
  /** After acceptance, for messages without their own; absent: none. */
  readonly deadlineMs?: number;
  readonly discard: readonly DiscardReason[];
  readonly retry: {
    readonly attempts: number;
    readonly delayBaseMs: number;
    readonly delayMaxMs: number;
    /** Retries as a share (0..1) of first attempts. */
    readonly budget: number;
  };
  /** Of a delivery, without settle or `working`. */
  readonly leaseMs: number;
  /** In messages in flight; min <= start <= max, and `fixed` within them. */
  readonly window: {
    readonly start: number;
    readonly min: number;
    readonly max: number;
    readonly fixed?: number;
  };
  /** Of the target. */
  readonly rate?: Rate;
  /** Messages per second. */
  readonly expectedRate?: number;
  readonly boundary: {
    readonly rate?: Rate;
    readonly groupRate?: Rate;
    /** Which season history is kept of; "off": none, and nobody is held to it. */
    readonly learn: "day" | "week" | "off";
    /** In the order of time, without overlap. */
    readonly surges: readonly Surge[];
  };
  readonly groups: {
    /** Without a prototype, so that a group named "constructor" has no weight by accident. */
    readonly weights: Readonly<Record<string, number>>;
    readonly shards: number | "off";
  };
  readonly messageBytesMax: number;
  readonly credit: { readonly leaseMs: number };
  /** Descriptors per partition. */
  readonly readAhead: number;
  readonly target: string;
  readonly budget: { readonly endToEndMs?: number };
  /** Absent: handlers and workers take. */
  readonly deliver?: Push;
  readonly payload: "json" | "bytes";
}

export interface Push {
  readonly kind: "push";
  readonly url: string;
  readonly timeoutMs: number;
  readonly connectTimeoutMs: number;
  /** None: requests are not signed. */
  readonly secrets: readonly SecretRef[];
  readonly headers: Readonly<Record<string, string>>;
  readonly allow: readonly string[];
  readonly ports: readonly number[];
  /** Answers. */
  readonly rejectAfter: number;
  /** Messages in one request; 1: no batches. */
  readonly batchMessages: number;
}

/** In messages (or cost) per second. */
export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}

export interface Surge {
  readonly fromMs: number;
  readonly toMs: number;
  readonly factor: number;
}

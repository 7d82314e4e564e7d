/**
 * The frames of both hops. A frame is plain data: in process it is handed over as it is, on a wire it
 * is encoded, in the simulator it may be lost. Grants and heartbeats may be lost, doubled, late or out
 * of order and do no harm; the others arrive in order until their connection ends, and what was not
 * answered by then has an unknown outcome.
 */

/** A receiver's promise to one sender: absolute, cumulative since the epoch began. */
export interface Grant {
  readonly epoch: number;
  readonly grantId: number;
  readonly limitMessages: number;
  readonly limitBytes: number;
  /** The sender's own time of the heartbeat that this answers: the lease runs from there. */
  readonly echoHeartbeatMs: number;
  readonly leaseMs: number;
}

/** What a sender tells its receiver: where it is and what it would send if it could. */
export interface Heartbeat {
  /** On the sender's clock. */
  readonly heartbeatMs: number;
  readonly position: number;
  readonly positionBytes: number;
  readonly want: number;
  readonly wantBytes: number;
  /** The epoch that `position` counts in; absent on an old wire. */
  readonly epoch?: number;
  /** Size of the first message that waits, if it waits for bytes; else 0. */
  readonly headBytes?: number;
}

/** Which grant a send spends, and how long the sender held it: signal lag without a common clock. */
export interface Stamp {
  readonly epoch: number;
  readonly grantId: number;
  readonly heldMs: number;
}

/** Who is kept when there is too much, best first: the class's place in `messageClasses`. */
export type ClassName = "critical" | "normal" | "bulk";

/** A message on its way to the queue. Times are relative where clocks may differ. */
export interface Draft {
  readonly class: ClassName;
  readonly keyHash?: number;
  readonly key?: string;
  readonly group?: string;
  readonly cost?: number;
  readonly delayMs?: number;
  /** From now on; what is not handled by then expires. */
  readonly deadlineMs?: number;
  readonly idempotencyKey?: string;
  /** Digests of the key and of the payload; made where the queue is. */
  idempotency?: { readonly id: Uint8Array; readonly content: Uint8Array };
  readonly headers: Uint8Array;
  readonly payload: Uint8Array;
  /** Bytes that it counts against credit and the bound. */
  readonly bytes: number;
  /** Ties the append to the settle of another delivery: both become durable in one write. */
  readonly joint?: number;
}

export type ProducerFrame =
  | { readonly kind: "beat"; readonly partition: number; readonly beat: Heartbeat }
  | {
      readonly kind: "send";
      readonly partition: number;
      readonly stamp: Stamp;
      /** Position in the stream before the first of the messages. */
      readonly position: number;
      readonly drafts: readonly Draft[];
      /** Every send is a heartbeat, too. */
      readonly beat: Heartbeat;
    };

export type SendResult =
  /** `count` messages in a row: positions and seqs go on from those of the first. */
  | {
      readonly kind: "accepted";
      readonly position: number;
      readonly seq: number;
      readonly count: number;
    }
  | { readonly kind: "duplicate"; readonly position: number; readonly seq: number }
  | {
      readonly kind: "refused";
      readonly position: number;
      readonly code: RefusalCode;
      readonly retryAfterMs?: number;
      /** Which bound it is, where a code has several: units of `found` and `allowed` follow from it. */
      readonly bound?: string;
      /** Of `group_limited` in messages per second: what is allowed is the group's pace from now on. */
      readonly found?: unknown;
      readonly allowed?: unknown;
    };

export type RefusalCode =
  | "no_credit"
  | "buffer_full"
  | "class_closed"
  | "rate_limited"
  | "group_limited"
  | "deadline_infeasible"
  | "deadline_passed"
  | "intake_closed"
  | "message_too_large"
  | "idempotency_conflict"
  | "store_full"
  | "store_failed"
  | "store_corrupt"
  | "outcome_unknown"
  | "store_unavailable"
  | "fenced"
  | "closed"
  /** Of a client that has lost its connection. */
  | "disconnected"
  /** Of a joint write whose delivery has lost its lease. */
  | "delivery_settled"
  | "invariant_broken";

export type ToProducerFrame =
  /** The stream of a partition is open: positions start at 0. */
  | { readonly kind: "opened"; readonly partition: number }
  /** Its owner is gone: credit is void, what was not answered is unknown. */
  | { readonly kind: "closed"; readonly partition: number; readonly code: RefusalCode }
  | {
      readonly kind: "grant";
      readonly partition: number;
      readonly grant: Grant;
      /** The lowest class that is taken now, null when none is, and why the others wait. */
      readonly lowestClass: ClassName | null;
      readonly limitedBy: RefusalCode;
      readonly retryAfterMs: number;
    }
  /** The answer to a heartbeat that wants credit when none can be given: why. */
  | {
      readonly kind: "held";
      readonly partition: number;
      readonly lowestClass: ClassName | null;
      readonly limitedBy: RefusalCode;
      readonly retryAfterMs: number;
    }
  | {
      readonly kind: "results";
      readonly partition: number;
      readonly results: readonly SendResult[];
    };

/** A message on its way to a handler. */
export interface Delivered {
  readonly partition: number;
  readonly seq: number;
  /** From 1. With `partition` and `seq` it names the delivery; a later attempt voids it. */
  readonly attempt: number;
  readonly class: ClassName;
  readonly key?: string;
  readonly group?: string;
  readonly cost: number;
  readonly acceptedAtMs: number;
  readonly deadlineAtMs?: number;
  readonly leaseMs: number;
  readonly headers: Uint8Array;
  readonly payload: Uint8Array;
}

export interface Settlement {
  readonly partition: number;
  readonly seq: number;
  readonly attempt: number;
  readonly verdict: FrameVerdict;
  readonly durationMs: number;
  /** Answer with `settled` once it is durable. */
  readonly confirm: boolean;
  readonly joint?: number;
}

/** `Verdict` of flow/, in the frame's own words: protocol/ knows nothing of flows. */
export type FrameVerdict =
  | { readonly kind: "ack" }
  | { readonly kind: "nack"; readonly error: string; readonly delayMs?: number }
  | { readonly kind: "release"; readonly delayMs?: number }
  | { readonly kind: "term"; readonly reason: string };

export type ConsumerFrame =
  | { readonly kind: "credit"; readonly grant: Grant }
  | { readonly kind: "settle"; readonly settlements: readonly Settlement[] }
  | {
      readonly kind: "working";
      readonly partition: number;
      readonly seq: number;
      readonly attempt: number;
      readonly extendMs: number;
    }
  /** The target works again after an outage: what is stored by now is the backlog. */
  | { readonly kind: "recovered" };

export type ToConsumerFrame =
  | { readonly kind: "want"; readonly beat: Heartbeat }
  | {
      readonly kind: "deliver";
      readonly stamp: Stamp;
      readonly messages: readonly Delivered[];
      readonly beat: Heartbeat;
    }
  | {
      readonly kind: "settled";
      readonly partition: number;
      readonly seq: number;
      readonly attempt: number;
      /** False: the delivery had lost its lease, nothing was changed. */
      readonly effective: boolean;
    }
  /** The lease of a delivery ended: whoever still works on it should stop. */
  | {
      readonly kind: "lost";
      readonly partition: number;
      readonly seq: number;
      readonly attempt: number;
    };

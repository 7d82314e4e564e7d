/**
 * What users write in a contract. Every field is optional, and `flow({})` is valid: the defaults stand
 * beside the fields, their reasons in `defaults.ts`. A span is a number of ms or text such as "10s",
 * a size a number of bytes or text such as "2 GiB". What is written here is data: JSON can carry it.
 */
import type { Size, Span } from "../base/index.ts";
import type { MessageClass } from "./message.ts";

/** What may be dropped at all: messages past their deadline, or shed by declared policy. */
export type DiscardReason = "expired" | "shed";

/** A limit in messages (or cost) per second. */
export interface RateOptions {
  readonly perSecond: number;
  /** How many may go at once after a pause; at least 1. */
  readonly burst?: number;
}

/** A known surge: forecast and envelopes are multiplied by `factor` between the two instants. */
export interface SurgeOptions {
  /** ISO 8601 with a zone ("2026-11-27T00:00Z"), or ms since the epoch. */
  readonly from: string | number;
  readonly to: string | number;
  readonly factor: number;
}

/** Where a secret is read from, when it is needed: a contract is data that is shown, and holds none. */
export type SecretRef = { readonly env: string } | { readonly file: string };

/** Delivery to an HTTP endpoint: each message is a request, and what is answered settles it. */
export interface PushOptions {
  readonly kind: "push";
  /** Without user name and password. */
  readonly url: string;
  /** For the whole call, from connecting to the last byte of the answer; by default 10s. */
  readonly timeout?: Span;
  /** For name look-up, connection and TLS; by default 3s. */
  readonly connectTimeout?: Span;
  /** Requests are signed by the Standard Webhooks scheme; with two, by both, while one replaces the other. */
  readonly secret?: SecretRef | readonly SecretRef[];
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>>;
  /**
   * What is refused otherwise: "http" (no TLS), "loopback", "private", "link-local", or an address range
   * ("10.1.0.0/16"). By default only https to public addresses.
   */
  readonly allow?: readonly string[];
  /** Ports that the address may name; by default 80 and 443. */
  readonly ports?: readonly number[];
  /** A message that is answered with another 4xx this often is dead-lettered; by default 3. */
  readonly rejectAfter?: number;
  /** Several messages in one request, as far as they wait. */
  readonly batch?: {
    /** At most. */
    readonly messages: number;
  };
}

export interface FlowOptions {
  /** Slices with one owner each: 1 to 1,024, by default 8. It is fixed when the flow is made. */
  readonly partitions?: number;
  /** Bounds of what is stored and not yet settled, over all partitions. */
  readonly buffer?: {
    /** By default 1,000,000. */
    readonly messages?: number;
    /** By default 2 GiB. */
    readonly bytes?: Size;
    /** Seconds of work: backlog / drain rate. A number of seconds or a span; by default no bound. */
    readonly seconds?: number | string;
  };
  /** "key" (default): messages of one key are handled one at a time, in order. "none": no order. */
  readonly order?: "key" | "none";
  readonly dedup?: {
    /** How long an idempotency key is remembered; by default 24h. */
    readonly window?: Span;
  };
  /** Stop level of each class as a share (0..1) of the buffer; by default 1.0, 0.8, 0.5. */
  readonly classes?: { readonly [Class in MessageClass]?: number };
  /** For messages without their own: how long after its acceptance one may start; by default for ever. */
  readonly deadline?: Span;
  /** By default nothing: an expired message is dead-lettered. */
  readonly discard?: readonly DiscardReason[];
  readonly retry?: {
    /** Deliveries that may fail before a message is dead-lettered; by default 12. */
    readonly attempts?: number;
    /** Delay after the first failure, and the longest one; by default ["200ms", "15m"]. */
    readonly delay?: readonly [base: Span, max: Span];
    /** Retries allowed, as a share (0..1) of first attempts; by default 0.1. */
    readonly budget?: number;
  };
  /** How long a delivery may take without settle or `working` before its attempt counts as failed; 30s. */
  readonly lease?: Span;
  /** How many messages may be in flight at the target; found by measuring unless `fixed`. */
  readonly window?: {
    /** By default 4. */
    readonly start?: number;
    /** By default 1. */
    readonly min?: number;
    /** By default 1,000. */
    readonly max?: number;
    /** Switches measuring off. */
    readonly fixed?: number;
  };
  /** Known limit of the target; by default none. */
  readonly rate?: RateOptions;
  /** Messages per second that the consumer is expected to settle, used until that is measured. */
  readonly expectedRate?: number;
  /** What the flow takes in at most. */
  readonly boundary?: {
    readonly rate?: RateOptions;
    /** For each group. */
    readonly groupRate?: RateOptions;
    /**
     * What is learnt of arrivals, for forecasts and for the envelope of each group: "week" (default) in
     * slots of half an hour, "day" in slots of five minutes, "off" nothing.
     */
    readonly learn?: "day" | "week" | "off";
    /** At most 1,000, which do not overlap. */
    readonly surges?: readonly SurgeOptions[];
  };
  readonly groups?: {
    /** Share of a group against the others of its class; 1 where absent. */
    readonly weights?: Readonly<Record<string, number>>;
    /** On how many partitions a group's messages lie; by default off below 8 partitions, 2, 4 from 16. */
    readonly shards?: number | "off";
  };
  /** Largest message, headers included; by default 1 MiB. */
  readonly messageBytesMax?: Size;
  readonly credit?: {
    /** How long granted credit may be used; by default 2s. */
    readonly leaseMs?: Span;
  };
  /** Descriptors that a partition's owner holds in memory; by default 4,096. */
  readonly readAhead?: number;
  /** Flows that name one target share its window, rate and breaker; by default the flow's own name. */
  readonly target?: string;
  readonly budget?: {
    /** Latency budget from acceptance to ack: watched and alerted on, never enforced. */
    readonly endToEnd?: Span;
  };
  /** Where a server delivers to; by default to handlers and workers, which come and take. */
  readonly deliver?: PushOptions;
  /** What the client's edge makes of a message; by default "json". */
  readonly payload?: "json" | "bytes";
}

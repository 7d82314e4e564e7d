/** What every room knows of a message. */

/** Who is kept when there is too much; `critical` first. */
export type MessageClass = "critical" | "normal" | "bulk";
export const messageClasses = ["critical", "normal", "bulk"] as const;

/** Position of a message in its partition: dense, ascending from 1, in order of acceptance. */
export type Seq = number;
/** Hash of a key (53 bits, above 0): messages with one hash are handled one at a time, in order. */
export type KeyHash = number;

/** How a handled message ends. What is not settled within its lease is retried. */
export type Verdict =
  /** Done. */
  | { readonly kind: "ack" }
  /** Failed: try again after the contract's delay, or after `delayMs` if that is later. */
  | {
      readonly kind: "nack";
      readonly error: string;
      readonly delayMs?: number;
      readonly fault?: Fault;
    }
  /** Not tried: costs no attempt. `overload` says that the target is saturated (429, 503). */
  | { readonly kind: "release"; readonly delayMs?: number; readonly overload?: boolean }
  /** Never retry: dead-letter. */
  | { readonly kind: "term"; readonly reason: string };

/** Whose failure it was: the message's own, or the target's (refused, timeout), which feeds the breaker. */
export type Fault = "message" | "target";

/** Why a message stands on the dead-letter shelf. */
export type DeadReason = "attempts_exhausted" | "terminated" | "crash_suspect" | "expired";

/** "orders/3/1204": flow, partition and seq, as users see a message's identity. */
export function formatId(flow: string, partition: number, seq: Seq): string {
  return `${flow}/${partition}/${seq}`;
}

/** "000" to "999". */
const lastDigits = Array.from({ length: 1000 }, (_, n) => String(n).padStart(3, "0"));

/**
 * The ids of one flow, for whoever makes one for every message. A number that becomes a text is kept by
 * V8 for a while, and with it whatever it stands in; here only each thousandth is turned into one.
 */
export class Ids {
  readonly #flow: string;
  /** Of each partition: the thousands of the latest seq, and the id without its last three digits. */
  readonly #thousands: number[] = [];
  readonly #begins: string[] = [];

  constructor(flow: string) {
    this.#flow = flow;
  }

  of(partition: number, seq: Seq): string {
    if (seq < 1000) return formatId(this.#flow, partition, seq);
    const thousands = Math.floor(seq / 1000);
    if (this.#thousands[partition] !== thousands) {
      this.#thousands[partition] = thousands;
      this.#begins[partition] = formatId(this.#flow, partition, thousands);
    }
    return this.#begins[partition]! + lastDigits[seq - 1000 * thousands]!;
  }
}

export interface MessageId {
  readonly flow: string;
  readonly partition: number;
  readonly seq: Seq;
}

/** @returns undefined when the text is not an id. */
export function parseId(id: string): MessageId | undefined {
  const match = /^([A-Za-z0-9._-]{1,128})\/(\d{1,6})\/(\d{1,16})$/.exec(id);
  if (match === null) return undefined;
  return { flow: match[1]!, partition: Number(match[2]), seq: Number(match[3]) };
}

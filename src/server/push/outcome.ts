/**
 * What an answer makes of a message. The texts are shown to whoever owns the flow: they hold the status
 * and nothing of what was answered (S5), or a push would read the network for its author.
 *
 * V1  429, and 503 with `Retry-After`, never cost an attempt and never dead-letter.
 * V2  No answer to a request of several messages dead-letters one of them for what another may be.
 */
import type { Verdict } from "../../flow/index.ts";
import { exhaustedForMs, retryAfterMs } from "./limits.ts";

/** What is looked at of an answer. Names of fields are in lower case. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export interface Circumstances {
  readonly nowMs: number;
  /** From 1. */
  readonly attempt: number;
  /** Of the contract. */
  readonly rejectAfter: number;
  /** It was the only message of the request. */
  readonly isAlone: boolean;
}

const ack: Verdict = { kind: "ack" };
/** Statuses that speak of the target, not of this message: it is away, or a proxy cannot reach it. */
const targetStatuses: ReadonlySet<number> = new Set([408, 502, 503, 504]);
/** Refusals that the next attempt may not meet. */
const passingStatuses: ReadonlySet<number> = new Set([408, 425]);

export function verdictOf(answer: Answer, circumstances: Circumstances): Verdict {
  const { status } = answer;
  if (status >= 200 && status < 300) return ack;
  if (status === 429 || status === 503) {
    const delayMs = waitMsOf(answer, circumstances.nowMs);
    if (delayMs !== undefined) return { kind: "release", overload: true, delayMs };
    if (status === 429) return { kind: "release", overload: true };
  }
  const error = `answered ${status}`;
  if (status >= 300 && status < 400) {
    return { kind: "nack", error: `${error}: redirects are not followed`, fault: "message" };
  }
  if (status === 410) return { kind: "term", reason: `${error}: gone` };
  if (status >= 400 && status < 500 && !passingStatuses.has(status)) {
    const { attempt, rejectAfter, isAlone } = circumstances;
    if (isAlone && attempt >= rejectAfter) return { kind: "term", reason: error };
  }
  return { kind: "nack", error, fault: targetStatuses.has(status) ? "target" : "message" };
}

/** `Retry-After`; a 429 may instead say with `RateLimit` when its quota is full again. */
function waitMsOf({ status, headers }: Answer, nowMs: number): number | undefined {
  const said = retryAfterMs(fieldOf(headers, "retry-after"), nowMs);
  return said ?? (status === 429 ? exhaustedForMs(fieldOf(headers, "ratelimit")) : undefined);
}

/** Lines of one field are one list (RFC 9110). */
export function fieldOf(headers: Answer["headers"], name: string): string | undefined {
  const value = headers[name];
  return typeof value === "object" ? value.join(", ") : value;
}

/** There was no answer. @param code Of the system, such as "ECONNREFUSED". */
export function noAnswer(code: string): Verdict {
  return { kind: "nack", error: `no answer: ${code}`, fault: "target" };
}

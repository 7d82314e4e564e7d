/**
 * What a target answers to a batch, message by message, if it wants to:
 *
 *     {"results": [{"id": "orders/3/1204", "status": 200}, {"id": "orders/3/1205", "status": 429, "retryAfter": 3}]}
 *
 * Each status counts as if the message had been sent alone; a message that is not named has the status of
 * the whole answer.
 */
import { fieldOf } from "./outcome.ts";
import type { Answer } from "./outcome.ts";

const resultsType = "application/vnd.spillway.results+json";

export function hasResults({ status, headers }: Answer): boolean {
  if (status < 200 || status >= 300) return false;
  const [type = ""] = (fieldOf(headers, "content-type") ?? "").split(";", 1);
  return type.trim().toLowerCase() === resultsType;
}

/** @returns Answers by id; undefined: the body is none that we understand. */
export function resultsOf(body: Buffer): ReadonlyMap<string, Answer> | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString());
  } catch {
    return undefined;
  }
  const { results } = (parsed ?? {}) as { readonly results?: unknown };
  if (!Array.isArray(results)) return undefined;
  const answers = new Map<string, Answer>();
  for (const each of results as readonly unknown[]) {
    const { id, status, retryAfter } = (each ?? {}) as Readonly<Record<string, unknown>>;
    if (typeof id !== "string" || !Number.isInteger(status)) return undefined;
    const waits = typeof retryAfter === "number" && retryAfter >= 0;
    const headers = waits ? { "retry-after": String(Math.ceil(retryAfter)) } : {};
    answers.set(id, { status: status as number, headers });
  }
  return answers;
}

/** From a draft to what is stored: relative times become instants, the contract fills what is missing. */
import type { Append } from "../engines/engine.ts";
import type { Contract } from "../flow/index.ts";
import type { Draft } from "../protocol/index.ts";

export function appendOf(draft: Draft, contract: Contract, atMs: number): Append {
  const nowMs = Math.floor(atMs);
  const { key, keyHash, group, cost, delayMs, idempotency, headers, payload } = draft;
  const deadlineMs = draft.deadlineMs ?? contract.deadlineMs;
  const append: { -readonly [Field in keyof Append]: Append[Field] } = {
    class: draft.class,
    headers,
    payload,
  };
  if (keyHash !== undefined) append.keyHash = keyHash;
  if (key !== undefined) append.key = key;
  if (group !== undefined) append.group = group;
  if (cost !== undefined) append.cost = cost;
  if (delayMs !== undefined && delayMs > 0) append.dueAtMs = nowMs + Math.ceil(delayMs);
  if (deadlineMs !== undefined) append.deadlineAtMs = nowMs + Math.ceil(deadlineMs);
  if (idempotency !== undefined) {
    const untilMs = nowMs + contract.dedup.windowMs;
    append.idempotency = { id: idempotency.id, content: idempotency.content, untilMs };
  }
  return append;
}

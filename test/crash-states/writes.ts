/**
 * The writes of the crash tests: the k-th write of a partition is a function of its number alone, so
 * that "the store holds exactly the first k writes" can be asked of any state. Changes name seqs that
 * may be pending, ended or not there at all; what they do is the store's rule (E10).
 */
import { sequence } from "../../src/base/index.ts";
import type { Append, Change } from "../../src/engines/engine.ts";

export const flow = "crash";
const startMs = 1_700_000_000_000;
/** After so many writes of each partition the store is closed, which empties its log, and opened again. */
export const writesPerProcess = 25;
export const limits: { readonly messages: number; readonly bytes: number } = {
  messages: 1e9,
  bytes: 1e12,
};

export interface Draft {
  readonly writeId: string;
  readonly nowMs: number;
  readonly appends: readonly Append[];
  readonly changes: readonly Change[];
}

/** @param k From 1. */
export function draftOf(partition: number, k: number): Draft {
  const draw = sequence(partition * 1_000_003 + k);
  const nowMs = startMs + k * 10;
  const appends = Array.from({ length: 1 + Math.floor(draw() * 5) }, () => appendOf(draw, nowMs));
  const changes = Array.from({ length: Math.floor(draw() * 14) }, () => changeOf(draw, k, nowMs));
  return { writeId: `w${k}`, nowMs, appends, changes };
}

function appendOf(draw: () => number, nowMs: number): Append {
  const kind = draw();
  const large = draw() < 0.1;
  const payload = new Uint8Array(Math.floor(draw() * (large ? 3000 : 200))).fill(draw() * 256);
  const plain = {
    class: draw() < 0.7 ? "normal" : "bulk",
    headers: new Uint8Array(3),
    payload,
  } as const;
  if (kind < 0.2) return { ...plain, keyHash: 1 + Math.floor(draw() * 5), key: "key" };
  if (kind < 0.3) return { ...plain, group: `g${Math.floor(draw() * 3)}` };
  if (kind < 0.4) return { ...plain, dueAtMs: nowMs + Math.floor(draw() * 500) };
  if (kind < 0.6) return { ...plain, idempotency: idempotencyOf(draw, nowMs) };
  return plain;
}

function idempotencyOf(draw: () => number, nowMs: number): NonNullable<Append["idempotency"]> {
  const id = new Uint8Array(16).fill(1 + Math.floor(draw() * 60));
  return { id, content: new Uint8Array(8), untilMs: nowMs + 300 };
}

function changeOf(draw: () => number, k: number, nowMs: number): Change {
  const seq = Math.max(1, Math.floor(k * 2.7) - Math.floor(draw() * 40));
  const kind = draw();
  if (kind < 0.35) return { seq, kind: "started" };
  if (kind < 0.75) return { seq, kind: "ack" };
  if (kind < 0.82) return { seq, kind: "retry", dueAtMs: nowMs + 100, error: "again" };
  if (kind < 0.88) return { seq, kind: "dead", reason: "terminated" };
  if (kind < 0.92) return { seq, kind: "discard", reason: "expired" };
  if (kind < 0.96) return { seq, kind: "redrive" };
  return { seq, kind: "released" };
}

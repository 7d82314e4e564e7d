/**
 * Judges a kill loop by its ledger and its store.
 *
 * J1  What got a receipt has ended, by the queue's own word, and a handler had seen what was acked (G1).
 * J2  One idempotency key, one id, over all lives (G5).
 * J3  Within a key a handler gets a message only after every earlier one was settled for good (G4).
 * J4  Attempts of one key never overlap, and attempt numbers of a message rise (G4).
 * J5  The store is balanced, undamaged, and holds exactly what was accepted (G2, G13).
 */
import type { PartitionAudit } from "../../src/engines/sqlite/index.ts";
import type { Line } from "./ledger.ts";

export interface Judgement {
  readonly problems: readonly string[];
  readonly accepted: number;
  readonly handled: number;
  readonly redelivered: number;
  /** Messages that ended as dead letters, by reason. */
  readonly dead: number;
}

interface Message {
  readonly id: string;
  readonly op: string;
  readonly key: string;
  readonly seq: number;
  attempt: number;
  isAcked: boolean;
  isConfirmed: boolean;
  ended: string | undefined;
}

export function judge(lines: readonly Line[], audits: readonly PartitionAudit[]): Judgement {
  const problems: string[] = [];
  const ids = new Map<string, string>();
  const keyOf = new Map<string, string>();
  const messages = new Map<string, Message>();
  const running = new Map<string, string>();
  const ends = new Map<string, string>();
  for (const line of lines) if (line.kind === "end") ends.set(line.id, line.reason);
  let redelivered = 0;
  const named = (op: string, id: string, what: string): void => {
    const known = ids.get(op);
    if (known !== undefined && known !== id)
      problems.push(`J2 ${op} is ${known} and ${what} ${id}`);
    ids.set(op, id);
  };
  const started = (line: Extract<Line, { kind: "start" }>): void => {
    const { id, op, key, attempt } = line;
    named(op, id, "delivered as");
    if (keyOf.get(op) !== key)
      problems.push(`J1 ${id} came with key ${key}, sent with ${keyOf.get(op)}`);
    const other = running.get(key);
    if (other !== undefined) problems.push(`J4 ${id} starts while ${other} of ${key} runs`);
    running.set(key, id);
    let message = messages.get(id);
    if (message === undefined) {
      message = {
        id,
        op,
        key,
        seq: seqOf(id),
        attempt: 0,
        isAcked: false,
        isConfirmed: false,
        ended: ends.get(id),
      };
      messages.set(id, message);
    } else redelivered++;
    if (attempt <= message.attempt)
      problems.push(`J4 ${id} attempt ${attempt} after ${message.attempt}`);
    if (message.isConfirmed) problems.push(`J4 ${id} starts after its ack was confirmed`);
    message.attempt = attempt;
  };
  for (const line of lines) {
    switch (line.kind) {
      case "life":
        running.clear();
        break;
      case "send":
        keyOf.set(line.op, line.key);
        break;
      case "receipt":
        named(line.op, line.id, "accepted as");
        break;
      case "start":
        started(line);
        break;
      case "ack":
      case "nack": {
        const message = messages.get(line.id)!;
        running.delete(message.key);
        if (line.kind === "ack") message.isAcked = true;
        break;
      }
      case "acked":
        messages.get(line.id)!.isConfirmed = true;
        break;
      case "refused":
      case "end":
        break;
    }
  }
  problems.push(...orderProblems(lines, messages, ids, keyOf, ends));
  let dead = 0;
  for (const [op, id] of ids) {
    const end = ends.get(id);
    if (end === "dead") dead++;
    if (end === undefined || (end !== "acked" && end !== "dead"))
      problems.push(`J1 ${op} (${id}) ended as ${end}`);
    if (end === "acked" && messages.get(id)?.isAcked !== true)
      problems.push(`J1 ${id} is acked, and nobody asked for it`);
  }
  problems.push(...storeProblems(audits, ids.size, dead));
  return { problems, accepted: ids.size, handled: messages.size, redelivered, dead };
}

/** J3. A dead letter lets the next pass; it was put aside by the queue at an unknown time. */
function orderProblems(
  lines: readonly Line[],
  messages: ReadonlyMap<string, Message>,
  ids: ReadonlyMap<string, string>,
  keyOf: ReadonlyMap<string, string>,
  ends: ReadonlyMap<string, string>,
): string[] {
  const problems: string[] = [];
  const ofKey = new Map<string, string[]>();
  for (const [op, id] of ids) {
    const key = `${keyOf.get(op)} in ${partitionOf(id)}`;
    ofKey.set(key, [...(ofKey.get(key) ?? []), id]);
  }
  for (const chain of ofKey.values()) chain.sort((a, b) => seqOf(a) - seqOf(b));
  const acked = new Set<string>();
  const reached = new Map<string, number>();
  for (const line of lines) {
    if (line.kind === "ack") acked.add(line.id);
    if (line.kind !== "start") continue;
    const { op } = messages.get(line.id)!;
    const key = `${keyOf.get(op)} in ${partitionOf(line.id)}`;
    const chain = ofKey.get(key)!;
    const at = chain.indexOf(line.id);
    const from = reached.get(key) ?? 0;
    if (at < from) problems.push(`J3 ${line.id} starts after a later one of ${key} had started`);
    for (let earlier = from; earlier < at; earlier++) {
      const id = chain[earlier]!;
      if (!acked.has(id) && ends.get(id) !== "dead")
        problems.push(`J3 ${line.id} starts before ${id} of ${key} has ended`);
    }
    reached.set(key, Math.max(from, at));
  }
  return problems;
}

function storeProblems(
  audits: readonly PartitionAudit[],
  accepted: number,
  dead: number,
): string[] {
  const problems: string[] = [];
  const sum = { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0 };
  for (const { ref, report } of audits) {
    const { counters, damaged, firstDifference } = report;
    if (firstDifference !== undefined)
      problems.push(`J5 ${ref.flow}/${ref.partition}: ${firstDifference}`);
    if (damaged.length > 0) problems.push(`J5 damaged rows ${damaged.join(", ")}`);
    for (const field of Object.keys(sum) as (keyof typeof sum)[]) sum[field] += counters[field];
  }
  const expected = { accepted, acked: accepted - dead, dead, discarded: 0, pending: 0 };
  if (JSON.stringify(sum) !== JSON.stringify(expected)) {
    problems.push(
      `J5 the store counts ${JSON.stringify(sum)}, the ledger ${JSON.stringify(expected)}`,
    );
  }
  return problems;
}

function seqOf(id: string): number {
  return Number(id.slice(id.lastIndexOf("/") + 1));
}

function partitionOf(id: string): string {
  return id.slice(0, id.lastIndexOf("/"));
}

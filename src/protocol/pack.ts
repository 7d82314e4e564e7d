/**
 * Frames as heads (plain objects that JSON can carry) and bodies (payloads and headers, in the order in
 * which the head names their sizes). Times that would need a common clock travel as spans.
 */
import type {
  ConsumerFrame,
  Delivered,
  Draft,
  Grant,
  Heartbeat,
  ProducerFrame,
  SendResult,
  Settlement,
  Stamp,
  ToConsumerFrame,
  ToProducerFrame,
} from "./frames.ts";
import type { ClientFrame, ServerFrame } from "./wire.ts";

export type Head = object;

/** @param bodies What the head's sizes are of is added to it. */
export function packClient(frame: ClientFrame, bodies: Uint8Array[]): Head {
  switch (frame.kind) {
    case "produce":
      return { channel: frame.channel, ...packProducer(frame.frame, bodies) };
    case "consume":
      return { channel: frame.channel, ...packConsumer(frame.frame) };
    default:
      return frame;
  }
}

export function packServer(frame: ServerFrame, nowMs: number, bodies: Uint8Array[]): Head {
  switch (frame.kind) {
    case "produce":
      return { channel: frame.channel, ...packToProducer(frame.frame) };
    case "consume":
      return { channel: frame.channel, ...packToConsumer(frame.frame, nowMs, bodies) };
    case "rejected":
    case "bye":
      return { ...frame, text: frame.text.slice(0, textMax) };
    default:
      return frame;
  }
}

const textMax = 1000;

function packProducer(frame: ProducerFrame, bodies: Uint8Array[]): Head {
  const { kind, partition, beat } = frame;
  if (kind === "beat") return { kind, partition, beat: packBeat(beat) };
  const { stamp, position, drafts } = frame;
  const packed = drafts.map((draft) => packDraft(draft, bodies));
  return {
    kind,
    partition,
    stamp: packStamp(stamp),
    position,
    drafts: packed,
    beat: packBeat(beat),
  };
}

function packDraft(draft: Draft, bodies: Uint8Array[]): Head {
  const { headers, payload, key, group, cost, delayMs, deadlineMs, idempotencyKey } = draft;
  const head: Record<string, unknown> = { bytes: payload.length };
  if (headers.length > 0) {
    head["headerBytes"] = headers.length;
    bodies.push(headers);
  }
  if (payload.length > 0) bodies.push(payload);
  if (draft.class !== "normal") head["class"] = draft.class;
  if (key !== undefined) head["key"] = key;
  if (group !== undefined) head["group"] = group;
  if (idempotencyKey !== undefined) head["idempotencyKey"] = idempotencyKey;
  if (cost !== undefined) head["cost"] = cost;
  if (delayMs !== undefined) head["delayMs"] = delayMs;
  if (deadlineMs !== undefined) head["deadlineMs"] = deadlineMs;
  return head;
}

/** A number that is no number on a wire: unlimited bytes that are wanted are just many. */
function packBeat(beat: Heartbeat): Head {
  const { wantBytes, positionBytes } = beat;
  return { ...beat, wantBytes: finite(wantBytes), positionBytes: finite(positionBytes) };
}

function finite(amount: number): number {
  return Math.min(amount, Number.MAX_SAFE_INTEGER);
}

function packStamp({ epoch, grantId, heldMs }: Stamp): Head {
  return { epoch, grantId, heldMs: Math.max(0, heldMs) };
}

/** Bytes without a limit are left out: JSON has no infinity. */
function packGrant({ limitBytes, ...grant }: Grant): Head {
  return limitBytes === Infinity ? grant : { ...grant, limitBytes };
}

function packConsumer(frame: ConsumerFrame): Head {
  switch (frame.kind) {
    case "credit":
      return { kind: frame.kind, grant: packGrant(frame.grant) };
    case "settle":
      return { kind: frame.kind, settlements: frame.settlements.map(packSettlement) };
    default:
      return frame;
  }
}

function packSettlement(settlement: Settlement): Head {
  const { partition, seq, attempt, verdict, durationMs, confirm } = settlement;
  const head: Record<string, unknown> = { partition, seq, attempt, durationMs };
  if (confirm) head["confirm"] = true;
  if (verdict.kind === "nack") {
    head["verdict"] = { ...verdict, error: verdict.error.slice(0, textMax) };
  } else if (verdict.kind === "term") {
    head["verdict"] = { ...verdict, reason: verdict.reason.slice(0, textMax) };
  } else head["verdict"] = verdict;
  return head;
}

function packToProducer(frame: ToProducerFrame): Head {
  switch (frame.kind) {
    case "grant":
      return { ...frame, ...packHint(frame), grant: packGrant(frame.grant) };
    case "held":
      return { ...frame, ...packHint(frame) };
    case "results":
      return { ...frame, results: frame.results.map(packResult) };
    default:
      return frame;
  }
}

function packHint({ lowestClass }: { readonly lowestClass: string | null }): Head {
  return { lowestClass: lowestClass ?? "none" };
}

function packResult(result: SendResult): Head {
  if (result.kind !== "refused") return result;
  const { found, allowed, ...rest } = result;
  const head: Record<string, unknown> = rest;
  if (typeof found === "number") head["found"] = found;
  if (typeof allowed === "number") head["allowed"] = allowed;
  return head;
}

function packToConsumer(frame: ToConsumerFrame, nowMs: number, bodies: Uint8Array[]): Head {
  switch (frame.kind) {
    case "want":
      return { kind: frame.kind, beat: packBeat(frame.beat) };
    case "deliver": {
      const { kind, stamp, messages, beat } = frame;
      const packed = messages.map((message) => packDelivered(message, nowMs, bodies));
      return { kind, stamp: packStamp(stamp), messages: packed, beat: packBeat(beat) };
    }
    default:
      return frame;
  }
}

function packDelivered(message: Delivered, nowMs: number, bodies: Uint8Array[]): Head {
  const { partition, seq, attempt, key, group, cost, headers, payload, leaseMs } = message;
  const { acceptedAtMs, deadlineAtMs } = message;
  const head: Record<string, unknown> = { partition, seq, attempt, leaseMs, bytes: payload.length };
  head["ageMs"] = Math.max(0, Math.round(nowMs - acceptedAtMs));
  if (headers.length > 0) {
    head["headerBytes"] = headers.length;
    bodies.push(headers);
  }
  if (payload.length > 0) bodies.push(payload);
  if (message.class !== "normal") head["class"] = message.class;
  if (key !== undefined) head["key"] = key;
  if (group !== undefined) head["group"] = group;
  if (cost !== 1) head["cost"] = cost;
  if (deadlineAtMs !== undefined) head["deadlineInMs"] = Math.round(deadlineAtMs - nowMs);
  return head;
}

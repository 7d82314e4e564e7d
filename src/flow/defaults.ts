/**
 * Defaults of the contract, each with its reason and the harm without it. Those that follow from other
 * fields are functions, so that a change of one field carries the derived ones along.
 */
import type { MessageClass } from "./message.ts";

/** Enough to spread over a few nodes; each costs an owner, a descriptor window and a lease. */
export const partitionsDefault = 8;
/** 1,000,000 messages, or 2 GiB: some minutes of most spikes. Without a bound the disk is the bound. */
export const bufferDefault: { readonly messages: number; readonly bytes: number } = {
  messages: 1_000_000,
  bytes: 2 * 1024 ** 3,
};
/** A day covers a producer that repeats after an outage; a shorter one accepts the repeat twice. */
export const dedupWindowMsDefault = 86_400_000;
/** A fifth is kept for critical messages; without it bulk fills the buffer first. */
export const classesDefault: Readonly<Record<MessageClass, number>> = {
  critical: 1,
  normal: 0.8,
  bulk: 0.5,
};
/** Twelve attempts of factor 3 span 31 min on average; budget 10 %: retries cannot double an overload. */
export const retryDefault: {
  readonly attempts: number;
  readonly delayBaseMs: number;
  readonly delayMaxMs: number;
  readonly budget: number;
} = { attempts: 12, delayBaseMs: 200, delayMaxMs: 900_000, budget: 0.1 };
/** Longer than most handlers. Without an end, a hung handler holds its key for ever. */
export const leaseMsDefault = 30_000;
/** Small, so that the first second overruns nobody; doubling finds a large window within a second. */
export const windowDefault: { readonly start: number; readonly min: number; readonly max: number } =
  { start: 4, min: 1, max: 1000 };
/** 1 MiB: a batch of one still commits in milliseconds. */
const messageBytesMaxDefault: number = 1024 ** 2;
/** A receiver that falls silent stops its senders within this time (G9). */
export const creditLeaseMsDefault = 2000;
/**
 * Some 200 bytes each: memory stays flat while the backlog grows (G6). What arrives beyond it is read
 * back from the store, at three times the work: 1,024 was less than what one group commit brings.
 */
export const readAheadDefault = 4096;

/** Longer than most endpoints take; a call that hangs holds its place in the window until then. */
export const pushDefault: {
  readonly timeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly ports: readonly number[];
  readonly rejectAfter: number;
} = { timeoutMs: 10_000, connectTimeoutMs: 3000, ports: [80, 443], rejectAfter: 3 };

/** A class stops no later than the one above it. */
export function classLevels(
  given: { readonly [Class in MessageClass]?: number | undefined } = {},
): Record<MessageClass, number> {
  const critical = given.critical ?? classesDefault.critical;
  const normal = given.normal ?? Math.min(classesDefault.normal, critical);
  const bulk = given.bulk ?? Math.min(classesDefault.bulk, normal);
  return { critical, normal, bulk };
}

export function windowStart(min: number, max: number): number {
  return Math.max(min, Math.min(max, windowDefault.start));
}

/** 20 ms of rate: a target that allows 50/s never sees 100 in its first second. */
export function rateBurst(perSecond: number): number {
  return Math.max(1, 0.02 * perSecond);
}

/** One second of rate: producers send in batches. */
export function boundaryBurst(perSecond: number): number {
  return Math.max(1, perSecond);
}

/**
 * A week: people's days differ. It is safe to learn, for history limits nobody below a quarter of the
 * buffer; without it a group that is ten times its usual self under pressure takes the others' places.
 */
export const learnDefault = "week";

/** Shuffle sharding: chance that another group shares all of them 3.6 % (8 choose 2), 0.055 % (16 choose 4). */
export function groupShards(partitions: number): number | "off" {
  if (partitions < 8) return "off";
  return partitions < 16 ? 2 : 4;
}

/** A message must fit into the buffer, which is one for all partitions. */
export function messageBytesMax(bufferBytes: number): number {
  return Math.min(messageBytesMaxDefault, bufferBytes);
}

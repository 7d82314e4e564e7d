/** Why a message waits, in one reason and the next event that will change it (G11). */
import type { Entry } from "./entry.ts";
import type { Partition } from "./partition.ts";

const noCredit = "no handler is there, or the window, rate limit or breaker has no room";

export interface Reason {
  /** "key", "due", "retry", "budget", "suspect", "paused", "stopped", "turn", "store", "credit", "handler", "commit". */
  readonly reason: string;
  readonly text: string;
  /** When it ends by itself; absent: with the event that the text names. */
  readonly untilMs?: number;
  /** The message in whose place it waits. */
  readonly behindSeq?: number;
}

export interface Situation {
  readonly nowMs: number;
  readonly isPaused: boolean;
  /** Somebody has a message, or would take one. */
  readonly isServed: boolean;
  readonly budgetAtMs: number;
}

export function explain(entry: Entry, owned: Partition, now: Situation): Reason {
  if (owned.stopped !== undefined) {
    return { reason: "stopped", text: `its partition has stopped: ${owned.stopped}` };
  }
  switch (entry.state) {
    case "behind": {
      const behindSeq = owned.keys.get(entry.keyHash)?.head.seq;
      const text = "an earlier message of its key has not ended";
      return { reason: "key", text, ...(behindSeq === undefined ? {} : { behindSeq }) };
    }
    case "delayed":
      if (entry.dueAtMs > now.nowMs) {
        const reason = entry.isRetry ? "retry" : "due";
        const text = entry.isRetry
          ? `attempt ${entry.attempts} failed`
          : "it was sent with a delay";
        return { reason, text, untilMs: entry.dueAtMs };
      }
      return {
        reason: "budget",
        text: "its retry is due and waits for a token of the retry budget",
        untilMs: now.budgetAtMs,
      };
    case "suspect":
      return {
        reason: "suspect",
        text: "it was in flight when a process died; such messages run one at a time",
      };
    case "ready":
      if (now.isPaused) return { reason: "paused", text: "its flow or partition is paused" };
      if (!now.isServed) return { reason: "credit", text: noCredit };
      return { reason: "turn", text: "it is ready, and others are before it" };
    case "starting":
    case "settling":
      return { reason: "commit", text: "it is being made durable" };
    case "prepared":
      if (now.isPaused) return { reason: "paused", text: "its flow or partition is paused" };
      return { reason: "credit", text: noCredit };
    case "out":
      return {
        reason: "handler",
        text: `attempt ${entry.attempts} is being handled`,
        untilMs: entry.leaseAtMs,
      };
  }
}

/** Of a pending message that is not in memory. */
export function explainStored(
  owned: Partition,
  stored: { seq: number; keyHash?: number; dueAtMs?: number },
  headSeq: number,
  nowMs: number,
): Reason {
  if (owned.stopped !== undefined) {
    return { reason: "stopped", text: `its partition has stopped: ${owned.stopped}` };
  }
  if (headSeq !== 0 && headSeq < stored.seq) {
    const text = "an earlier message of its key has not ended";
    return { reason: "key", text, behindSeq: headSeq };
  }
  if (stored.dueAtMs !== undefined && stored.dueAtMs > nowMs) {
    return { reason: "due", text: "it is delayed, or waits for a retry", untilMs: stored.dueAtMs };
  }
  return { reason: "store", text: "others of its lane and group are before it" };
}

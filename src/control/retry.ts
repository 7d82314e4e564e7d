/**
 * When a failed message is tried again: growing waits with jitter that comes from a hash, so that
 * messages which failed together do not return together, and a replay computes the same times.
 *
 * R4  The same seed, message and attempt give the same delay.
 * R5  A delay is never below the minimum asked for, and otherwise never above the cap.
 *
 * Factor 3, not 2: twelve attempts from 200 ms then span 31 minutes on average; with 2 they span
 * under 4 and are used up by an outage of five minutes.
 *
 * Must not know who failed or why, nor how many attempts a contract allows.
 * Source: M. Brooker, "Exponential Backoff And Jitter" (full jitter), with a floor of a tenth.
 */
import { chance } from "../base/index.ts";

export interface RetryPolicy {
  /** Longest delay after the first attempt. */
  readonly baseMs: number;
  /** Longest delay after any attempt. */
  readonly capMs: number;
}

const growth = 3;
/** The part of a delay that is certain; the rest is chance. */
const certainShare = 0.1;
/** A minimum is stretched by up to this share: it is often the same for many messages. */
const minimumSpread = 0.1;

/**
 * @param messageId Any text that is the message's own.
 * @param attempt The attempt that failed, from 1.
 * @param minimumMs A `Retry-After` or the delay of a nack. It is stretched by 0 to 10 %, or all that
 *   wait for it would come back in step.
 * @returns Whole ms until the next attempt.
 */
export function delayMs(
  policy: RetryPolicy,
  seed: number,
  messageId: string,
  attempt: number,
  minimumMs = 0,
): number {
  const longestMs = Math.min(policy.capMs, policy.baseMs * growth ** (attempt - 1));
  const u = chance(seed, messageId, attempt);
  const jitteredMs = longestMs * (certainShare + (1 - certainShare) * u);
  return Math.ceil(Math.max(jitteredMs, minimumMs * (1 + minimumSpread * u)));
}

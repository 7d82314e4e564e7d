/**
 * How attempts end: what a verdict, a lost lease, a dead process or the contract's policies make of a
 * message, and what follows for its key.
 *
 * M2  A started attempt ends once: by its consumer's verdict, the end of its lease, its consumer's
 *     end, or the end of its owner.
 * M3  After `crashesMax` crashes a suspect is a dead letter.
 * P3  The next head of a key comes up with the verdict on the one before, in the same write (G4).
 *
 * It must not know frames, credit or the store.
 */
import { budget, drain, retry } from "../control/index.ts";
import type { Drain } from "../control/index.ts";
import type { Contract } from "../flow/index.ts";
import { formatId } from "../flow/index.ts";
import type { FrameVerdict } from "../protocol/index.ts";
import type { QueueFact } from "./effects.ts";
import type { Entry } from "./entry.ts";
import type { Confirm, PendingChange } from "./outgoing.ts";
import type { Partition } from "./partition.ts";
import type { Waits } from "./waits.ts";

const crashesMax = 3;
/** A full buffer sheds until a twentieth of it is free: less would shed again at once. */
const shedTo = 0.95;
const processDied = "a process died in the last one";
const meanGain = 0.02;
/** A release without a delay is tried at once, but not in a tight loop of commits. */
const releasedAgainMs = 5;
const releasedMaxMs = 1000;

export interface AttemptsHost {
  contract(): Contract;
  owned(partition: number): Partition;
  fact(fact: QueueFact): void;
}

export class Attempts {
  readonly #host: AttemptsHost;
  readonly #seed: number;
  readonly #waits: Waits;
  readonly #drain: Drain;
  #meanMs = 0;

  constructor(seed: number, waits: Waits, drainOfFlow: Drain, host: AttemptsHost) {
    this.#seed = seed;
    this.#waits = waits;
    this.#drain = drainOfFlow;
    this.#host = host;
  }

  /** A handler ended: its time teaches the drain rate, and a first attempt earns retries. */
  handled(attempt: number, durationMs: number, nowMs: number): void {
    drain.handled(this.#drain, durationMs);
    drain.settled(this.#drain, nowMs, 1);
    this.#meanMs += meanGain * (durationMs - this.#meanMs);
    if (attempt === 1) budget.firstSettled(this.#waits.budget, nowMs);
  }

  /** M2: an attempt has ended with this verdict. */
  resolve(entry: Entry, verdict: FrameVerdict, nowMs: number, confirm?: Confirm): void {
    const { seq } = entry;
    switch (verdict.kind) {
      case "ack":
        this.end(entry, { seq, kind: "ack" }, nowMs, confirm);
        break;
      case "term":
        this.end(entry, { seq, kind: "dead", reason: verdict.reason }, nowMs, confirm);
        break;
      case "release":
        this.#release(entry, verdict.delayMs, nowMs, confirm);
        break;
      case "nack":
        if (entry.attempts < this.#host.contract().retry.attempts) {
          this.#retry(entry, verdict, nowMs, confirm);
        } else this.exhaust(entry, verdict.error, nowMs, confirm);
        break;
    }
  }

  #release(
    entry: Entry,
    delayMs: number | undefined,
    nowMs: number,
    confirm: Confirm | undefined,
  ): void {
    this.#waits.ended(entry);
    entry.state = "settling";
    entry.attempts--;
    entry.isRetry = entry.attempts > 0;
    const againMs = Math.min(releasedMaxMs, releasedAgainMs * 2 ** (entry.releases - 1));
    const waitMs = entry.releases === 0 ? delayMs : Math.max(againMs, delayMs ?? 0);
    entry.releases++;
    const change = { seq: entry.seq, kind: "released" } as const;
    this.#host
      .owned(entry.partition)
      .outgoing.change(
        waitMs === undefined ? change : { ...change, dueAtMs: Math.ceil(nowMs + waitMs) },
        entry,
        confirm,
      );
  }

  #retry(
    entry: Entry,
    { error, delayMs: minimumMs = 0 }: { readonly error: string; readonly delayMs?: number },
    nowMs: number,
    confirm: Confirm | undefined,
  ): void {
    const { name, retry: policy } = this.#host.contract();
    const { delayBaseMs: baseMs, delayMaxMs: capMs } = policy;
    const id = formatId(name, entry.partition, entry.seq);
    const delayMs = retry.delayMs({ baseMs, capMs }, this.#seed, id, entry.attempts, minimumMs);
    this.#waits.ended(entry);
    entry.state = "settling";
    entry.isRetry = true;
    const dueAtMs = Math.ceil(nowMs + delayMs);
    const change = { seq: entry.seq, kind: "retry", dueAtMs, error } as const;
    this.#host.owned(entry.partition).outgoing.change(change, entry, confirm);
  }

  /** The message ends. Without a joint write the next of its key comes up at once (P3). */
  end(entry: Entry, change: PendingChange["change"], nowMs: number, confirm?: Confirm): void {
    const owned = this.#host.owned(entry.partition);
    this.#waits.ended(entry);
    entry.state = "settling";
    owned.outgoing.change(change, entry, confirm);
    if (confirm?.joint === undefined) owned.advance(entry, nowMs);
  }

  exhaust(entry: Entry, error: string, nowMs: number, confirm?: Confirm): void {
    const reason = `attempts_exhausted: ${error}`;
    this.end(entry, { seq: entry.seq, kind: "dead", reason }, nowMs, confirm);
  }

  /** It was in flight when a process died (M3). */
  suspect(entry: Entry, nowMs: number): void {
    const { partition, seq, crashes } = entry;
    this.#host.fact({ kind: "suspected", partition, seq, crashes });
    if (this.isSpent(entry)) this.exhaust(entry, processDied, nowMs);
    else if (crashes < crashesMax) this.#waits.suspect(entry);
    else this.end(entry, { seq, kind: "dead", reason: "crash_suspect" }, nowMs);
  }

  /** No attempt is left: the last one ended with its process, or the policy changed. */
  isSpent(entry: Entry): boolean {
    return entry.attempts >= this.#host.contract().retry.attempts;
  }

  /**
   * Whether a message that is about to start ends instead: it cannot be done in time any more, or has
   * no attempt left. It ends as the contract says, and never in silence.
   */
  endsInstead(entry: Entry, nowMs: number): boolean {
    if (this.expires(entry, nowMs)) return true;
    if (!this.isSpent(entry)) return false;
    this.exhaust(entry, processDied, nowMs);
    return true;
  }

  expires(entry: Entry, nowMs: number): boolean {
    const { seq, deadlineAtMs } = entry;
    if (deadlineAtMs === undefined || deadlineAtMs - nowMs >= this.#meanMs) return false;
    const kind = this.#host.contract().discard.includes("expired") ? "discard" : "dead";
    this.end(entry, { seq, kind, reason: "expired" }, nowMs);
    return true;
  }

  /**
   * A full buffer makes room as the contract says: ready bulk messages end, oldest first, until a
   * twentieth of it is free. Only the classes above can fill it that far.
   */
  shed(
    partitions: readonly Partition[],
    stored: { readonly messages: number; readonly bytes: number },
    nowMs: number,
  ): void {
    const { buffer } = this.#host.contract();
    if (stored.messages < buffer.messages && stored.bytes < buffer.bytes) return;
    let over = stored.messages - Math.floor(shedTo * buffer.messages);
    let overBytes = stored.bytes - Math.floor(shedTo * buffer.bytes);
    for (const owned of partitions) {
      for (const source of owned.sources.all()) {
        if (source.rank !== 2) continue;
        while (over > 0 || overBytes > 0) {
          const entry = source.ready.popFront();
          if (entry === undefined) break;
          over--;
          overBytes -= entry.bytes;
          this.end(entry, { seq: entry.seq, kind: "discard", reason: "shed" }, nowMs);
        }
        owned.reading.want(source);
      }
    }
  }
}

/**
 * The producer of the demo, as a user would write one: it offers what the schedule says, ready or not.
 * Where there is no credit, a few messages wait for it (`send`), and the rest is told so at once
 * (`trySend`) and counted as refused: a web server would answer 429.
 *
 * D1  offered = accepted + duplicates + refused + unanswered, and unanswered is 0 after `settled`.
 */
import { setMaxListeners } from "node:events";
import { isSpillwayError } from "../../base/index.ts";
import type { Flow, Receipt } from "../../spillway.ts";
import type { Load } from "./load.ts";

/** Requests that may hang in the air until credit comes. */
const waitingMax = 256;

export class Producer {
  offered = 0;
  accepted = 0;
  duplicates = 0;
  readonly refused: Map<string, number> = new Map();
  waiting = 0;
  #unanswered = 0;
  #blockedMs = 0;
  #blockedAtMs: number | undefined;
  readonly #flow: Flow<Uint8Array>;
  readonly #load: Load;
  readonly #signal: AbortSignal;
  #onSettled: (() => void) | undefined;

  /** @param signal Ends the waits for credit. */
  constructor(flow: Flow<Uint8Array>, load: Load, signal: AbortSignal) {
    this.#flow = flow;
    this.#load = load;
    this.#signal = signal;
    setMaxListeners(0, signal);
    flow.on("blocked", () => (this.#blockedAtMs ??= performance.now()));
    flow.on("resumed", () => {
      this.#blockedMs = this.blockedMs;
      this.#blockedAtMs = undefined;
    });
  }

  get refusedCount(): number {
    let sum = 0;
    for (const count of this.refused.values()) sum += count;
    return sum;
  }

  /** How long sends have waited for credit, in all. */
  get blockedMs(): number {
    const now = this.#blockedAtMs === undefined ? 0 : performance.now() - this.#blockedAtMs;
    return this.#blockedMs + now;
  }

  get isBlocked(): boolean {
    return this.#blockedAtMs !== undefined;
  }

  /** Offers what is due by then. */
  offerUntil(elapsedMs: number): void {
    const due = this.#load.offered(elapsedMs);
    while (this.offered < due) this.#offer();
  }

  #offer(): void {
    const { messages } = this.#load;
    const { key, payload } = messages[this.offered % messages.length]!;
    this.offered++;
    const options = key === undefined ? {} : { key };
    const sent = this.#flow.trySend(payload, options);
    if (sent instanceof Promise) this.#await(sent);
    else if (this.waiting >= waitingMax || this.#signal.aborted) this.#refuse(sent.code);
    else {
      this.waiting++;
      const receipt = this.#flow.send(payload, { ...options, signal: this.#signal });
      this.#await(receipt.finally(() => this.waiting--));
    }
  }

  #await(sent: Promise<Receipt>): void {
    this.#unanswered++;
    void sent
      .then(
        ({ duplicate }) => (duplicate ? this.duplicates++ : this.accepted++),
        (error: unknown) => this.#refuse(isSpillwayError(error) ? error.code : String(error)),
      )
      .then(() => {
        if (--this.#unanswered === 0) this.#onSettled?.();
      });
  }

  #refuse(code: string): void {
    this.refused.set(code, (this.refused.get(code) ?? 0) + 1);
  }

  /** Resolves when every offered message has its answer. */
  settled(): Promise<void> {
    if (this.#unanswered === 0) return Promise.resolve();
    return new Promise((resolve) => (this.#onSettled = resolve));
  }
}

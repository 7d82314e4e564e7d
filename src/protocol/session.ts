/**
 * One end of a conversation that outlives its connections. Numbered frames are kept until the other end
 * says that they came; after a break what did not come leaves again.
 *
 * U1  Every numbered frame of one end arrives at the other once, in order, or the session ends.
 * U2  What is kept is bounded: past `keptBytesMax` the session has failed, and is to be begun anew.
 * U3  A number that skips one, or an acknowledgement of what was never sent, is a violation.
 * It must not know what a frame says.
 */
import { assert, Deque } from "../base/index.ts";

export interface SessionOptions {
  /** Of frames that were not acknowledged. */
  readonly keptBytesMax: number;
}

/** What leaves: a number where the frame has one. */
export interface Numbered<F> {
  readonly n?: number;
  readonly frame: F;
  readonly bytes: number;
}

/** Tell the other end at the latest after this many. */
const ackEvery = 64;

export class Session<F> {
  /** May change with what the other end is attached to. */
  keptBytesMax: number;
  readonly #kept = new Deque<Numbered<F>>();
  #keptBytes = 0;
  #sent = 0;
  #received = 0;
  #told = 0;
  #outgoing: Numbered<F>[] = [];
  #isConnected = false;

  constructor(options: SessionOptions) {
    this.keptBytesMax = options.keptBytesMax;
  }

  /** Number of the last numbered frame that came. */
  get received(): number {
    return this.#received;
  }

  /** U2. */
  get hasFailed(): boolean {
    return this.#keptBytes > this.keptBytesMax;
  }

  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** Sends a frame now, or, if it is numbered, when there is a connection. @param bytes About its size. */
  push(frame: F, isNumbered: boolean, bytes: number): void {
    if (!isNumbered) {
      if (this.#isConnected) this.#outgoing.push({ frame, bytes });
      return;
    }
    const numbered = { n: ++this.#sent, frame, bytes };
    this.#kept.pushBack(numbered);
    this.#keptBytes += bytes;
    if (this.#isConnected) this.#outgoing.push(numbered);
  }

  /**
   * There is a connection, and the other end has all up to `received`.
   * @returns False: it cannot be so (U3).
   */
  connected(received: number): boolean {
    if (!this.acknowledged(received)) return false;
    this.#isConnected = true;
    this.#outgoing = [...this.#kept];
    this.#told = this.#received; // It is said when the connection begins.
    return true;
  }

  disconnected(): void {
    this.#isConnected = false;
    this.#outgoing = [];
  }

  /** @returns False: that was never sent (U3). */
  acknowledged(received: number): boolean {
    if (received > this.#sent) return false;
    for (let first = this.#kept.front(); first !== undefined; first = this.#kept.front()) {
      if (first.n! > received) break;
      this.#keptBytes -= first.bytes;
      this.#kept.popFront();
    }
    return true;
  }

  /** @returns Whether a numbered frame is new; "gap": one before it is missing (U3). */
  accept(n: number): "new" | "repeat" | "gap" {
    if (n <= this.#received) {
      this.#told = Math.min(this.#told, n - 1); // The other end does not know.
      return "repeat";
    }
    if (n > this.#received + 1) return "gap";
    this.#received = n;
    return "new";
  }

  /** What is to leave now, in order. */
  take(): readonly Numbered<F>[] {
    const outgoing = this.#outgoing;
    if (outgoing.length > 0) this.#outgoing = [];
    return outgoing;
  }

  /** What to acknowledge in the message that leaves now; undefined: nothing new came. */
  takeAck(): number | undefined {
    if (this.#told === this.#received) return undefined;
    this.#told = this.#received;
    return this.#received;
  }

  /** Whether the other end should hear soon what came: so much, that a message of its own is worth it. */
  get isAckDue(): boolean {
    return this.#received - this.#told >= ackEvery;
  }

  get hasUntold(): boolean {
    return this.#received > this.#told;
  }

  check(): void {
    let bytes = 0;
    for (const each of this.#kept) bytes += each.bytes;
    assert(bytes === this.#keptBytes, "U2 what is kept is counted");
  }
}

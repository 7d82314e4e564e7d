/** Standard output of a command that must know what was written, and what to do when its reader leaves. */
import { once } from "node:events";

export class Output implements Disposable {
  /** Aborts when the reader has gone: `| head` has seen enough. */
  readonly closed: AbortSignal;
  readonly #closing = new AbortController();
  readonly #before: readonly ((error: NodeJS.ErrnoException) => void)[];
  readonly #onError = (): void => this.#closing.abort();

  constructor() {
    this.closed = this.#closing.signal;
    // Otherwise the process would end at once, with all that it has in hand.
    this.#before = process.stdout.listeners("error") as ((error: NodeJS.ErrnoException) => void)[];
    process.stdout.removeAllListeners("error");
    process.stdout.on("error", this.#onError);
  }

  /** Resolves once it is written. @returns Whether it was. */
  write(data: string | Uint8Array): Promise<boolean> {
    if (this.closed.aborted) return Promise.resolve(false);
    return new Promise((resolve) => {
      process.stdout.write(data, (error) => resolve(error === undefined || error === null));
    });
  }

  /** Writes a line; @returns A promise while the reader is slow. */
  line(text: string): Promise<unknown> | undefined {
    if (this.closed.aborted || process.stdout.write(`${text}\n`)) return undefined;
    return Promise.race([once(process.stdout, "drain"), once(this.closed, "abort")]);
  }

  [Symbol.dispose](): void {
    if (this.closed.aborted) return; // Nothing more can be said there, and that is no failure.
    process.stdout.off("error", this.#onError);
    for (const listener of this.#before) process.stdout.on("error", listener);
  }
}

/** A line on the terminal that is written over; nothing where standard error is none. */
export class Status {
  readonly #isShown: boolean = process.stderr.isTTY;
  #timer: NodeJS.Timeout | undefined;

  /** Shows the text now and once a second. */
  constructor(text: () => string) {
    if (!this.#isShown) return;
    this.#timer = setInterval(() => this.#show(text()), 1000);
  }

  #show(text: string): void {
    process.stderr.write(`\r\u001B[2K${text.slice(0, (process.stderr.columns ?? 80) - 1)}`);
  }

  end(): void {
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#show("");
  }
}

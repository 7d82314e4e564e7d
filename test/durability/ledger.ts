/**
 * What a process of the kill loop writes down, outside the store and before it acts on it. A line of
 * JSON each, synced: the ledger knows no less than anybody who was told something.
 */
import { closeSync, existsSync, fdatasyncSync, openSync, readFileSync, writeSync } from "node:fs";

export type Line =
  /** A life begins: what the one before was doing has ended. */
  | { readonly kind: "life"; readonly life: number }
  /** The producer is about to send; the same again after a crash without an answer. */
  | { readonly kind: "send"; readonly op: string; readonly key: string }
  | { readonly kind: "receipt"; readonly op: string; readonly id: string }
  | { readonly kind: "refused"; readonly op: string; readonly code: string }
  /** A handler has the message. */
  | {
      readonly kind: "start";
      readonly id: string;
      readonly op: string;
      readonly key: string;
      readonly attempt: number;
    }
  /** It is about to settle. */
  | { readonly kind: "ack" | "nack"; readonly id: string }
  /** The queue has confirmed the ack as durable. */
  | { readonly kind: "acked"; readonly id: string }
  /** At the end: how each message ended, by the queue's own word. */
  | { readonly kind: "end"; readonly id: string; readonly reason: string };

export class Ledger implements Disposable {
  readonly #handle: number;
  #isDirty = false;

  constructor(path: string) {
    this.#handle = openSync(path, "a");
  }

  write(line: Line): void {
    writeSync(this.#handle, `${JSON.stringify(line)}\n`);
    this.#isDirty = true;
  }

  sync(): void {
    if (this.#isDirty) fdatasyncSync(this.#handle);
    this.#isDirty = false;
  }

  [Symbol.dispose](): void {
    this.sync();
    closeSync(this.#handle);
  }
}

/** A line that a kill has cut short is the last thing of its life, and was acted on by nobody. */
export function readLedger(path: string): Line[] {
  if (!existsSync(path)) return [];
  const lines: Line[] = [];
  for (const text of readFileSync(path, "utf8").split("\n")) {
    try {
      if (text !== "") lines.push(JSON.parse(text) as Line);
    } catch {
      continue;
    }
  }
  return lines;
}

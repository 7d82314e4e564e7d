/**
 * A command for each message: the payload on its standard input, what is known of the message in its
 * environment, never in its text, for a producer chooses them.
 */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import type { Delivery } from "../client/index.ts";

/** How a command ended, as sysexits.h has it: what follows for the message. */
export type Verdict =
  | { readonly kind: "ack" | "release" }
  | { readonly kind: "term" | "nack"; readonly error: string }
  /** The command cannot be run at all: no message would fare better. */
  | { readonly kind: "unusable"; readonly error: string };

const temporaryFailure = 75;
const dataError = 65;
const notExecutable = 126;
const notFound = 127;
const tailMax = 400;

export class Commands implements Disposable {
  readonly #command: string;
  /** Their output: to ours, or, where that is for JSON lines, to standard error. */
  readonly #output: 1 | 2;
  readonly #running = new Set<ChildProcess>();
  readonly #onExit = (): void => this.end("SIGKILL");

  constructor(command: string, output: 1 | 2) {
    this.#command = command;
    this.#output = output;
    process.on("exit", this.#onExit); // A second Ctrl-C leaves none behind.
  }

  get running(): number {
    return this.#running.size;
  }

  async run(delivery: Delivery): Promise<Verdict> {
    const child = spawn(this.#command, {
      shell: true,
      // Of a group of its own: a Ctrl-C in the terminal is for us, who let it finish.
      detached: true,
      stdio: ["pipe", this.#output, "pipe"],
      env: { ...process.env, ...environmentOf(delivery) },
    });
    this.#running.add(child);
    const onLost = (): void => endGroup(child, "SIGTERM");
    delivery.signal.addEventListener("abort", onLost);
    let tail = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      process.stderr.write(text);
      tail = (tail + text).slice(-tailMax);
    });
    child.stdin!.on("error", () => undefined); // It need not read what it gets.
    child.stdin!.end(delivery.bytes);
    try {
      return await new Promise((resolve) => {
        child.on("error", (error) => resolve({ kind: "nack", error: String(error) }));
        child.on("close", (code, signal) => resolve(verdictOf(code, signal, tail)));
      });
    } finally {
      this.#running.delete(child);
      delivery.signal.removeEventListener("abort", onLost);
    }
  }

  end(signal: NodeJS.Signals): void {
    for (const child of this.#running) endGroup(child, signal);
  }

  [Symbol.dispose](): void {
    this.end("SIGTERM");
    process.off("exit", this.#onExit);
  }
}

function endGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // It has ended by itself.
  }
}

function environmentOf(delivery: Delivery): Record<string, string> {
  const { id, attempt, key, group, class: of, acceptedAt, deadline, headers } = delivery;
  const all: Record<string, string | undefined> = {
    SPILLWAY_ID: id,
    SPILLWAY_ATTEMPT: String(attempt),
    SPILLWAY_KEY: key,
    SPILLWAY_GROUP: group,
    SPILLWAY_CLASS: of,
    SPILLWAY_ACCEPTED_AT: acceptedAt.toISOString(),
    SPILLWAY_DEADLINE: deadline?.toISOString(),
    SPILLWAY_HEADERS: JSON.stringify(headers),
  };
  // What is not known is empty, not inherited; a variable cannot hold a NUL.
  return Object.fromEntries(
    Object.entries(all).map(([name, value]) => [name, value?.replaceAll("\0", "\uFFFD") ?? ""]),
  );
}

function verdictOf(code: number | null, signal: NodeJS.Signals | null, tail: string): Verdict {
  const said = tail.trim().split("\n").at(-1) ?? "";
  const how = code === null ? `was ended by ${signal}` : `exits ${code}`;
  const error = said === "" ? how : `${how}: ${said}`;
  switch (code) {
    case 0:
      return { kind: "ack" };
    case temporaryFailure:
      return { kind: "release" };
    case dataError:
      return { kind: "term", error };
    case notExecutable:
    case notFound:
      return { kind: "unusable", error };
    default:
      return { kind: "nack", error };
  }
}

/**
 * `spillway consume`: messages of a flow of a server, each printed, or given to a command, and settled by
 * what became of it. How many are in hand at once the client's window finds out, within `--concurrency`.
 */
import type { Command } from "commander";
import { isSpillwayError, refuseOption, SpillwayError } from "../base/index.ts";
import type { Delivery, RemoteFlow } from "../client/index.ts";
import { exitCodes } from "./exit-codes.ts";
import { Commands } from "./exec.ts";
import type { Verdict } from "./exec.ts";
import { count as countText } from "./format.ts";
import { Output } from "./output.ts";
import { addRemoteFlags, Remote, remoteOptions, waitDefault } from "./remote.ts";
import type { RemoteFlags, RemoteOptions } from "./remote.ts";
import { stopOnSignals } from "./stop.ts";

interface Flags extends RemoteFlags {
  readonly max?: string;
  readonly concurrency: string;
  readonly exec?: string;
  readonly json?: true;
}

interface ConsumeOptions {
  readonly remote: RemoteOptions;
  readonly flow: string;
  readonly max: number;
  /** Undefined: what the window allows. */
  readonly concurrency: number | undefined;
  readonly exec: string | undefined;
  readonly isJson: boolean;
}

const after = `
Prints each message's payload and a line feed, and acks it once that is written. With --exec the command runs in
a shell for each message: the payload is its standard input, and SPILLWAY_ID, _KEY, _GROUP, _CLASS, _ATTEMPT,
_ACCEPTED_AT, _DEADLINE and _HEADERS (JSON) are in its environment (quote them: producers choose them). Exit 0
acks; 75 gives the message back untried (it costs no attempt); 65 makes it a dead letter; any other is a failed
attempt. 126 and 127 (there is no such command) end it all, and give the message back.

Ctrl-C takes nothing more, lets commands that run finish for 10 s, and gives back the rest. A second one ends at once.
Exit codes: 0 done, 1 failed, 2 wrong flags, or no such flow, 130 a second Ctrl-C.`;

export function addConsume(program: Command): void {
  const command = program
    .command("consume")
    .description("take messages of a flow of a server: print them, or run a command for each")
    .argument("<flow>", "the flow; one without `deliver`");
  addRemoteFlags(command)
    .option("-n, --max <n>", "end after so many messages")
    .option(
      "--concurrency <adaptive|n>",
      "in hand at once: found by measuring, or at most",
      "adaptive",
    )
    .option("-x, --exec <command>", "run it for each message")
    .option("--wait <span>", "how long to wait for a connection", waitDefault)
    .option("--json", "a JSON line for each message; with --exec, of what became of it")
    .addHelpText("after", after)
    .action(async (flow: string, flags: Flags) => {
      process.exitCode = await consume(parseFlags(flow, flags));
    });
}

function parseFlags(flow: string, flags: Flags): ConsumeOptions {
  const { concurrency, exec, json } = flags;
  return {
    remote: remoteOptions(flags),
    flow,
    max: wholeOf("--max", flags.max) ?? Infinity,
    concurrency:
      concurrency === "adaptive"
        ? undefined
        : wholeOf("--concurrency", concurrency, "adaptive, or "),
    exec,
    isJson: json === true,
  };
}

function wholeOf(option: string, text: string | undefined, or = ""): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  return refuseOption(option, text, `${or}a whole number above 0`);
}

async function consume(options: ConsumeOptions): Promise<number> {
  using stop = stopOnSignals();
  await using remote = new Remote(options.remote, "spillway consume");
  using taking = new Taking(options, stop.signal);
  const flow = remote.client.flow<Uint8Array>(options.flow);
  try {
    await Promise.race([taking.run(flow), remote.gone]);
  } finally {
    taking.report();
  }
  return exitCodes.ok;
}

/**
 * Deliveries that are asked for ahead, so that a message does not cost a round trip. What comes beyond the
 * window is not in hand: the window's credit is what brings it.
 */
const askedAhead = 64;
const drainMs = 10_000;

class Taking implements Disposable {
  readonly #options: ConsumeOptions;
  readonly #output = new Output();
  readonly #commands: Commands | undefined;
  readonly #ending = new AbortController();
  readonly #works = new Set<Promise<void>>();
  /** What is settled, by verdict. */
  readonly #settled = new Map<string, number>();
  #failure: SpillwayError | undefined;
  #left: number;

  constructor(options: ConsumeOptions, stop: AbortSignal) {
    const { exec, isJson, max } = options;
    this.#options = options;
    this.#left = max;
    this.#commands = exec === undefined ? undefined : new Commands(exec, isJson ? 2 : 1);
    stop.addEventListener("abort", () => this.#ending.abort());
    this.#output.closed.addEventListener("abort", () => this.#ending.abort());
  }

  async run(flow: RemoteFlow<Uint8Array>): Promise<void> {
    const { concurrency = askedAhead, max } = this.#options;
    const lanes = Array.from({ length: Math.min(concurrency, max) }, () => this.#lane(flow));
    try {
      await Promise.all(lanes);
      await this.#finish();
    } catch (error) {
      this.#ending.abort();
      throw error;
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Asks for one at a time, and for none that is not to be taken. */
  async #lane(flow: RemoteFlow<Uint8Array>): Promise<void> {
    const { signal } = this.#ending;
    await using deliveries = flow.deliveries({ signal });
    while (this.#left-- > 0) {
      const { value: delivery } = await deliveries.next();
      if (delivery === undefined) return;
      const work = this.#take(delivery);
      this.#works.add(work);
      void work.finally(() => this.#works.delete(work));
      if (this.#options.concurrency !== undefined) await work;
    }
  }

  /** Waits for what is in hand; on Ctrl-C only so long. */
  async #finish(): Promise<void> {
    const { signal } = this.#ending;
    const all = async (): Promise<void> => {
      while (this.#works.size > 0) await Promise.all(this.#works);
    };
    const ended = all();
    if (!signal.aborted) {
      const { promise: stopped, resolve } = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => resolve(), { once: true });
      await Promise.race([ended, stopped]);
    }
    const running = this.#commands?.running ?? 0;
    if (running > 0 && process.stderr.isTTY) {
      process.stderr.write(`\nspillway: waits up to 10 s for ${running} running\n`);
    }
    const timer = setTimeout(() => this.#commands?.end("SIGTERM"), drainMs);
    await ended;
    clearTimeout(timer);
  }

  async #take(delivery: Delivery<Uint8Array>): Promise<void> {
    const startedAtMs = performance.now();
    const verdict = await this.#handle(delivery);
    if (verdict.kind === "unusable") {
      const found = verdict.error;
      this.#failure ??= new SpillwayError("option_invalid", { option: "--exec", found });
      this.#ending.abort();
    }
    const settled = await this.#settle(delivery, verdict);
    this.#settled.set(settled, (this.#settled.get(settled) ?? 0) + 1);
    if (this.#commands === undefined || !this.#options.isJson) return;
    const { id, attempt, key } = delivery;
    const error = "error" in verdict ? { error: verdict.error } : {};
    const ms = Math.round(performance.now() - startedAtMs);
    await this.#output.line(JSON.stringify({ id, attempt, key, settled, ...error, ms }));
  }

  async #handle(delivery: Delivery<Uint8Array>): Promise<Verdict> {
    if (this.#commands !== undefined) {
      const verdict = await this.#commands.run(delivery);
      // Ended by us, for we end: it was not tried.
      const isGivenBack = this.#ending.signal.aborted && verdict.kind === "nack";
      return isGivenBack ? { kind: "release" } : verdict;
    }
    const text = this.#options.isJson ? jsonOf(delivery) : plainOf(delivery.bytes);
    return { kind: (await this.#output.write(text)) ? "ack" : "release" };
  }

  /** @returns What it counts as: a verdict that came too late counts for nothing. */
  async #settle(delivery: Delivery, verdict: Verdict): Promise<string> {
    try {
      switch (verdict.kind) {
        case "ack":
          await delivery.ack();
          return "acked";
        case "nack":
          await delivery.nack({ error: verdict.error });
          return "failed";
        case "term":
          await delivery.term(verdict.error);
          return "dead-lettered";
        case "release":
        case "unusable":
          await delivery.release(this.#ending.signal.aborted ? {} : { delay: releasedDelay });
          return "given back";
      }
    } catch (error) {
      if (!isSpillwayError(error)) throw error;
      return error.code === "delivery_settled" ? "too late" : "unknown";
    }
  }

  /** To standard error, for the other is for messages. */
  report(): void {
    const counts = [...this.#settled].map(([kind, times]) => `${countText(times)} ${kind}`);
    process.stderr.write(`${counts.length === 0 ? "nothing taken" : counts.join(", ")}\n`);
  }

  [Symbol.dispose](): void {
    this.#commands?.[Symbol.dispose]();
    this.#output[Symbol.dispose]();
  }
}

/** EX_TEMPFAIL says "later": at once would be a busy loop. */
const releasedDelay = "1s";
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A payload that is no UTF-8 comes in base64, by another name. */
function jsonOf(delivery: Delivery): string {
  const { id, attempt, key, group, class: of, acceptedAt, deadline, headers, bytes } = delivery;
  let payload: Record<string, string>;
  try {
    payload = { payload: decoder.decode(bytes) };
  } catch {
    payload = { payloadBase64: Buffer.from(bytes).toString("base64") };
  }
  return `${JSON.stringify({
    id,
    attempt,
    key,
    group,
    class: of,
    acceptedAt,
    deadline,
    headers,
    ...payload,
  })}\n`;
}

const lineFeed = Buffer.from("\n");

/** As it is; on a terminal without the control characters by which a message could take it over. */
function plainOf(bytes: Uint8Array): Uint8Array {
  if (!process.stdout.isTTY) return Buffer.concat([bytes, lineFeed]);
  const text = Buffer.from(bytes).toString("utf8");
  return Buffer.from(`${text.replaceAll(/(?![\n\t])\p{Cc}/gu, "\uFFFD")}\n`);
}

/**
 * `spillway send`: one message, or a stream of them, to a flow of a server. A stream is held back by the
 * flow's credit; every message that was not accepted is counted by the code that says why.
 */
import type { Command } from "commander";
import { isSpillwayError, parseMs, refuseOption, SpillwayError } from "../base/index.ts";
import type { MessageOptions, Receipt } from "../client/index.ts";
import { exitCodes } from "./exit-codes.ts";
import { linesOf, openInput, readWhole } from "./lines.ts";
import { Output, Status } from "./output.ts";
import { addRemoteFlags, Remote, remoteOptions, waitDefault } from "./remote.ts";
import type { RemoteFlags, RemoteOptions } from "./remote.ts";
import { SendTally } from "./send-tally.ts";
import { stopOnSignals } from "./stop.ts";

interface Flags extends RemoteFlags {
  readonly file?: string;
  readonly lines?: true;
  readonly key?: string;
  readonly group?: string;
  readonly class?: string;
  readonly idempotencyKey?: string;
  readonly delay?: string;
  readonly deadline?: string;
  readonly header: readonly string[];
  readonly rate?: string;
  readonly count?: string;
  readonly json?: true;
}

interface SendOptions {
  readonly remote: RemoteOptions;
  readonly flow: string;
  readonly text: string | undefined;
  readonly file: string | undefined;
  readonly isLines: boolean;
  /** One message, and its receipt is what is printed. */
  readonly isSingle: boolean;
  readonly count: number;
  readonly ratePerS: number;
  /** Of each message, for credit; undefined: without end. */
  readonly creditWaitMs: number | undefined;
  readonly isJson: boolean;
  /** @param n From 1. */
  readonly messageOptions: (n: number) => MessageOptions;
}

const after = `
Without TEXT the message is read from --file, else from standard input; it is sent as it is. With --lines each
line of the input is a message (empty ones are left out). --rate and --count make a load of it: the same message,
or the lines, at most so many a second, so many in all; --rate alone goes on until Ctrl-C. In --key, --group
and --idempotency-key of a stream {n} stands for the number of the message, from 1.

A flow that is full holds the stream back. Ctrl-C: what has left is answered, the rest is not sent.
Exit codes: 0 all were accepted (now, or before under the same idempotency key), 1 some were not,
2 wrong flags, or no such flow, 130 a second Ctrl-C.`;

export function addSend(program: Command): void {
  const command = program
    .command("send")
    .description("send a message, or a stream of them, to a flow of a server")
    .argument("<flow>", "the flow")
    .argument("[text]", "the message");
  addRemoteFlags(command)
    .option("-f, --file <file>", "read it from there")
    .option("-l, --lines", "each line is a message")
    .option("-k, --key <key>", "messages of one key are handled one at a time, in order")
    .option("--group <group>", "shares capacity fairly with other groups (a tenant)")
    .option("--class <class>", "critical, normal or bulk: who is kept when there is too much")
    .option("--idempotency-key <key>", "a repeat within the flow's window is accepted once")
    .option("--delay <span>", 'not handled before, such as "10s"')
    .option("--deadline <span>", "not started later")
    .option("-H, --header <name: value>", "a header; may be repeated", collect, [])
    .option("--rate <n>", "messages per second at most")
    .option("--count <n>", "so many messages")
    .option(
      "--wait <span>",
      `for a connection (${waitDefault}), and each message for credit (${waitDefault}; a stream waits without end)`,
    )
    .option("--json", "print each receipt as a JSON line; of a stream the summary, too")
    .addHelpText("after", after)
    .action(async (flow: string, text: string | undefined, flags: Flags) => {
      process.exitCode = await send(parseFlags(flow, text, flags));
    });
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

function parseFlags(flow: string, text: string | undefined, flags: Flags): SendOptions {
  const { file, rate, count } = flags;
  const isLines = flags.lines === true;
  if (text !== undefined && (file !== undefined || isLines)) {
    refuseOption("TEXT", text.slice(0, 100), "either TEXT, or --file, or --lines of an input");
  }
  const isSingle = !isLines && rate === undefined && count === undefined;
  const { idempotencyKey } = flags;
  if (!isSingle && idempotencyKey !== undefined && !idempotencyKey.includes("{n}")) {
    const allowed = "a text with {n}, the number of the message: they would all count as one";
    refuseOption("--idempotency-key", idempotencyKey, allowed);
  }
  const remote = remoteOptions(flags);
  return {
    remote,
    flow,
    text,
    file,
    isLines,
    isSingle,
    count: numberOf("--count", count, true) ?? (rate === undefined && !isLines ? 1 : Infinity),
    ratePerS: numberOf("--rate", rate, false) ?? Infinity,
    creditWaitMs: isSingle || flags.wait !== undefined ? remote.waitMs : undefined,
    isJson: flags.json === true,
    messageOptions: messageOptionsOf(flags, isSingle),
  };
}

function numberOf(option: string, text: string | undefined, isWhole: boolean): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (value > 0 && Number.isFinite(value) && (!isWhole || Number.isSafeInteger(value))) {
    return value;
  }
  return refuseOption(option, text, isWhole ? "a whole number above 0" : "a number above 0");
}

function messageOptionsOf(flags: Flags, isSingle: boolean): SendOptions["messageOptions"] {
  const { key, group, idempotencyKey, delay, deadline } = flags;
  const messageClass = flags.class;
  if (
    messageClass !== undefined &&
    messageClass !== "critical" &&
    messageClass !== "normal" &&
    messageClass !== "bulk"
  ) {
    refuseOption("--class", messageClass, "critical, normal or bulk");
  }
  for (const [option, span] of Object.entries({ "--delay": delay, "--deadline": deadline })) {
    if (span !== undefined && parseMs(span) === undefined) {
      refuseOption(option, span, 'a span such as "10s"');
    }
  }
  const headers = headersOf(flags.header);
  const fixed: MessageOptions = {
    ...(messageClass === undefined ? {} : { class: messageClass }),
    ...(delay === undefined ? {} : { delay }),
    ...(deadline === undefined ? {} : { deadline }),
    ...(headers === undefined ? {} : { headers }),
  };
  const filled = (template: string, n: number): string =>
    isSingle ? template : template.replaceAll("{n}", String(n));
  return (n) => ({
    ...fixed,
    ...(key === undefined ? {} : { key: filled(key, n) }),
    ...(group === undefined ? {} : { group: filled(group, n) }),
    ...(idempotencyKey === undefined ? {} : { idempotencyKey: filled(idempotencyKey, n) }),
  });
}

function headersOf(lines: readonly string[]): Record<string, string> | undefined {
  if (lines.length === 0) return undefined;
  const headers: Record<string, string> = Object.create(null);
  for (const line of lines) {
    const [, name, value] = /^([^\s:]+)\s*:\s*(.*)$/s.exec(line) ?? [];
    if (name === undefined || value === undefined) {
      return refuseOption("--header", line, 'a name and a value, such as "a: b"');
    }
    headers[name.toLowerCase()] = value;
  }
  return headers;
}

async function send(options: SendOptions): Promise<number> {
  using stop = stopOnSignals();
  await using remote = new Remote(options.remote, "spillway send");
  if (options.isSingle) return await sendOne(options, remote, stop.signal);
  return await new Stream(options, remote, stop.signal).run();
}

async function sendOne(options: SendOptions, remote: Remote, signal: AbortSignal): Promise<number> {
  const { flow, creditWaitMs, isJson } = options;
  const payload = await payloadOf(options, signal);
  const timeout = creditWaitMs === undefined ? {} : { timeout: creditWaitMs };
  const sent = remote.client
    .flow<Uint8Array>(flow)
    .send(payload, { ...options.messageOptions(1), ...timeout, signal });
  try {
    const receipt = await Promise.race([answered(remote, sent), remote.gone]);
    process.stdout.write(`${isJson ? JSON.stringify(receipt) : receiptText(receipt)}\n`);
    return exitCodes.ok;
  } catch (error) {
    if (!isSpillwayError(error)) throw error;
    if (isJson) process.stdout.write(`${JSON.stringify(refusalOf(error))}\n`);
    throw error;
  }
}

/** Where there is no connection, the wait for one says more than the wait for credit. */
async function answered(remote: Remote, sent: Promise<Receipt>): Promise<Receipt> {
  try {
    return await sent;
  } catch (error) {
    if (remote.client.isConnected || !isSpillwayError(error, "timed_out")) throw error;
    return remote.gone;
  }
}

function receiptText({ id, duplicate, durability }: Receipt): string {
  return duplicate
    ? `duplicate of ${id}: it was accepted before under this idempotency key`
    : `accepted ${id} (durability ${durability})`;
}

function refusalOf(error: SpillwayError): Record<string, unknown> {
  const { code, message, retryAfterMs } = error;
  return {
    accepted: false,
    code,
    message,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}

async function payloadOf({ text, file }: SendOptions, signal: AbortSignal): Promise<Uint8Array> {
  if (text !== undefined) return Buffer.from(text);
  if (file === undefined && process.stdin.isTTY) {
    process.stderr.write("Reads the message from the terminal; Ctrl-D ends it.\n");
  }
  try {
    return await readWhole(openInput(file, signal), file ?? "standard input");
  } catch (cause) {
    if (signal.aborted) throw new SpillwayError("aborted", {}, { cause });
    throw cause;
  }
}

/** Messages that are on their way or wait for credit: the input is read no faster. */
const underWayMax = 1024;
const underWayBytesMax = 8 * 1024 ** 2;
/** Codes after which no other message of the stream would fare better. */
const final: ReadonlySet<string> = new Set([
  "not_found",
  "forbidden",
  "unauthenticated",
  "option_invalid",
  "protocol_violated",
]);

class Stream {
  readonly #options: SendOptions;
  readonly #remote: Remote;
  readonly #tally = new SendTally();
  readonly #output = new Output();
  /** Ends the reading: Ctrl-C, no server, a refusal of all, or nobody who reads the receipts. */
  readonly #ending = new AbortController();
  #failure: unknown;
  #underWay = 0;
  #underWayBytes = 0;
  #onRoom: (() => void) | undefined;
  #printed: Promise<unknown> | undefined;

  constructor(options: SendOptions, remote: Remote, stop: AbortSignal) {
    this.#options = options;
    this.#remote = remote;
    stop.addEventListener("abort", () => this.#end());
    this.#output.closed.addEventListener("abort", () => this.#end());
    remote.gone.catch((error: unknown) => this.#end(error));
  }

  /** Nothing more is read; what waits for credit is not sent, what has left is waited for. */
  #end(failure?: unknown): void {
    this.#failure ??= failure;
    this.#ending.abort();
    this.#onRoom?.();
    void this.#remote.client.close();
  }

  async run(): Promise<number> {
    using _output = this.#output;
    const flow = this.#remote.client.flow<Uint8Array>(this.#options.flow);
    flow.on("blocked", ({ code }) => this.#tally.blocked(code));
    flow.on("resumed", () => this.#tally.resumed());
    const status = new Status(() => this.#tally.line(flow.credits().messages, this.#underWay));
    try {
      await Promise.race([flow.ready(), this.#remote.gone]); // Nothing is read for nobody.
      await this.#sendAll((payload, n) => this.#sendOne(flow, payload, n));
    } catch (error) {
      if (!this.#ending.signal.aborted) this.#end(error);
    } finally {
      status.end();
    }
    this.#summary();
    if (this.#failure !== undefined) throw this.#failure;
    const isWhole = !this.#ending.signal.aborted || this.#isEndless;
    if (!isWhole) process.stderr.write("spillway: stopped; the rest was not sent\n");
    return isWhole && this.#tally.isAllAccepted ? exitCodes.ok : exitCodes.failed;
  }

  /** A load without an end is done when it is ended. */
  get #isEndless(): boolean {
    const { isLines, count } = this.#options;
    return !isLines && count === Infinity;
  }

  #summary(): void {
    const { isJson } = this.#options;
    const text = isJson ? JSON.stringify({ summary: this.#tally.summary() }) : this.#tally.text();
    if (!this.#output.closed.aborted) process.stdout.write(`${text}\n`);
  }

  async #sendAll(sendOne: (payload: Uint8Array, n: number) => void): Promise<void> {
    const { count, ratePerS } = this.#options;
    const { signal } = this.#ending;
    const pace = new Pace(ratePerS);
    let n = 0;
    try {
      for await (const payload of this.#messages()) {
        while (this.#isFull && !signal.aborted) await this.#room();
        await this.#printed;
        await pace.next(signal);
        if (signal.aborted) break;
        sendOne(payload, ++n);
        if (n === count) break;
      }
    } finally {
      while (this.#underWay > 0) await this.#room();
    }
  }

  async *#messages(): AsyncGenerator<Uint8Array> {
    const { isLines, file, count } = this.#options;
    const { signal } = this.#ending;
    if (isLines) {
      yield* linesOf(openInput(file, signal), file ?? "standard input");
      return;
    }
    const payload = await payloadOf(this.#options, signal);
    for (let n = 0; n < count; n++) yield payload;
  }

  get #isFull(): boolean {
    return this.#underWay >= underWayMax || this.#underWayBytes > underWayBytesMax;
  }

  /** Resolves when a message was answered, or the stream ends. */
  #room(): Promise<void> {
    return new Promise((resolve) => (this.#onRoom = resolve));
  }

  #sendOne(
    flow: { send(payload: Uint8Array, options: MessageOptions): Promise<Receipt> },
    payload: Uint8Array,
    n: number,
  ): void {
    const { creditWaitMs } = this.#options;
    const timeout = creditWaitMs === undefined ? {} : { timeout: creditWaitMs };
    this.#underWay++;
    this.#underWayBytes += payload.length;
    flow
      .send(payload, { ...this.#options.messageOptions(n), ...timeout })
      .then(
        (receipt) => this.#accepted(n, receipt),
        (error: unknown) => this.#refused(n, error),
      )
      .finally(() => {
        this.#underWay--;
        this.#underWayBytes -= payload.length;
        this.#onRoom?.();
      });
  }

  #accepted(n: number, receipt: Receipt): void {
    this.#tally.accepted(receipt.duplicate);
    if (this.#options.isJson) this.#print({ n, ...receipt });
  }

  #refused(n: number, error: unknown): void {
    if (!isSpillwayError(error)) return this.#end(error);
    if (error.code === "closed" && this.#ending.signal.aborted) return this.#tally.notSent();
    if (final.has(error.code)) return this.#end(error);
    const isFirst = this.#tally.refused(error.code);
    if (this.#options.isJson) this.#print({ n, ...refusalOf(error) });
    else if (isFirst) process.stderr.write(`spillway: message ${n}: ${error.message}\n`);
  }

  #print(line: Record<string, unknown>): void {
    this.#printed = this.#output.line(JSON.stringify(line)) ?? this.#printed;
  }
}

/** At most so many a second, evenly; what was held back is not made up for by a burst. */
class Pace {
  readonly #gapMs: number;
  #nextAtMs = 0;

  constructor(ratePerS: number) {
    this.#gapMs = 1000 / ratePerS;
  }

  async next(signal: AbortSignal): Promise<void> {
    if (this.#gapMs === 0) return;
    const nowMs = performance.now();
    // Timers are late by some ms: what they lose may be made up for, what the flow held back may not.
    this.#nextAtMs = Math.max(this.#nextAtMs, nowMs - arrearsMaxMs);
    if (this.#nextAtMs > nowMs) await pause(this.#nextAtMs - nowMs, signal);
    this.#nextAtMs += this.#gapMs;
  }
}

const arrearsMaxMs = 50;

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const onAbort = (): void => {
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

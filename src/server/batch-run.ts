/**
 * One batch on its way: lines are parsed as they come and sent in parts, and the answers are written in
 * their order.
 *
 * B1  A line is answered only once its message is durable, so that what was read of an answer is true
 *     however the request ends.
 * B2  When there is no credit for as long as the caller waits, every later line is refused: none
 *     overtakes an earlier one of its key.
 * B3  What is held is bounded: a few parts of lines, and one short result for each line.
 */
import type { FastifyReply, FastifyRequest } from "fastify";
import { catalogue, isSpillwayError, SpillwayError } from "../base/index.ts";
import type { BatchResult, Flow } from "../spillway.ts";
import { groupOf } from "./access.ts";
import { parseLine } from "./batch-line.ts";
import type { BatchMessage } from "./batch-line.ts";
import { passOver } from "./body.ts";
import { Lines } from "./lines.ts";

/** Lines that are sent together, and parts that are on their way at once. */
const partLinesMax = 500;
const partsMax = 4;
/** A line may be so much longer than the message in it: escapes or base64, and its other fields. */
const lineFactor = 2;
const lineExtraBytes = 64 * 1024;
/**
 * Without `Prefer: wait` sends wait so long: the store takes thousands of messages that are not durable
 * yet, and a moment later it takes more.
 */
const graceMs = 50;

/** Of a whole batch. */
export interface BatchLimits {
  readonly bytes: number;
  readonly messages: number;
}

/** A line's answer that is known without sending it, or the place of its message in the part. */
type Slot = string | number;

export class Batch {
  readonly #flow: Flow<Uint8Array>;
  readonly #limits: BatchLimits;
  readonly #waitMs: number | undefined;
  readonly #request: FastifyRequest;
  readonly #reply: FastifyReply;
  readonly #lines: Lines;
  /** Ends what waits for credit. */
  #giveUp = new AbortController();
  #slots: Slot[] = [];
  #messages: BatchMessage[] = [];
  #partLine = 1;
  #line = 0;
  #bytes = 0;
  /** Why no further line is taken. */
  #ended: SpillwayError | undefined;
  #isGone = false;
  /** Ticks in a row at which sends waited. */
  #waits = 0;
  /** Parts on their way, oldest first; each writes after the one before. */
  #written: Promise<void> = Promise.resolve();
  #parts = 0;
  #wake: (() => void) | undefined;

  constructor(
    flow: Flow<Uint8Array>,
    limits: BatchLimits,
    waitMs: number | undefined,
    request: FastifyRequest,
    reply: FastifyReply,
  ) {
    this.#flow = flow;
    this.#limits = limits;
    this.#waitMs = waitMs;
    this.#request = request;
    this.#reply = reply;
    const lengthMax = lineFactor * flow.contract.messageBytesMax + lineExtraBytes;
    const nowMs = Date.now();
    this.#lines = new Lines(
      lengthMax,
      (line) => this.#take(line, nowMs),
      () => this.#refuseLine(new SpillwayError("message_too_large", { allowed: lengthMax })),
    );
  }

  async run(): Promise<void> {
    const { raw } = this.#reply;
    const { closing } = this.#reply.server;
    const onGone = (): void => {
      this.#isGone = true;
      this.#giveUp.abort();
      this.#wake?.();
    };
    const onClosing = (): void => this.#giveUp.abort();
    raw.once("close", onGone);
    closing.addEventListener("abort", onClosing);
    const patience = this.#startPatience();
    try {
      await this.#read();
      await this.#written;
      if (this.#ended !== undefined) this.#write(refused(this.#line + 1, this.#ended, true));
    } catch (error) {
      this.#reply.log.error({ err: error }, "batch");
      raw.destroy();
    } finally {
      clearInterval(patience);
      raw.off("close", onGone);
      closing.removeEventListener("abort", onClosing);
    }
    if (!this.#request.raw.complete) passOver(this.#request.raw);
    raw.end();
  }

  /** Gives up when sends have waited through the grace, and the caller would wait no longer. */
  #startPatience(): NodeJS.Timeout {
    const untilMs = performance.now() + (this.#waitMs ?? 0);
    return setInterval(() => {
      const isWaiting = this.#parts > 0 && this.#flow.credits().waiting > 0;
      this.#waits = isWaiting && performance.now() >= untilMs ? this.#waits + 1 : 0;
      if (this.#waits > 1) this.#giveUp.abort();
    }, graceMs);
  }

  /** Resolves at the end of the body, or when no further line is taken. */
  #read(): Promise<void> {
    const { raw } = this.#request;
    const { promise: read, resolve: end } = Promise.withResolvers<void>();
    const stop = (): void => {
      raw.off("data", onData);
      raw.off("end", onEnd);
      raw.off("error", stop);
      raw.off("close", stop);
      raw.pause();
      end();
    };
    const goOn = async (): Promise<void> => {
      while (this.#isFull() && !this.#isDone()) {
        await new Promise<void>((wake) => (this.#wake = wake));
      }
      if (this.#isDone()) stop();
      else raw.resume();
    };
    const onData = (chunk: Buffer): void => {
      this.#bytes += chunk.length;
      const { bytes: allowed } = this.#limits;
      if (this.#bytes > allowed) {
        this.#ended ??= new SpillwayError("message_too_large", {
          found: "a longer batch",
          allowed,
        });
      } else this.#lines.push(chunk);
      this.#send();
      if (this.#isDone()) stop();
      else if (this.#isFull()) {
        raw.pause();
        void goOn();
      }
    };
    const onEnd = (): void => {
      this.#lines.finish();
      this.#send();
      stop();
    };
    raw.on("data", onData);
    raw.on("end", onEnd);
    raw.on("error", stop);
    raw.on("close", stop);
    return read;
  }

  /** While sends are being cancelled, nothing may overtake them (B2). */
  #isFull(): boolean {
    return this.#parts >= partsMax || this.#giveUp.signal.aborted;
  }

  #isDone(): boolean {
    return this.#ended !== undefined || this.#isGone;
  }

  #take(line: Buffer, nowMs: number): void {
    if (!this.#begin()) return;
    try {
      const message = this.#forGroup(parseLine(line, nowMs));
      this.#slots.push(this.#messages.push(message) - 1);
    } catch (error) {
      this.#slots.push(refused(this.#line, known(error)));
    }
    if (this.#messages.length >= partLinesMax) this.#send();
  }

  /** A token of a group sends for that group only. */
  #forGroup({ payload, fields }: BatchMessage): BatchMessage {
    const group = groupOf(this.#request.principal, fields.group);
    return { payload, fields: group === undefined ? fields : { ...fields, group } };
  }

  #refuseLine(error: SpillwayError): void {
    if (this.#begin()) this.#slots.push(refused(this.#line, error));
  }

  /** @returns Whether one more line is taken. */
  #begin(): boolean {
    if (this.#isDone()) return false;
    const { messages: allowed } = this.#limits;
    if (this.#line === allowed) {
      this.#ended = new SpillwayError("message_too_large", { found: "more lines", allowed });
      return false;
    }
    this.#line++;
    return true;
  }

  #send(): void {
    if (this.#slots.length === 0) return;
    const [slots, messages, fromLine] = [this.#slots, this.#messages, this.#partLine];
    this.#slots = [];
    this.#messages = [];
    this.#partLine = fromLine + slots.length;
    this.#parts++;
    const { signal } = this.#giveUp;
    const sent = this.#flow.sendBatch(
      messages.map(({ payload }) => payload),
      (_payload, at) => messages[at]!.fields,
      { signal },
    );
    const before = this.#written;
    this.#written = this.#answer(sent, before, { slots, messages, fromLine });
  }

  async #answer(
    sent: Promise<BatchResult[]>,
    before: Promise<void>,
    part: {
      readonly slots: readonly Slot[];
      readonly messages: readonly BatchMessage[];
      readonly fromLine: number;
    },
  ): Promise<void> {
    const results = await sent;
    await before;
    const { slots, messages, fromLine } = part;
    let text = "";
    for (let at = 0; at < slots.length; at++) {
      const slot = slots[at]!;
      const line = fromLine + at;
      if (typeof slot === "string") text += slot;
      else {
        let result = results[slot]!;
        if (!result.accepted && result.code === "aborted") {
          result = await this.#withoutCredit(messages[slot]!);
        }
        text += result.accepted
          ? `{"line":${line},"accepted":true,"id":"${result.id}","duplicate":${result.duplicate}}\n`
          : refused(line, result.error);
      }
    }
    this.#write(text);
    this.#parts--;
    // Nothing of this batch waited, then: it goes on.
    const { aborted } = this.#giveUp.signal;
    if (aborted && this.#parts === 0 && !this.#isDone()) this.#giveUp = new AbortController();
    this.#wake?.();
  }

  /** The first line that found no credit says why, or is just in time; those after it are refused (B2). */
  async #withoutCredit({ payload, fields }: BatchMessage): Promise<BatchResult> {
    if (this.#ended !== undefined) return refusalOf(this.#ended);
    if (this.#isGone || this.#reply.server.closing.aborted) {
      this.#ended = new SpillwayError("closed");
      return refusalOf(this.#ended);
    }
    const sent = this.#flow.trySend(payload, fields);
    if (sent instanceof Promise) {
      this.#ended = new SpillwayError("no_credit", { retryAfterMs: graceMs });
      return sent.then(
        (receipt) => ({ accepted: true, ...receipt }),
        (error: unknown) => refusalOf(known(error)),
      );
    }
    const { code, retryAfterMs } = sent;
    this.#ended = new SpillwayError(code, retryAfterMs === undefined ? {} : { retryAfterMs });
    return refusalOf(this.#ended);
  }

  #write(text: string): void {
    if (!this.#isGone && text !== "") this.#reply.raw.write(text);
  }
}

function refusalOf(error: SpillwayError): BatchResult & { readonly accepted: false } {
  return { accepted: false, code: error.code, error };
}

function known(error: unknown): SpillwayError {
  if (isSpillwayError(error)) return error;
  return new SpillwayError("invariant_broken", {}, { cause: error });
}

/** @param rest Whether it stands for this line and all after it. */
function refused(line: number, error: SpillwayError, rest = false): string {
  const { retryAfterMs, ...details } = error.details;
  return `${JSON.stringify({
    line,
    ...(rest ? { rest } : {}),
    accepted: false,
    code: error.code,
    text: catalogue[error.code].text,
    retry: error.retry,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs: Math.ceil(retryAfterMs) }),
    ...(Object.keys(details).length === 0 ? {} : { details }),
  })}\n`;
}

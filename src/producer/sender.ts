/**
 * What a user sends with: values become drafts, answers become receipts. The same in the queue's own
 * process and in another one, where the driver's link is a connection.
 */
import {
  checkOptions,
  checkSignal,
  parseMs,
  refuseOption,
  SpillwayError,
  textOf,
} from "../base/index.ts";
import type { ErrorCode, Span } from "../base/index.ts";
import type { Ids, Validator } from "../flow/index.ts";
import type { Draft } from "../protocol/index.ts";
import { draftOf, encode } from "./codec.ts";
import type { MessageOptions } from "./codec.ts";
import type { ProducerDriver, Sent } from "./driver.ts";
import type { Refused, Route } from "./machine.ts";

/** What "accepted" means where the flow lies. */
export type Durability = "memory" | "fsync" | "quorum" | "page-cache";

/** What an accepted message gets: it is durable (G1). */
export interface Receipt {
  /** "flow/partition/seq". */
  readonly id: string;
  /** It had been accepted before, under the same idempotency key; `id` is the first one's. */
  readonly duplicate: boolean;
  readonly durability: Durability;
}

export interface SendOptions extends MessageOptions {
  readonly signal?: AbortSignal;
  /** How long to wait for credit: ms, or text such as "10s"; for ever by default. */
  readonly timeout?: Span;
}

/** Why a message is not taken now. */
export interface Refusal {
  readonly accepted: false;
  readonly code: ErrorCode;
  readonly retryAfterMs?: number;
}

export type BatchResult = ({ readonly accepted: true } & Receipt) | BatchRefusal;

export interface BatchRefusal extends Refusal {
  readonly error: SpillwayError;
}

export interface SenderParts {
  readonly payload: "json" | "bytes";
  /** Whether the flow keeps order per key. */
  readonly isOrdered: boolean;
  readonly messageBytesMax: number;
  readonly ids: Ids;
  readonly durability: Durability;
  readonly validate: Validator<unknown> | undefined;
  readonly driver: ProducerDriver;
}

const noOptions: MessageOptions = {};
/** Sends of one batch that are on their way at once. */
const batchWindow = 4096;

export class Sender<T> {
  readonly #parts: SenderParts;

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  get driver(): ProducerDriver {
    return this.#parts.driver;
  }

  /** See `Flow.send`. */
  async send(value: T, options: SendOptions): Promise<Receipt> {
    checkOptions(options);
    checkSignal(options.signal);
    const { draft, route } = await this.draft(value, options);
    const waiting = { signal: options.signal, timeoutMs: timeoutOf(options) };
    return this.receipt(await this.#parts.driver.send(draft, route, waiting));
  }

  /** See `Flow.trySend`. */
  trySend(value: T, options: MessageOptions): Promise<Receipt> | Refusal {
    const validated = this.#parts.validate?.(value) ?? value;
    if (validated instanceof Promise) {
      throw new SpillwayError("option_invalid", {
        option: "schema",
        found: "an asynchronous schema",
        allowed: "a synchronous one with trySend; use send with a timeout",
      });
    }
    const { draft, route } = this.#encode(validated, options);
    const sent = this.#parts.driver.trySend(draft, route);
    if (sent instanceof Promise) return sent.then((answer) => this.receipt(answer));
    return refusalOf(sent);
  }

  /** See `Flow.sendBatch`. */
  async sendBatch(
    values: readonly T[],
    optionsOf: (value: T, at: number) => MessageOptions = () => noOptions,
    waiting: { signal?: AbortSignal } = {},
  ): Promise<BatchResult[]> {
    if (!Array.isArray(values)) refuseOption("values", typeof values, "an array");
    checkOptions(waiting);
    checkSignal(waiting.signal);
    const results: BatchResult[] = Array.from({ length: values.length });
    const give = (at: number, error: unknown): void => {
      results[at] = batchRefusalOf(error);
    };
    const { ids, durability, validate, driver } = this.#parts;
    for (let from = 0; from < values.length; from += batchWindow) {
      const items: { draft: Draft; route: Route }[] = [];
      const places: number[] = [];
      for (let at = from; at < Math.min(values.length, from + batchWindow); at++) {
        try {
          const value = values[at]!;
          const validated = validate?.(value) ?? value;
          const plain = validated instanceof Promise ? await validated : validated;
          items.push(this.#encode(plain, optionsOf(value, at)));
          places.push(at);
        } catch (error) {
          give(at, error);
        }
      }
      await driver.sendMany(items, waiting.signal, {
        accepted: (at, partition, seq, duplicate) => {
          const id = ids.of(partition, seq);
          results[places[at]!] = { accepted: true, id, duplicate, durability };
        },
        refused: (at, error) => give(places[at]!, error),
      });
    }
    return results;
  }

  /** See `Flow.writable`. */
  writable(optionsOf: (value: T) => MessageOptions): WritableStream<T> {
    const sends = new Set<Promise<unknown>>();
    let failed: unknown;
    return new WritableStream<T>({
      write: async (value) => {
        if (failed !== undefined) throw failed;
        const sent = this.send(value, optionsOf(value)).catch((error: unknown) => {
          failed ??= error;
        });
        sends.add(sent);
        void sent.then(() => sends.delete(sent));
        await this.#parts.driver.ready();
      },
      close: async () => {
        await Promise.all(sends);
        if (failed !== undefined) throw failed;
      },
    });
  }

  /** Credit in hand, and how many sends wait for it. */
  credits(): { readonly messages: number; readonly waiting: number; readonly blocked: boolean } {
    const { credits, waiting, blocked } = this.#parts.driver.view();
    return { messages: credits, waiting, blocked };
  }

  /** A value and its options as they travel, and where to. */
  async draft(value: T, options: MessageOptions): Promise<{ draft: Draft; route: Route }> {
    const { validate } = this.#parts;
    return this.#encode(validate === undefined ? value : await validate(value), options);
  }

  #encode(value: unknown, options: MessageOptions): { draft: Draft; route: Route } {
    const { payload, isOrdered, messageBytesMax: allowed } = this.#parts;
    const encoded = draftOf(encode(value, payload), options, isOrdered);
    if (encoded.draft.bytes <= allowed) return encoded;
    throw new SpillwayError("message_too_large", { found: encoded.draft.bytes, allowed });
  }

  receipt(sent: Sent): Receipt {
    const { ids, durability } = this.#parts;
    return { id: ids.of(sent.partition, sent.seq), duplicate: sent.duplicate, durability };
  }
}

/** @throws {SpillwayError} option_invalid */
export function timeoutOf({ timeout }: SendOptions): number | undefined {
  if (timeout === undefined) return undefined;
  const ms = parseMs(timeout);
  if (ms !== undefined) return ms;
  const allowed = 'a number of ms, or text such as "10s"';
  throw new SpillwayError("option_invalid", { option: "timeout", found: timeout, allowed });
}

function refusalOf(refused: Refused): Refusal {
  const { code, retryAfterMs } = refused;
  return { accepted: false, code, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
}

function batchRefusalOf(error: unknown): BatchRefusal {
  const known =
    error instanceof SpillwayError
      ? error
      : new SpillwayError("message_invalid", { found: textOf(error) }, { cause: error });
  const { code, retryAfterMs } = known;
  return {
    accepted: false,
    code,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    error: known,
  };
}

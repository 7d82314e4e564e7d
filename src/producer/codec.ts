/** What users send becomes a draft: bytes, hashes, route. The rest of the house never parses a payload. */
import { checkOptions, hash53, refuseOption, SpillwayError, textOf } from "../base/index.ts";
import type { Span } from "../base/index.ts";
import { parseMs } from "../base/index.ts";
import type { MessageClass } from "../flow/index.ts";
import type { Draft } from "../protocol/index.ts";
import type { Route } from "./machine.ts";

export interface MessageOptions {
  /** Messages of one key are handled one at a time, in order of acceptance. */
  readonly key?: string;
  /** Shares capacity with the other groups (a tenant). */
  readonly group?: string;
  /** Who is kept when there is too much; "normal" by default. */
  readonly class?: MessageClass;
  /** A repeat within the flow's window gets the first one's receipt; with other content it is refused. */
  readonly idempotencyKey?: string;
  /** Not handled before this long after acceptance: ms, or text such as "10s". */
  readonly delay?: Span;
  /** Not started later than this long from now. */
  readonly deadline?: Span;
  /** How much of the target's rate it uses; 1 by default. */
  readonly cost?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

const none = new Uint8Array(0);
const anywhere: Route = {};
const encoder = new TextEncoder();
/** In Node small buffers share memory: one of its own each would be dear. */
const utf8: (text: string) => Uint8Array =
  typeof Buffer === "undefined" ? (text) => encoder.encode(text) : (text) => Buffer.from(text);
const decoder = new TextDecoder();
const textMax = 1024;

/** @throws {SpillwayError} message_unencodable */
export function encode(value: unknown, payload: "json" | "bytes"): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (payload === "bytes") {
    const found = value === null ? "null" : typeof value;
    throw new SpillwayError("message_unencodable", { found, allowed: "a Uint8Array" });
  }
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw new SpillwayError("message_unencodable", { found: textOf(cause) }, { cause });
  }
  if (text === undefined) {
    throw new SpillwayError("message_unencodable", { found: typeof value, allowed: "JSON" });
  }
  return utf8(text);
}

/**
 * @param ordered Whether the flow keeps order per key.
 * @throws {SpillwayError} option_invalid
 */
export function draftOf(
  payload: Uint8Array,
  options: MessageOptions,
  ordered: boolean,
): { draft: Draft; route: Route } {
  checkOptions(options);
  const { key, group, idempotencyKey, cost } = options;
  checkText("key", key);
  checkText("group", group);
  checkText("idempotencyKey", idempotencyKey);
  if (cost !== undefined && !(Number.isFinite(cost) && cost > 0)) {
    throw new SpillwayError("option_invalid", { option: "cost", found: cost, allowed: "above 0" });
  }
  const messageClass = options.class ?? "normal";
  if (messageClass !== "normal" && messageClass !== "critical" && messageClass !== "bulk") {
    const allowed = "critical, normal or bulk";
    throw new SpillwayError("option_invalid", { option: "class", found: messageClass, allowed });
  }
  const headers = options.headers === undefined ? none : headersOf(options.headers);
  const draft: { -readonly [Field in keyof Draft]: Draft[Field] } = {
    class: messageClass,
    headers,
    payload,
    bytes: payload.length + headers.length + (key?.length ?? 0) + (group?.length ?? 0),
  };
  const isRouted = key !== undefined || group !== undefined || idempotencyKey !== undefined;
  const route: { hash?: number; group?: string } = isRouted ? {} : anywhere;
  if (key !== undefined) {
    draft.key = key;
    draft.keyHash = hash53(key);
    if (ordered) route.hash = draft.keyHash;
  }
  if (group !== undefined) {
    draft.group = group;
    route.group = group;
  }
  if (cost !== undefined) draft.cost = cost;
  if (options.delay !== undefined) draft.delayMs = spanOf("delay", options.delay);
  if (options.deadline !== undefined) draft.deadlineMs = spanOf("deadline", options.deadline);
  if (idempotencyKey !== undefined) {
    draft.idempotencyKey = idempotencyKey;
    // Deduplication is per partition: the same key must always go to the same one.
    route.hash ??= hash53(idempotencyKey);
  }
  return { draft, route };
}

function headersOf(headers: Readonly<Record<string, string>>): Uint8Array {
  const isPlain = typeof headers === "object" && headers !== null && !Array.isArray(headers);
  if (!isPlain || !Object.values(headers).every((value) => typeof value === "string")) {
    refuseOption("headers", typeof headers, "an object of texts");
  }
  return encoder.encode(JSON.stringify(headers));
}

/** The headers that were stored, as they were given. */
export function readHeaders(headers: Uint8Array): Readonly<Record<string, string>> {
  if (headers.length === 0) return {};
  return JSON.parse(decoder.decode(headers)) as Readonly<Record<string, string>>;
}

function checkText(option: string, text: string | undefined): void {
  if (text === undefined) return;
  if (typeof text === "string" && text.length > 0 && text.length <= textMax) return;
  const found = typeof text === "string" ? `${text.length} characters` : typeof text;
  const allowed = `text of 1 to ${textMax} characters`;
  throw new SpillwayError("option_invalid", { option, found, allowed });
}

function spanOf(option: string, span: Span): number {
  const ms = parseMs(span);
  if (ms !== undefined) return ms;
  const allowed = 'a number of ms, or text such as "10s"';
  throw new SpillwayError("option_invalid", { option, found: span, allowed });
}

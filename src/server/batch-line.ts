/**
 * One line of a batch: a JSON object with the message and what is said about it.
 *
 *     {"payload":{"total":12},"key":"customer-7","idempotencyKey":"order-12"}
 *
 * `payload` is any JSON, kept byte for byte and never parsed here; or `text`, or `base64`.
 */
import { SpillwayError } from "../base/index.ts";
import type { MessageOptions } from "../spillway.ts";
import { scanJson } from "./json-scan.ts";
import { classOf, deadlineOf, refuse, spanOf } from "./message-fields.ts";

export interface BatchMessage {
  readonly payload: Uint8Array;
  readonly fields: MessageOptions;
}

type Draft = { -readonly [Name in keyof MessageOptions]: MessageOptions[Name] };
type Headers = Readonly<Record<string, string>>;

const opaque = ["payload"];
const names = [
  "payload",
  "text",
  "base64",
  "key",
  "group",
  "class",
  "idempotencyKey",
  "delay",
  "deadline",
  "cost",
  "headers",
];
const json: Headers = { "content-type": "application/json" };
const text: Headers = { "content-type": "text/plain; charset=utf-8" };
const bytes: Headers = { "content-type": "application/octet-stream" };
const headerNameForm = /^[a-z0-9!#$%&'*+.^_`|~-]{1,128}$/;
const headerTextMax = 8192;

/** @throws {SpillwayError} request_invalid, deadline_passed */
export function parseLine(line: Buffer, nowMs: number): BatchMessage {
  const span = scanJson(line, opaque);
  const said: unknown = JSON.parse(
    span === undefined
      ? line.toString()
      : `${line.toString("utf8", 0, span.from)}0${line.toString("utf8", span.to)}`,
  );
  if (typeof said !== "object" || said === null || Array.isArray(said)) {
    return refuse("line", Array.isArray(said) ? "a list" : typeof said, "an object");
  }
  const given = said as Readonly<Record<string, unknown>>;
  const message = payloadOf(line, given, span);
  const fields: Draft = { headers: message.headers };
  for (const name of Object.keys(given)) {
    const value = given[name];
    switch (name) {
      case "key":
      case "group":
      case "idempotencyKey":
        if (typeof value !== "string") refuse(name, value, "text");
        fields[name] = value;
        break;
      case "class":
        fields.class = classOf(name, value);
        break;
      case "delay":
        fields.delay = spanOf(name, value);
        break;
      case "deadline":
        fields.deadline = deadlineOf(name, value, nowMs);
        break;
      case "cost":
        if (typeof value !== "number") refuse(name, value, "a number above 0");
        fields.cost = value;
        break;
      case "headers":
        fields.headers = { ...message.headers, ...headersOf(value) };
        break;
      default:
        if (!names.includes(name)) refuse(name, "an unknown field", `one of ${names.join(", ")}`);
    }
  }
  return { payload: message.payload, fields };
}

function payloadOf(
  line: Buffer,
  given: Readonly<Record<string, unknown>>,
  span: { readonly from: number; readonly to: number } | undefined,
): { readonly payload: Uint8Array; readonly headers: Headers } {
  const { text: asText, base64 } = given;
  const count = Number(span !== undefined) + Number("text" in given) + Number("base64" in given);
  if (count !== 1) {
    throw new SpillwayError("request_invalid", {
      path: "payload",
      found: count === 0 ? "none" : "several",
      allowed: "one of payload, text and base64",
    });
  }
  // A copy: what the chunk holds beside it must not stay in memory with it.
  if (span !== undefined) {
    return { payload: Buffer.from(line.subarray(span.from, span.to)), headers: json };
  }
  if ("text" in given) {
    if (typeof asText !== "string") return refuse("text", asText, "text");
    return { payload: Buffer.from(asText), headers: text };
  }
  if (typeof base64 !== "string" || !isBase64(base64)) {
    return refuse("base64", base64, "text in base64, padded, or in base64url");
  }
  return { payload: Buffer.from(base64, "base64"), headers: bytes };
}

/** Node would pass over what is none. */
function isBase64(value: string): boolean {
  return /^[A-Za-z0-9+/]*={0,2}$|^[A-Za-z0-9_-]*={0,2}$/.test(value) && value.length % 4 !== 1;
}

function headersOf(value: unknown): Record<string, string> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return refuse("headers", value, "an object of texts");
  }
  const headers: Record<string, string> = Object.create(null);
  for (const [name, held] of Object.entries(value) as [string, unknown][]) {
    const lower = name.toLowerCase();
    if (!headerNameForm.test(lower)) refuse("headers", name, "names of header fields");
    if (typeof held !== "string" || held.length > headerTextMax) {
      refuse(`headers.${lower}`, typeof held, `text of at most ${headerTextMax} characters`);
    }
    headers[lower] = held;
  }
  return headers;
}

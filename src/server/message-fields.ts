/**
 * What a request says about its message, beside the body. It is read once, from header fields; what
 * cannot be read is refused with the name of the field, what was found and what is allowed.
 */
import type { IncomingHttpHeaders } from "node:http";
import { parseMs, SpillwayError } from "../base/index.ts";
import { messageClasses, parseInstant } from "../flow/index.ts";
import type { MessageClass } from "../flow/index.ts";
import type { MessageOptions } from "../spillway.ts";
import { cloudEventFields, isCloudEvent } from "./cloud-events.ts";

type Draft = { -readonly [Name in keyof MessageOptions]: MessageOptions[Name] };

/** Version, trace id, parent id and flags (W3C Trace Context); later versions may have more. */
const traceForm =
  /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$/;
const traceStateForm = /^[\x20-\x7e]{1,512}$/;

/**
 * @param nowMs Wall clock, for deadlines that are instants.
 * @throws {SpillwayError} request_invalid, deadline_passed
 */
export function messageFields(headers: IncomingHttpHeaders, nowMs: number): MessageOptions {
  const kept: Record<string, string> = {};
  const fields: Draft = { headers: kept };
  const type = headers["content-type"];
  if (type !== undefined) kept["content-type"] = type;
  const trace = headers["traceparent"];
  if (typeof trace === "string" && traceForm.test(trace)) {
    kept["traceparent"] = trace;
    const state = headers["tracestate"];
    if (typeof state === "string" && traceStateForm.test(state)) kept["tracestate"] = state;
  }
  if (isCloudEvent(headers)) Object.assign(fields, cloudEventFields(headers, kept));
  const idempotencyKey = headers["idempotency-key"];
  if (idempotencyKey !== undefined) fields.idempotencyKey = unquoted(textOf(idempotencyKey));
  const key = headers["spillway-key"];
  if (key !== undefined) fields.key = textOf(key);
  const group = headers["spillway-group"];
  if (group !== undefined) fields.group = textOf(group);
  const messageClass = headers["spillway-class"];
  if (messageClass !== undefined) fields.class = classOf("spillway-class", messageClass);
  const cost = headers["spillway-cost"];
  if (cost !== undefined) fields.cost = costOf(cost as string);
  const delay = headers["spillway-delay"];
  if (delay !== undefined) fields.delay = spanOf("spillway-delay", delay);
  const deadline = headers["spillway-deadline"];
  if (deadline !== undefined) fields.deadline = deadlineOf("spillway-deadline", deadline, nowMs);
  return fields;
}

/** How long the caller would wait for credit (RFC 7240), in ms, at most `maxMs`. */
export function waitOf({ prefer }: IncomingHttpHeaders, maxMs: number): number | undefined {
  if (prefer === undefined) return undefined;
  const match = /(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])/i.exec(String(prefer));
  return match === null ? undefined : Math.min(Number(match[1]) * 1000, maxMs);
}

/** @throws {SpillwayError} request_invalid */
export function classOf(where: string, found: unknown): MessageClass {
  const known = messageClasses.find((each) => each === found);
  return known ?? refuse(where, found, messageClasses.join(", "));
}

/** @returns Ms. @throws {SpillwayError} request_invalid */
export function spanOf(where: string, found: unknown): number {
  const ms = typeof found === "string" || typeof found === "number" ? parseMs(found) : undefined;
  return ms ?? refuse(where, found, 'a span such as "10s"');
}

/**
 * @param found A span, or an instant with a zone.
 * @returns Ms from now. @throws {SpillwayError} request_invalid, deadline_passed
 */
export function deadlineOf(where: string, found: unknown, nowMs: number): number {
  const span = typeof found === "string" || typeof found === "number" ? parseMs(found) : undefined;
  if (span !== undefined) return span;
  const atMs = typeof found === "string" ? parseInstant(found) : undefined;
  if (atMs === undefined) {
    return refuse(where, found, 'a span such as "10s", or an instant such as "2026-11-27T08:00Z"');
  }
  if (atMs <= nowMs) throw new SpillwayError("deadline_passed", { found: found as string });
  return atMs - nowMs;
}

function costOf(found: string): number {
  const cost = Number(found);
  if (Number.isFinite(cost) && cost > 0 && found.trim() !== "") return cost;
  return refuse("spillway-cost", found, "a number above 0");
}

const shownMax = 100;

export function refuse(where: string, found: unknown, allowed: string): never {
  const shown = typeof found === "string" ? found.slice(0, shownMax) : typeof found;
  throw new SpillwayError("request_invalid", { path: where, found: shown, allowed });
}

/** Node reads header fields as Latin-1; what people send is UTF-8. */
function textOf(value: string | string[]): string {
  const text = String(value);
  if (!/[\x80-\xff]/.test(text)) return text;
  const read = Buffer.from(text, "latin1").toString();
  return read.includes("\ufffd") ? text : read;
}

/** A structured-field string and the same text without quotes are one key. */
function unquoted(text: string): string {
  const isQuoted = text.length > 2 && text.startsWith('"') && text.endsWith('"');
  return isQuoted ? text.slice(1, -1).replaceAll(/\\(["\\])/g, "$1") : text;
}

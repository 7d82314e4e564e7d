/**
 * The request that carries messages: which fields it has, and the body of several. Of what a producer sent
 * along go the content type, the trace context and CloudEvents attributes; nothing else, so that no
 * credential of one party reaches another.
 */
import { isUtf8 } from "node:buffer";
import { createHash } from "node:crypto";
import type { KeyObject } from "node:crypto";
import type { Push } from "../../flow/index.ts";
import type { Delivery } from "../../spillway.ts";
import { signWebhook } from "../webhooks.ts";
import type { Destination } from "./addresses.ts";

const batchType = "application/vnd.spillway.batch+json";
/** A larger message goes alone. */
export const batchBytesMax: number = 1024 ** 2;

const carried = /^(content-type|traceparent|tracestate|ce-[a-z0-9]{1,64})$/;
const plainType = "application/octet-stream";

/** What every request of one flow has. */
export class RequestForm {
  readonly #fixed: readonly string[];
  /** In lower case: what the contract sets is not taken from the message. */
  readonly #set: ReadonlySet<string>;

  constructor(flow: string, { headers }: Push, { authority }: Destination) {
    const given = Object.entries(headers);
    this.#set = new Set(given.map(([name]) => name.toLowerCase()));
    const agent = this.#set.has("user-agent") ? [] : ["User-Agent", "Spillway"];
    this.#fixed = ["Host", authority, ...agent, "Spillway-Flow", flow, ...given.flat()];
  }

  /** @returns Names and values in turn. */
  ofMessage(delivery: Delivery<Uint8Array>, keys: readonly KeyObject[], nowMs: number): string[] {
    const { id, attempt, key, group, deadline, bytes } = delivery;
    const fields = this.#begin(id, bytes, keys, nowMs);
    this.#addCarried(fields, delivery.headers);
    fields.push("Spillway-Message-Id", id, "Spillway-Attempt", String(attempt));
    if (key !== undefined) fields.push("Spillway-Key", fieldText(key));
    if (group !== undefined) fields.push("Spillway-Group", fieldText(group));
    if (deadline !== undefined) fields.push("Spillway-Deadline", deadline.toISOString());
    return fields;
  }

  ofBatch(id: string, body: Uint8Array, keys: readonly KeyObject[], nowMs: number): string[] {
    const fields = this.#begin(id, body, keys, nowMs);
    if (!this.#set.has("content-type")) fields.push("Content-Type", batchType);
    return fields;
  }

  #begin(id: string, body: Uint8Array, keys: readonly KeyObject[], nowMs: number): string[] {
    const fields = [...this.#fixed, "Content-Length", String(body.length)];
    if (!this.#set.has("idempotency-key")) fields.push("Idempotency-Key", id);
    if (keys.length === 0) return fields;
    const timestampS = Math.floor(nowMs / 1000);
    fields.push("webhook-id", id, "webhook-timestamp", String(timestampS));
    fields.push("webhook-signature", signWebhook(keys, id, timestampS, body));
    return fields;
  }

  #addCarried(fields: string[], headers: Readonly<Record<string, string>>): void {
    let hasType = this.#set.has("content-type");
    for (const [name, value] of Object.entries(headers)) {
      const lower = name.toLowerCase();
      if (this.#set.has(lower) || !carried.test(lower)) continue;
      hasType ||= lower === "content-type";
      fields.push(lower, fieldText(value, false));
    }
    if (!hasType) fields.push("Content-Type", plainType);
  }
}

/** Text in a header field: what is not visible ASCII goes as percent and hex digits of its UTF-8 bytes. */
function fieldText(text: string, escapes = true): string {
  const other = escapes ? /[^\x21-\x24\x26-\x7e]+/g : /[^\x20-\x7e]+/g;
  return text.replaceAll(other, (part) => {
    const hex = Buffer.from(part).toString("hex").toUpperCase();
    return hex.replaceAll(/../g, "%$&");
  });
}

/** One message of a batch. */
export interface Envelope {
  readonly id: string;
  readonly attempt: number;
  readonly acceptedAt: string;
  readonly key?: string;
  readonly group?: string;
  readonly deadline?: string;
  /** Those that a request of its own would carry. */
  readonly headers: Readonly<Record<string, string>>;
  /** Says how `payload` is written. */
  readonly encoding: "utf-8" | "base64";
  readonly payload: string;
}

/** As JSON. */
export function envelopeOf(delivery: Delivery<Uint8Array>): string {
  const { id, attempt, acceptedAt, key, group, deadline, headers, bytes } = delivery;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const encoding = isUtf8(bytes) ? "utf-8" : "base64";
  const envelope: Envelope = {
    id,
    attempt,
    acceptedAt: acceptedAt.toISOString(),
    ...(key !== undefined && { key }),
    ...(group !== undefined && { group }),
    ...(deadline !== undefined && { deadline: deadline.toISOString() }),
    headers: Object.fromEntries(
      Object.entries(headers).filter(([name]) => carried.test(name.toLowerCase())),
    ),
    encoding,
    payload: buffer.toString(encoding),
  };
  return JSON.stringify(envelope);
}

export function batchBody(envelopes: readonly string[]): Buffer {
  return Buffer.from(`{"messages":[${envelopes.join(",")}]}`);
}

/** The same for the same messages. */
export function batchId(flow: string, ids: readonly string[]): string {
  const digest = createHash("sha256").update(ids.join("\n")).digest("base64url");
  return `${flow}/batch/${digest.slice(0, 22)}`;
}

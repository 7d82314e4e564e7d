/**
 * CloudEvents 1.0 over HTTP. Binary mode: the attributes are `ce-*` header fields, which stay with the
 * message. Structured mode: the body is the event, is kept as it came, and its attributes are read out of
 * it; its data are never parsed. Id and source together identify an event, so they are its idempotency
 * key unless the request has one.
 */
import { hash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { SpillwayError } from "../base/index.ts";
import type { MessageOptions } from "../spillway.ts";
import { scanJson } from "./json-scan.ts";

const structuredType = "application/cloudevents+json";
const required = ["specversion", "id", "source", "type"] as const;
const dataNames = ["data", "data_base64"];
const keyLengthMax = 1024;

type Attributes = Readonly<Record<string, unknown>>;

/** Whether header fields hold the attributes of an event. */
export function isCloudEvent(headers: IncomingHttpHeaders): boolean {
  return headers["ce-specversion"] !== undefined || headers["ce-id"] !== undefined;
}

/**
 * Of binary mode.
 * @param kept Header fields of the message, to which the attributes are added.
 * @throws {SpillwayError} request_invalid
 */
export function cloudEventFields(
  headers: IncomingHttpHeaders,
  kept: Record<string, string>,
): Pick<MessageOptions, "key" | "idempotencyKey"> {
  const attributes: Record<string, string> = Object.create(null);
  for (const [name, value] of Object.entries(headers)) {
    if (!name.startsWith("ce-") || typeof value !== "string") continue;
    kept[name] = value;
    attributes[name.slice(3)] = decoded(value);
  }
  return fieldsOf(attributes, "ce-");
}

/** @returns Whether the body is an event. @throws {SpillwayError} media_type_unsupported: several events */
export function isStructured(contentType: string | undefined): boolean {
  if (contentType === undefined || !contentType.startsWith("application/cloudevents")) return false;
  const [type = ""] = contentType.split(";", 1);
  if (type.trim() === structuredType) return true;
  throw new SpillwayError("media_type_unsupported", {
    found: type,
    allowed: `${structuredType}; several messages go as NDJSON to messages:batch`,
  });
}

/** Of structured mode. @throws {SpillwayError} request_invalid */
export function structuredFields(body: Uint8Array): Pick<MessageOptions, "key" | "idempotencyKey"> {
  const data = scanJson(body, dataNames);
  const text = Buffer.from(body.buffer, body.byteOffset, body.length);
  const attributes: unknown = JSON.parse(
    data === undefined
      ? text.toString()
      : `${text.toString("utf8", 0, data.from)}null${text.toString("utf8", data.to)}`,
  );
  if (typeof attributes !== "object" || attributes === null || Array.isArray(attributes)) {
    throw new SpillwayError("request_invalid", { path: "body", allowed: "an event, as an object" });
  }
  return fieldsOf(attributes as Attributes, "");
}

function fieldsOf(
  attributes: Attributes,
  prefix: string,
): Pick<MessageOptions, "key" | "idempotencyKey"> {
  for (const name of required) {
    const found = attributes[name];
    if (typeof found === "string" && found !== "") continue;
    throw new SpillwayError("request_invalid", {
      path: `${prefix}${name}`,
      found: found === undefined ? "nothing" : typeof found,
      allowed: "text: CloudEvents require it",
    });
  }
  if (attributes["specversion"] !== "1.0") {
    const found = String(attributes["specversion"]).slice(0, 20);
    const path = `${prefix}specversion`;
    throw new SpillwayError("request_invalid", { path, found, allowed: '"1.0"' });
  }
  const { partitionkey } = attributes;
  const isKey = typeof partitionkey === "string" && partitionkey !== "";
  return {
    // A source is a URI reference and holds no space: the two cannot run into one another.
    idempotencyKey: shortened(`${String(attributes["source"])} ${String(attributes["id"])}`),
    ...(isKey ? { key: partitionkey } : {}),
  };
}

function shortened(key: string): string {
  return key.length <= keyLengthMax ? key : `sha256 ${hash("sha256", key)}`;
}

/** Values are percent-encoded UTF-8 in header fields; quotes around them were allowed once. */
function decoded(value: string): string {
  const plain =
    value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
  if (!plain.includes("%")) return plain;
  try {
    return decodeURIComponent(plain);
  } catch {
    return plain;
  }
}

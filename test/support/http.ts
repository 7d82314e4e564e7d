/** Calls of a test server's HTTP API. */
import type { Server } from "../../src/server/index.ts";

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** Of a body that is JSON. */
  readonly json: Record<string, unknown>;
}

export interface CallOptions {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  /** An object goes as JSON. */
  readonly body?: string | Uint8Array | ReadableStream | object;
  readonly signal?: AbortSignal;
}

/** GET without a body, POST with one, unless `method` says otherwise. */
export async function call(
  server: Server,
  path: string,
  { method, headers = {}, body, signal }: CallOptions = {},
): Promise<Answer> {
  const isRaw =
    body === undefined ||
    typeof body === "string" ||
    body instanceof Uint8Array ||
    body instanceof ReadableStream;
  const response = await fetch(`${server.url}${path}`, {
    method: method ?? (body === undefined ? "GET" : "POST"),
    headers: isRaw ? headers : { "content-type": "application/json", ...headers },
    ...(body === undefined
      ? {}
      : { body: isRaw ? (body as NonNullable<RequestInit["body"]>) : JSON.stringify(body) }),
    ...(body instanceof ReadableStream ? { duplex: "half" as const } : {}),
    ...(signal === undefined ? {} : { signal }),
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.includes("json") === true;
  return {
    status: response.status,
    headers: response.headers,
    text,
    json:
      isJson && text !== "" && !text.includes("\n")
        ? (JSON.parse(text) as Record<string, unknown>)
        : {},
  };
}

export function send(
  server: Server,
  flow: string,
  body: NonNullable<CallOptions["body"]>,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return call(server, `/v1/flows/${flow}/messages`, {
    method: "POST",
    body,
    headers: { "content-type": "text/plain", ...headers },
  });
}

/** Sends lines of NDJSON; an object is a line of JSON. @returns The lines of the answer. */
export async function sendBatch(
  server: Server,
  flow: string,
  lines: readonly (string | object)[],
  headers: Record<string, string> = {},
): Promise<Record<string, unknown>[]> {
  const { text } = await call(server, `/v1/flows/${flow}/messages:batch`, {
    method: "POST",
    headers: { "content-type": "application/x-ndjson", ...headers },
    body: lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"),
  });
  return linesOf(text);
}

export function linesOf(text: string): Record<string, unknown>[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

export interface Pulled {
  readonly id: string;
  readonly messageId: string;
  readonly attempt: number;
  readonly key?: string;
  readonly group?: string;
  readonly class: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly deadline?: string;
  readonly encoding: string;
  readonly payload: string;
}

export async function pull(
  server: Server,
  flow: string,
  options: { max?: number; waitMs?: number } = {},
): Promise<Pulled[]> {
  const { json } = await call(server, `/v1/flows/${flow}/deliveries`, {
    body: { max: 10, waitMs: 5000, ...options },
  });
  return json["deliveries"] as Pulled[];
}

/** Waits until it holds. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 5));
}

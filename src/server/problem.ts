/** Errors as RFC 9457 problems: one form for everything that a request can meet. */
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { ConnectionError } from "fastify";
import { catalogue, isSpillwayError, SpillwayError } from "../base/index.ts";
import type { ErrorCode, ErrorDetails } from "../base/index.ts";

export interface Problem {
  /** "urn:spillway:error:" and the code, which docs/errors.md explains. */
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ErrorCode;
  /** "later", "never" or "same", see docs/errors.md. */
  readonly retry: string;
  readonly retryAfterMs?: number;
  /** What was found, and what is allowed. */
  readonly details?: ErrorDetails;
}

export function problemOf(error: SpillwayError): Problem {
  const { http, text, retry } = catalogue[error.code];
  const { retryAfterMs = isPause(error) ? 1000 : undefined, ...details } = error.details;
  return {
    type: `urn:spillway:error:${error.code}`,
    title: text,
    status: http,
    detail: error.message,
    code: error.code,
    retry,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs: Math.ceil(retryAfterMs) }),
    ...(Object.keys(details).length === 0 ? {} : { details }),
  };
}

/** Overload and such always say when to come back. */
function isPause({ code, retry }: SpillwayError): boolean {
  const { http } = catalogue[code];
  return retry !== "never" && (http === 429 || http === 503 || http === 507);
}

const clientCodes: Readonly<Record<string, ErrorCode>> = {
  HPE_HEADER_OVERFLOW: "headers_too_large",
  ERR_HTTP_REQUEST_TIMEOUT: "request_too_slow",
};

/** A request that cannot be read: its connection ends with a problem, too. */
export function answerClientError(error: ConnectionError, socket: Socket): void {
  // An answer that has begun cannot be taken back: it ends here.
  const { _httpMessage: answering } = socket as {
    _httpMessage?: { readonly headersSent: boolean } | null;
  };
  if (error.code === "ECONNRESET" || !socket.writable || answering?.headersSent === true) {
    socket.destroy();
    return;
  }
  const code = clientCodes[error.code] ?? "request_invalid";
  const { retryAfterMs: _later, ...problem } = problemOf(
    new SpillwayError(code, code === "request_invalid" ? { found: error.message } : {}),
  );
  const body = JSON.stringify(problem);
  socket.end(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\ncontent-type: application/problem+json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}

const fastifyCodes: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: "message_too_large",
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "media_type_unsupported",
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: "request_invalid",
  FST_ERR_CTP_EMPTY_JSON_BODY: "request_invalid",
  FST_ERR_CTP_INVALID_JSON_BODY: "request_invalid",
  FST_ERR_VALIDATION: "request_invalid",
};

/** What was thrown, as one of our own: what Fastify refuses is the caller's mistake, the rest a defect. */
export function knownError(thrown: unknown): SpillwayError {
  if (isSpillwayError(thrown)) return thrown;
  const { code, message, statusCode } = thrown as Error & { code?: string; statusCode?: number };
  const known = fastifyCodes[code ?? ""];
  if (known !== undefined) return new SpillwayError(known, { found: message }, { cause: thrown });
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new SpillwayError("request_invalid", { found: message }, { cause: thrown });
  }
  return new SpillwayError("invariant_broken", {}, { cause: thrown });
}

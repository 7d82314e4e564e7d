/** Errors as RFC 9457 problems: one form for everything that a request can meet. */
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
  const { code, message, statusCode } = (thrown ?? {}) as Partial<Error> & {
    code?: string;
    statusCode?: number;
  };
  const known = fastifyCodes[code ?? ""];
  if (known !== undefined) return new SpillwayError(known, { found: message }, { cause: thrown });
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    // What others throw may quote the body: their text goes nowhere.
    return new SpillwayError(
      "request_invalid",
      { found: code ?? "bad request" },
      { cause: thrown },
    );
  }
  return new SpillwayError("invariant_broken", {}, { cause: thrown });
}

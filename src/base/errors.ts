/**
 * Every code that Spillway gives, in one place. Codes are public and never reused; texts may change.
 * `retry` tells a caller what to do: "later" the same call may succeed, "never" it will not, "same"
 * the outcome is unknown and the very same call, with the same idempotency key, is safe.
 * `docs/errors.md` says it for people, and a test holds the two equal.
 */
export const catalogue = {
  // Refusals of a send: overload and quotas. They carry `retryAfterMs`.
  no_credit: { retry: "later", http: 429, text: "No credit left; wait for the next grant." },
  buffer_full: { retry: "later", http: 429, text: "The buffer has reached its limit." },
  class_closed: {
    retry: "later",
    http: 429,
    text: "The buffer is past the level at which this class stops.",
  },
  rate_limited: { retry: "later", http: 429, text: "The boundary rate is used up." },
  group_limited: {
    retry: "later",
    http: 429,
    text: "The group has had its share while the flow is under pressure.",
  },
  deadline_infeasible: {
    retry: "later",
    http: 503,
    text: "The message could not be handled before its deadline.",
  },
  intake_closed: { retry: "later", http: 503, text: "The flow takes no new messages now." },
  store_full: { retry: "later", http: 507, text: "The store has no space for new messages." },
  // Refusals of a send: the message itself.
  deadline_passed: { retry: "never", http: 422, text: "The deadline lies in the past." },
  message_too_large: { retry: "never", http: 413, text: "The message is larger than allowed." },
  message_invalid: { retry: "never", http: 422, text: "The message does not fit its schema." },
  message_unencodable: {
    retry: "never",
    http: 422,
    text: "The message cannot be written as JSON.",
  },
  idempotency_conflict: {
    retry: "never",
    http: 422,
    text: "This idempotency key was accepted with other content.",
  },
  // Calls and contracts.
  contract_invalid: { retry: "never", http: 400, text: "The contract is not valid." },
  option_invalid: { retry: "never", http: 400, text: "An option is not valid." },
  not_found: { retry: "never", http: 404, text: "There is no such thing." },
  delivery_settled: {
    retry: "never",
    http: 409,
    text: "This delivery was settled already, or its lease ended and it went to another attempt.",
  },
  aborted: { retry: "never", http: 499, text: "The caller's signal ended the wait." },
  timed_out: { retry: "later", http: 504, text: "The wait reached its time limit." },
  closed: { retry: "never", http: 503, text: "This instance is closed." },
  // Requests to a server, and configurations.
  request_invalid: { retry: "never", http: 400, text: "The request is not valid." },
  unauthenticated: { retry: "never", http: 401, text: "No valid token came with the request." },
  forbidden: { retry: "never", http: 403, text: "The token does not allow this." },
  method_not_allowed: { retry: "never", http: 405, text: "There is no such call at this address." },
  state_conflict: { retry: "never", http: 409, text: "As things stand, this cannot be done." },
  request_too_slow: { retry: "later", http: 408, text: "The request came too slowly." },
  media_type_unsupported: {
    retry: "never",
    http: 415,
    text: "This content type or encoding is not taken here.",
  },
  headers_too_large: { retry: "never", http: 431, text: "The header fields are too large." },
  quota_exceeded: { retry: "later", http: 429, text: "The quota of this token is used up." },
  too_many_connections: { retry: "later", http: 503, text: "There are too many connections." },
  disconnected: { retry: "later", http: 503, text: "There is no connection to the server." },
  protocol_violated: {
    retry: "never",
    http: 400,
    text: "The other end does not keep to the protocol.",
  },
  target_refused: {
    retry: "never",
    http: 502,
    text: "The contract does not allow to push to this address.",
  },
  webhook_invalid: {
    retry: "never",
    http: 401,
    text: "The request is not signed as it must be.",
  },
  webhook_repeated: { retry: "never", http: 409, text: "This webhook was here before." },
  config_invalid: { retry: "never", http: 500, text: "The configuration is not valid." },
  listen_unsafe: {
    retry: "never",
    http: 500,
    text: "The server would be open to others without protection.",
  },
  port_in_use: { retry: "never", http: 409, text: "Another process listens on this port." },
  backup_invalid: { retry: "never", http: 500, text: "The backup is not complete or is damaged." },
  // The store.
  fenced: { retry: "never", http: 409, text: "Another owner holds this partition now." },
  bound_reached: { retry: "later", http: 429, text: "The write would pass the partition's bound." },
  outcome_unknown: {
    retry: "same",
    http: 503,
    text: "The store gave no answer; the write may or may not have happened, once.",
  },
  store_unavailable: { retry: "later", http: 503, text: "The store cannot be reached." },
  store_failed: {
    retry: "never",
    http: 503,
    text: "The store failed while writing; it must be opened again.",
  },
  store_unsafe: { retry: "never", http: 500, text: "The store's settings break its promises." },
  store_corrupt: { retry: "never", http: 500, text: "The store holds damaged data." },
  store_locked: { retry: "never", http: 409, text: "Another process holds this data directory." },
  store_newer: {
    retry: "never",
    http: 500,
    text: "The store was written by a newer version of Spillway.",
  },
  revision_conflict: { retry: "never", http: 409, text: "The entry has another revision." },
  // Defects.
  invariant_broken: { retry: "never", http: 500, text: "An invariant of Spillway is broken." },
} as const;

export interface CatalogueEntry {
  readonly retry: "later" | "never" | "same";
  readonly http: number;
  readonly text: string;
}

export type ErrorCode = keyof typeof catalogue;

/** What was found, where, and what is allowed: printable data, never a payload or a secret. */
export type ErrorDetails = Readonly<Record<string, unknown>> & { readonly retryAfterMs?: number };

/** The one class of errors. Match `code`, not the text. */
export class SpillwayError extends Error {
  override readonly name = "SpillwayError";
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, details: ErrorDetails = {}, options?: { cause?: unknown }) {
    super(describe(code, details), options);
    this.code = code;
    this.details = details;
  }

  /** Whether the same call may succeed later; see `catalogue`. */
  get retry(): CatalogueEntry["retry"] {
    return catalogue[this.code].retry;
  }

  /** How long to wait before the next try, in ms, where the refusal can tell. */
  get retryAfterMs(): number | undefined {
    return this.details.retryAfterMs;
  }
}

export function isSpillwayError(error: unknown, code?: ErrorCode): error is SpillwayError {
  return error instanceof SpillwayError && (code === undefined || error.code === code);
}

/** What was thrown, as a text, whatever it is: an object without a prototype, or with a `toString` that throws. */
export function textOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  } catch {
    return `a value that has no text (${typeof thrown})`;
  }
}

function describe(code: ErrorCode, details: ErrorDetails): string {
  const parts = Object.entries(details).map(([name, value]) => `${name}: ${show(value)}`);
  return parts.length === 0
    ? catalogue[code].text
    : `${catalogue[code].text} (${parts.join(", ")})`;
}

function show(value: unknown): string {
  if (typeof value === "string") return value;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return typeof value; // A BigInt, a cycle: what callers give may be anything.
  }
}

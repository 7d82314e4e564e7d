/**
 * Signed requests by the Standard Webhooks scheme (S6): what a push carries, and how its receiver tells
 * that it is genuine. What is signed is `id.timestamp.body`, with HMAC-SHA256.
 *
 *     const { id } = verifyWebhook({ secret, headers: request.headers, body });
 */
import { createHmac, createSecretKey, timingSafeEqual } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { SpillwayError } from "../base/index.ts";

const secretForm = /^whsec_([A-Za-z0-9+/]+={0,2})$/;
const secretBytesMin = 24;
const secretBytesMax = 64;
const toleranceSDefault = 300;
/** One signature for each secret is meant; without a bound a request could ask for any work. */
const signaturesMax = 10;

/**
 * @param secret "whsec_" and 24 to 64 bytes in base64.
 * @param path Of the field, for people.
 * @throws {SpillwayError} config_invalid, which does not show it.
 */
export function webhookKey(secret: string, path: string): KeyObject {
  const encoded = secretForm.exec(secret)?.[1];
  const bytes = Buffer.from(encoded ?? "", "base64");
  if (bytes.length >= secretBytesMin && bytes.length <= secretBytesMax) {
    return createSecretKey(bytes);
  }
  const found = encoded === undefined ? "another form" : `${bytes.length} bytes`;
  const allowed = `"whsec_" and ${secretBytesMin} to ${secretBytesMax} bytes in base64`;
  throw new SpillwayError("config_invalid", { path, found, allowed });
}

/** @returns The field `webhook-signature`: one signature for each key. */
export function signWebhook(
  keys: readonly KeyObject[],
  id: string,
  timestampS: number,
  body: Uint8Array,
): string {
  return keys.map((key) => `v1,${mac(key, `${id}.${timestampS}.`, body)}`).join(" ");
}

function mac(key: KeyObject, prefix: string, body: Uint8Array | string): string {
  return createHmac("sha256", key).update(prefix).update(body).digest("base64");
}

export interface WebhookRequest {
  /** "whsec_...", or two of them while one replaces the other. */
  readonly secret: string | readonly string[];
  /** As Node's `request.headers` or fetch's `Headers`. */
  readonly headers: Headers | Readonly<Record<string, string | readonly string[] | undefined>>;
  /** As it came, before anything parses it. */
  readonly body: Uint8Array | string;
  /** How far the sender's clock may be from ours, either way; 300 by default. */
  readonly toleranceS?: number;
  /** Milliseconds since the epoch; the system's clock by default. */
  readonly now?: () => number;
  /** Refuses what was there before. */
  readonly seen?: WebhookMemory;
}

export interface Webhook {
  /** The same on every attempt of one message. */
  readonly id: string;
  readonly sentAt: Date;
}

/**
 * Tells whether a request is genuine, recent and, with `seen`, new.
 * @throws {SpillwayError} webhook_invalid: answer 401. webhook_repeated: it was here before; answer 200 if
 *   that was handled. config_invalid: the secret is none.
 */
export function verifyWebhook(request: WebhookRequest): Webhook {
  const { secret, body, toleranceS = toleranceSDefault, now = Date.now, seen } = request;
  const secrets = typeof secret === "string" ? [secret] : secret;
  const keys = secrets.map((each) => webhookKey(each, "secret"));
  const id = fieldOf(request, "webhook-id");
  const timestamp = fieldOf(request, "webhook-timestamp");
  const signatures = fieldOf(request, "webhook-signature").split(" ", signaturesMax);
  if (!/^[1-9][0-9]{0,11}$/.test(timestamp)) refuse("webhook-timestamp", "seconds since the epoch");
  const atMs = Number(timestamp) * 1000;
  if (!(Math.abs(now() - atMs) <= toleranceS * 1000)) {
    refuse("webhook-timestamp", `within ${toleranceS} s of this clock`);
  }
  const prefix = `${id}.${timestamp}.`;
  let isGenuine = false;
  for (const key of keys) {
    const expected = Buffer.from(`v1,${mac(key, prefix, body)}`);
    for (const each of signatures) {
      const given = Buffer.from(each);
      // All are compared, so that the time does not tell which one came near.
      if (given.length === expected.length && timingSafeEqual(given, expected)) isGenuine = true;
    }
  }
  if (!isGenuine) refuse("webhook-signature", "one made with the secret, of exactly this request");
  if (seen?.add(id, now()) === false) throw new SpillwayError("webhook_repeated", { id });
  return { id, sentAt: new Date(atMs) };
}

function fieldOf({ headers }: WebhookRequest, name: string): string {
  const value = headers instanceof Headers ? headers.get(name) : headers[name];
  if (typeof value === "string" && value !== "") return value;
  return refuse(name, "one value");
}

function refuse(header: string, allowed: string): never {
  throw new SpillwayError("webhook_invalid", { header, allowed });
}

/**
 * Ids that were here, for a while: a captured request is refused when it comes again, and so is the
 * repeat of one that was handled. Give it to `verifyWebhook`, and `forget` an id whose handling failed, or
 * its next attempt would be taken for a repeat.
 */
export class WebhookMemory {
  readonly #windowMs: number;
  readonly #idsMax: number;
  /** By id, when to forget it: in the order of time. */
  readonly #until = new Map<string, number>();

  /**
   * @param options.windowS By default 600: a request with a clock 300 s ahead may be repeated for so long.
   * @param options.idsMax By default 100,000; beyond, the oldest are forgotten.
   */
  constructor(options: { readonly windowS?: number; readonly idsMax?: number } = {}) {
    this.#windowMs = (options.windowS ?? 2 * toleranceSDefault) * 1000;
    this.#idsMax = options.idsMax ?? 100_000;
  }

  /** @returns False: it was here. */
  add(id: string, nowMs: number): boolean {
    for (const [known, untilMs] of this.#until) {
      if (untilMs > nowMs && this.#until.size < this.#idsMax) break;
      this.#until.delete(known);
    }
    if (this.#until.has(id)) return false;
    this.#until.set(id, nowMs + this.#windowMs);
    return true;
  }

  /** Its handling failed: the next attempt is welcome. */
  forget(id: string): void {
    this.#until.delete(id);
  }
}

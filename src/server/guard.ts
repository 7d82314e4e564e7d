/**
 * What is checked of a request before anybody asks whose it is: the server's own name, the origin of a
 * page, the number and form of header fields. And of a configuration: whether it is safe to listen so.
 *
 * V1  A server on loopback answers only to loopback's names and those that are configured: a page whose
 *     name was made to point at loopback (DNS rebinding) reaches nothing.
 * V2  A page may call only from the server itself or an origin that is configured, whatever the method.
 */
import type { FastifyReply, FastifyRequest } from "fastify";
import { SpillwayError } from "../base/index.ts";
import type { Config } from "../config/index.ts";

const headersMax = 100;
const requestHeaders =
  "authorization, content-type, idempotency-key, prefer, traceparent, tracestate, spillway-key, " +
  "spillway-group, spillway-class, spillway-cost, spillway-deadline, spillway-delay";
const answerHeaders =
  "spillway-request-id, retry-after, ratelimit, ratelimit-policy, location, preference-applied";
const preflightAgeS = 600;

/**
 * @param hasTokens Whether the store holds a token or a certificate's record.
 * @throws {SpillwayError} listen_unsafe
 */
export function checkListen({ listen }: Config, hasTokens: boolean): void {
  const { host, tls, behindProxy } = listen;
  const reachable = !isLoopback(host) || behindProxy;
  if (!reachable) return;
  const missing = [
    ...(hasTokens ? [] : ["a token: spillway token create --verb admin --flow '*'"]),
    ...(tls !== undefined || behindProxy
      ? []
      : ["listen.tls, or listen.behindProxy where a proxy that nobody can go around ends TLS"]),
  ];
  if (missing.length === 0) return;
  throw new SpillwayError("listen_unsafe", { host, missing: missing.join("; and ") });
}

/** Whether nobody needs a token while there is none. */
export function isOpenListen({ listen: { host, behindProxy } }: Config): boolean {
  return isLoopback(host) && !behindProxy;
}

/** @param host Name or address, with or without brackets, without a port. */
function isLoopback(host: string): boolean {
  const name = host.toLowerCase();
  return (
    name === "localhost" ||
    name === "::1" ||
    name === "[::1]" ||
    /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name)
  );
}

/**
 * Whether a page of this origin may call, also to open a WebSocket.
 * @param origin The header field `Origin`; absent: the caller is no page.
 * @param host The header field `Host` of the same request, which was found good: a page that came from
 *   this server may call it.
 */
export function isOriginAllowed(
  origin: string | undefined,
  { listen }: Config,
  host?: string,
): boolean {
  if (origin === undefined || listen.origins.includes(origin)) return true;
  if (host === undefined) return false;
  // Behind a proxy the page may have come by either scheme.
  const schemes = listen.tls !== undefined ? ["https"] : ["http"];
  if (listen.behindProxy) schemes.push("https");
  return schemes.some((scheme) => origin === `${scheme}://${host}`);
}

/** V1. @param host The header field `Host`. */
export function isHostAllowed(host: string | undefined, { listen }: Config): boolean {
  if (!isLoopback(listen.host) && listen.hosts.length === 0) return true;
  const match = /^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::\d{1,5})?$/.exec(host ?? "");
  if (match === null) return false;
  const name = match[1]!.toLowerCase();
  return isLoopback(name) || [listen.host, ...listen.hosts].some((own) => isSame(own, name));
}

function isSame(own: string, name: string): boolean {
  const lower = own.toLowerCase();
  return lower === name || `[${lower}]` === name;
}

export interface Guard {
  /** @throws {SpillwayError} headers_too_large, request_invalid, forbidden */
  check(request: FastifyRequest): void;
  /** Answers a page that asks whether it may call. @returns Whether it was that. */
  preflight(request: FastifyRequest, reply: FastifyReply): boolean;
}

export function createGuard(config: Config): Guard {
  return {
    check({ raw: { headers, rawHeaders } }) {
      if (rawHeaders.length > headersMax * 2) {
        throw new SpillwayError("headers_too_large", { allowed: `at most ${headersMax} fields` });
      }
      checkOnce(rawHeaders);
      if (!isHostAllowed(headers.host, config)) {
        throw new SpillwayError("forbidden", { needed: "a host name that listen.hosts names" });
      }
      if (!isOriginAllowed(headers.origin, config, headers.host)) {
        throw new SpillwayError("forbidden", { needed: "an origin that listen.origins names" });
      }
    },
    preflight({ method, headers }, reply) {
      const { origin } = headers;
      if (origin === undefined || !config.listen.origins.includes(origin)) return false;
      reply.header("access-control-allow-origin", origin).header("vary", "origin");
      if (method !== "OPTIONS" || headers["access-control-request-method"] === undefined) {
        reply.header("access-control-expose-headers", answerHeaders);
        return false;
      }
      reply
        .header("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE")
        .header("access-control-allow-headers", requestHeaders)
        .header("access-control-max-age", preflightAgeS)
        .code(204)
        .send();
      return true;
    },
  };
}

/** Two of these fields would be read as one by us and as the other by a proxy before us. */
function checkOnce(rawHeaders: readonly string[]): void {
  let hosts = 0;
  let authorizations = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const { length } = rawHeaders[at]!;
    if (length === 4 && rawHeaders[at]!.toLowerCase() === "host") hosts += 1;
    else if (length === 13 && rawHeaders[at]!.toLowerCase() === "authorization") {
      authorizations += 1;
    }
  }
  if (hosts > 1 || authorizations > 1) {
    const header = hosts > 1 ? "host" : "authorization";
    throw new SpillwayError("request_invalid", { header, found: "twice", allowed: "once" });
  }
}

/**
 * What is said of a body before a byte of it is read.
 * @param limitBytes Of the route.
 * @throws {SpillwayError} message_too_large, media_type_unsupported
 */
export function checkBody({ headers }: FastifyRequest, limitBytes: number): void {
  const encoding = headers["content-encoding"];
  if (encoding !== undefined && encoding.toLowerCase() !== "identity") {
    throw new SpillwayError("media_type_unsupported", {
      header: "content-encoding",
      found: encoding.slice(0, 40),
      allowed: "identity: bodies are not compressed",
    });
  }
  const found = declaredBytes(headers);
  if (found > limitBytes) {
    throw new SpillwayError("message_too_large", { found, allowed: `at most ${limitBytes} bytes` });
  }
}

/** @returns 0 where the body comes in chunks, or there is none. */
export function declaredBytes(headers: FastifyRequest["headers"]): number {
  return Number(headers["content-length"] ?? 0);
}

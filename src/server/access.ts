/**
 * Who may do what. Every route says the verb that it needs; the check comes before anything of the body
 * is read (S3). Without tokens everybody may do everything, which the server allows on loopback only.
 *
 * X1  Deny by default: what no scope names is refused (S2).
 * X2  A call that concerns no single flow needs its verb on every flow: a token of some flows can make
 *     no token and read no audit log.
 * X3  A token with a group reaches nothing but the flows and calls that hold it to that group; the
 *     rest is not there for it (404).
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { SpillwayError } from "../base/index.ts";
import type { Quotas } from "./quota.ts";
import { certificateNames } from "./certificate.ts";
import type { TokenRecord, Tokens } from "./tokens.ts";
import { covers } from "./scope.ts";
import type { Verb } from "./scope.ts";

export type { Verb } from "./scope.ts";

/** Who a request comes from. */
export interface Principal {
  /** Of the token or the certificate; "anyone" where there are no tokens. Shown in the audit log. */
  readonly id: string;
  /** The only group that it may act for; absent: any. */
  readonly group?: string;
  /** @param flow Absent: on every flow (X2). */
  allows(verb: Verb, flow?: string): boolean;
  /** On any flow at all: the caller goes on to check each object. */
  allowsSome(verb: Verb): boolean;
}

export interface Access {
  /**
   * By `Authorization: Bearer spw_...`, else by the certificate of the connection.
   * @throws {SpillwayError} unauthenticated
   */
  principalOf(request: IncomingMessage): Principal;
  /**
   * Of a token that came another way, as in the first frame of a WebSocket.
   * @throws {SpillwayError} unauthenticated
   */
  principalOfToken(token: string): Principal;
  /**
   * Counts a request against the quota of its token.
   * @param bytes As declared; 0 where nothing was declared, see `owe`.
   * @throws {SpillwayError} quota_exceeded
   */
  charge(principal: Principal, bytes: number): void;
  /**
   * Counts what has come without having been declared; whoever comes next pays for it.
   * @returns How long nothing more should be taken from this principal, in ms.
   */
  owe(principal: Principal, requests: number, bytes: number): number;
  /**
   * Counts a connection against the quota of the token until it closes; once for each connection.
   * @throws {SpillwayError} quota_exceeded
   */
  attach(principal: Principal, connection: Duplex): void;
  /**
   * Calls when a token was revoked or has expired: open connections of this principal must be cut.
   * @returns Takes the listener away.
   */
  onRevoked(listener: (principalId: string) => void): () => void;
}

const anyone: Principal = { id: "anyone", allows: () => true, allowsSome: () => true };

/** @param isOpen Nobody needs a token while there is none: loopback only, see `checkListen`. */
export function createAccess(tokens: Tokens, quotas: Quotas, isOpen: boolean): Access {
  const principals = new WeakMap<TokenRecord, Principal>();
  const known = (record: TokenRecord): Principal => {
    const seen = principals.get(record);
    if (seen !== undefined) return seen;
    const principal = principalOfRecord(record);
    principals.set(record, principal);
    return principal;
  };
  const isAnyone = (): boolean => isOpen && tokens.isEmpty;
  const principalOfToken = (token: string): Principal => {
    if (isAnyone()) return anyone;
    const record = tokens.verify(token);
    if (record === undefined) throw new SpillwayError("unauthenticated");
    return known(record);
  };
  return {
    principalOf({ headers: { authorization }, socket }) {
      if (isAnyone()) return anyone;
      if (authorization !== undefined) {
        const match = /^Bearer +([\w-]+)$/i.exec(authorization);
        if (match !== null) return principalOfToken(match[1]!);
      } else {
        const record = tokens.ofCertificate(certificateNames(socket));
        if (record !== undefined) return known(record);
      }
      throw new SpillwayError("unauthenticated", { allowed: "Authorization: Bearer spw_…" });
    },
    principalOfToken,
    charge: (principal, bytes) =>
      quotas.charge(principal.id, tokens.get(principal.id)?.quota, bytes),
    owe: (principal, requests, bytes) =>
      quotas.owe(principal.id, tokens.get(principal.id)?.quota, requests, bytes),
    attach: (principal, connection) =>
      quotas.attach(principal.id, tokens.get(principal.id)?.quota, connection),
    onRevoked: (listener) => tokens.onRevoked(listener),
  };
}

function principalOfRecord(record: TokenRecord): Principal {
  const { id, group, verbs } = record;
  return {
    id,
    ...(group === undefined ? {} : { group }),
    allows: (verb, flow) =>
      flow === undefined
        ? group === undefined && covers(record, verb, "*") // X2: the pattern itself must be "*".
        : covers(record, verb, flow),
    allowsSome: (verb) => verbs.includes(verb),
  };
}

/** What a route demands, see `FastifyContextConfig`. */
export interface Demand {
  readonly verb: Verb;
  readonly checks?: "object";
  readonly byGroup?: true;
}

/**
 * Whether a principal may make a call at all, before anything of it is read.
 * @param flow Of the path; absent: the call names none.
 * @throws {SpillwayError} forbidden; not_found, where a group must not learn what is there (X3)
 */
export function demand(principal: Principal, needs: Demand, flow: string | undefined): void {
  const { verb, checks, byGroup } = needs;
  const isAllowed =
    flow === undefined && checks === "object"
      ? principal.allowsSome(verb)
      : principal.allows(verb, flow);
  if (isAllowed && (principal.group === undefined || byGroup === true)) return;
  if (principal.group !== undefined) {
    throw new SpillwayError("not_found", flow === undefined ? {} : { flow });
  }
  throw new SpillwayError("forbidden", {
    needed: verb,
    flow: flow ?? (checks === "object" ? "any" : "every flow"),
  });
}

/**
 * The group that a message is sent for.
 * @param asked By the request.
 * @throws {SpillwayError} forbidden: the token is of another group.
 */
export function groupOf(principal: Principal, asked: string | undefined): string | undefined {
  const { group } = principal;
  if (group === undefined || asked === undefined || asked === group) return group ?? asked;
  throw new SpillwayError("forbidden", { needed: "a token of this group", allowed: group });
}

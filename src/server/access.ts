/**
 * Who may do what. Every route says the verb that it needs; the check comes before anything of the body
 * is read (S3). Without tokens everybody may do everything, which the server allows on loopback only.
 */
import type { IncomingMessage } from "node:http";

/** What a token may allow, on which flows. */
export type Verb = "produce" | "consume" | "observe" | "admin";

/** Who a request comes from. */
export interface Principal {
  /** Of the token or the certificate; "anyone" where there are no tokens. Shown in the audit log. */
  readonly id: string;
  /** @param flow Absent: the call concerns no single flow. */
  allows(verb: Verb, flow?: string): boolean;
}

export interface Access {
  /** @throws {SpillwayError} unauthenticated */
  principalOf(request: IncomingMessage): Principal;
  /** As `principalOf`, for a token that came in a frame. */
  principalOfToken(token: string): Principal;
  /**
   * Counts a request against the quota of its token.
   * @throws {SpillwayError} quota_exceeded
   */
  charge(principal: Principal, bytes: number): void;
}

const anyone: Principal = { id: "anyone", allows: () => true };

/** For a server on loopback without tokens. */
export const openAccess: Access = {
  principalOf: () => anyone,
  principalOfToken: () => anyone,
  charge: () => undefined,
};

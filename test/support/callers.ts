/** Callers of a server: with the token of an admin, and with tokens that the admin makes. */
import type { Server } from "../../src/server/index.ts";
import type { NewToken } from "../../src/server/index.ts";

export interface Caller {
  readonly id: string;
  readonly token: string;
  /** @param init `body` as text is sent as JSON where it has no other content type. */
  call(method: string, path: string, init?: Omit<RequestInit, "method">): Promise<Response>;
}

export function callerOf(server: Server, id: string, token: string): Caller {
  return {
    id,
    token,
    call: (method, path, init = {}) => {
      const headers = new Headers(init.headers);
      headers.set("authorization", `Bearer ${token}`);
      return fetch(`${server.url}${path}`, { ...init, method, headers });
    },
  };
}

/** Makes a token over HTTP. @param admin Absent: the first one, which needs none on loopback. */
export async function makeToken(server: Server, wanted: NewToken, admin?: Caller): Promise<Caller> {
  const init = { body: JSON.stringify(wanted), headers: { "content-type": "application/json" } };
  const response =
    admin === undefined
      ? await fetch(`${server.url}/v1/tokens`, { ...init, method: "POST" })
      : await admin.call("POST", "/v1/tokens", init);
  if (response.status !== 201) throw new Error(await response.text());
  const { id, token } = (await response.json()) as { id: string; token: string };
  return callerOf(server, id, token);
}

export function makeAdmin(server: Server): Promise<Caller> {
  return makeToken(server, { verbs: ["produce", "consume", "observe", "admin"], flows: ["*"] });
}

/** The code of a problem, or undefined. */
export async function codeOf(response: Response): Promise<string | undefined> {
  const text = await response.text();
  return text.startsWith("{") ? (JSON.parse(text) as { code?: string }).code : undefined;
}

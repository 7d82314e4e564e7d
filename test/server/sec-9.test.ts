/** S9 Pages: a web page in an operator's browser reaches the server only from where it may. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseConfig } from "../../src/config/index.ts";
import { isHostAllowed, isOriginAllowed } from "../../src/server/guard.ts";
import type { Server } from "../../src/server/index.ts";
import { exchange, requestText } from "../support/raw-http.ts";
import type { RawAnswer } from "../support/raw-http.ts";
import { openServer } from "../support/server.ts";

const path = "/v1/flows/orders/messages";

async function post(server: Server, headers: Readonly<Record<string, string>>): Promise<RawAnswer> {
  const [answer] = await exchange(server.url, requestText(`POST ${path}`, headers, "x"));
  return answer!;
}

test("S9 attack: a name that was made to point at loopback is refused, on every route and on none", async () => {
  const server = await openServer({
    flows: { orders: {} },
    listen: { hosts: ["queue.example.test"] },
  });
  const port = new URL(server.url).port;
  const statusOf = async (host: string): Promise<number> => (await post(server, { host })).status;
  for (const host of [
    "localhost",
    `127.0.0.1:${port}`,
    "LOCALHOST:80",
    "[::1]",
    "queue.example.test",
  ]) {
    expect({ host, status: await statusOf(host) }).toEqual({ host, status: 202 });
  }
  for (const host of [
    "rebound.example.test",
    `rebound.example.test:${port}`,
    "localhost.example.test",
    "127.0.0.1.example.test",
    "queue.example.test.",
    "a@localhost",
    "localhost#",
    "localhost, localhost",
    "",
  ]) {
    expect({ host, status: await statusOf(host) }).toEqual({ host, status: 403 });
  }
  const [nowhere] = await exchange(server.url, requestText("GET /nowhere", { host: "a.test" }));
  expect(nowhere!.status).toBe(403);
});

test("S9 attack: two host fields, or two tokens, are refused: a proxy may have read the other one", async () => {
  const server = await openServer({ flows: { orders: {} } });
  for (const [name, value] of [
    ["host", "localhost"],
    ["authorization", "Bearer a\r\nAuthorization: Bearer b"],
  ] as const) {
    const head = requestText(`POST ${path}`, { Host: "localhost", [name]: value }, "x");
    const [answer] = await exchange(server.url, head);
    expect(answer).toMatchObject({ status: 400 });
  }
});

test("S9 attack: a page of another origin can send nothing, by no method, with or without asking first", async () => {
  const listen = { origins: ["https://shop.example"] };
  const server = await openServer({ flows: { orders: {} }, listen });
  for (const origin of [
    "https://evil.example",
    "null",
    "http://shop.example",
    "https://shop.example:8443",
    "https://shop.example.evil.example",
    "https://evil.example/https://shop.example",
    "file://",
    "",
  ]) {
    const answer = await post(server, { origin, "content-type": "text/plain" });
    expect({ origin, status: answer.status }).toEqual({ origin, status: 403 });
    expect(answer.headers.get("access-control-allow-origin")).toBeUndefined();
    const asks = { origin, "access-control-request-method": "POST" };
    const [preflight] = await exchange(server.url, requestText(`OPTIONS ${path}`, asks));
    expect(preflight!.status).toBe(403);
    expect(preflight!.headers.get("access-control-allow-origin")).toBeUndefined();
  }
  const { counters } = server.spillway.flow("orders").state();
  expect(counters.accepted).toBe(0);
});

test("S9 a page of an allowed origin may ask and send, and never with cookies", async () => {
  const origin = "https://shop.example";
  const server = await openServer({ flows: { orders: {} }, listen: { origins: [origin] } });
  const asks = {
    origin,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, spillway-key",
  };
  const [preflight] = await exchange(server.url, requestText(`OPTIONS ${path}`, asks));
  expect(preflight!.status).toBe(204);
  expect(preflight!.headers.get("access-control-allow-origin")).toBe(origin);
  expect(preflight!.headers.get("access-control-allow-headers")).toContain("authorization");
  expect(preflight!.headers.get("access-control-allow-credentials")).toBeUndefined();
  const sent = await post(server, { origin });
  expect(sent.status).toBe(202);
  expect(sent.headers.get("access-control-allow-origin")).toBe(origin);
  expect(sent.headers.get("vary")).toBe("origin");
});

test("S9 a page that came from the server itself may call it", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const { host } = new URL(server.url);
  expect((await post(server, { host, origin: server.url })).status).toBe(202);
  expect((await post(server, { host, origin: `https://${host}` })).status).toBe(403);
  expect((await post(server, { host, origin: "http://127.0.0.1:1" })).status).toBe(403);
});

test("S9 any text as a host or an origin is judged, and only what is listed is good", () => {
  const listen = { hosts: ["queue.example.test"], origins: ["https://shop.example"] };
  const config = parseConfig({ flows: {}, listen });
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(isHostAllowed(`${text}.example`, config)).toBe(false);
      expect(isOriginAllowed(`https://${text}.evil`, config, "localhost")).toBe(false);
    }),
  );
  expect(isOriginAllowed(undefined, config)).toBe(true);
  expect(isOriginAllowed("http://localhost", config)).toBe(false); // No host was given to compare.
});

/** What a request that cannot be answered meets: always a problem, with a code, and no crash (G12). */
import { once } from "node:events";
import { connect } from "node:net";
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import type { Server } from "../../src/server/index.ts";
import { call, send } from "../support/http.ts";
import { openServer } from "../support/server.ts";

/** All that the server says to these bytes, until it closes or `ends` holds. */
async function say(
  server: Server,
  text: string,
  ends: (answer: string) => boolean = () => false,
): Promise<string> {
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  onTestFinished(() => void socket.destroy());
  socket.on("error", () => undefined);
  let answer = "";
  const ended = new Promise<void>((resolve) => {
    socket.on("data", (chunk: Buffer) => {
      answer += chunk.toString();
      if (ends(answer)) resolve();
    });
  });
  socket.write(text);
  await Promise.race([ended, once(socket, "close")]);
  return answer;
}

test.each([
  ["PUT", "/v1/flows/orders/messages", "POST"],
  ["GET", "/v1/flows/orders/messages:batch", "POST"],
  ["GET", "/v1/flows/orders:pause", "POST"],
  ["DELETE", "/v1/flows/orders", "GET, HEAD"],
  ["GET", "/v1/deliveries/orders.0.1.1:ack", "POST"],
  ["POST", "/healthz", "GET, HEAD"],
])("%s %s answers 405 with Allow: %s", async (method, path, allow) => {
  const server = await openServer({ flows: { orders: {} } });
  const { status, headers, json } = await call(server, path, { method });
  expect(status).toBe(405);
  expect(headers.get("allow")).toBe(allow);
  expect(json).toMatchObject({ code: "method_not_allowed" });
});

test.each([
  "/",
  "/v1",
  "/v1/flows/",
  "/v1/flows/orders:fly",
  "/v1/deliveries/orders.0.1.1",
  "/%zz",
])("%s answers with a problem", async (path) => {
  const server = await openServer({ flows: { orders: {} } });
  const { status, headers, json } = await call(server, path, { method: "POST" });
  expect([400, 404]).toContain(status);
  expect(headers.get("content-type")).toContain("application/problem+json");
  expect(json).toMatchObject({ status, retry: "never" });
});

test.each([
  ["too large", `{"reason":"${"x".repeat(70_000)}"}`, 413, "message_too_large"],
  ["too deep", `{"reason":${"[".repeat(33)}${"]".repeat(33)}}`, 400, "request_invalid"],
  ["of too many keys", `{${Array.from({ length: 1001 }, (_, at) => `"k${at}":0`).join()}}`, 400],
  ["no JSON", "{", 400, "request_invalid"],
  ["no object", "[]", 400, "request_invalid"],
  ["a misspelt field", '{"reasn":"x"}', 400, "request_invalid"],
])("S10 a body that is %s is refused", async (_case, body, status, code = "request_invalid") => {
  const server = await openServer({ flows: { orders: {} } });
  const answer = await call(server, "/v1/flows/orders:pause", {
    body,
    headers: { "content-type": "application/json" },
  });
  expect([answer.status, answer.json["code"]]).toEqual([status, code]);
  expect(server.spillway.flow("orders").state().isPaused).toBe(false);
});

test("S10 keys such as __proto__ and constructor change nothing", async () => {
  const server = await openServer({ flows: { orders: {} } });
  for (const body of [
    '{"__proto__":{"reason":"x"}}',
    '{"constructor":{"prototype":{"polluted":1}}}',
    '{"window":{"__proto__":{"polluted":1}}}',
  ]) {
    await call(server, "/v1/flows/orders/policy", {
      method: "PATCH",
      body,
      headers: { "content-type": "application/json" },
    });
  }
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  expect((await call(server, "/v1/flows/orders")).status).toBe(200);
});

test("a body of another type than JSON is refused with 415", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const { status, json } = await call(server, "/v1/flows/orders:pause", {
    body: "x",
    headers: { "content-type": "text/plain" },
  });
  expect([status, json["code"]]).toEqual([415, "media_type_unsupported"]);
});

test.each([
  ["is no HTTP", "hello\r\n\r\n", 400, "request_invalid"],
  ["has huge header fields", `GET / HTTP/1.1\r\na: ${"x".repeat(20_000)}\r\n\r\n`, 431],
  ["has two lengths", "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400],
])("a request that %s ends with a problem", async (_case, text, status, code = "") => {
  const server = await openServer({ flows: {} });
  const answer = await say(server, text);
  expect(answer).toContain(`HTTP/1.1 ${status} `);
  expect(answer).toContain("application/problem+json");
  expect(answer).toContain(code);
});

test("a request that comes too slowly is cut off with 408", async () => {
  const server = await openServer({ flows: {}, limits: { headersTimeout: "50ms" } });
  const answer = await say(server, "GET / HTTP/1.1\r\nhost: x\r\n");
  expect(answer).toContain("HTTP/1.1 408 ");
  expect(answer).toContain("request_too_slow");
});

test("G12 whatever header fields and bodies come, each is answered, and the server goes on", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const token = fc.stringMatching(/^[\x20-\x7e]{0,40}$/);
  await fc.assert(
    fc.asyncProperty(
      fc.dictionary(
        fc.constantFrom(
          "content-type",
          "spillway-key",
          "spillway-class",
          "spillway-cost",
          "spillway-delay",
          "spillway-deadline",
          "idempotency-key",
          "traceparent",
          "tracestate",
          "prefer",
          "ce-id",
          "ce-source",
          "ce-specversion",
        ),
        token,
      ),
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom(
        "/v1/flows/orders/messages",
        "/v1/flows/orders/messages:batch",
        "/v1/flows/orders/deliveries",
        "/v1/flows/orders/dead-letters:purge",
        "/v1/deliveries/orders.0.1.1:nack",
      ),
      async (headers, body, path) => {
        const { prefer: _, ...others } = headers; // It would wait.
        const { status } = await call(server, path, { method: "POST", body, headers: others });
        expect(status).toBeLessThan(500);
      },
    ),
    { numRuns: 300 },
  );
  expect((await send(server, "orders", "x")).status).toBe(202);
});

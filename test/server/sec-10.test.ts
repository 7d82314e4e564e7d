/** S10 Hostile input: what is refused, and what is answered where something breaks. */
import { expect, test } from "vitest";
import { exchange, requestText } from "../support/raw-http.ts";
import { openServer } from "../support/server.ts";

const path = "/v1/flows/orders/messages";
const json = { "content-type": "application/json" };

test("S10 attack: compressed bodies are refused, whatever they are called", async () => {
  const server = await openServer({ flows: { orders: {} } });
  for (const encoding of [
    "gzip",
    "br",
    "deflate",
    "zstd",
    "x-gzip",
    "identity, gzip",
    "GZIP",
    "",
  ]) {
    const text = requestText(`POST ${path}`, { "content-encoding": encoding }, "x");
    const [answer] = await exchange(server.url, text);
    expect({ encoding, status: answer!.status }).toEqual({ encoding, status: 415 });
  }
  const plain = requestText(`POST ${path}`, { "content-encoding": "identity" }, "x");
  expect((await exchange(server.url, plain))[0]!.status).toBe(202);
});

test("S10 attack: names of the language in a body change nothing, and are refused where they could", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const before = Object.getOwnPropertyNames(Object.prototype);
  for (const body of [
    '{"__proto__":{"verbs":["admin"],"flows":["*"]}}',
    '{"verbs":["admin"],"flows":["*"],"__proto__":{"x":1}}',
    '{"verbs":["admin"],"flows":["*"],"constructor":{"prototype":{"x":1}}}',
    '{"verbs":["admin"],"flows":["*"],"quota":{"__proto__":{"connections":1}}}',
  ]) {
    const [answer] = await exchange(server.url, requestText("POST /v1/tokens", json, body));
    expect({ body, status: answer!.status }).toEqual({ body, status: 400 });
  }
  expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
  expect(({} as { x?: unknown }).x).toBeUndefined();
  for (const flow of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
    const text = requestText(`POST /v1/flows/${flow}/messages`, {}, "x");
    expect((await exchange(server.url, text))[0]!.status).toBe(404);
  }
});

test("S10 attack: no answer can be split by what a request says", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const split = "a%0d%0aset-cookie:%20stolen=1%0d%0a%0d%0a<script>";
  for (const request of [
    requestText(`GET /${split}`),
    requestText(`POST /v1/flows/${split}/messages`, {}, "x"),
    requestText(`DELETE /v1/tokens/${split}`),
    requestText(`GET /v1/audit?before=${split}`),
    requestText(`POST ${path}`, { origin: "http://localhost%0d%0aset-cookie:a=1" }, "x"),
    requestText(`POST ${path}`, { "spillway-request-id": "a%0d%0ab" }, "x"),
  ]) {
    const answers = await exchange(server.url, request);
    expect(answers).toHaveLength(1);
    expect([...answers[0]!.headers.keys()]).not.toContain("set-cookie");
    expect(answers[0]!.headers.get("x-content-type-options")).toBe("nosniff");
  }
});

test("S10 what breaks inside is told as invariant_broken and nothing more, with an id to find it in the log", async () => {
  const lines: string[] = [];
  const server = await openServer(
    { flows: { orders: {} }, log: "info" },
    { writeLog: (line) => lines.push(line) },
  );
  const secret = "marker-of-what-broke";
  const flow = server.spillway.flow<Uint8Array>("orders");
  flow.trySend = () => Promise.reject(new TypeError(`cannot read ${secret} at /some/folder`));
  const [answer] = await exchange(server.url, requestText(`POST ${path}`, {}, "x"));
  expect(answer!.status).toBe(500);
  expect(answer!.body).not.toContain(secret);
  expect(answer!.body).not.toContain("/");
  expect(JSON.parse(answer!.body)).toMatchObject({ code: "invariant_broken" });
  const id = answer!.headers.get("spillway-request-id");
  const line = lines.map((each) => JSON.parse(each)).find(({ requestId }) => requestId === id);
  expect(line).toMatchObject({ event: "request.failed", code: "invariant_broken", level: "error" });
  expect(JSON.stringify(line)).not.toContain(secret);
  expect(JSON.stringify(line)).toContain("sec-10.test.ts"); // Where it broke, though.
});

test("S10 every answer has an id of its own", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const ids: (string | undefined)[] = [];
  for (const request of [
    requestText(`POST ${path}`, {}, "x"),
    requestText("GET /nowhere"),
    requestText("GET /%zz"),
    requestText("GET /v1/tokens", { host: "a.test" }),
    "no http\r\n\r\n",
  ]) {
    const [answer] = await exchange(server.url, request);
    ids.push(answer!.headers.get("spillway-request-id"));
  }
  expect(new Set(ids).size).toBe(5);
  expect(ids).not.toContain(undefined);
});

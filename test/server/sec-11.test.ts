/** S11 Secrets and payloads are never logged: markers go through every path that fails, and none is seen. */
import { expect, test } from "vitest";
import { SpillwayError } from "../../src/base/index.ts";
import { Log } from "../../src/server/log.ts";
import { makeAdmin, makeToken } from "../support/callers.ts";
import { exchange, openSocket, readAll, requestText } from "../support/raw-http.ts";
import { openServer } from "../support/server.ts";

const path = "/v1/flows/orders/messages";
const secret = "secretMarker7f3a";
const payload = "payloadMarker91cc";

test("S11 attack: bad JSON, wrong tokens, sizes, names, queries and crashes put neither secret nor payload into the log", async () => {
  const lines: string[] = [];
  const server = await openServer(
    { flows: { orders: { messageBytesMax: "1 KiB" } }, log: "info" },
    { writeLog: (line) => lines.push(line) },
  );
  const admin = await makeAdmin(server);
  const scoped = await makeToken(server, { verbs: ["produce"], flows: ["x"], name: "n" }, admin);
  const bearer = { authorization: `Bearer ${admin.token}` };
  const json = { ...bearer, "content-type": "application/json" };
  const wrong = { authorization: `Bearer spw_${secret}` };
  const requests = [
    requestText(`POST ${path}`, wrong, payload),
    requestText(`POST ${path}?token=${secret}`, { authorization: `Basic ${secret}` }, payload),
    requestText(`POST ${path}`, { authorization: `Bearer ${scoped.token}` }, payload),
    requestText("POST /v1/tokens", json, `{"verbs": ${payload}`),
    requestText("POST /v1/tokens", json, `{"verbs":["${payload}"],"flows":["${payload}"]}`),
    requestText("POST /v1/tokens", json, `{"verbs":["admin"],"flows":["${payload} x"]}`),
    requestText("POST /v1/tokens", { ...json, "content-type": payload }, payload),
    requestText(`POST ${path}`, { ...bearer, "content-encoding": payload }, payload),
    requestText(`POST ${path}`, bearer, payload.repeat(100)),
    requestText(`POST ${path}`, { ...bearer, host: `${secret}.test` }, payload),
    requestText(`POST ${path}`, { ...bearer, origin: `https://${secret}.test` }, payload),
    requestText(`POST /v1/flows/${payload}/messages`, bearer, payload),
    requestText(`GET /${secret}?${payload}`, bearer),
    requestText(`GET /v1/audit?before=${secret}`, bearer),
    requestText(`DELETE /v1/tokens/${secret}`, bearer),
    requestText(`POST ${path}`, { ...bearer, "idempotency-key": secret }, payload),
    requestText(`POST ${path}`, { ...bearer, "idempotency-key": secret }, `${payload}2`),
    `${payload} ${secret}\r\n\r\n`,
  ];
  for (const request of requests) await exchange(server.url, request);
  // A client that goes away in the middle, and handlers that break in every way.
  const socket = await openSocket(server.url);
  const read = readAll(socket);
  socket.write(`${requestText(`POST ${path}`, { ...bearer, "content-length": "100" })}${payload}`);
  socket.destroy();
  await read;
  const flow = server.spillway.flow<Uint8Array>("orders");
  const broken = [
    new Error(`${payload}\n    at ${secret} (${payload}.ts:1:1)`, { cause: new Error(secret) }),
    new SpillwayError("store_failed", { found: payload }, { cause: new Error(secret) }),
    Object.assign(new Error(payload), { name: secret.repeat(4), code: `${secret} ${payload}` }),
    Object.assign(new Error(""), { stack: `Error: ${payload}` }),
    payload,
    { payload, secret },
    null,
  ];
  for (const error of broken) {
    // oxlint-disable-next-line prefer-promise-reject-errors
    flow.trySend = () => Promise.reject(error);
    await exchange(server.url, requestText(`POST ${path}`, bearer, payload));
  }
  const written = lines.join("");
  expect(lines.length).toBeGreaterThan(15);
  expect(written).toContain('"code":"unauthenticated"');
  expect(written).toContain('"code":"invariant_broken"');
  expect(written).not.toContain(secret);
  expect(written).not.toContain(payload);
  for (const { token } of [admin, scoped]) expect(written).not.toContain(token.slice(16));
});

test("S11 what is not on the list is left out, and a line is one line", () => {
  const lines: string[] = [];
  const log = new Log("info", (line) => lines.push(line));
  const fields = { code: "a\nb\u001b[2J", body: payload, headers: { authorization: secret } };
  log.warn("request.refused", fields);
  log
    .forFastify()
    .warn({ req: { url: secret }, err: new Error(payload) }, `something about ${secret}`);
  log.forFastify().error(new Error(payload));
  log.forFastify().child({ token: secret }).error(`${payload} %s`, secret);
  expect(lines).toHaveLength(4);
  for (const line of lines) {
    expect(line.indexOf("\n")).toBe(line.length - 1);
    expect(line).not.toContain("\u001b");
    expect(line).not.toContain(secret);
    expect(line).not.toContain(payload);
  }
  expect(JSON.parse(lines[1]!)).toMatchObject({ event: "other", level: "warn" });
});

test("S11 a flood of events is cut, and what is missing is counted", () => {
  const lines: string[] = [];
  const log = new Log("info", (line) => lines.push(line));
  for (let count = 0; count < 10_000; count += 1) log.warn("request.refused");
  // The second may have turned within the loop.
  expect(lines.length).toBeLessThanOrEqual(1000);
  expect(lines.length).toBeGreaterThanOrEqual(100);
});

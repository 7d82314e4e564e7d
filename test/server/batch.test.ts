/** Many messages in one request, against a real server on a real store. */
import { request as open } from "node:http";
import { once } from "node:events";
import { expect, onTestFinished, test } from "vitest";
import { call, linesOf, pull, send, sendBatch, until } from "../support/http.ts";
import type { Pulled } from "../support/http.ts";
import { openServer } from "../support/server.ts";

const ndjson = { "content-type": "application/x-ndjson" };
const full = (messages: number) => ({
  partitions: 1,
  buffer: { messages },
  classes: { critical: 1, normal: 1, bulk: 1 },
});

test("G1 every line is answered in order, and payloads are kept byte for byte", async () => {
  const server = await openServer({ flows: { orders: { partitions: 1 } } });
  const results = await sendBatch(server, "orders", [
    '{"payload": {"total": 1.0, "a":[ ]} ,"key":"k","group":"g","class":"critical"}',
    '{"text":"grüße","deadline":"1h"}\r',
    '{"base64":"AP+A","headers":{"Content-Type":"image/png","x-one":"1"}}',
    "",
    '{"payload":null,"idempotencyKey":"i","cost":2,"delay":1}',
  ]);
  expect(results).toMatchObject(
    [1, 2, 3, 4].map((line) => ({ line, accepted: true, duplicate: false })),
  );
  const pulled: Pulled[] = [];
  while (pulled.length < 4) pulled.push(...(await pull(server, "orders")));
  const byId = results.map(({ id }) => pulled.find(({ messageId }) => messageId === id));
  expect(byId).toMatchObject([
    {
      payload: '{"total": 1.0, "a":[ ]}',
      key: "k",
      group: "g",
      class: "critical",
      headers: { "content-type": "application/json" },
    },
    { payload: "grüße", headers: { "content-type": "text/plain; charset=utf-8" } },
    { payload: "AP+A", encoding: "base64", headers: { "content-type": "image/png", "x-one": "1" } },
    { payload: "null" },
  ]);
});

test("G5 a repeated batch is answered with the ids of the first", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const lines = Array.from({ length: 1200 }, (_, at) => ({
    payload: at,
    idempotencyKey: `k${at}`,
  }));
  const first = await sendBatch(server, "orders", lines);
  const second = await sendBatch(server, "orders", lines);
  expect(first).toHaveLength(1200);
  expect(second).toEqual(first.map((result) => ({ ...result, duplicate: true })));
});

test.each([
  ["no JSON", "{", "JSON"],
  ["a list", "[]", "an object"],
  ["an unknown field", '{"payload":1,"prio":1}', "one of payload"],
  ["no payload", '{"key":"a"}', "one of payload, text and base64"],
  ["two payloads", '{"payload":1,"text":"a"}', "one of payload, text and base64"],
  ["base64 that is none", '{"base64":"a!b"}', "base64"],
  ["a class that is none", '{"payload":1,"class":"vip"}', "critical, normal, bulk"],
  ["a header that is none", '{"payload":1,"headers":{"a b":"c"}}', "names of header fields"],
  ["more depth than 32", `{"payload":${"[".repeat(32)}${"]".repeat(32)}}`, "32"],
  ["more keys than 1,000", `{"payload":1,"headers":{${keys(1001)}}}`, "1000"],
])(
  "S10 a line with %s is refused alone, and says what is allowed",
  async (_case, line, allowed) => {
    const server = await openServer({ flows: { orders: { partitions: 1 } } });
    const results = await sendBatch(server, "orders", ['{"payload":1}', line, '{"payload":3}']);
    expect(results).toMatchObject([
      { line: 1, accepted: true },
      { line: 2, accepted: false, code: "request_invalid" },
      { line: 3, accepted: true },
    ]);
    expect(JSON.stringify(results[1])).toContain(allowed);
  },
);

function keys(count: number): string {
  return Array.from({ length: count }, (_, at) => `"k${at}":""`).join();
}

test("S10 a payload may have any number of keys, and __proto__ is a name like others", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const payload = `{${keys(2000)},"__proto__":{"polluted":1}}`;
  const line = `{"payload":${payload},"headers":{"__proto__":"x"}}`;
  expect(await sendBatch(server, "orders", [line])).toMatchObject([{ accepted: true }]);
  const [delivery] = await pull(server, "orders");
  expect(delivery!.payload).toBe(payload);
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  expect(Object.keys(delivery!.headers)).toContain("__proto__");
});

test("a line that is too long is refused alone", async () => {
  const server = await openServer({ flows: { orders: { messageBytesMax: "1 KiB" } } });
  const results = await sendBatch(server, "orders", [
    { text: "x".repeat(1500) },
    { text: "x".repeat(80_000) },
    { text: "y" },
  ]);
  expect(results).toMatchObject([
    { line: 1, accepted: false, code: "message_too_large" },
    { line: 2, accepted: false, code: "message_too_large" },
    { line: 3, accepted: true },
  ]);
});

test("G12 without credit the rest is refused at once, in order, and says when to come back", async () => {
  const server = await openServer({ flows: { orders: full(3) } });
  const results = await sendBatch(
    server,
    "orders",
    Array.from({ length: 8000 }, (_, at) => ({ payload: at, key: "k" })),
  );
  expect(results.slice(0, 3)).toMatchObject(Array.from({ length: 3 }, () => ({ accepted: true })));
  const refused = results.slice(3);
  expect(refused.every(({ accepted }) => accepted === false)).toBe(true);
  expect(refused.every(({ retryAfterMs }) => Number(retryAfterMs) > 0)).toBe(true);
  expect(results.map(({ line }) => line)).toEqual(results.map((_, at) => at + 1));
  expect(results.at(-1)).toMatchObject({ rest: true });
  expect(server.spillway.flow("orders").state().depth).toBe(3);
});

test("B2 G4 while room comes and goes, what is taken of one key is the beginning of the batch", async () => {
  const server = await openServer({ flows: { orders: full(20) } });
  const flow = server.spillway.flow("orders");
  flow.consume(() => new Promise((resolve) => setTimeout(resolve, 5)));
  let refusals = 0;
  for (let round = 0; round < 5; round++) {
    const results = await sendBatch(
      server,
      "orders",
      Array.from({ length: 1500 }, (_, at) => ({ payload: at, key: "k" })),
    );
    const first = results.findIndex(({ accepted }) => accepted === false);
    if (first !== -1) refusals++;
    expect(results.slice(first).some(({ accepted }) => accepted === true)).toBe(first === -1);
  }
  expect(refusals).toBeGreaterThan(0);
});

test("Prefer: wait lets a batch wait for credit, line by line", async () => {
  const server = await openServer({ flows: { orders: full(3) } });
  const sending = sendBatch(
    server,
    "orders",
    Array.from({ length: 10 }, (_, at) => ({ payload: at })),
    { prefer: "wait=20" },
  );
  let acked = 0;
  while (acked < 10) {
    for (const { id } of await pull(server, "orders")) {
      await call(server, `/v1/deliveries/${id}:ack`, { method: "POST" });
      acked++;
    }
  }
  const results = await sending;
  expect(results).toMatchObject(Array.from({ length: 10 }, () => ({ accepted: true })));
});

test("an intake that is closed is what the batch says", async () => {
  const server = await openServer({ flows: { orders: {} } });
  await server.spillway.flow("orders").closeIntake();
  const results = await sendBatch(server, "orders", [{ payload: 1 }, { payload: 2 }]);
  expect(results[0]).toMatchObject({ line: 1, accepted: false, code: "intake_closed" });
});

test("lines are answered while the body is still coming", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const { port } = new URL(server.url);
  const sending = open({
    port: Number(port),
    method: "POST",
    path: "/v1/flows/orders/messages:batch",
    headers: ndjson,
  });
  onTestFinished(() => void sending.destroy());
  sending.write('{"payload":1}\n{"payload":2}\n{"pay');
  const [response] = (await once(sending, "response")) as [NodeJS.ReadableStream];
  let text = "";
  response.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await until(() => linesOf(text).length === 2);
  expect(linesOf(text)).toMatchObject([
    { line: 1, accepted: true },
    { line: 2, accepted: true },
  ]);
  sending.end('load":3}');
  await once(response, "end");
  expect(linesOf(text)).toMatchObject([{ line: 1 }, { line: 2 }, { line: 3, accepted: true }]);
});

test("B1 a request that breaks off sends nothing more; what was answered is stored", async () => {
  const server = await openServer({ flows: { orders: full(2) } });
  const flow = server.spillway.flow("orders");
  const { port } = new URL(server.url);
  const sending = open({
    port: Number(port),
    method: "POST",
    path: "/v1/flows/orders/messages:batch",
    headers: { ...ndjson, prefer: "wait=20" },
  });
  sending.on("error", () => undefined);
  sending.write('{"payload":1}\n{"payload":2}\n{"payload":3}\n');
  await until(() => flow.credits().waiting === 1);
  sending.destroy();
  await until(() => flow.credits().waiting === 0);
  expect(flow.state().depth).toBe(2);
});

test("a batch over the limit of bytes: 413 if it says so, else the lines within are taken", async () => {
  const server = await openServer({ flows: { orders: {} }, limits: { batchBytes: "64 KiB" } });
  const line = `{"text":"${"x".repeat(1000)}"}\n`;
  const path = "/v1/flows/orders/messages:batch";
  const declared = await call(server, path, { body: line.repeat(100), headers: ndjson });
  expect(declared.status).toBe(413);
  expect(declared.json).toMatchObject({ code: "message_too_large" });
  let left = 100;
  const body = new ReadableStream({
    pull(controller) {
      if (left-- > 0) controller.enqueue(Buffer.from(line));
      else controller.close();
    },
  });
  const { status, text } = await call(server, path, { method: "POST", body, headers: ndjson });
  expect(status).toBe(200);
  const results = linesOf(text);
  const taken = results.filter(({ accepted }) => accepted === true).length;
  expect(taken).toBeGreaterThan(0);
  expect(taken).toBeLessThan(66);
  expect(results.at(-1)).toMatchObject({ line: taken + 1, rest: true, code: "message_too_large" });
  expect(server.spillway.flow("orders").state().depth).toBe(taken);
});

test("a batch over the limit of messages: the first ones are taken, the rest is refused", async () => {
  const server = await openServer({ flows: { orders: {} }, limits: { batchMessages: 2 } });
  const results = await sendBatch(
    server,
    "orders",
    [1, 2, 3, 4].map((payload) => ({ payload })),
  );
  expect(results).toMatchObject([
    { line: 1, accepted: true },
    { line: 2, accepted: true },
    { line: 3, accepted: false, rest: true, code: "message_too_large" },
  ]);
});

test("another content type is refused with 415 and the one that is taken", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const { status, json } = await call(server, "/v1/flows/orders/messages:batch", { body: [] });
  expect(status).toBe(415);
  expect(json["detail"]).toContain("application/x-ndjson");
});

test("two batches and single sends beside them do not mix up their answers", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const batch = (name: string) =>
    sendBatch(
      server,
      "orders",
      Array.from({ length: 600 }, (_, at) => ({ payload: at, idempotencyKey: `${name}${at}` })),
    );
  const [a, b, single] = await Promise.all([batch("a"), batch("b"), send(server, "orders", "x")]);
  const ids = [...a, ...b].map(({ id }) => id);
  expect(new Set([...ids, single.json["id"]]).size).toBe(1201);
});

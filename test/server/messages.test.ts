/** Sending over HTTP, against a real server on a real store. */
import { connect } from "node:net";
import { once } from "node:events";
import { expect, onTestFinished, test } from "vitest";
import type { Server } from "../../src/server/index.ts";
import { call, pull, send, until } from "../support/http.ts";
import { openServer } from "../support/server.ts";
import { SmallDisk } from "../support/small-disk.ts";

/** A flow that is full after so many messages, of any class. */
const full = (messages: number) => ({
  partitions: 1,
  buffer: { messages },
  classes: { critical: 1, normal: 1, bulk: 1 },
});

test("G1 a message is answered with 202 and its receipt, and is stored", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const answer = await send(server, "orders", "hello");
  expect(answer.status).toBe(202);
  expect(answer.json).toMatchObject({ duplicate: false, durability: "fsync" });
  const [delivery] = await pull(server, "orders");
  expect(delivery).toMatchObject({
    messageId: answer.json["id"],
    payload: "hello",
    headers: { "content-type": "text/plain" },
  });
  const seen = await call(server, answer.headers.get("location")!);
  expect(seen.json).toMatchObject({ id: answer.json["id"], state: "pending" });
});

test("a body is kept byte for byte, whatever its content type, or none, or empty", async () => {
  const server = await openServer({ flows: { orders: { partitions: 1 } } });
  const bytes = Uint8Array.of(0, 255, 128, 10);
  await send(server, "orders", bytes, { "content-type": "image/png" });
  await send(server, "orders", '{"a": 1 }', { "content-type": "application/json" });
  await send(server, "orders", "not json", { "content-type": "application/json" });
  await call(server, "/v1/flows/orders/messages", { method: "POST" });
  const deliveries: unknown[] = [];
  while (deliveries.length < 4) deliveries.push(...(await pull(server, "orders")));
  expect(deliveries).toMatchObject([
    { encoding: "base64", payload: Buffer.from(bytes).toString("base64") },
    { encoding: "utf-8", payload: '{"a": 1 }' },
    { payload: "not json" },
    { payload: "", headers: {} },
  ]);
});

test("header fields say key, group, class, deadline, delay, cost and trace of a message", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const { status } = await send(server, "orders", "x", {
    "spillway-key": Buffer.from("kunde-ü").toString("latin1"),
    "spillway-group": "tenant-1",
    "spillway-class": "critical",
    "spillway-deadline": "1h",
    "spillway-cost": "2.5",
    "spillway-delay": "1ms",
    traceparent,
    tracestate: "a=1",
  });
  expect(status).toBe(202);
  const [delivery] = await pull(server, "orders");
  expect(delivery).toMatchObject({
    key: "kunde-ü",
    group: "tenant-1",
    class: "critical",
    headers: { "content-type": "text/plain", traceparent, tracestate: "a=1" },
  });
  expect(Date.parse(delivery!.deadline!) - Date.now()).toBeGreaterThan(3_500_000);
});

test("a traceparent that is none is left out, as W3C asks, and the message is taken", async () => {
  const server = await openServer({ flows: { orders: {} } });
  await send(server, "orders", "x", { traceparent: "00-zz-1-1", tracestate: "a=1" });
  const [delivery] = await pull(server, "orders");
  expect(delivery!.headers).toEqual({ "content-type": "text/plain" });
});

test.each([
  ["spillway-class", "urgent", "request_invalid"],
  ["spillway-cost", "-1", "request_invalid"],
  ["spillway-delay", "soon", "request_invalid"],
  ["spillway-deadline", "2026-13-01T00:00Z", "request_invalid"],
  ["spillway-deadline", "2001-01-01T00:00:00Z", "deadline_passed"],
  ["spillway-key", "", "option_invalid"],
  ["idempotency-key", "k".repeat(2000), "option_invalid"],
])("G12 %s: %j is refused with what is allowed", async (name, value, code) => {
  const server = await openServer({ flows: { orders: {} } });
  const { status, json } = await send(server, "orders", "x", { [name]: value });
  expect(json).toMatchObject({ code, details: {} });
  expect(status).toBe(code === "deadline_passed" ? 422 : 400);
});

test("G5 a repeat under its key answers 200 with the first receipt, other content 422", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const first = await send(server, "orders", "one", { "idempotency-key": "k-1" });
  const repeat = await send(server, "orders", "one", { "idempotency-key": '"k-1"' });
  expect(repeat.status).toBe(200);
  expect(repeat.json).toMatchObject({ id: first.json["id"], duplicate: true });
  const other = await send(server, "orders", "two", { "idempotency-key": "k-1" });
  expect(other.status).toBe(422);
  expect(other.json).toMatchObject({ code: "idempotency_conflict" });
});

test("G12 a full buffer answers 429 at once, with Retry-After and what is left", async () => {
  const server = await openServer({ flows: { orders: full(2) } });
  for (const body of ["a", "b"]) expect((await send(server, "orders", body)).status).toBe(202);
  const { status, headers, json } = await send(server, "orders", "c");
  expect(status).toBe(429);
  expect(["buffer_full", "no_credit"]).toContain(json["code"]);
  expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
  expect(headers.get("ratelimit-policy")).toBe('"buffer";q=2');
  expect(headers.get("ratelimit")).toMatch(/^"buffer";r=0;t=\d+$/);
});

test("G12 a full disk answers 507, and settles still go through", async ({ skip }) => {
  const disk = SmallDisk.mount(256);
  if (typeof disk === "string") return skip(disk);
  onTestFinished(() => disk[Symbol.dispose]());
  const server = await openServer({
    engine: { kind: "sqlite", dir: disk.dir },
    flows: { orders: { partitions: 1 } },
  });
  expect((await send(server, "orders", "x")).status).toBe(202);
  const [delivery] = await pull(server, "orders");
  disk.fill();
  let answer = await send(server, "orders", "x");
  while (answer.status === 202) answer = await send(server, "orders", "y".repeat(200_000));
  expect(answer.json).toMatchObject({ code: "store_full", status: 507, retry: "later" });
  expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
  expect((await call(server, "/readyz")).json).toMatchObject({ reasons: ["the store is full"] });
  const settled = await call(server, `/v1/deliveries/${delivery!.id}:ack`, { method: "POST" });
  expect(settled.status).toBe(204);
  disk.makeRoom();
  await until(async () => (await send(server, "orders", "x")).status === 202);
});

test("what is drained says how much the flow can take in the long run", async () => {
  const server = await openServer({ flows: { orders: { expectedRate: 120 } } });
  const { headers } = await send(server, "orders", "x");
  expect(headers.get("ratelimit-policy")).toBe('"buffer";q=800000, "drain";q=1200;w=10');
  expect(headers.get("ratelimit")).toMatch(/^"buffer";r=\d+, "drain";r=\d+;t=10$/);
});

test("what was taken says how much room is left", async () => {
  const server = await openServer({
    flows: { orders: { ...full(10), boundary: { rate: { perSecond: 50, burst: 5 } } } },
  });
  const { headers } = await send(server, "orders", "a");
  expect(headers.get("ratelimit-policy")).toBe('"buffer";q=10, "boundary";q=500;w=10');
  expect(headers.get("ratelimit")).toMatch(/^"buffer";r=(9|10), "boundary";r=(9|10);t=10$/);
});

test("Prefer: wait waits for credit, and then the message is taken", async () => {
  const server = await openServer({ flows: { orders: full(1) } });
  await send(server, "orders", "a");
  const waiting = send(server, "orders", "b", { prefer: "wait=20" });
  await until(() => server.spillway.flow("orders").credits().waiting === 1);
  const [delivery] = await pull(server, "orders");
  await call(server, `/v1/deliveries/${delivery!.id}:ack`, { method: "POST" });
  const { status, headers } = await waiting;
  expect(status).toBe(202);
  expect(headers.get("preference-applied")).toBe("wait=20");
});

test("Prefer: wait ends with the refusal that it waited for", async () => {
  const server = await openServer({
    flows: { orders: full(1) },
    limits: { requestTimeout: "200ms" },
  });
  await send(server, "orders", "a");
  const { status, headers, json } = await send(server, "orders", "b", { prefer: "wait=9" });
  expect(status).toBe(429);
  expect(["buffer_full", "no_credit"]).toContain(json["code"]);
  expect(headers.get("preference-applied")).toBe("wait=0");
});

test("a client that hangs up while it waits sends nothing", async () => {
  const server = await openServer({ flows: { orders: full(1) } });
  const flow = server.spillway.flow("orders");
  await send(server, "orders", "a");
  const gone = new AbortController();
  const waiting = call(server, "/v1/flows/orders/messages", {
    body: "b",
    headers: { prefer: "wait=20" },
    signal: gone.signal,
  });
  await until(() => flow.credits().waiting === 1);
  gone.abort();
  await expect(waiting).rejects.toThrow("abort");
  await until(() => flow.credits().waiting === 0);
  expect(flow.state().depth).toBe(1);
});

test("a closing server answers those who wait", async () => {
  const server = await openServer({ flows: { orders: full(1) } });
  await send(server, "orders", "a");
  const waiting = send(server, "orders", "b", { prefer: "wait=20" });
  await until(() => server.spillway.flow("orders").credits().waiting === 1);
  const closed = server.close();
  expect((await waiting).json).toMatchObject({ code: "closed", status: 503 });
  await closed;
});

/** The answer to a request that is written by hand, up to what `ends` tells. */
async function written(server: Server, head: string, more = ""): Promise<string> {
  const { port } = new URL(server.url);
  const socket = connect(Number(port), "127.0.0.1");
  onTestFinished(() => void socket.destroy());
  socket.write(`${head}\r\nhost: localhost\r\n${more}`);
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await Promise.race([until(() => /\r\n\r\n.*\}/s.test(text)), once(socket, "close")]);
  return text;
}

test("S3 a body that declares itself too large is refused before a byte of it is read", async () => {
  const server = await openServer({ flows: { orders: { messageBytesMax: "1 KiB" } } });
  const answer = await written(
    server,
    "POST /v1/flows/orders/messages HTTP/1.1",
    "content-length: 1025\r\n\r\n",
  );
  expect(answer).toMatch(/^HTTP\/1.1 413 /);
  expect(answer).toContain('"code":"message_too_large"');
});

test("S3 a client that asks before it sends is refused without being told to go on", async () => {
  const server = await openServer({ flows: { orders: { messageBytesMax: "1 KiB" } } });
  const head = "POST /v1/flows/orders/messages HTTP/1.1";
  const refused = await written(
    server,
    head,
    "expect: 100-continue\r\ncontent-length: 9999\r\n\r\n",
  );
  expect(refused).toMatch(/^HTTP\/1.1 413 /);
  expect(refused).toMatch(/connection: close/i);
  const taken = await written(server, head, "expect: 100-continue\r\ncontent-length: 2\r\n\r\nhi");
  expect(taken).toMatch(/^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 202 /);
});

test("S3 a body of unknown length is cut off at the limit of its flow, and the answer arrives", async () => {
  const server = await openServer({
    flows: { small: { messageBytesMax: "1 KiB" }, large: { messageBytesMax: "1 MiB" } },
  });
  const body = () =>
    new ReadableStream({
      start(controller) {
        for (let at = 0; at < 20; at++) controller.enqueue(new Uint8Array(1000));
        controller.close();
      },
    });
  expect((await send(server, "small", body())).json).toMatchObject({ code: "message_too_large" });
  expect((await send(server, "large", body())).status).toBe(202);
  // The connection goes on.
  expect((await send(server, "small", "x")).status).toBe(202);
});

test("a compressed body is refused with 415", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const { status, json } = await send(server, "orders", "x", { "content-encoding": "gzip" });
  expect(status).toBe(415);
  expect(json).toMatchObject({ code: "media_type_unsupported", details: { found: "gzip" } });
});

const event = {
  "ce-specversion": "1.0",
  "ce-id": "A-1",
  "ce-source": "/shop",
  "ce-type": "order.placed",
};

test("CloudEvents in binary mode keep their attributes; id and source are the idempotency key", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const headers = { ...event, "ce-partitionkey": "customer%207" };
  const first = await send(server, "orders", "{}", headers);
  const repeat = await send(server, "orders", "{}", headers);
  expect(repeat.json).toMatchObject({ id: first.json["id"], duplicate: true });
  const other = await send(server, "orders", "{}", { ...headers, "ce-source": "/other" });
  expect(other.json).toMatchObject({ duplicate: false });
  const [delivery] = await pull(server, "orders");
  expect(delivery).toMatchObject({ key: "customer 7", headers: event });
});

test("CloudEvents in structured mode are kept as they came, with attributes read from them", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const keys = Array.from({ length: 3000 }, (_, at) => `"k${at}":${at}`).join();
  const body = `{"specversion":"1.0", "data" : {${keys}}, "id":"A-1","source":"/shop","type":"t","partitionkey":"c7"}`;
  const type = { "content-type": "application/cloudevents+json; charset=utf-8" };
  const first = await send(server, "orders", body, type);
  expect(first.status).toBe(202);
  expect((await send(server, "orders", body, type)).status).toBe(200);
  const [delivery] = await pull(server, "orders");
  expect(delivery).toMatchObject({ key: "c7", payload: body });
});

test.each([
  ["an attribute is missing", '{"specversion":"1.0","id":"1","source":"/s"}', 400],
  ["the version is another", '{"specversion":"0.3","id":"1","source":"/s","type":"t"}', 400],
  ["it is no JSON", '{"specversion":"1.0","id":"1","source":"/s","type":"t"', 400],
  ["it is a list", "[]", 400],
  ["it is deeper than 32", `{"data":${"[".repeat(40)}${"]".repeat(40)}}`, 400],
])("a structured event is refused when %s", async (_case, body, status) => {
  const server = await openServer({ flows: { orders: {} } });
  const answer = await send(server, "orders", body, {
    "content-type": "application/cloudevents+json",
  });
  expect(answer.status).toBe(status);
  expect(answer.json).toMatchObject({ code: "request_invalid" });
});

test("a binary event without its type is refused, and a batch of events has a hint", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const { "ce-type": _, ...headers } = event;
  const answer = await send(server, "orders", "{}", headers);
  expect(answer.json).toMatchObject({ code: "request_invalid", details: { path: "ce-type" } });
  const batch = await send(server, "orders", "[]", {
    "content-type": "application/cloudevents-batch+json",
  });
  expect(batch.status).toBe(415);
  expect(batch.json["detail"]).toContain("messages:batch");
});

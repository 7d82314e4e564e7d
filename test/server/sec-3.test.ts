/** S3 Order of work: what is refused costs no reading and no parsing. L5 to L7: sizes, pieces and times. */
import { once } from "node:events";
import { expect, test } from "vitest";
import { connect } from "../../src/client/index.ts";
import type { Server } from "../../src/server/index.ts";
import { callerOf, codeOf, makeAdmin, makeToken } from "../support/callers.ts";
import { answersOf, exchange, openSocket, readAll, requestText } from "../support/raw-http.ts";
import { openServer } from "../support/server.ts";

const path = "/v1/flows/orders/messages";

/** A head that announces a body, of which nothing is sent: an answer shows that none was waited for. */
async function answerToHead(
  server: Server,
  token: string,
  fields: Readonly<Record<string, string>>,
): Promise<number> {
  const socket = await openSocket(server.url);
  socket.write(requestText(`POST ${path}`, { authorization: `Bearer ${token}`, ...fields }));
  const [part] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  return answersOf(part.toString("latin1"))[0]!.status;
}

test("S3 token, quota, encoding and declared length are judged in this order, before any of the body comes", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const admin = await makeAdmin(server);
  const quota = { requests: { perSecond: 0.001, burst: 2 } };
  const poor = await makeToken(server, { verbs: ["produce"], flows: ["*"], quota }, admin);
  const huge = { "content-length": "1000000000" };
  const zipped = { ...huge, "content-encoding": "gzip" };
  expect(await answerToHead(server, "spw_none", zipped)).toBe(401);
  expect(await answerToHead(server, poor.token, zipped)).toBe(415);
  expect(await answerToHead(server, poor.token, huge)).toBe(413);
  expect(await answerToHead(server, poor.token, huge)).toBe(429);
  expect(await answerToHead(server, poor.token, zipped)).toBe(429);
  expect(await answerToHead(server, admin.token, huge)).toBe(413);
});

test("S3 attack: a token beyond its quota is told when to come back, and its body is not parsed; others feel nothing", async () => {
  const server = await openServer({
    flows: { orders: {} },
    quota: { requests: { perSecond: 0.5, burst: 3 } },
  });
  const admin = await makeAdmin(server);
  const quota = { requests: { perSecond: 1e6, burst: 1e6 } };
  const rich = await makeToken(server, { verbs: ["admin"], flows: ["*"], quota }, admin);
  const greedy = await makeToken(server, { verbs: ["admin"], flows: ["*"] }, rich);
  const statuses: number[] = [];
  for (let count = 0; count < 6; count += 1) {
    const init = { body: "{ not json", headers: { "content-type": "application/json" } };
    const response = await greedy.call("POST", "/v1/tokens", init);
    statuses.push(response.status);
    if (response.status !== 429) continue;
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(await codeOf(response)).toBe("quota_exceeded");
  }
  expect(statuses).toEqual([400, 400, 400, 429, 429, 429]);
  expect((await rich.call("GET", "/v1/tokens")).status).toBe(200);
});

test("S3 attack: bytes that come in chunks are paid for, too", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const admin = await makeAdmin(server);
  const quota = { bytes: { perSecond: 1000, burst: 20_000 } };
  const caller = await makeToken(server, { verbs: ["produce"], flows: ["*"], quota }, admin);
  const chunk = "x".repeat(15_000);
  const fields = { authorization: `Bearer ${caller.token}`, "transfer-encoding": "chunked" };
  const request = requestText(`POST ${path}`, fields)
    .replace("content-length: 0\r\n", "")
    .concat(`${chunk.length.toString(16)}\r\n${chunk}\r\n0\r\n\r\n`);
  const statuses: number[] = [];
  for (let count = 0; count < 4; count += 1) {
    const [answer] = await exchange(server.url, request);
    statuses.push(answer!.status);
  }
  expect(statuses.slice(0, 2)).toEqual([202, 202]);
  expect(statuses.at(-1)).toBe(429);
});

test("S3 attack: a WebSocket beyond its quota is read no further until that is earned; nothing is lost, others feel nothing", async () => {
  const server = await openServer({ flows: { orders: { payload: "bytes" } } });
  const admin = await makeAdmin(server);
  const quota = { bytes: { perSecond: 5000, burst: 20_000 } };
  const poor = await makeToken(server, { verbs: ["produce"], flows: ["*"], quota }, admin);
  const rich = await makeToken(server, { verbs: ["produce"], flows: ["*"] }, admin);
  await using poorClient = connect({ url: server.url, token: poor.token });
  await using richClient = connect({ url: server.url, token: rich.token });
  const message = new Uint8Array(8000);
  const orders = poorClient.flow<Uint8Array>("orders");
  for (let count = 0; count < 3; count++) await orders.send(message);
  let isAccepted = false;
  const late = orders.send(message).then(() => (isAccepted = true));
  for (let count = 0; count < 20; count++) await richClient.flow("orders").send(message);
  expect(isAccepted).toBe(false);
  await late;
  expect(server.spillway.flow("orders").state().counters.accepted).toBe(24);
});

test("S3 attack: a token holds no more connections than it may; one that closes makes room", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const admin = await makeAdmin(server);
  const quota = { connections: 2 };
  const caller = await makeToken(server, { verbs: ["produce"], flows: ["*"], quota }, admin);
  const send = async (): Promise<{ status: number; close: () => Promise<void> }> => {
    const socket = await openSocket(server.url);
    const fields = { authorization: `Bearer ${caller.token}` };
    socket.write(requestText(`POST ${path}`, fields, "x"));
    const [part] = (await once(socket, "data")) as [Buffer];
    const close = async (): Promise<void> => {
      socket.end();
      await once(socket, "close");
    };
    return { status: answersOf(part.toString("latin1"))[0]!.status, close };
  };
  const first = await send();
  const second = await send();
  const third = await send();
  expect([first.status, second.status, third.status]).toEqual([202, 202, 429]);
  await first.close();
  expect((await send()).status).toBe(202);
});

test("S3 a body that waits to be asked for (Expect) is asked for only when the request was let in", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const admin = await makeAdmin(server);
  const ask = async (token: string): Promise<string> => {
    const socket = await openSocket(server.url);
    const fields = { authorization: `Bearer ${token}`, expect: "100-continue" };
    socket.write(requestText(`POST ${path}`, { ...fields, "content-length": "1" }));
    const [part] = (await once(socket, "data")) as [Buffer];
    const first = part.toString("latin1");
    if (!first.startsWith("HTTP/1.1 100")) return first.slice(9, 12);
    socket.write("x");
    const [next] = (await once(socket, "data")) as [Buffer];
    return `100 ${answersOf(next.toString("latin1"))[0]!.status}`;
  };
  expect(await ask("spw_none")).toBe("401");
  expect(await ask(admin.token)).toBe("100 202");
});

test("L5 a chunked body is cut at the limit", async () => {
  const server = await openServer({ flows: { orders: { messageBytesMax: "1 KiB" } } });
  const socket = await openSocket(server.url);
  const read = readAll(socket);
  const head = requestText(`POST ${path}`, { "transfer-encoding": "chunked" });
  socket.write(head.replace("content-length: 0\r\n", ""));
  for (let count = 0; count < 100; count += 1) socket.write("100\r\n" + "x".repeat(256) + "\r\n");
  const [answer] = answersOf(await read);
  expect(answer).toMatchObject({ status: 413 });
  expect(JSON.parse(answer!.body)).toMatchObject({ code: "message_too_large" });
});

test("L7 attack: too many header fields, and too long ones, are refused as such", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const many = Array.from({ length: 110 }, (_, at): [string, string] => [`x-${at}`, "1"]);
  for (const fields of [
    Object.fromEntries(many.slice(0, 98)),
    Object.fromEntries(many),
    { "x-long": "x".repeat(20_000) },
  ]) {
    const [answer] = await exchange(server.url, requestText(`POST ${path}`, fields, "x"));
    expect(answer!.status).toBe(431);
    expect(JSON.parse(answer!.body)).toMatchObject({ code: "headers_too_large" });
    expect(answer!.headers.get("content-type")).toContain("application/problem+json");
    expect(answer!.headers.get("spillway-request-id")).toMatch(/^[\w-]+$/);
  }
  const few = Object.fromEntries(many.slice(0, 97));
  const [taken] = await exchange(server.url, requestText(`POST ${path}`, few, "x"));
  expect(taken!.status).toBe(202);
});

const hurried = { headersTimeout: "200ms", requestTimeout: "2s", idleTimeout: "200ms" } as const;

test("L7 attack: 50 connections that send a header byte by byte are cut, and others are served meanwhile", async () => {
  const server = await openServer({ flows: { orders: {} }, limits: hurried });
  const sockets = await Promise.all(Array.from({ length: 50 }, () => openSocket(server.url)));
  const ends = sockets.map((socket) => readAll(socket));
  for (const socket of sockets) socket.write(`POST ${path} HTTP/1.1\r\nhost: localhost\r\nx-a: `);
  const dripping = setInterval(() => {
    for (const socket of sockets) if (socket.writable) socket.write("x");
  }, 20);
  const sent = await fetch(`${server.url}${path}`, { method: "POST", body: "x" });
  expect(sent.status).toBe(202);
  const answers = (await Promise.all(ends)).map((text) => answersOf(text)[0]);
  clearInterval(dripping);
  expect(new Set(answers.map((answer) => answer?.status))).toEqual(new Set([408]));
});

test("L7 attack: a body that comes more slowly than 1 KB/s is cut, long before the time of the request", async () => {
  const limits = { ...hurried, requestTimeout: "1d" } as const;
  const server = await openServer({ flows: { orders: {} }, limits });
  const socket = await openSocket(server.url);
  const read = readAll(socket);
  socket.write(requestText(`POST ${path}`, { "content-length": "100000" }));
  const dripping = setInterval(() => {
    if (socket.writable) socket.write("x");
  }, 20);
  const [answer] = answersOf(await read);
  clearInterval(dripping);
  expect(answer).toMatchObject({ status: 408 });
  expect(JSON.parse(answer!.body)).toMatchObject({ code: "request_too_slow" });
});

test("L7 attack: a body that never ends is cut at the time of the request", async () => {
  const server = await openServer({ flows: { orders: {} }, limits: hurried });
  const socket = await openSocket(server.url);
  const read = readAll(socket);
  socket.write(requestText(`POST ${path}`, { "content-length": "200000" }));
  const pouring = setInterval(() => {
    if (socket.writable) socket.write("x".repeat(200));
  }, 20);
  const text = await read;
  clearInterval(pouring);
  expect(answersOf(text)[0]!.status).toBe(408);
});

test("L7 idle connections are closed, also ones that never sent anything", async () => {
  const server = await openServer({ flows: { orders: {} }, limits: hurried });
  const silent = await openSocket(server.url);
  const idle = await openSocket(server.url);
  const ends = [readAll(silent), readAll(idle)];
  idle.write(requestText(`POST ${path}`, {}, "x"));
  const [, second] = await Promise.all(ends);
  expect(answersOf(second!)[0]!.status).toBe(202);
});

test("L7 attack: one address gets so many connections and no more, and is told so", async () => {
  const limits = { connectionsPerAddress: 3 };
  const server = await openServer({ flows: { orders: {} }, limits });
  const sockets = [];
  for (let count = 0; count < 3; count += 1) sockets.push(await openSocket(server.url));
  const answers = answersOf(await readAll(await openSocket(server.url)));
  expect(answers[0]).toMatchObject({ status: 503 });
  expect(answers[0]!.headers.get("retry-after")).toBe("1");
  expect(JSON.parse(answers[0]!.body)).toMatchObject({ code: "too_many_connections" });
  sockets[0]!.end();
  await once(sockets[0]!, "close");
  const [taken] = await exchange(server.url, requestText(`POST ${path}`, {}, "x"));
  expect(taken!.status).toBe(202);
});

test("L7 attack: connections beyond the limit of all are closed", async () => {
  const server = await openServer({ flows: { orders: {} }, limits: { connections: 2 } });
  await openSocket(server.url);
  await openSocket(server.url);
  expect(await readAll(await openSocket(server.url))).toBe("");
});

test("L7 attack: a request that stalls does not keep a server from closing", async () => {
  const server = await openServer({ flows: { orders: {} }, drain: "200ms" });
  const socket = await openSocket(server.url);
  const read = readAll(socket);
  socket.write(requestText(`POST ${path}`, { "content-length": "10" }) + "x");
  await fetch(`${server.url}${path}`, { method: "POST", body: "x" }); // By now the first has come.
  await server.close();
  expect(await read).toBe(""); // It was cut, not told that it is slow.
});

test("S3 what is no HTTP is answered as a problem, and closes the connection", async () => {
  const server = await openServer({ flows: { orders: {} } });
  for (const bytes of [
    "\x16\x03\x01\x02\x00\x01\x00",
    "GET\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n`,
    `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx`,
    `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n`,
    `POST ${path} HTTP/1.1\r\nhost: localhost\r\nx: a\rb\r\n\r\n`,
  ]) {
    const [answer] = await exchange(server.url, bytes);
    expect({ bytes, status: answer?.status }).toEqual({ bytes, status: 400 });
    expect(answer!.headers.get("connection")).toBe("close");
    expect(JSON.parse(answer!.body)).toMatchObject({ code: "request_invalid" });
  }
});

test("S3 attack: what follows a request on its connection is not answered in its place", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const socket = await openSocket(server.url);
  const read = readAll(socket);
  socket.write(`${requestText(`POST ${path}`, {}, "x")}no http\r\n\r\n`);
  const statuses = answersOf(await read).map(({ status }) => status);
  expect(statuses).not.toEqual([400]);
});

test("S3 a caller without a token is nobody, however well it is known otherwise", async () => {
  const server = await openServer({ flows: { orders: {} } });
  await makeAdmin(server);
  const nobody = callerOf(server, "", "spw_");
  const headers = {
    cookie: "session=1",
    "x-forwarded-for": "127.0.0.1",
    forwarded: "for=127.0.0.1",
  };
  expect((await nobody.call("POST", path, { body: "x", headers })).status).toBe(401);
});

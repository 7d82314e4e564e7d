/** Push delivery, against real targets: what is sent, and what each answer makes of a message. */
import type { Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import type { FlowOptions } from "../../src/config/index.ts";
import { memory } from "../../src/engines/memory/index.ts";
import { Pusher } from "../../src/server/push/index.ts";
import { verdictOf } from "../../src/server/push/outcome.ts";
import { openServer } from "../support/server.ts";
import { PushTarget, rawTarget, texts, until } from "../support/push-target.ts";
import { openSpillway } from "../../src/spillway.ts";
import type { DeadLetter, Flow } from "../../src/spillway.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const quick = { attempts: 5, delay: ["1ms", "5ms"], budget: 1 } as const;

async function flowOf(options: FlowOptions): Promise<Flow<Uint8Array>> {
  const server = await openServer({ flows: { orders: { retry: quick, ...options } } });
  return server.spillway.flow<Uint8Array>("orders");
}

/** Settled in either way. */
async function ended(flow: Flow<Uint8Array>, count: number): Promise<void> {
  const wanted = (): boolean => {
    const { acked, dead } = flow.state().counters;
    return acked + dead === count;
  };
  await until(wanted);
}

async function lettersOf(flow: Flow<Uint8Array>): Promise<DeadLetter[]> {
  return Array.fromAsync(flow.deadLetters());
}

test("G1 a message that came over HTTP is pushed to the target of its flow, and acked by its 200", async () => {
  const target = await new PushTarget().listen();
  const server = await openServer({ flows: { orders: target.deliver() } });
  const response = await fetch(`${server.url}/v1/flows/orders/messages`, {
    method: "POST",
    body: "hello",
  });
  const { id } = (await response.json()) as { id: string };
  await ended(server.spillway.flow<Uint8Array>("orders"), 1);
  expect(texts(target.got)).toEqual(["hello"]);
  expect(target.got[0]).toMatchObject({ url: "/hook", headers: { "spillway-message-id": id } });
});

test("a request says what the message is, and carries none of what else its producer sent", async () => {
  const target = await new PushTarget().listen();
  const flow = await flowOf(
    target.deliver({
      url: `${target.url()}/a%20b?tenant=1`,
      headers: { authorization: "Bearer of-the-target", "X-Shop": "1", tracestate: "ours=1" },
    }),
  );
  const { id } = await flow.send(bytes("{}"), {
    key: "customer 17 ä%",
    group: "shop",
    deadline: "1h",
    headers: {
      "Content-Type": "application/json",
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      tracestate: "theirs=1",
      "ce-type": "com.example.ordered",
      "ce-subject": "Zürich\r\nx-injected: 1",
      authorization: "Bearer of-the-producer",
      cookie: "session=1",
      "x-api-key": "of-the-producer",
      "webhook-signature": "v1,forged",
      host: "elsewhere.example.test",
    },
  });
  await ended(flow, 1);
  const [{ headers, url, body }] = target.got as [(typeof target.got)[0]];
  expect(url).toBe("/hook/a%20b?tenant=1");
  expect(body.toString()).toBe("{}");
  const { "spillway-deadline": deadline, ...others } = headers;
  expect(Date.parse(deadline as string)).toBeGreaterThan(Date.now() + 3_000_000);
  expect(others).toEqual({
    host: `127.0.0.1:${target.port}`,
    connection: "keep-alive",
    "content-length": "2",
    "content-type": "application/json",
    "user-agent": "Spillway",
    "spillway-flow": "orders",
    "spillway-message-id": id,
    "spillway-attempt": "1",
    "spillway-key": "customer%2017%20%C3%A4%25",
    "spillway-group": "shop",
    "idempotency-key": id,
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    tracestate: "ours=1",
    "ce-type": "com.example.ordered",
    "ce-subject": "Z%C3%BCrich%0D%0Ax-injected: 1",
    authorization: "Bearer of-the-target",
    "x-shop": "1",
  });
});

test("a message without a content type goes as bytes, and as they are", async () => {
  const target = await new PushTarget().listen();
  const flow = await flowOf(target.deliver());
  const payload = Uint8Array.from({ length: 256 }, (_, n) => n);
  await flow.send(payload);
  await flow.send(new Uint8Array(0));
  await ended(flow, 2);
  const bodies = target.got.map(({ body }) => body.length).toSorted((a, b) => a - b);
  expect(bodies).toEqual([0, 256]);
  expect(target.got.find(({ body }) => body.length > 0)?.body).toEqual(Buffer.from(payload));
  expect(target.got[0]!.headers["content-type"]).toBe("application/octet-stream");
});

test("calls keep their connections: as many as were in flight at once, no more", async () => {
  const target = await new PushTarget().listen();
  const flow = await flowOf({ ...target.deliver(), window: { fixed: 4 } });
  await flow.sendBatch(Array.from({ length: 200 }, (_, n) => bytes(String(n))));
  await ended(flow, 200);
  expect(target.got).toHaveLength(200);
  expect(target.connections).toBeLessThanOrEqual(4);
});

test("flows of one target share its connections, and those of another have their own", async () => {
  const target = await new PushTarget().listen();
  const part = { ...target.deliver(), window: { fixed: 1 } };
  const server = await openServer({
    flows: {
      a: { ...part, target: "billing" },
      b: { ...part, target: "billing" },
      c: { ...part, ...target.deliver({ allow: ["http", "127.0.0.0/8"] }), target: "billing" },
    },
  });
  for (const name of ["a", "b", "a", "b"]) {
    const flow = server.spillway.flow<Uint8Array>(name);
    await flow.send(bytes(name));
    await until(() => flow.state().depth === 0);
  }
  expect(target.connections).toBe(1);
  // What another contract allows may not be what this one does: its connections are not lent.
  await server.spillway.flow<Uint8Array>("c").send(bytes("c"));
  await until(() => target.got.length === 5);
  expect(target.connections).toBe(2);
});

const now = { nowMs: Date.parse("2026-11-24T12:00:00Z"), rejectAfter: 3, isAlone: true };
const waits = (delayMs: number): object => ({ kind: "release", overload: true, delayMs });

test.each([
  [200, {}, 1, { kind: "ack" }],
  [299, {}, 1, { kind: "ack" }],
  [429, {}, 9, { kind: "release", overload: true }],
  [429, { "retry-after": "3" }, 9, waits(3000)],
  [429, { "retry-after": "Tue, 24 Nov 2026 12:00:07 GMT" }, 9, waits(7000)],
  [429, { "retry-after": "Mon, 23 Nov 2026 12:00:00 GMT" }, 9, waits(0)],
  [429, { "retry-after": "86400" }, 9, waits(300_000)],
  [429, { "retry-after": "soon" }, 9, { kind: "release", overload: true }],
  [429, { "retry-after": "-1" }, 9, { kind: "release", overload: true }],
  [429, { ratelimit: '"default";r=0;t=11' }, 9, waits(11_000)],
  [429, { ratelimit: '"default";r=0;t=11', "retry-after": "3" }, 9, waits(3000)],
  [503, { "retry-after": "3" }, 9, waits(3000)],
  [503, {}, 9, { kind: "nack", error: "answered 503", fault: "target" }],
  [502, {}, 9, { kind: "nack", error: "answered 502", fault: "target" }],
  [504, {}, 9, { kind: "nack", error: "answered 504", fault: "target" }],
  [408, {}, 9, { kind: "nack", error: "answered 408", fault: "target" }],
  [425, {}, 9, { kind: "nack", error: "answered 425", fault: "message" }],
  [500, {}, 9, { kind: "nack", error: "answered 500", fault: "message" }],
  [400, {}, 2, { kind: "nack", error: "answered 400", fault: "message" }],
  [400, {}, 3, { kind: "term", reason: "answered 400" }],
  [404, {}, 4, { kind: "term", reason: "answered 404" }],
  [410, {}, 1, { kind: "term", reason: "answered 410: gone" }],
  [
    302,
    { location: "http://169.254.169.254/" },
    9,
    { kind: "nack", error: "answered 302: redirects are not followed", fault: "message" },
  ],
])("an answer of %i with %j at attempt %i", (status, headers, attempt, verdict) => {
  expect(verdictOf({ status, headers }, { ...now, attempt })).toEqual(verdict);
});

test("a 4xx dead-letters the message at the attempt that the contract names, with the status and no more", async () => {
  const target = await new PushTarget((_got, response) => {
    response.writeHead(422).end("the secret of the intranet");
    return undefined;
  }).listen();
  const flow = await flowOf(target.deliver({ rejectAfter: 2 }));
  await flow.send(bytes("x"));
  await ended(flow, 1);
  expect(target.got.map(({ headers }) => headers["spillway-attempt"])).toEqual(["1", "2"]);
  const [letter] = await lettersOf(flow);
  expect(letter).toMatchObject({ reason: "terminated: answered 422", attempts: 2 });
  expect(JSON.stringify(letter)).not.toContain("intranet");
});

test("a redirect is a failure and is not followed", async () => {
  const other = await new PushTarget().listen();
  const target = await new PushTarget((_got, response) => {
    response.writeHead(307, { location: other.url() }).end();
    return undefined;
  }).listen();
  const flow = await flowOf({ ...target.deliver(), retry: { ...quick, attempts: 2 } });
  await flow.send(bytes("x"));
  await ended(flow, 1);
  const [letter] = await lettersOf(flow);
  expect(letter?.reason).toContain("answered 307: redirects are not followed");
  expect(other.connections).toBe(0);
});

test("a target that does not answer in time is cut off, and the attempt counts as failed", async () => {
  const target = await new PushTarget(() => undefined).listen();
  const flow = await flowOf({
    ...target.deliver({ timeout: "50ms", connectTimeout: "50ms" }),
    retry: { ...quick, attempts: 1 },
  });
  await flow.send(bytes("x"));
  await ended(flow, 1);
  const [letter] = await lettersOf(flow);
  expect(letter?.reason).toContain("no answer: no answer within 50 ms");
  await until(() => target.parallel === 0);
});

test("a connection that does not come to stand is given up after its own limit", async () => {
  // It accepts TCP and never speaks TLS.
  const deliver = await rawTarget(() => undefined, { connectTimeout: "50ms" });
  const url = deliver.url.replace("http:", "https:");
  const flow = await flowOf({ deliver: { ...deliver, url }, retry: { ...quick, attempts: 1 } });
  await flow.send(bytes("x"));
  await ended(flow, 1);
  const [letter] = await lettersOf(flow);
  expect(letter?.reason).toContain("no answer: not connected within 50 ms");
});

test("S5 of an answer 64 KiB are read; one without an end is cut there, and its status counts", async () => {
  let written = 0;
  const target = await new PushTarget((_got, response) => {
    response.writeHead(200);
    const chunk = Buffer.alloc(16 * 1024);
    const write = (): void => {
      while (!response.destroyed && response.write(chunk)) written += chunk.length;
      response.once("drain", write);
    };
    write();
    return undefined;
  }).listen();
  const flow = await flowOf(target.deliver());
  await flow.send(bytes("x"));
  await ended(flow, 1);
  expect(flow.state().counters).toMatchObject({ acked: 1, dead: 0 });
  await until(() => target.parallel === 0); // Cut.
  expect(written).toBeLessThan(16 * 1024 ** 2); // What buffers of the system hold.
});

test("S5 an answer that drips and never ends is cut at the time limit, and is none", async () => {
  const target = await new PushTarget((_got, response) => {
    response.writeHead(200);
    const timer = setInterval(() => response.write("."), 5);
    response.once("close", () => clearInterval(timer));
    return undefined;
  }).listen();
  const flow = await flowOf({
    ...target.deliver({ timeout: "80ms", connectTimeout: "50ms" }),
    retry: { ...quick, attempts: 1 },
  });
  await flow.send(bytes("x"));
  await ended(flow, 1);
  expect(flow.state().counters).toMatchObject({ acked: 0, dead: 1 });
  await until(() => target.parallel === 0);
});

test("an answer that breaks off before its end is none", async () => {
  let calls = 0;
  const target = await new PushTarget((_got, response) => {
    if (++calls > 1) return 200;
    response.writeHead(200, { "content-length": "100" });
    response.write("half", () => response.destroy());
    return undefined;
  }).listen();
  const flow = await flowOf(target.deliver());
  await flow.send(bytes("x"));
  await ended(flow, 1);
  expect(target.got.map(({ headers }) => headers["spillway-attempt"])).toEqual(["1", "2"]);
});

test("a kept connection that the target closed under a request costs no attempt", async () => {
  const served = new WeakMap<Socket, number>();
  const deliver = await rawTarget((socket) => {
    socket.on("data", () => {
      const before = served.get(socket) ?? 0;
      served.set(socket, before + 1);
      // The second request on a connection meets a reset, as it would when the server had just closed it.
      if (before > 0) socket.resetAndDestroy();
      else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
  });
  const flow = await flowOf({ deliver, window: { fixed: 1 } });
  const retried: unknown[] = [];
  flow.on("retrying", (event) => retried.push(event));
  for (let n = 0; n < 6; n++) await flow.send(bytes(String(n)));
  await ended(flow, 6);
  expect(flow.state().counters.acked).toBe(6);
  expect(retried).toEqual([]);
});

/** What a broken or hostile target may put on the wire; each must end its call, and only that. */
const nonsense: Readonly<Record<string, string>> = {
  nothing: "",
  "another protocol": "SSH-2.0-OpenSSH_9.9\r\n",
  "no status": "HTTP/1.1\r\n\r\n",
  "a status that is none": "HTTP/1.1 99999 OK\r\n\r\n",
  "HTTP 0.9": "<html>hello</html>",
  "an upgrade": "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
  "a huge field": `HTTP/1.1 200 OK\r\nx: ${"x".repeat(100_000)}\r\n\r\n`,
  "many fields": `HTTP/1.1 200 OK\r\n${"x: y\r\n".repeat(50_000)}\r\n`,
  "two lengths": "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
  "length and chunks":
    "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
  "a length below 0": "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
  "chunks that are none": "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
  "a body that breaks off": "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab",
  "provisional answers only": "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000),
};

test.each(Object.entries(nonsense))(
  "G12 a target that answers with %s has failed, and no more",
  async (_name, answer) => {
    const deliver = await rawTarget((socket) => {
      socket.once("data", () => socket.end(answer));
    });
    const flow = await flowOf({ deliver, retry: { ...quick, attempts: 2 } });
    const retried: string[] = [];
    flow.on("retrying", ({ error }) => retried.push(error));
    await flow.send(bytes("x"));
    await ended(flow, 1);
    const [letter] = await lettersOf(flow);
    for (const text of [...retried, letter!.reason]) {
      // The kind of failure, and nothing of what was answered (S5).
      expect(text).toMatch(/no answer: [A-Za-z_ ]+$/);
      expect(text).not.toContain("SSH");
    }
  },
);

test("provisional answers without end, a name that is never found: cut in time", async () => {
  const deliver = await rawTarget(
    (socket) => {
      const timer = setInterval(() => socket.write("HTTP/1.1 102 Processing\r\n\r\n"), 2);
      socket.once("close", () => clearInterval(timer));
    },
    { timeout: "60ms", connectTimeout: "40ms" },
  );
  const endless = await flowOf({ deliver, retry: { ...quick, attempts: 1 } });
  await endless.send(bytes("x"));
  await ended(endless, 1);
  const [first] = await lettersOf(endless);
  expect(first!.reason).toContain("no answer within 60 ms");
  const spillway = await openSpillway({ engine: memory() });
  onTestFinished(() => spillway.close());
  const nameless = spillway.flow<Uint8Array>("nameless", {
    payload: "bytes",
    deliver: { ...deliver, url: deliver.url.replace("127.0.0.1", "nowhere.example.test") },
    retry: { ...quick, attempts: 1 },
  });
  const pusher = new Pusher({ resolve: () => new Promise(() => undefined) });
  pusher.add(nameless);
  onTestFinished(() => pusher[Symbol.dispose]());
  pusher.start();
  await nameless.send(bytes("x"));
  await ended(nameless, 1);
  const [second] = await lettersOf(nameless);
  expect(second!.reason).toContain("not connected within 40 ms");
});

test("a server that stops lets calls end, and leaves no connection behind", async () => {
  let release: (() => void) | undefined;
  const target = await new PushTarget(
    () => new Promise<number>((resolve) => (release = () => resolve(200))),
  ).listen();
  const server = await openServer({ flows: { orders: target.deliver() } });
  const flow = server.spillway.flow<Uint8Array>("orders");
  await flow.send(bytes("x"));
  await until(() => release !== undefined);
  const closed = server.close();
  release!();
  await closed;
  expect(flow.state().counters.acked).toBe(1);
  await until(async () => (await target.open()) === 0);
});

test("a server that stops while a target hangs cuts the call within its limit, and keeps the message", async () => {
  const target = await new PushTarget(() => undefined).listen();
  const server = await openServer({ drain: "50ms", flows: { orders: target.deliver() } });
  const flow = server.spillway.flow<Uint8Array>("orders");
  await flow.send(bytes("x"));
  await until(() => target.parallel === 1);
  await server.close();
  await until(() => target.parallel === 0);
  expect(flow.state().counters).toMatchObject({ accepted: 1, acked: 0, dead: 0 });
});

/** Reading state, operating, and listening, against a real server on a real store. */
import { once } from "node:events";
import { connect } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { listen } from "../support/events.ts";
import { call, pull, send, until } from "../support/http.ts";
import { openServer } from "../support/server.ts";

const flows = { orders: { partitions: 2 }, bills: {} };

test("all flows are listed with depth, limits, rates, window and breaker", async () => {
  const server = await openServer({ flows });
  await send(server, "orders", "x");
  const { json } = await call(server, "/v1/flows");
  expect(json["flows"]).toMatchObject([
    {
      flow: "orders",
      depth: 1,
      limitMessages: 1_000_000,
      partitions: 2,
      counters: { accepted: 1 },
      window: expect.any(Object),
      breaker: expect.any(Object),
      signalLagMs: expect.any(Object),
    },
    { flow: "bills", depth: 0 },
  ]);
});

test("one flow is shown with its contract and its warnings, and its partitions one by one", async () => {
  const server = await openServer({ flows });
  const { json } = await call(server, "/v1/flows/orders");
  expect(json).toMatchObject({ flow: "orders", contract: { partitions: 2 }, warnings: [] });
  const { json: all } = await call(server, "/v1/flows/orders/partitions");
  expect(all["partitions"]).toHaveLength(2);
  const { json: second } = await call(server, "/v1/flows/orders/partitions/1");
  expect(second).toMatchObject({ partition: 1, state: "open" });
  expect((await call(server, "/v1/flows/orders/partitions/2")).status).toBe(404);
  expect((await call(server, "/v1/flows/nope")).status).toBe(404);
});

test("S11 a contract shows where secrets are read from, and nothing that could be one", async () => {
  vi.stubEnv("ORDERS_SECRET", `whsec_${"bWFya2Vy".repeat(5)}`);
  onTestFinished(() => void vi.unstubAllEnvs());
  const server = await openServer({
    flows: {
      orders: {
        deliver: {
          kind: "push",
          url: "https://billing.example/orders?token=marker-1",
          headers: { authorization: "Bearer marker-2" },
          secret: { env: "ORDERS_SECRET" },
        },
      },
    },
  });
  const { text } = await call(server, "/v1/flows/orders");
  expect(text).not.toContain("marker");
  expect(text).toContain("ORDERS_SECRET");
  const patched = await call(server, "/v1/flows/orders/policy", {
    method: "PATCH",
    body: { lease: "1m" },
  });
  expect(patched.status).toBe(200);
  expect(patched.text).not.toContain("marker");
});

test("G11 a message says why it waits, behind which one, and what it holds", async () => {
  const server = await openServer({ flows });
  const first = await send(server, "orders", "1", { "spillway-key": "k", "spillway-delay": "1h" });
  const second = await send(server, "orders", "2", { "spillway-key": "k", "spillway-group": "g" });
  const { json: delayed } = await call(server, first.headers.get("location")!);
  expect(delayed).toMatchObject({
    state: "pending",
    why: { reason: "due" },
    dueAt: expect.any(String),
  });
  expect(Date.parse((delayed["why"] as { until: string }).until)).toBeGreaterThan(Date.now());
  const { json: behind } = await call(
    server,
    `/v1/flows/orders/messages/${encodeURIComponent(String(second.json["id"]))}`,
  );
  expect(behind).toMatchObject({
    why: { reason: "key", behindSeq: Number(String(first.json["id"]).split("/")[2]) },
    key: "k",
    group: "g",
    attempts: 0,
    payload: "2",
    payloadBytes: 1,
  });
});

test("an acked message is known as acked, one that never was is not found", async () => {
  const server = await openServer({ flows });
  const { headers } = await send(server, "orders", "x");
  const [delivery] = await pull(server, "orders");
  await call(server, `/v1/deliveries/${delivery!.id}:ack`, { method: "POST" });
  const { json } = await call(server, headers.get("location")!);
  expect(json).toMatchObject({ state: "acked", why: { reason: "acked" } });
  for (const id of ["0/999", "9/1", "orders%2F0%2F999", "bills%2F0%2F1", "nonsense"]) {
    expect((await call(server, `/v1/flows/orders/messages/${id}`)).status).toBe(404);
  }
});

test("a long payload is cut where a character ends", async () => {
  const server = await openServer({ flows });
  const { headers } = await send(server, "orders", "ü".repeat(5000).slice(1) + "x");
  const { json } = await call(server, headers.get("location")!);
  expect(json).toMatchObject({ payloadTruncated: true, encoding: "utf-8" });
  expect(json["payload"]).toMatch(/^ü+$/);
});

test("pause and resume, of a flow and of one partition", async () => {
  const server = await openServer({ flows });
  const post = (path: string) => call(server, `/v1/flows/orders${path}`, { method: "POST" });
  expect((await post(":pause")).json).toMatchObject({ flow: "orders", isPaused: true });
  await send(server, "orders", "x");
  expect(await pull(server, "orders", { waitMs: 1 })).toEqual([]);
  expect((await post(":resume")).json).toMatchObject({ isPaused: false });
  expect(await pull(server, "orders")).toHaveLength(1);
  expect((await post("/partitions/1:pause")).json).toMatchObject({ partition: 1, isPaused: true });
  expect((await call(server, "/v1/flows/orders/partitions/1")).json).toMatchObject({
    state: "paused",
  });
  expect((await post("/partitions/1:resume")).json).toMatchObject({ isPaused: false });
  expect((await post("/partitions/2:pause")).status).toBe(404);
});

test("the intake is closed and opened again", async () => {
  const server = await openServer({ flows });
  await call(server, "/v1/flows/orders:close-intake", { method: "POST" });
  const { status, json, headers } = await send(server, "orders", "x");
  expect([status, json["code"]]).toEqual([503, "intake_closed"]);
  expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
  expect(headers.get("ratelimit")).toContain("r=0");
  await call(server, "/v1/flows/orders:open-intake", { method: "POST" });
  expect((await send(server, "orders", "x")).status).toBe(202);
});

test("a drain answers at once what is left, or waits until nothing is", async () => {
  const server = await openServer({ flows });
  await send(server, "orders", "x");
  const drain = (headers: Record<string, string>) =>
    call(server, "/v1/flows/orders:drain", { method: "POST", headers });
  const at = await drain({});
  expect([at.status, at.json["depth"]]).toEqual([202, 1]);
  expect(at.json).toMatchObject({ isIntakeClosed: true });
  const waiting = drain({ prefer: "wait=20" });
  const [delivery] = await pull(server, "orders");
  await call(server, `/v1/deliveries/${delivery!.id}:ack`, { method: "POST" });
  expect((await waiting).status).toBe(200);
});

test("a policy is changed by a merge patch, and refused with the path of each mistake", async () => {
  const server = await openServer({ flows });
  const patch = (body: object) =>
    call(server, "/v1/flows/orders/policy", {
      method: "PATCH",
      body,
      headers: { "content-type": "application/merge-patch+json" },
    });
  const changed = await patch({ buffer: { messages: 5 }, window: { fixed: 3 } });
  expect(changed.json).toMatchObject({
    contract: { buffer: { messages: 5 }, window: { fixed: 3 } },
  });
  expect((await patch({ window: null })).json).toMatchObject({
    contract: { buffer: { messages: 5 } },
  });
  const refused = await patch({ buffer: { messages: -1 }, partitions: 9 });
  expect(refused.status).toBe(400);
  expect(JSON.stringify(refused.json)).toContain("partitions");
  expect((await patch([])).status).toBe(400);
});

test("events tell what happens to a flow, and its state again and again", async () => {
  const server = await openServer({ flows });
  const events = await listen(server, "/v1/events");
  const one = await listen(server, "/v1/events?flow=bills");
  await until(() => events.filter(({ event }) => event === "state").length >= 4);
  await send(server, "orders", "x");
  const [delivery] = await pull(server, "orders");
  const body = { reason: "bad" };
  await call(server, `/v1/deliveries/${delivery!.id}:term`, { body });
  await until(() => events.some(({ event }) => event === "dead"));
  const { data } = events.find(({ event }) => event === "dead")!;
  expect(JSON.parse(data)).toMatchObject({ flow: "orders", id: delivery!.messageId });
  expect(one.every(({ data: text }) => text.includes('"flow":"bills"'))).toBe(true);
  expect((await call(server, "/v1/events?flow=nope")).status).toBe(404);
});

test("G6 a reader of events that does not read is cut off", async () => {
  const server = await openServer({ flows, limits: { unreadBytes: "64 KiB" } });
  const flow = server.spillway.flow("orders");
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  onTestFinished(() => void socket.destroy());
  socket.write("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
  await once(socket, "readable");
  // More than the kernel takes for a reader that is away.
  const text = "x".repeat(1000);
  for (let told = 0; told < 32; told++) {
    for (let at = 0; at < 1024; at++) flow.tellBlocked({ code: text as "no_credit" });
    await new Promise((resolve) => setImmediate(resolve));
  }
  let received = 0;
  socket.on("data", (chunk: Buffer) => (received += chunk.length));
  socket.on("error", () => undefined);
  await once(socket, "close");
  expect(received).toBeLessThan(32 * 1024 ** 2);
});

test("health: alive, ready, and not ready while the server closes", async () => {
  const server = await openServer({ flows });
  expect((await call(server, "/healthz")).json).toEqual({ status: "ok" });
  expect((await call(server, "/readyz")).json).toEqual({ status: "ready", reasons: [] });
  const head = await fetch(`${server.url}/readyz`, { method: "HEAD" });
  expect(head.status).toBe(200);
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  socket.write("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\n");
  await once(socket, "readable");
  const closed = server.close();
  socket.write("host: localhost\r\n\r\n");
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await once(socket, "close");
  expect(text).toMatch(/HTTP\/1.1 503 .*"not ready".*closing/s);
  await closed;
});

/** What users of other queues suffer from, over HTTP: each is a test that must hold here. */
import { Agent, request } from "node:http";
import type { IncomingMessage } from "node:http";
import { once } from "node:events";
import { expect, onTestFinished, test } from "vitest";
import { call, linesOf, pull, send, sendBatch, until } from "../support/http.ts";
import { openServer } from "../support/server.ts";

const full = (messages: number) => ({
  partitions: 1,
  buffer: { messages },
  classes: { critical: 1, normal: 1, bulk: 1 },
});

test("taskforcesh/bullmq#2782: the intake is frozen with a reason, the rest drains, nothing is lost", async () => {
  const server = await openServer({ flows: { orders: {} } });
  for (const body of ["a", "b"]) await send(server, "orders", body);
  await call(server, "/v1/flows/orders:close-intake", { method: "POST" });
  const { status, headers, json } = await send(server, "orders", "c");
  expect([status, json["code"]]).toEqual([503, "intake_closed"]);
  expect(headers.get("retry-after")).not.toBeNull();
  let acked = 0;
  while (acked < 2) {
    for (const { id } of await pull(server, "orders")) {
      await call(server, `/v1/deliveries/${id}:ack`, { method: "POST" });
      acked++;
    }
  }
  const { json: state } = await call(server, "/v1/flows/orders");
  expect(state["counters"]).toMatchObject({ accepted: 2, acked: 2, pending: 0 });
});

test("rabbitmq-server#499: on one connection a full flow holds up no other", async () => {
  const server = await openServer({ flows: { full: full(1), open: {} } });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  const sockets = new Set<unknown>();
  const post = async (flow: string): Promise<number> => {
    const path = `${server.url}/v1/flows/${flow}/messages`;
    const sent = request(path, { method: "POST", agent });
    sent.end("x");
    const [response] = (await once(sent, "response")) as [IncomingMessage];
    sockets.add(response.socket);
    response.resume();
    await once(response, "end");
    return response.statusCode!;
  };
  expect(await post("full")).toBe(202);
  for (let at = 0; at < 20; at++) {
    expect(await post("full")).toBe(429);
    expect(await post("open")).toBe(202);
  }
  expect(sockets.size).toBe(1);
});

test("rabbitmq-java-client#187: every wait has an end, a state and a reason", async () => {
  const server = await openServer({
    flows: { orders: full(1) },
    limits: { requestTimeout: "300ms" },
  });
  await send(server, "orders", "a");
  const waiting = send(server, "orders", "b", { prefer: "wait=3600" });
  await until(async () => {
    const { json } = await call(server, "/v1/flows/orders");
    return (json["producer"] as { waiting: number }).waiting === 1;
  });
  const { status, json, headers } = await waiting;
  expect(status).toBe(429);
  expect(json["code"]).toMatch(/buffer_full|no_credit/);
  expect(json["retryAfterMs"]).toBeGreaterThan(0);
  expect(headers.get("preference-applied")).not.toBeNull();
});

test("nats-server#5930: under overload what was accepted is what is stored", async () => {
  const server = await openServer({ flows: { orders: full(50) } });
  const single = Array.from({ length: 80 }, (_, at) => send(server, "orders", `${at}`));
  const batch = sendBatch(
    server,
    "orders",
    Array.from({ length: 80 }, (_, at) => ({ payload: at })),
  );
  const answers = await Promise.all(single);
  const accepted =
    answers.filter(({ status }) => status === 202).length +
    (await batch).filter((result) => result["accepted"] === true).length;
  expect(answers.every(({ status }) => status === 202 || status === 429)).toBe(true);
  const { counters } = server.spillway.flow("orders").state();
  expect(counters.accepted).toBe(accepted);
  expect(accepted).toBeLessThanOrEqual(50);
});

test("p-queue#87: a producer waits for space, not for the result", async () => {
  const server = await openServer({ flows: { orders: full(1) } });
  expect((await send(server, "orders", "a")).status).toBe(202); // Nobody has handled it.
  const { text } = await call(server, "/v1/flows/orders/messages:batch", {
    body: '{"payload":1}',
    headers: { "content-type": "application/x-ndjson", prefer: "wait=0" },
  });
  expect(linesOf(text)[0]).toMatchObject({ accepted: false });
  const waiting = send(server, "orders", "b", { prefer: "wait=20" });
  await until(() => server.spillway.flow("orders").credits().waiting > 0);
  const [delivery] = await pull(server, "orders");
  await call(server, `/v1/deliveries/${delivery!.id}:ack`, { method: "POST" });
  expect((await waiting).status).toBe(202);
});

test("OptimalBits/bull#2403: limits change while the server runs, and are seen", async () => {
  const server = await openServer({ flows: { orders: full(1) } });
  await send(server, "orders", "a");
  expect((await send(server, "orders", "b")).status).toBe(429);
  const { status } = await call(server, "/v1/flows/orders/policy", {
    method: "PATCH",
    body: { buffer: { messages: 2 }, window: { fixed: 2 }, rate: { perSecond: 100 } },
  });
  expect(status).toBe(200);
  expect((await send(server, "orders", "b", { prefer: "wait=20" })).status).toBe(202);
  const { json } = await call(server, "/v1/flows/orders");
  expect(json).toMatchObject({
    limitMessages: 2,
    contract: { window: { fixed: 2 }, rate: { perSecond: 100 } },
  });
});

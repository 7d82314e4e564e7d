/** Workers over HTTP, against a real server on a real store. */
import { expect, test } from "vitest";
import { Deliveries } from "../../src/server/deliveries.ts";
import type { Server } from "../../src/server/index.ts";
import { call, pull, send, sendBatch, until } from "../support/http.ts";
import type { Answer, Pulled } from "../support/http.ts";
import { openServer } from "../support/server.ts";

const settle = (
  server: Server,
  { id }: Pick<Pulled, "id">,
  verb: string,
  body?: object,
): Promise<Answer> =>
  call(server, `/v1/deliveries/${id}:${verb}`, {
    method: "POST",
    ...(body === undefined ? {} : { body }),
  });

const one = { flows: { orders: { partitions: 1, retry: { delay: ["1ms", "1ms"] } } } } as const;

async function pulled(server: Server): Promise<Pulled> {
  await send(server, "orders", "x", { "spillway-key": "k" });
  const [delivery] = await pull(server, "orders");
  return delivery!;
}

test("ack: it is answered once it is durable, and the message is gone", async () => {
  const server = await openServer(one);
  const delivery = await pulled(server);
  expect(delivery).toMatchObject({
    id: "orders.0.1.1",
    messageId: "orders/0/1",
    attempt: 1,
    key: "k",
  });
  expect((await settle(server, delivery, "ack")).status).toBe(204);
  expect(server.spillway.flow("orders").state().counters).toMatchObject({ acked: 1, pending: 0 });
});

test("nack: it comes again as the next attempt, with the error in its history", async () => {
  const server = await openServer(one);
  const delivery = await pulled(server);
  await settle(server, delivery, "nack", { error: "the printer burns", delay: "1ms" });
  const seen = await call(server, "/v1/flows/orders/messages/0/1");
  expect(seen.json).toMatchObject({ state: "pending", error: "the printer burns" });
  const [again] = await pull(server, "orders");
  expect(again).toMatchObject({ id: "orders.0.1.2", attempt: 2 });
});

test("release: it comes again and no attempt is counted", async () => {
  const server = await openServer(one);
  const delivery = await pulled(server);
  await settle(server, delivery, "release");
  const [again] = await pull(server, "orders");
  expect(again).toMatchObject({ messageId: delivery.messageId, attempt: 1 });
});

test("term: it is a dead letter with this reason, which must be given", async () => {
  const server = await openServer(one);
  const delivery = await pulled(server);
  const refused = await settle(server, delivery, "term");
  expect(refused.json).toMatchObject({ code: "request_invalid" });
  expect(JSON.stringify(refused.json)).toContain("reason");
  expect((await settle(server, delivery, "term", { reason: "no such customer" })).status).toBe(204);
  const seen = await call(server, "/v1/flows/orders/messages/0/1");
  expect(seen.json).toMatchObject({ state: "dead", reason: "terminated: no such customer" });
});

test("working: the lease is extended, and the attempt stays", async () => {
  const server = await openServer({ flows: { orders: { partitions: 1, lease: "300ms" } } });
  const delivery = await pulled(server);
  expect((await settle(server, delivery, "working", { extend: "1h" })).status).toBe(204);
  let ended = false;
  server.spillway.flow("orders").on("leaseEnded", () => (ended = true));
  await send(server, "orders", "y");
  const other = await pull(server, "orders");
  await until(() => ended); // Of the other one, which had the shorter lease.
  expect(other).toHaveLength(1);
  expect((await settle(server, delivery, "ack")).status).toBe(204);
});

test("a second settle, and one after the lease has ended, answer 409; an unknown one 404", async () => {
  const server = await openServer({ flows: { orders: { partitions: 1, lease: "100ms" } } });
  const flow = server.spillway.flow("orders");
  const delivery = await pulled(server);
  await settle(server, delivery, "ack");
  const again = await settle(server, delivery, "ack");
  expect(again.status).toBe(409);
  expect(again.json).toMatchObject({ code: "delivery_settled" });
  const ended = new Promise<void>((resolve) => flow.once("leaseEnded", () => resolve()));
  const late = await pulled(server);
  await ended;
  expect((await settle(server, late, "ack")).status).toBe(409);
  for (const id of ["orders.0.99.1", "orders.7.1.1", "other.0.1.1", "nonsense"]) {
    const { status, json } = await settle(server, { id }, "ack");
    expect([status, json["code"]]).toEqual([404, "not_found"]);
  }
});

test("nothing comes: an empty list when the time is over, or when the server closes", async () => {
  const server = await openServer(one);
  expect(await pull(server, "orders", { waitMs: 1 })).toEqual([]);
  const waiting = pull(server, "orders", { waitMs: 20_000 });
  await until(() => server.spillway.flow("orders").state().creditsOut >= 0);
  const closed = server.close();
  expect(await waiting.catch(() => [])).toEqual([]);
  await closed;
});

test("what comes for a worker that has gone goes back untried", async () => {
  const server = await openServer(one);
  const gone = new AbortController();
  const waiting = call(server, "/v1/flows/orders/deliveries", {
    body: { max: 1, waitMs: 20_000 },
    signal: gone.signal,
  });
  const ended = waiting.catch(() => "gone");
  // The request is there once the server has answered a later one of the same client.
  await call(server, "/healthz");
  gone.abort();
  expect(await ended).toBe("gone");
  const delivery = await pulled(server);
  expect(delivery.attempt).toBe(1);
});

test("a flow that is pushed to a target is not pulled", async () => {
  const server = await openServer({
    flows: { orders: { deliver: { kind: "push", url: "https://billing.example/orders" } } },
  });
  const { status, json } = await call(server, "/v1/flows/orders/deliveries", { body: {} });
  expect(status).toBe(409);
  expect(json).toMatchObject({ code: "state_conflict" });
});

test.each([{ max: 0 }, { max: "2" }, { waitMs: -1 }, { many: 1 }, []])(
  "G12 a pull of %j is refused with the path of the mistake",
  async (body) => {
    const server = await openServer(one);
    const { status, json } = await call(server, "/v1/flows/orders/deliveries", { body });
    expect(status).toBe(400);
    expect(json).toMatchObject({ code: "request_invalid" });
    const [problem] = (json["details"] as { problems: object[] }).problems;
    expect(Object.keys(problem!)).toEqual(expect.arrayContaining(["path", "found", "allowed"]));
  },
);

test("many settles in one call are answered one by one, in order", async () => {
  const server = await openServer({ flows: { orders: { window: { fixed: 10 } }, other: {} } });
  await sendBatch(
    server,
    "orders",
    [1, 2, 3].map((payload) => ({ payload })),
  );
  const taken: Pulled[] = [];
  while (taken.length < 3) taken.push(...(await pull(server, "orders")));
  const { json } = await call(server, "/v1/flows/orders/deliveries:settle", {
    body: {
      settles: [
        { id: taken[0]!.id, verb: "ack" },
        { id: taken[1]!.id, verb: "nack", error: "no", delay: "1h" },
        { id: taken[2]!.id, verb: "term" },
        { id: taken[2]!.id, verb: "term", reason: "never" },
        { id: taken[0]!.id, verb: "ack" },
        { id: "other.0.1.1", verb: "ack" },
      ],
    },
  });
  expect(json["results"]).toMatchObject([
    { settled: true },
    { settled: true },
    { settled: false, code: "request_invalid" },
    { settled: true },
    { settled: false, code: "delivery_settled" },
    { settled: false, code: "not_found" },
  ]);
});

test("R1 what is settled, and what was lost with its lease, is held no longer", async () => {
  const server = await openServer({ flows: { orders: { partitions: 1, lease: "100ms" } } });
  const flow = server.spillway.flow<Uint8Array>("orders");
  const held = new Deliveries();
  await sendBatch(
    server,
    "orders",
    [1, 2].map((payload) => ({ payload })),
  );
  const both = [];
  while (both.length < 2) both.push(...(await flow.pull({ max: 2, waitMs: 5000 })));
  const [first] = both.map((delivery) => held.add(delivery));
  expect(held.size).toBe(2);
  void held.take(first!).ack();
  expect(held.size).toBe(1);
  await until(() => held.size === 0);
});

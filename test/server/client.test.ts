/** The client against a real server: the library's own calls over a WebSocket. */
import { expect, onTestFinished, test } from "vitest";
import { connect } from "../../src/client/index.ts";
import type { Client } from "../../src/client/index.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { openServer } from "../support/server.ts";

function openClient(url: string): Client {
  const client = connect({ url, drain: "2s" });
  onTestFinished(() => client.close());
  return client;
}

test("G1 what is sent over a WebSocket is durable, and reaches a worker as it was sent", async () => {
  const server = await openServer({ flows: { orders: { partitions: 2 } } });
  const producer = openClient(server.url);
  const worker = openClient(server.url);
  const taken = Promise.withResolvers<unknown>();
  worker.flow<{ sku: string }>("orders").consume((order, { id, key, headers, attempt }) => {
    taken.resolve({ order, id, key, headers, attempt });
  });
  const receipt = await producer
    .flow<{ sku: string }>("orders")
    .send({ sku: "ä" }, { key: "k", idempotencyKey: "i", headers: { a: "b" } });
  expect(receipt).toMatchObject({ duplicate: false, durability: "fsync" });
  const { id } = receipt;
  expect(await taken.promise).toEqual({
    order: { sku: "ä" },
    id,
    key: "k",
    headers: { a: "b" },
    attempt: 1,
  });
  const again = await producer
    .flow("orders")
    .send({ sku: "ä" }, { key: "k", idempotencyKey: "i", headers: { a: "b" } });
  expect(again).toMatchObject({ id, duplicate: true });
});

test("a thousand messages in a batch come once each, in order per key", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const client = openClient(server.url);
  const flow = client.flow<number>("orders");
  const seen = new Map<string, number[]>();
  let count = 0;
  const all = Promise.withResolvers<void>();
  flow.consume((value, { key }) => {
    const list = seen.get(key!) ?? [];
    list.push(value);
    seen.set(key!, list);
    if (++count === 1000) all.resolve();
  });
  const values = Array.from({ length: 1000 }, (_, n) => n);
  const results = await flow.sendBatch(values, (n) => ({ key: `k${n % 10}` }));
  expect(results.every(({ accepted }) => accepted)).toBe(true);
  await all.promise;
  for (const list of seen.values()) expect(list).toEqual(list.toSorted((a, b) => a - b));
});

test("G1, G5 a connection that is cut again and again loses nothing and doubles nothing", async () => {
  const server = await openServer({ flows: { orders: { partitions: 4, window: { fixed: 8 } } } });
  await using way = await FaultProxy.open(server.url, 1);
  const client = openClient(way.url);
  const flow = client.flow<number>("orders");
  const handled = new Map<number, number>();
  const all = Promise.withResolvers<void>();
  flow.consume(async (value) => {
    handled.set(value, (handled.get(value) ?? 0) + 1);
    if (handled.size === 400) all.resolve();
  });
  const sends: Promise<{ id: string; duplicate: boolean }>[] = [];
  for (let n = 0; n < 400; n++) {
    sends.push(flow.send(n, { key: `k${n % 7}` }));
    if (n % 50 === 49) {
      await sends[n - 25];
      way.reset();
    }
  }
  const receipts = await Promise.all(sends);
  await all.promise;
  expect(new Set(receipts.map(({ id }) => id)).size).toBe(400);
  expect([...handled.values()].every((times) => times === 1)).toBe(true);
  const { counters } = server.spillway.flow("orders").state();
  expect(counters.accepted).toBe(400);
});

/** What users of other queues suffer from, with workers that are elsewhere: each is a test that must hold here. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { connect } from "../../src/client/index.ts";
import type { Client } from "../../src/client/index.ts";
import type { Server } from "../../src/server/index.ts";
import { listen } from "../support/events.ts";
import type { Told } from "../support/events.ts";
import { call, pull, send, sendBatch, until } from "../support/http.ts";
import type { Pulled } from "../support/http.ts";
import { openServer } from "../support/server.ts";

const small = {
  partitions: 1,
  classes: { critical: 1, normal: 1, bulk: 1 },
  retry: { attempts: 10, delay: ["10ms", "10ms"], budget: 1 },
} as const;

function openClient(server: Server): Client {
  const client = connect({ url: server.url, drain: "100ms" });
  onTestFinished(() => client.close());
  return client;
}

/** Resolves when the lease of a delivery has ended. */
function lost({ signal }: { readonly signal: AbortSignal }): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}

/** What was told of one message, in order. */
function changes(told: readonly Told[], id: string): Record<string, unknown>[] {
  return told
    .map(({ event, data }) => ({ event, ...(JSON.parse(data) as { id?: string }) }))
    .filter((change) => change.id === id);
}

const look = async (server: Server, id: string): Promise<Record<string, unknown>> =>
  (await call(server, `/v1/flows/${id.replace("/", "/messages/")}`)).json;

test("taskforcesh/bullmq#631: a worker that holds a message past its lease costs one redelivery, its late ack has no effect, and the cause is told", async () => {
  const server = await openServer({ flows: { orders: { ...small, lease: "2s" } } });
  const told = await listen(server, "/v1/events?flow=orders");
  const attempts: number[] = [];
  const late = Promise.withResolvers<unknown>();
  const looked = Promise.withResolvers<void>();
  const orders = openClient(server).flow<string>("orders");
  const first = Promise.withResolvers<void>();
  orders.consume(async (_value, delivery) => {
    attempts.push(delivery.attempt);
    first.resolve();
    if (delivery.attempt > 1) return looked.promise;
    await until(() => attempts.length > 1);
    late.resolve(await delivery.ack().catch((error: unknown) => error));
  });
  const { id } = await orders.send("x");
  await first.promise;
  // The second attempt has all the time that it needs.
  await call(server, "/v1/flows/orders/policy", { method: "PATCH", body: { lease: "1m" } });
  expect(await late.promise).toMatchObject({ code: "delivery_settled" });
  const error = "the lease of the delivery ended";
  expect(await look(server, id)).toMatchObject({ state: "pending", attempts: 2, error });
  looked.resolve();
  await until(() => server.spillway.flow("orders").state().depth === 0);
  expect(attempts).toEqual([1, 2]);
  expect(changes(told, id)).toMatchObject([
    { event: "leaseEnded", id, attempt: 1 },
    { event: "retrying", id, attempt: 1, error },
  ]);
  expect(server.spillway.flow("orders").state().counters).toMatchObject({ acked: 1, dead: 0 });
});

test("taskforcesh/bullmq#3282: a message whose last attempt stalls, too, is one event for each change, the last one included", async () => {
  const retry = { ...small.retry, attempts: 3 };
  const server = await openServer({ flows: { orders: { ...small, retry, lease: "100ms" } } });
  const told = await listen(server, "/v1/events?flow=orders");
  const orders = openClient(server).flow<string>("orders");
  orders.consume((_value, delivery) => lost(delivery));
  const { id } = await orders.send("x");
  const isDead = ({ event, data }: Told): boolean =>
    event === "state" && (JSON.parse(data) as { counters: { dead: number } }).counters.dead === 1;
  await until(() => told.some(isDead)); // What was to be told before has come.
  const reason = expect.stringContaining("lease") as unknown;
  expect(changes(told, id)).toMatchObject([
    { event: "leaseEnded", id, attempt: 1 },
    { event: "retrying", id, attempt: 1 },
    { event: "leaseEnded", id, attempt: 2 },
    { event: "retrying", id, attempt: 2 },
    { event: "leaseEnded", id, attempt: 3 },
    { event: "dead", id, attempt: 3, reason },
  ]);
});

test("taskforcesh/bullmq#273, timgit/pg-boss#446: a tenant with thousands queued is overtaken by another's one message", async () => {
  const server = await openServer({ flows: { orders: { ...small, window: { fixed: 1 } } } });
  const flood = Array.from({ length: 3000 }, () => ({ payload: "a", group: "a" }));
  await sendBatch(server, "orders", flood, { prefer: "wait=20" });
  const deliveries = openClient(server).flow<string>("orders").deliveries();
  const handled: (string | undefined)[] = [];
  const handleNext = async (): Promise<void> => {
    const { value } = await deliveries.next();
    handled.push(value!.group);
    await value!.ack();
  };
  while (handled.length < 20) await handleNext();
  expect(
    (await send(server, "orders", '"b"', { "spillway-group": "b", prefer: "wait=20" })).status,
  ).toBe(202);
  while (!handled.includes("b")) await handleNext();
  // Attempts that were made durable ahead of credit come first: few, whatever is queued.
  expect(handled.length - 20).toBeLessThanOrEqual(50);
  expect(server.spillway.flow("orders").state().depth).toBe(3001 - handled.length);
});

test("rabbitmq/rabbitmq-server#2313: the limit counts what is in flight: what is nacked at a full buffer never passes it", async () => {
  const limit = 40;
  const server = await openServer({
    flows: { orders: { ...small, buffer: { messages: limit }, window: { fixed: limit } } },
  });
  const { spillway } = server;
  const settle = (held: readonly Pulled[], verb: string): Promise<unknown> =>
    call(server, "/v1/flows/orders/deliveries:settle", {
      body: { settles: held.map(({ id }) => ({ id, verb })) },
    });
  const pullAll = async (): Promise<Pulled[]> => {
    const held: Pulled[] = [];
    while (held.length < limit) held.push(...(await pull(server, "orders", { max: limit })));
    return held;
  };
  for (let at = 0; at < limit; at++) {
    expect((await send(server, "orders", `${at}`, { prefer: "wait=20" })).status).toBe(202);
  }
  const held = await pullAll();
  expect(spillway.flow("orders").state()).toMatchObject({ depth: limit, inFlight: limit });
  const sends = Array.from({ length: limit }, (_, at) => send(server, "orders", `more ${at}`));
  await settle(held, "nack");
  for (const { status, json, headers } of await Promise.all(sends)) {
    expect(status).toBe(429);
    expect(json["code"]).toMatch(/buffer_full|no_credit/);
    expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
  }
  const again = await pullAll();
  expect(again.every(({ attempt }) => attempt === 2)).toBe(true);
  // Nothing has ended, so what was accepted is the most that was ever stored.
  expect(spillway.flow("orders").state().counters).toMatchObject({
    accepted: limit,
    pending: limit,
  });
  await settle(again, "ack");
  expect((await send(server, "orders", "next", { prefer: "wait=20" })).status).toBe(202);
  expect(spillway.flow("orders").state().depth).toBe(1);
});

test("nats-io/nats-server#6413: a worker that never settles stops its own flow, which says so, and no other on the same connection", async () => {
  const full = { ...small, buffer: { messages: 10 }, window: { fixed: 2 } };
  const server = await openServer({ flows: { stuck: full, open: full } });
  const client = openClient(server);
  const stuck = client.flow<number>("stuck");
  const open = client.flow<number>("open");
  const blocked = new Promise((resolve) => stuck.once("blocked", resolve));
  const release = Promise.withResolvers<void>();
  stuck.consume(() => release.promise);
  const handled: number[] = [];
  open.consume((value) => void handled.push(value));
  const sends = Promise.all(Array.from({ length: 15 }, (_, n) => stuck.send(n)));
  sends.catch(() => undefined);
  expect(await blocked).toMatchObject({ code: expect.stringMatching(/buffer_full|no_credit/) });
  for (let n = 0; n < 100; n++) await open.send(n);
  await until(() => server.spillway.flow("open").state().counters.acked === 100);
  expect(handled).toHaveLength(100);
  expect(open.credits().waiting).toBe(0);
  await until(() => stuck.credits().waiting === 5);
  const stateOf = async (flow: string): Promise<Record<string, unknown>> =>
    (await call(server, `/v1/flows/${flow}`)).json;
  await until(async () => ((await stateOf("stuck"))["stalledMs"] as number) > 0);
  expect(await stateOf("stuck")).toMatchObject({ depth: 10, inFlight: 2, pressure: 1 });
  expect(await stateOf("open")).toMatchObject({ depth: 0, inFlight: 0, pressure: 0 });
  expect((await stateOf("open"))["stalledMs"]).toBeUndefined();
  expect(await look(server, "stuck/0/1")).toMatchObject({ why: { reason: "handler" } });
  expect(await look(server, "stuck/0/10")).toMatchObject({ why: { reason: "turn" } });
  release.resolve();
  expect(await sends).toHaveLength(15);
});

/** A worker that takes one message, says which attempt it is, and keeps it. */
const keeper = `
  import { connect } from ${JSON.stringify(join(import.meta.dirname, "../../src/client/index.ts"))};
  connect({ url: process.argv[1] }).flow("orders").consume((_value, { attempt }) => {
    process.stdout.write(String(attempt));
    return new Promise(() => {});
  });`;

test("graphile/worker#169: what a worker had that was killed is handled by another when its lease has ended", async () => {
  const server = await openServer({
    // Shorter than the lease of credit: what the dead one may still be sent must not cost attempts.
    flows: { orders: { ...small, lease: "1s" } },
  });
  const told = await listen(server, "/v1/events?flow=orders");
  const { json } = await send(server, "orders", '"x"');
  const id = json["id"] as string;
  const args = ["--conditions=source", "--input-type=module", "--eval", keeper, server.url];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [said] = (await once(child.stdout, "data")) as [Buffer];
  expect(said.toString()).toBe("1");
  child.kill("SIGKILL");
  await once(child, "exit");
  const handled = Promise.withResolvers<{ id: string; attempt: number }>();
  openClient(server)
    .flow("orders")
    .consume((_value, delivery) => handled.resolve(delivery));
  expect(await handled.promise).toMatchObject({ id, attempt: 2 });
  await until(() => server.spillway.flow("orders").state().depth === 0);
  expect(changes(told, id)).toMatchObject([
    { event: "leaseEnded", id, attempt: 1 },
    { event: "retrying", id, attempt: 1 },
  ]);
});

test("graphile/worker#198: a handler that extends its lease for several leases runs once", async () => {
  const server = await openServer({
    flows: { orders: { ...small, lease: "1s", window: { fixed: 2 } } },
  });
  const told = await listen(server, "/v1/events?flow=orders");
  const orders = openClient(server).flow<string>("orders");
  const runs: string[] = [];
  const leases = new EventTarget();
  orders.consume(async (value, delivery) => {
    runs.push(`${value} ${delivery.attempt}`);
    if (value === "long") {
      for (let ended = 0; ended < 3; ended++) {
        delivery.working("1m");
        await new Promise((resolve) => leases.addEventListener("ended", resolve, { once: true }));
      }
    } else if (delivery.attempt <= 3) {
      await lost(delivery);
      leases.dispatchEvent(new Event("ended"));
    }
  });
  const { id } = await orders.send("long");
  await until(() => runs.length === 1);
  await orders.send("clock"); // Its leases end, one after the other.
  await until(() => server.spillway.flow("orders").state().depth === 0);
  expect(runs).toEqual(["long 1", "clock 1", "clock 2", "clock 3", "clock 4"]);
  expect(changes(told, id)).toEqual([]);
});

/** Client and server with a network between them that does what networks do. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { connect } from "../../src/client/index.ts";
import type { Client, Receipt, RemoteFlow } from "../../src/client/index.ts";
import type { FlowOptions } from "../../src/spillway.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { openServer } from "../support/server.ts";

interface Scene {
  readonly way: FaultProxy;
  readonly client: Client;
  readonly flow: RemoteFlow<number>;
  readonly handled: Map<number, number>;
  stored(): number;
  accepted(): number;
}

const leaseMs = 500;

async function scene(options: FlowOptions = {}, seed = 1): Promise<Scene> {
  const credit = { leaseMs };
  const server = await openServer({
    flows: { orders: { partitions: 4, credit, window: { fixed: 8 }, ...options } },
  });
  const way = await FaultProxy.open(server.url, seed);
  onTestFinished(() => way[Symbol.asyncDispose]());
  const client = connect({ url: way.url, drain: "500ms" });
  onTestFinished(() => client.close());
  const queue = server.spillway.flow("orders");
  return {
    way,
    client,
    flow: client.flow<number>("orders"),
    handled: new Map(),
    stored: () => queue.state().depth,
    accepted: () => queue.state().counters.accepted,
  };
}

function takeAll({ flow, handled }: Scene): void {
  flow.consume((value) => {
    handled.set(value, (handled.get(value) ?? 0) + 1);
  });
}

function sendAll({ flow }: Scene, from: number, to: number): Promise<Receipt[]> {
  const sends: Promise<Receipt>[] = [];
  for (let n = from; n < to; n++) sends.push(flow.send(n, { key: `k${n % 7}` }));
  return Promise.all(sends);
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(5);
}

/** Every one accepted once and handled once: no fault here ends a session. */
async function checkAll(at: Scene, count: number, sent: readonly Receipt[]): Promise<void> {
  expect(new Set(sent.map(({ id }) => id)).size).toBe(count);
  await until(() => at.handled.size === count);
  expect([...at.handled.values()].every((times) => times === 1)).toBe(true);
  expect(at.accepted()).toBe(count);
}

test("G1, G5 jitter of 50 ms loses nothing and doubles nothing", async () => {
  const at = await scene();
  at.way.jitterMs = 50;
  takeAll(at);
  await checkAll(at, 140, await sendAll(at, 0, 140));
});

test("G1, G5 resets in the middle of everything lose nothing and double nothing", async () => {
  const at = await scene();
  at.way.jitterMs = 5;
  takeAll(at);
  const sent: Receipt[] = [];
  for (let round = 0; round < 6; round++) {
    const sending = sendAll(at, round * 50, round * 50 + 50);
    await until(() => at.accepted() > round * 50 + 10);
    at.way.reset();
    sent.push(...(await sending));
  }
  await checkAll(at, 300, sent);
});

test("G9 a producer whose link is cut stops within one lease, and goes on when it is back", async () => {
  const at = await scene();
  takeAll(at);
  const first = await sendAll(at, 0, 50);
  expect(at.flow.credits().messages).toBeGreaterThan(0);
  at.way.cut();
  await sleep(leaseMs);
  expect(at.flow.credits().messages).toBe(0);
  const refusal = at.flow.trySend(99);
  expect(refusal).toMatchObject({ accepted: false });
  const more = sendAll(at, 50, 100);
  at.way.mend();
  await checkAll(at, 100, [...first, ...(await more)]);
});

test("G3 the bound holds over every fault: nothing is stored beyond the buffer", async () => {
  const messages = 40;
  const at = await scene({ buffer: { messages }, classes: { normal: 1 } });
  let most = 0;
  const watch = setInterval(() => (most = Math.max(most, at.stored())), 1);
  onTestFinished(() => clearInterval(watch));
  const sending = sendAll(at, 0, 200);
  await until(() => at.stored() >= messages - 5);
  at.way.cut();
  await sleep(2 * leaseMs);
  at.way.mend();
  at.way.reset();
  takeAll(at);
  await checkAll(at, 200, await sending);
  expect(most).toBeLessThanOrEqual(messages);
});

test("G12 a connection whose other end is gone is noticed and replaced", async () => {
  const at = await scene();
  takeAll(at);
  const first = await sendAll(at, 0, 20);
  at.way.halfOpen();
  const more = await sendAll(at, 20, 40);
  await checkAll(at, 40, [...first, ...more]);
}, 30_000);

/** Stopping and reloading a server, in this process: what happens to those who wait. */
import { once } from "node:events";
import { connect } from "node:net";
import { expect, test } from "vitest";
import { parseConfig } from "../../src/config/index.ts";
import type { ConfigOptions } from "../../src/config/index.ts";
import { openServer } from "../support/server.ts";

function post(url: string, flow = "orders"): Promise<Response> {
  const headers = { prefer: "wait=60" };
  return fetch(`${url}/v1/flows/${flow}/messages`, { method: "POST", body: "x", headers });
}

test("a stopping server answers those who wait for credit, and takes no more connections", async () => {
  const server = await openServer({
    flows: { orders: { partitions: 1, buffer: { messages: 10 } } },
  });
  const { url } = server;
  const flow = server.spillway.flow<Uint8Array>("orders");
  const asked = Array.from({ length: 12 }, () => post(url));
  while (flow.state().producer.waiting < 4 || flow.state().depth < 8) await flowTurn();
  await server.close();
  const answers = await Promise.all(asked);
  const taken = answers.filter(({ status }) => status === 202);
  expect([taken.length, answers.length]).toEqual([8, 12]);
  const refused = answers.find(({ status }) => status === 503)!;
  expect(await refused.json()).toMatchObject({ code: "closed" });
  await expect(post(url)).rejects.toThrow("fetch failed");
});

test("a request that never ends does not keep the server from stopping", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => undefined);
  await once(socket, "connect");
  socket.write(
    "POST /v1/flows/orders/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nhalf",
  );
  expect((await post(server.url)).status).toBe(202); // By now the half has arrived, too.
  const closed = once(socket, "close");
  await server.close();
  await closed;
});

/** What may change of the running server's only flow, and the configuration that does. */
function config(options: ConfigOptions): ReturnType<typeof parseConfig> {
  return parseConfig({ log: "silent", drain: "1s", ...options });
}

test("a reload makes policies what the new configuration says, fields that went away included", async () => {
  const rate = { perSecond: 5 };
  const server = await openServer({
    flows: { orders: { rate, boundary: { rate }, retry: { attempts: 3, delay: ["1s", "2s"] } } },
  });
  const wanted = config({
    flows: { orders: { boundary: { groupRate: rate }, retry: { attempts: 3 }, lease: "1m" } },
  });
  const { changed } = await server.reload(wanted);
  expect(changed).toEqual({ orders: ["retry", "rate", "boundary", "lease"] });
  const { contract } = server.spillway.flow("orders");
  const { retry, boundary, leaseMs } = wanted.contracts["orders"]!;
  expect(contract).toMatchObject({ retry, leaseMs });
  expect(contract.boundary).toEqual(boundary);
  expect(contract.rate).toBeUndefined();
  expect((await server.reload(wanted)).changed).toEqual({});
});

test("a reload that cannot be taken up whole changes nothing", async () => {
  const server = await openServer({ flows: { orders: {}, bills: {} } });
  // What the store takes is known when a flow is opened, not when its contract is read.
  const messageBytesMax = "64 MiB";
  const wanted = config({
    flows: { orders: { lease: "1m" }, bills: {}, large: { messageBytesMax } },
  });
  await expect(server.reload(wanted)).rejects.toMatchObject({ code: "contract_invalid" });
  expect(server.spillway.flow("orders").contract.leaseMs).toBe(30_000);
  expect((await post(server.url, "large")).status).toBe(404);
});

test("a flow that is not named any more stays open, and the reload says so", async () => {
  const server = await openServer({ flows: { orders: {}, bills: {} } });
  const { waiting } = await server.reload(config({ flows: { orders: { order: "none" } } }));
  expect(waiting.map(({ path }) => path)).toEqual(
    expect.arrayContaining(["flows.bills", "flows.orders.order"]),
  );
  expect((await post(server.url, "bills")).status).toBe(202);
});

test("a closed server is not reloaded", async () => {
  const server = await openServer({ flows: {} });
  await server.close();
  await expect(server.reload(config({ flows: {} }))).rejects.toMatchObject({ code: "closed" });
});

function flowTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 5));
}

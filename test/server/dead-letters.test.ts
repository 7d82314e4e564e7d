/** Dead letters over HTTP, against a real server on a real store. */
import { expect, test } from "vitest";
import type { Server } from "../../src/server/index.ts";
import { call, pull, sendBatch, until } from "../support/http.ts";
import { openServer } from "../support/server.ts";

const flows = { orders: { partitions: 2, window: { fixed: 100 } } };
const path = "/v1/flows/orders/dead-letters";

/** Makes so many of them. @returns Their ids. */
async function die(server: Server, count: number): Promise<string[]> {
  await sendBatch(
    server,
    "orders",
    Array.from({ length: count }, (_, at) => ({ payload: { at, text: "x".repeat(2000) } })),
  );
  const ids: string[] = [];
  while (ids.length < count) {
    const settles = (await pull(server, "orders", { max: 100 })).map(({ id, messageId }) => {
      ids.push(messageId);
      return { id, verb: "term", reason: "bad" };
    });
    await call(server, "/v1/flows/orders/deliveries:settle", { body: { settles } });
  }
  return ids;
}

const dead = (server: Server): number => server.spillway.flow("orders").state().counters.dead;

test("they are listed page by page, each once", async () => {
  const server = await openServer({ flows });
  const ids = await die(server, 25);
  const seen: string[] = [];
  let next = "";
  do {
    const { json } = await call(server, `${path}?limit=10${next}`);
    const letters = json["deadLetters"] as { id: string; reason: string; payload?: string }[];
    seen.push(...letters.map(({ id }) => id));
    expect(letters[0]).toMatchObject({
      reason: "terminated: bad",
      payloadBytes: expect.any(Number),
    });
    expect(letters[0]!.payload).toBeUndefined();
    const after = json["next"] as string | undefined;
    next = after === undefined ? "" : `&after=${encodeURIComponent(after)}`;
  } while (next !== "");
  expect(seen.toSorted()).toEqual(ids.toSorted());
});

test("payloads are shown shortened on demand, and one letter with all of it", async () => {
  const server = await openServer({ flows });
  const [id] = await die(server, 1);
  const { json } = await call(server, `${path}?payload=short`);
  expect(json["deadLetters"]).toMatchObject([{ payloadTruncated: true, encoding: "utf-8" }]);
  const one = await call(server, `${path}/${id!.split("/").slice(1).join("/")}`);
  expect(JSON.parse(String(one.json["payload"]))).toMatchObject({ at: 0 });
  expect((await call(server, `${path}/0/999`)).status).toBe(404);
});

test("they come back at a bounded rate, which is seen, and one redrive runs at a time", async () => {
  const server = await openServer({ flows });
  await die(server, 12);
  const started = await call(server, `${path}:redrive`, { body: { ratePerS: 20 } });
  expect(started.status).toBe(202);
  expect(started.json).toMatchObject({ state: "running", ratePerS: 20 });
  const second = await call(server, `${path}:redrive`, { body: {} });
  expect(second.json).toMatchObject({ code: "state_conflict", status: 409 });
  await until(async () => (await call(server, `${path}:redrive`)).json["state"] === "done");
  const { json } = await call(server, `${path}:redrive`);
  expect(json).toMatchObject({ redriven: 12 });
  // However late its timer is, it is never ahead of its rate.
  const tookMs = Date.parse(String(json["endedAt"])) - Date.parse(String(json["startedAt"]));
  expect(tookMs).toBeGreaterThanOrEqual(590);
  await until(() => dead(server) === 0);
});

test("only the ids that are named come back; those that are none are counted", async () => {
  const server = await openServer({ flows });
  const ids = await die(server, 3);
  await call(server, `${path}:redrive`, {
    body: { ids: [ids[0], ids[2], "orders/0/999"], ratePerS: 1000 },
  });
  await until(async () => (await call(server, `${path}:redrive`)).json["state"] === "done");
  const { json } = await call(server, `${path}:redrive`);
  expect(json).toMatchObject({ redriven: 2, missing: 1 });
  await until(() => dead(server) === 1);
  const left = await call(server, path);
  expect(left.json["deadLetters"]).toMatchObject([{ id: ids[1] }]);
});

test("a redrive waits while the buffer is full, and can be cancelled", async () => {
  const server = await openServer({
    flows: {
      orders: { ...flows.orders, buffer: { messages: 3 }, classes: { normal: 1, bulk: 1 } },
    },
  });
  await die(server, 2);
  await sendBatch(
    server,
    "orders",
    [1, 2, 3].map((payload) => ({ payload })),
  );
  await call(server, `${path}:redrive`, { body: { ratePerS: 1000 } });
  const { json } = await call(server, `${path}:redrive`, { method: "DELETE" });
  expect(json).toMatchObject({ state: "cancelled", redriven: 0 });
  expect(dead(server)).toBe(2);
});

test("a purge needs a reason, and says how many there were", async () => {
  const server = await openServer({ flows });
  const ids = await die(server, 2);
  const refused = await call(server, `${path}:purge`, { body: { ids } });
  expect(refused.json).toMatchObject({ code: "request_invalid" });
  const { json } = await call(server, `${path}:purge`, {
    body: { ids: [...ids, "orders/1/999"], reason: "test data" },
  });
  expect(json).toEqual({ purged: 2 });
  await until(() => dead(server) === 0);
  const seen = await call(server, `/v1/flows/orders/messages/${encodeURIComponent(ids[0]!)}`);
  expect(seen.json).toMatchObject({ state: "discarded", reason: "test data" });
});

test("ids of another flow are not touched", async () => {
  const server = await openServer({ flows });
  for (const verb of ["redrive", "purge"]) {
    const body = { ids: ["other/0/1"], reason: "x" };
    expect((await call(server, `${path}:${verb}`, { body })).status).toBe(404);
  }
});

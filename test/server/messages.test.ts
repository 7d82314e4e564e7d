/** Sending over HTTP, against a real server on a real store. */
import { expect, test } from "vitest";
import { openServer } from "../support/server.ts";

test("G1 a message is answered with 202 and its receipt, and is stored", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const response = await fetch(`${server.url}/v1/flows/orders/messages`, {
    method: "POST",
    body: "hello",
  });
  expect(response.status).toBe(202);
  const receipt = (await response.json()) as { id: string };
  expect(receipt).toMatchObject({ duplicate: false, durability: "fsync" });
  const flow = server.spillway.flow<Uint8Array>("orders");
  const [delivery] = await flow.pull({ max: 1, waitMs: 5000 });
  expect(delivery?.id).toBe(receipt.id);
  expect(new TextDecoder().decode(delivery!.bytes)).toBe("hello");
});

test("G12 a flow that is not there is a problem with its code", async () => {
  const server = await openServer({ flows: {} });
  const response = await fetch(`${server.url}/v1/flows/nope/messages`, {
    method: "POST",
    body: "x",
  });
  expect(response.status).toBe(404);
  expect(response.headers.get("content-type")).toContain("application/problem+json");
  expect(await response.json()).toMatchObject({ code: "not_found", status: 404 });
});

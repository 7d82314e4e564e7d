/** Push delivery, against real targets: what is sent, and what each answer makes of a message. */
import { expect, test, vi } from "vitest";
import { openServer } from "../support/server.ts";
import { PushTarget } from "../support/push-target.ts";

const encoder = new TextEncoder();

test("G1 a message that came over HTTP is pushed to the target of its flow, and acked by its 200", async () => {
  const target = await new PushTarget().listen();
  const server = await openServer({ flows: { orders: target.deliver() } });
  const response = await fetch(`${server.url}/v1/flows/orders/messages`, {
    method: "POST",
    body: "hello",
  });
  const { id } = (await response.json()) as { id: string };
  const flow = server.spillway.flow<Uint8Array>("orders");
  await vi.waitUntil(() => flow.state().counters.acked === 1);
  const [{ body, headers, url }] = target.got as [(typeof target.got)[0]];
  expect(body.toString()).toBe("hello");
  expect(url).toBe("/hook");
  expect(headers).toMatchObject({ "spillway-message-id": id, "spillway-attempt": "1" });
});

test("calls keep their connections: as many as were in flight at once, no more", async () => {
  const target = await new PushTarget().listen();
  const server = await openServer({
    flows: { orders: { ...target.deliver(), window: { fixed: 4 } } },
  });
  const flow = server.spillway.flow<Uint8Array>("orders");
  await flow.sendBatch(Array.from({ length: 200 }, (_, n) => encoder.encode(String(n))));
  await vi.waitUntil(() => flow.state().counters.acked === 200);
  expect(target.got).toHaveLength(200);
  expect(target.connections).toBeLessThanOrEqual(4);
});

/** What a client says when the server refuses, and when nothing can be sent. */
import { expect, onTestFinished, test, vi } from "vitest";
import { connect } from "../../src/client/index.ts";
import type { Client, SpillwayError } from "../../src/client/index.ts";
import { openServer } from "../support/server.ts";

async function openClient(): Promise<Client> {
  const flows = { orders: { partitions: 1, buffer: { messages: 2 }, classes: { normal: 1 } } };
  const server = await openServer({ flows });
  const client = connect({ url: server.url, drain: "1s" });
  onTestFinished(() => client.close());
  return client;
}

test("a flow that does not exist is named once, to senders, takers and listeners alike", async () => {
  const client = await openClient();
  const flow = client.flow("nope");
  const told: SpillwayError[] = [];
  flow.on("error", (error) => told.push(error));
  await expect(flow.send(1)).rejects.toMatchObject({
    code: "not_found",
    message: "There is no such thing. (flow: nope)",
  });
  await expect(flow.deliveries().next()).rejects.toMatchObject({ code: "not_found" });
  expect(told.map(({ code }) => code)).toEqual(["not_found", "not_found"]);
});

test("a handler that gets nothing is not overlooked: without a listener there is a warning", async () => {
  const warned = Promise.withResolvers<string>();
  const warn = vi.spyOn(console, "warn").mockImplementation((text: string) => warned.resolve(text));
  onTestFinished(() => warn.mockRestore());
  const client = await openClient();
  client.flow("nope").consume(() => undefined);
  expect(await warned.promise).toContain("flow nope: its handler gets nothing");
});

test("a wait for credit ends with its signal", async () => {
  const client = await openClient();
  const flow = client.flow<number>("orders");
  await Promise.all([flow.send(1), flow.send(2)]);
  await flow.ready();
  const third = flow.send(3);
  third.catch(() => undefined); // It is closed with the client.
  await vi.waitFor(() => expect(flow.credits().waiting).toBe(1));
  const waiting = new AbortController();
  const ready = flow.ready({ signal: waiting.signal });
  waiting.abort();
  await expect(ready).rejects.toMatchObject({ code: "aborted" });
});

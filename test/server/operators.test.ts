/** Who may do what, and what is recorded of it. */
import type { FastifyInstance } from "fastify";
import { expect, onTestFinished, test } from "vitest";
import type { Access, Verb } from "../../src/server/access.ts";
import { createApp } from "../../src/server/app.ts";
import type { AuditEntry } from "../../src/server/audit.ts";
import { addBatch } from "../../src/server/batch.ts";
import { addControls } from "../../src/server/controls.ts";
import { addDeadLetters } from "../../src/server/dead-letters.ts";
import { addEvents } from "../../src/server/events.ts";
import { addMessages } from "../../src/server/messages.ts";
import { addPull } from "../../src/server/pull.ts";
import { addState } from "../../src/server/state.ts";
import { openContext } from "../support/context.ts";

async function openApp(
  access: Partial<Access> | undefined,
  record: (entry: AuditEntry) => void = () => undefined,
): Promise<FastifyInstance> {
  const { context, security } = await openContext(
    { flows: { orders: { partitions: 2 }, bills: {} } },
    {
      audit: { record: (entry) => Promise.resolve(record(entry)) },
      ...(access === undefined ? {} : { access }),
    },
  );
  const app = createApp(context, security.connections);
  const parts = [addMessages, addBatch, addPull, addState, addDeadLetters, addControls, addEvents];
  for (const add of parts) add(app, context);
  onTestFinished(() => app.close());
  return app;
}

const accessOf = (
  allowed: Verb,
  flow: string,
): Pick<Access, "principalOf" | "attach" | "charge"> => ({
  principalOf: () => ({
    id: "t",
    allows: (verb, on) => verb === allowed && on === flow,
    allowsSome: (verb) => verb === allowed,
  }),
  attach: () => undefined,
  charge: () => undefined,
});

test("S12 every action of an operator leaves exactly one entry", async () => {
  const entries: AuditEntry[] = [];
  const app = await openApp(undefined, (entry) => entries.push(entry));
  const path = "/v1/flows/orders";
  const calls: [string, string, object?][] = [
    ["POST", `${path}:pause`, { reason: "deploy" }],
    ["POST", `${path}:resume`],
    ["POST", `${path}/partitions/1:close-intake`],
    ["POST", `${path}/partitions/1:open-intake`],
    ["POST", `${path}:drain`],
    ["PATCH", `${path}/policy`, { lease: "1m" }],
    ["POST", `${path}/dead-letters:redrive`],
    ["DELETE", `${path}/dead-letters:redrive`],
    ["POST", `${path}/dead-letters:purge`, { ids: ["orders/0/1"], reason: "test" }],
  ];
  for (const [method, url, body] of calls) {
    const before = entries.length;
    const { statusCode } = await app.inject({
      method: method as "POST",
      url,
      ...(body === undefined ? {} : { payload: body }),
    });
    expect([url, statusCode < 300]).toEqual([url, true]);
    expect([url, entries.length]).toEqual([url, before + 1]);
    expect(entries.at(-1)).toMatchObject({
      principal: "anyone",
      flow: "orders",
      requestId: expect.stringMatching(/./),
    });
  }
  expect(entries.map(({ action }) => action)).toEqual([
    "flow.pause",
    "flow.resume",
    "flow.close-intake",
    "flow.open-intake",
    "flow.drain",
    "flow.policy",
    "dead-letters.redrive",
    "dead-letters.redrive.cancel",
    "dead-letters.purge",
  ]);
  expect(entries[0]).toMatchObject({
    before: { isPaused: false },
    reason: "deploy",
  });
  expect(entries[2]).toMatchObject({ partition: 1 });
});

test("what is refused leaves none", async () => {
  const entries: AuditEntry[] = [];
  const app = await openApp(undefined, (entry) => entries.push(entry));
  const refused = [
    ["POST", "/v1/flows/nope:pause", {}],
    ["POST", "/v1/flows/orders:pause", { reasn: "x" }],
    ["PATCH", "/v1/flows/orders/policy", { lease: "soon" }],
    ["POST", "/v1/flows/orders/dead-letters:purge", { ids: ["orders/0/1"] }],
  ] as const;
  for (const [method, url, payload] of refused) {
    const { statusCode } = await app.inject({ method, url, payload });
    expect(statusCode).toBeGreaterThanOrEqual(400);
  }
  expect(entries).toEqual([]);
});

/** Every call, with the verb that it needs. */
const matrix: readonly [Verb, string, string][] = [
  ["produce", "POST", "/v1/flows/orders/messages"],
  ["produce", "POST", "/v1/flows/orders/messages:batch"],
  ["consume", "POST", "/v1/flows/orders/deliveries"],
  ["consume", "POST", "/v1/flows/orders/deliveries:settle"],
  ["consume", "POST", "/v1/deliveries/orders.0.1.1:ack"],
  ["consume", "POST", "/v1/deliveries/orders.0.1.1:nack"],
  ["consume", "POST", "/v1/deliveries/orders.0.1.1:release"],
  ["consume", "POST", "/v1/deliveries/orders.0.1.1:term"],
  ["consume", "POST", "/v1/deliveries/orders.0.1.1:working"],
  ["observe", "GET", "/v1/flows/orders"],
  ["observe", "GET", "/v1/flows/orders/partitions"],
  ["observe", "GET", "/v1/flows/orders/partitions/0"],
  ["observe", "GET", "/v1/flows/orders/messages/0/1"],
  ["observe", "GET", "/v1/flows/orders/messages/orders%2F0%2F1"],
  ["observe", "GET", "/v1/flows/orders/dead-letters"],
  ["observe", "GET", "/v1/flows/orders/dead-letters/0/1"],
  ["observe", "GET", "/v1/flows/orders/dead-letters:redrive"],
  ["admin", "POST", "/v1/flows/orders/dead-letters:redrive"],
  ["admin", "DELETE", "/v1/flows/orders/dead-letters:redrive"],
  ["admin", "POST", "/v1/flows/orders/dead-letters:purge"],
  ["admin", "PATCH", "/v1/flows/orders/policy"],
  ...["pause", "resume", "close-intake", "open-intake", "drain"].flatMap(
    (name): [Verb, string, string][] => [
      ["admin", "POST", `/v1/flows/orders:${name}`],
      ["admin", "POST", `/v1/flows/orders/partitions/0:${name}`],
    ],
  ),
];

test("S2 every call needs its verb on its flow, whichever flow a delivery is of", async () => {
  let access = accessOf("produce", "orders");
  const app = await openApp({
    principalOf: (request) => access.principalOf(request),
    attach: () => undefined,
    charge: () => undefined,
  });
  for (const [verb, method, url] of matrix) {
    for (const other of ["produce", "consume", "observe", "admin"] as const) {
      if (other === verb) continue;
      access = accessOf(other, "orders");
      const { statusCode } = await app.inject({ method: method as "POST", url });
      expect([url, other, statusCode]).toEqual([url, other, 403]);
    }
    access = accessOf(verb, "bills");
    const another = await app.inject({ method: method as "POST", url });
    expect([url, another.statusCode]).toEqual([url, 403]);
    access = accessOf(verb, "orders");
    const { statusCode } = await app.inject({ method: method as "POST", url });
    expect([url, statusCode === 403]).toEqual([url, false]);
  }
});

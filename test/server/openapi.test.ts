/** The document of the HTTP API, against the routes that there are and an independent validator. */
import { Validator } from "@seriousme/openapi-schema-validator";
import { expect, test } from "vitest";
import { createApp } from "../../src/server/app.ts";
import type { Server } from "../../src/server/index.ts";
import { addOpenApi } from "../../src/server/openapi.ts";
import { call } from "../support/http.ts";
import { openServer } from "../support/server.ts";
import { openContext } from "../support/context.ts";

interface Document {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

interface Operation {
  readonly summary: string;
  readonly responses: Readonly<Record<string, object>>;
  readonly parameters?: readonly { readonly in: string; readonly name: string }[];
}

async function documentOf(server: Server): Promise<Document> {
  const { json } = await call(server, "/openapi.json");
  return json as unknown as Document;
}

test("an independent validator accepts it as OpenAPI 3.1", async () => {
  const server = await openServer({ flows: {} });
  const validator = new Validator();
  const result = await validator.validate({ ...(await documentOf(server)) });
  expect(result.errors ?? []).toEqual([]);
  expect(result.valid).toBe(true);
  expect(validator.version).toBe("3.1");
});

test("every call of the design is in it, with its summary, answers and parameters", async () => {
  const server = await openServer({ flows: {} });
  const { paths } = await documentOf(server);
  const calls = Object.entries(paths).flatMap(([path, operations]) =>
    Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const controls = ["pause", "resume", "close-intake", "open-intake", "drain"];
  expect(calls.toSorted()).toEqual(
    [
      "POST /v1/flows/{flow}/messages",
      "POST /v1/flows/{flow}/messages:batch",
      "GET /v1/flows/{flow}/messages/{message}",
      "GET /v1/flows/{flow}/messages/{partition}/{seq}",
      "POST /v1/flows/{flow}/deliveries",
      "POST /v1/flows/{flow}/deliveries:settle",
      ...["ack", "nack", "release", "term", "working"].map(
        (verb) => `POST /v1/deliveries/{delivery}:${verb}`,
      ),
      "GET /v1/flows",
      "GET /v1/flows/{flow}",
      "GET /v1/flows/{flow}/partitions",
      "GET /v1/flows/{flow}/partitions/{partition}",
      "PATCH /v1/flows/{flow}/policy",
      ...controls.map((verb) => `POST /v1/flows/{flow}:${verb}`),
      ...controls.map((verb) => `POST /v1/flows/{flow}/partitions/{partition}:${verb}`),
      "GET /v1/flows/{flow}/dead-letters",
      "GET /v1/flows/{flow}/dead-letters/{partition}/{seq}",
      "POST /v1/flows/{flow}/dead-letters:redrive",
      "GET /v1/flows/{flow}/dead-letters:redrive",
      "DELETE /v1/flows/{flow}/dead-letters:redrive",
      "POST /v1/flows/{flow}/dead-letters:purge",
      "GET /v1/events",
      "POST /v1/tokens",
      "GET /v1/tokens",
      "DELETE /v1/tokens/{id}",
      "GET /v1/audit",
      "GET /v1/audit/verification",
      "GET /healthz",
      "GET /readyz",
      "GET /openapi.json",
    ].toSorted(),
  );
  for (const [path, operations] of Object.entries(paths)) {
    for (const { summary, responses, parameters = [] } of Object.values(operations)) {
      expect(summary).not.toBe("");
      expect(Object.keys(responses)).toEqual(expect.arrayContaining(["4XX", "5XX"]));
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name!);
      const inPath = parameters.filter((each) => each.in === "path").map(({ name }) => name);
      expect(inPath.toSorted()).toEqual(named.toSorted());
    }
  }
});

test("every route is documented: each of the document is there, and answers", async () => {
  const server = await openServer({ flows: { orders: {} } });
  const { paths } = await documentOf(server);
  for (const [path, operations] of Object.entries(paths)) {
    const url = path
      .replace("{flow}", "orders")
      .replace("{partition}", "0")
      .replace("{seq}", "1")
      .replace("{message}", "orders%2F0%2F1")
      .replace("{delivery}", "orders.0.1.1");
    // A method that is not there answers with those that are.
    const { status, headers } = await call(server, url, { method: "PUT" });
    const allowed = headers.get("allow")?.split(", ") ?? [];
    expect([url, status]).toEqual([url, 405]);
    for (const method of Object.keys(operations)) expect(allowed).toContain(method.toUpperCase());
    const known = new Set([
      ...Object.keys(operations).map((method) => method.toUpperCase()),
      "HEAD",
    ]);
    expect(allowed.filter((method) => !known.has(method))).toEqual([]);
  }
});

test("a route without a verb cannot be added", async () => {
  const { context, security } = await openContext({ flows: {} });
  const app = createApp(context, security.connections);
  addOpenApi(app);
  expect(() => app.get("/open", () => "x")).toThrow("says no verb");
  await app.close();
});

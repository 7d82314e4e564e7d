/** S2 Scopes: verb, flow and group, checked on the object; what no scope names is refused. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseConfig } from "../../src/config/index.ts";
import { demand } from "../../src/server/access.ts";
import { createApp } from "../../src/server/app.ts";
import type { Context, RouteRow } from "../../src/server/app.ts";
import { Connections } from "../../src/server/connections.ts";
import type { Server } from "../../src/server/index.ts";
import { verbs } from "../../src/server/index.ts";
import { Log } from "../../src/server/log.ts";
import { matches } from "../../src/server/scope.ts";
import { codeOf, makeAdmin, makeToken } from "../support/callers.ts";
import type { Caller } from "../support/callers.ts";
import { exchange, requestText } from "../support/raw-http.ts";
import { openServer } from "../support/server.ts";

const flows = { "mine-a": {}, "mine-b": {}, "other-a": {} };

interface Answered {
  readonly route: string;
  readonly status: number;
  readonly code: string | undefined;
}

/** @param flow Stands for `:flow`, also in ids; "x" stands for every other part that varies. */
async function ask(caller: Caller, { method, path }: RouteRow, flow: string): Promise<Answered> {
  const parts: Readonly<Record<string, string>> = {
    flow,
    delivery: `${flow}.0.1.1`,
    message: encodeURIComponent(`${flow}/0/1`),
    partition: "0",
    seq: "1",
  };
  const asked = path.replaceAll(/::|:([A-Za-z]+)(?:\([^)]*\))?/g, (part, name: string) =>
    part === "::" ? ":" : (parts[name] ?? "x"),
  );
  const ending = new AbortController();
  const response = await caller.call(method, asked, {
    ...(method === "POST" ? { body: "" } : {}),
    signal: AbortSignal.any([ending.signal, AbortSignal.timeout(10_000)]),
  });
  const { status, headers } = response;
  const isProblem = headers.get("content-type")?.includes("problem+json") === true;
  const code = isProblem && method !== "HEAD" ? await codeOf(response) : undefined;
  ending.abort(); // Of answers that do not end, such as events, the head is enough.
  return { route: `${method} ${path}`, status, code };
}

/** @param refusal How a refusal is answered. */
function mistakeOf(
  answered: Answered,
  isAllowed: boolean,
  refusal: Omit<Answered, "route">,
): Answered[] {
  const isGood = isAllowed
    ? answered.status !== 401 && answered.status !== 403
    : answered.status === refusal.status && answered.code === refusal.code;
  return isGood ? [] : [answered];
}

/** Every route that needs a token. GET /v1/x also stands for HEAD, which Fastify adds. */
function rowsOf(server: Server): readonly RouteRow[] {
  const rows = server.routes.filter(({ verb, method }) => verb !== "public" && method !== "HEAD");
  expect(rows.length).toBeGreaterThan(3);
  return rows;
}

const namesFlow = ({ path }: RouteRow): boolean => /:(flow|delivery)\b/.test(path);

test("S2 every route, with every verb, on own and other flows: exactly the verb that it needs, where the token has it", async () => {
  const server = await openServer({ flows });
  const admin = await makeAdmin(server);
  const wrong: Answered[] = [];
  for (const verb of verbs) {
    const some = await makeToken(server, { verbs: [verb], flows: ["mine*"] }, admin);
    const all = await makeToken(server, { verbs: [verb], flows: ["*"] }, admin);
    for (const row of rowsOf(server)) {
      const has = row.verb === verb;
      const cases: [Caller, string, boolean][] = [
        [some, "mine-a", has && (namesFlow(row) || row.checksObject)],
        [some, "other-a", has && !namesFlow(row) && row.checksObject],
        [all, "other-a", has],
      ];
      for (const [caller, flow, isAllowed] of cases) {
        const answered = await ask(caller, row, flow);
        wrong.push(...mistakeOf(answered, isAllowed, { status: 403, code: "forbidden" }));
      }
    }
  }
  expect(wrong).toEqual([]);
}, 60_000);

test("S2 attack: a token of a group reaches only routes that hold it to its group; the rest is not there", async () => {
  const server = await openServer({ flows });
  const admin = await makeAdmin(server);
  const wrong: Answered[] = [];
  for (const verb of verbs) {
    const wanted = { verbs: [verb], flows: ["mine*"], group: "acme" };
    const caller = await makeToken(server, wanted, admin);
    for (const row of rowsOf(server)) {
      for (const flow of ["mine-a", "other-a", "no-such-flow"]) {
        const answered = await ask(caller, row, flow);
        const isAllowed =
          row.byGroup &&
          row.verb === verb &&
          (namesFlow(row) ? flow === "mine-a" : row.checksObject);
        wrong.push(...mistakeOf(answered, isAllowed, { status: 404, code: "not_found" }));
      }
    }
  }
  expect(wrong).toEqual([]);
}, 60_000);

test("S2 attack: a group sends as itself, whatever it says; as another it is refused", async () => {
  const server = await openServer({ flows });
  const admin = await makeAdmin(server);
  const wanted = { verbs: ["produce"], flows: ["*"], group: "acme" } as const;
  const caller = await makeToken(server, wanted, admin);
  const send = (headers: Record<string, string>): Promise<Response> =>
    caller.call("POST", "/v1/flows/mine-a/messages", { body: "x", headers });
  expect((await send({})).status).toBe(202);
  expect((await send({ "spillway-group": "acme" })).status).toBe(202);
  const refused = await send({ "spillway-group": "globex" });
  expect(refused.status).toBe(403);
  const flow = server.spillway.flow<Uint8Array>("mine-a");
  for (let count = 0; count < 2; count += 1) {
    const [taken] = await flow.pull({ max: 1, waitMs: 5000 });
    expect(taken?.group).toBe("acme");
    await taken?.ack();
  }
  expect(flow.state().counters.pending).toBe(0);
});

test("S2 attack: an admin of some flows can make no token and read no audit log", async () => {
  const server = await openServer({ flows });
  const admin = await makeAdmin(server);
  const some = await makeToken(server, { verbs: [...verbs], flows: ["mine*"] }, admin);
  const body = JSON.stringify({ verbs: ["admin"], flows: ["*"] });
  const headers = { "content-type": "application/json" };
  expect((await some.call("POST", "/v1/tokens", { body, headers })).status).toBe(403);
  expect((await some.call("GET", "/v1/audit")).status).toBe(403);
  expect((await some.call("DELETE", `/v1/tokens/${admin.id}`)).status).toBe(403);
  expect((await admin.call("GET", "/v1/audit")).status).toBe(200);
});

test("S2 attack: other spellings of a path reach nothing more", async () => {
  const server = await openServer({ flows });
  const admin = await makeAdmin(server);
  const caller = await makeToken(server, { verbs: ["produce"], flows: ["mine*"] }, admin);
  for (const path of [
    "/v1/flows/mine-a/../other-a/messages",
    "/v1/flows/mine-a%2f..%2fother-a/messages",
    "/v1/flows/%6fther-a/messages",
    "/v1/flows/other-a%00mine-a/messages",
    "/v1/flows//other-a/messages",
    "/v1//flows/other-a/messages",
    "/V1/flows/other-a/messages",
    "/v1/flows/other-a/messages/",
    "/v1/flows/other-a;mine-a/messages",
    "http://other.test/v1/flows/other-a/messages",
    "/v1/flows/other-a/messages?flow=mine-a",
  ]) {
    const { hostname, port } = new URL(server.url);
    const [answer] = await exchange(
      server.url,
      requestText(
        `POST ${path}`,
        { host: `${hostname}:${port}`, authorization: `Bearer ${caller.token}` },
        "x",
      ),
    );
    expect({ path, isRefused: [400, 403, 404].includes(answer!.status) }).toEqual({
      path,
      isRefused: true,
    });
  }
  const { counters } = server.spillway.flow("other-a").state();
  expect(counters.accepted).toBe(0);
});

test("S2 attack: a route that does not say that it holds groups apart is not there for a group, whatever its scope", () => {
  const member = { id: "m", group: "acme", allows: () => true, allowsSome: () => true };
  for (const flow of ["orders", undefined]) {
    const notFound: unknown = expect.objectContaining({ code: "not_found" });
    expect(() => demand(member, { verb: "observe" }, flow)).toThrow(notFound);
    expect(() => demand(member, { verb: "consume", checks: "object" }, flow)).toThrow(notFound);
    demand(member, { verb: "produce", byGroup: true }, flow);
  }
});

test("S2 a route that says no verb is not served: the server does not start with it", () => {
  const config = parseConfig({ flows: {} });
  const log = new Log("silent", () => undefined);
  using connections = new Connections(config, { log, certificates: undefined });
  const app = createApp({ config, log } as Context, connections);
  expect(() => app.get("/v1/forgotten", () => "x")).toThrow("says no verb");
});

test("S2 a pattern matches as one expects, and takes no longer for a hostile one", () => {
  expect(matches("orders", "orders")).toBe(true);
  expect(matches("orders*", "orders")).toBe(true);
  expect(matches("orders*", "orders.eu")).toBe(true);
  expect(matches("*.eu", "orders.eu")).toBe(true);
  expect(matches("a*a", "a")).toBe(false);
  expect(matches("a*b*c", "a-b-c")).toBe(true);
  expect(matches("a*b*c", "a-c-b")).toBe(false);
  expect(matches("orders", "orders2")).toBe(false);
  expect(matches("orders.", "ordersx")).toBe(false);
  expect(matches("", "x")).toBe(false);
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "*"), maxLength: 12 });
  const names = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 12 });
  fc.assert(
    fc.property(letters, names, (pattern, name) => {
      const expression = new RegExp(`^${pattern.replaceAll("*", ".*")}$`);
      expect(matches(pattern, name)).toBe(expression.test(name));
    }),
    { numRuns: 2000 },
  );
});

/** Tokens over HTTP, for whoever is admin of everything: make one, list them, revoke one. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import { verbs } from "./scope.ts";
import type { Actor, NewToken, Tokens } from "./tokens.ts";

const rate = {
  type: "object",
  additionalProperties: false,
  required: ["perSecond", "burst"],
  properties: {
    perSecond: { type: "number", exclusiveMinimum: 0, maximum: 1e12 },
    burst: { type: "number", minimum: 1, maximum: 1e12 },
  },
} as const;

/** JSON schema of what makes a token; `Tokens.create` checks what the fields hold. */
const newToken = {
  type: "object",
  additionalProperties: false,
  required: ["verbs", "flows"],
  properties: {
    verbs: { type: "array", items: { type: "string", enum: verbs } },
    flows: { type: "array", items: { type: "string" } },
    group: { type: "string" },
    name: { type: "string" },
    certificate: { type: "string" },
    expiresAtMs: { type: "integer", maximum: 8.64e15 },
    quota: {
      type: "object",
      additionalProperties: false,
      properties: {
        requests: rate,
        bytes: rate,
        connections: { type: "integer", minimum: 1, maximum: 1e6 },
      },
    },
  },
} as const;

export function addTokenRoutes(app: FastifyInstance, tokens: Tokens): void {
  app.post<{ Body: NewToken }>(
    "/v1/tokens",
    { config: { verb: "admin" }, schema: { body: newToken } },
    async (request, reply) => {
      const { view, token } = await tokens.create(request.body, actorOf(request));
      // Shown once: no cache may keep it.
      return reply
        .code(201)
        .header("cache-control", "no-store")
        .send(token === undefined ? view : { ...view, token });
    },
  );
  app.get("/v1/tokens", { config: { verb: "admin" } }, () => ({ tokens: tokens.list() }));
  app.delete<{ Params: { id: string } }>(
    "/v1/tokens/:id",
    { config: { verb: "admin" } },
    async (request, reply) => {
      await tokens.revoke(request.params.id, actorOf(request));
      return reply.code(204).send();
    },
  );
}

function actorOf({ principal, id }: FastifyRequest): Actor {
  return { principal: principal.id, requestId: id };
}

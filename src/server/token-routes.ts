/** Tokens over HTTP, for whoever is admin of everything: make one, list them, revoke one. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import { fields } from "../flow/index.ts";
import { verbs } from "./scope.ts";
import { documented, freeText, parsed } from "./shapes.ts";
import type { Actor, NewToken, Tokens } from "./tokens.ts";

const rate = fields.section({
  perSecond: fields.perSecond({ description: "Requests or bytes per second." }),
  burst: fields.quantity({ min: 1, max: 1e12, description: "At once." }),
});

/** `Tokens.create` checks what the fields hold. */
const newToken = fields.section({
  verbs: z.array(fields.choice(verbs, { description: "What it may do." }), {
    error: `a list of ${verbs.join(", ")}`,
  }),
  flows: z.array(freeText("A flow, or a pattern with *."), { error: "a list of flows" }),
  group: freeText("It sends for this group only.").optional(),
  name: freeText("For people.").optional(),
  certificate: freeText("A name in a client certificate, in place of a secret.").optional(),
  expiresAtMs: fields
    .count({ min: 0, max: 8.64e15, description: "Since the epoch; by default never." })
    .optional(),
  quota: fields
    .section({
      requests: rate.optional(),
      bytes: rate.optional(),
      connections: fields.count({ min: 1, max: 1e6, description: "At once." }).optional(),
    })
    .optional(),
});

export function addTokenRoutes(app: FastifyInstance, tokens: Tokens): void {
  app.register((scope, _options, registered) => {
    scope.post(
      "/v1/tokens",
      { config: { verb: "admin" }, schema: createCall },
      async (request, reply) => {
        const wanted = parsed(newToken, request.body) as NewToken;
        const { view, token } = await tokens.create(wanted, actorOf(request));
        // Shown once: no cache may keep it.
        return reply
          .code(201)
          .header("cache-control", "no-store")
          .send(token === undefined ? view : { ...view, token });
      },
    );
    scope.get("/v1/tokens", { config: { verb: "admin" }, schema: listCall }, () => ({
      tokens: tokens.list(),
    }));
    scope.delete<{ Params: { id: string } }>(
      "/v1/tokens/:id",
      { config: { verb: "admin" }, schema: revokeCall },
      async (request, reply) => {
        await tokens.revoke(request.params.id, actorOf(request));
        return reply.code(204).send();
      },
    );
    registered();
  });
}

function actorOf({ principal, id }: FastifyRequest): Actor {
  return { principal: principal.id, requestId: id };
}

const shown = z.looseObject({ id: z.string() });
const createCall = documented({
  summary: "Make a token",
  tag: "server",
  body: newToken,
  answers: {
    201: { description: "The token; its text is shown this once.", shape: shown },
  },
});
const listCall = documented({
  summary: "List tokens, without their secrets",
  tag: "server",
  answers: { 200: { description: "Tokens.", shape: z.object({ tokens: z.array(shown) }) } },
});
const revokeCall = documented({
  summary: "Revoke a token",
  tag: "server",
  params: ["id"],
  answers: { 204: { description: "It is void now." } },
});

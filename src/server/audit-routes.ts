/** The audit log over HTTP, the newest first; and whether it is whole. */
import type { FastifyInstance } from "fastify";
import type { Context } from "./app.ts";
import { verifyAudit } from "./audit.ts";

const pageDefault = 100;
const pageMax = 500;

/** Numbers in a query come as text, and texts are not turned here. */
const query = {
  type: "object",
  additionalProperties: false,
  properties: {
    before: { type: "string", pattern: "^[1-9]\\d{0,14}$" },
    limit: { type: "string", pattern: "^([1-9]\\d?|[1-4]\\d\\d|500)$" },
  },
} as const;

export function addAuditRoutes(app: FastifyInstance, { audit, spillway }: Context): void {
  app.get<{ Querystring: { before?: string; limit?: string } }>(
    "/v1/audit",
    { config: { verb: "observe" }, schema: { querystring: query } },
    async ({ query: { before, limit } }) => {
      const entries = await audit.list({
        limit: Math.min(pageMax, Number(limit ?? pageDefault)),
        ...(before === undefined ? {} : { before: Number(before) }),
      });
      const oldest = entries.at(-1)?.number ?? 1;
      return { head: audit.head, entries, ...(oldest > 1 ? { nextBefore: oldest } : {}) };
    },
  );
  app.get("/v1/audit/verification", { config: { verb: "observe" } }, () =>
    verifyAudit(spillway.meta),
  );
}

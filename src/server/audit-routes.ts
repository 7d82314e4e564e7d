/** The audit log over HTTP, the newest first; and whether it is whole. */
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { fields } from "../flow/index.ts";
import type { Context } from "./app.ts";
import { verifyAudit } from "./audit.ts";
import { documented, parsed, queryCount } from "./shapes.ts";

const query = fields.section({
  before: queryCount({ min: 1, max: 1e15, description: "Entries older than this one." }).optional(),
  limit: queryCount({ min: 1, max: 500, description: "At most; 100 by default." }).optional(),
});

export function addAuditRoutes(app: FastifyInstance, { audit, spillway }: Context): void {
  app.register((scope, _options, registered) => {
    scope.get("/v1/audit", { config: { verb: "observe" }, schema: listCall }, async (request) => {
      const { before, limit = 100 } = parsed(query, request.query);
      const entries = await audit.list({
        limit,
        ...(before === undefined ? {} : { before }),
      });
      const oldest = entries.at(-1)?.number ?? 1;
      return { head: audit.head, entries, ...(oldest > 1 ? { nextBefore: oldest } : {}) };
    });
    scope.get("/v1/audit/verification", { config: { verb: "observe" }, schema: verifyCall }, () =>
      verifyAudit(spillway.meta),
    );
    registered();
  });
}

const head = z.object({ number: z.int(), hash: z.string() });
const listCall = documented({
  summary: "What operators did, the newest first",
  tag: "server",
  query,
  answers: {
    200: {
      description: "A page of the audit log.",
      shape: z.object({
        head,
        entries: z.array(z.looseObject({ number: z.int(), action: z.string() })),
        nextBefore: z.int().optional(),
      }),
    },
  },
});
const verifyCall = documented({
  summary: "Whether the audit log is whole",
  tag: "server",
  answers: {
    200: {
      description: "What was found.",
      shape: z.object({
        entries: z.int(),
        head,
        faults: z.array(z.object({ number: z.int(), fault: z.string() })),
      }),
    },
  },
});

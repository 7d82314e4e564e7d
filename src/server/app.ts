/**
 * The HTTP face: Fastify with the limits of the configuration, access checked before anything is read,
 * and every error as a problem.
 */
import { fastify, LogController } from "fastify";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { SpillwayError } from "../base/index.ts";
import type { Config } from "../config/index.ts";
import type { Flow, Spillway } from "../spillway.ts";
import type { Access, Principal, Verb } from "./access.ts";
import { knownError, problemOf } from "./problem.ts";

/** What every part of the server works with. */
export interface Context {
  readonly config: Config;
  readonly spillway: Spillway;
  readonly access: Access;
  /** @throws {SpillwayError} not_found */
  flow(name: string): Flow<Uint8Array>;
  readonly flows: ReadonlyMap<string, Flow<Uint8Array>>;
}

declare module "fastify" {
  interface FastifyContextConfig {
    /** What the caller must be allowed; "public": nothing. Every route says it. */
    verb?: Verb | "public";
  }
  interface FastifyRequest {
    principal: Principal;
  }
}

const headerBytesMax = 16 * 1024;
const headersMax = 100;
/** Bodies of calls that are no messages. */
const envelopeBytesMax = 64 * 1024;

export function createApp(context: Context): FastifyInstance {
  const { limits, log } = context.config;
  const app = fastify({
    logger: log === "silent" ? false : { level: log, stream: process.stderr },
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: envelopeBytesMax,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.idleTimeoutMs,
    // What Fastify would turn or drop in silence is refused.
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
    http: {
      headersTimeout: limits.headersTimeoutMs,
      maxHeaderSize: headerBytesMax,
      connectionsCheckingInterval: 5000,
      // Some clients offer HTTP/2 with every request; that is not taken up.
      shouldUpgradeCallback: ({ headers }) => headers.upgrade?.toLowerCase() === "websocket",
    },
    routerOptions: { maxParamLength: 512 },
    frameworkErrors: (error, _request, reply) => void answerProblem(reply, knownError(error)),
  });
  app.server.maxHeadersCount = headersMax;
  app.server.maxConnections = limits.connections;
  app.decorateRequest("principal");
  app.addHook("onRoute", ({ config, path }) => {
    if (config?.verb === undefined) throw new Error(`the route ${path} says no verb`);
  });
  app.addHook("onRequest", async (request) => admit(context, request));
  app.setErrorHandler((error, request, reply) => {
    const known = knownError(error);
    if (known.code === "invariant_broken") request.log.error({ err: known.cause }, known.code);
    return answerProblem(reply, known);
  });
  app.setNotFoundHandler({ onRequest: [] } as never, (request, reply) =>
    answerProblem(reply, new SpillwayError("not_found", { path: request.url.split("?", 1)[0] })),
  );
  return app;
}

/** S3: who it is, whether they may, and how much they have used, before a byte of the body is read. */
function admit({ access }: Context, request: FastifyRequest): void {
  const { verb } = request.routeOptions.config;
  if (verb === undefined || verb === "public") return; // Undefined: no such route.
  const principal = access.principalOf(request.raw);
  const { flow } = (request.params ?? {}) as { readonly flow?: string };
  if (!principal.allows(verb, flow)) {
    throw new SpillwayError("forbidden", {
      needed: verb,
      ...(flow === undefined ? {} : { flow }),
    });
  }
  request.principal = principal;
  access.charge(principal, Number(request.headers["content-length"] ?? 0));
}

function answerProblem(reply: FastifyReply, error: SpillwayError): FastifyReply {
  const problem = problemOf(error);
  if (problem.retryAfterMs !== undefined) {
    reply.header("retry-after", Math.max(1, Math.ceil(problem.retryAfterMs / 1000)));
  }
  return reply
    .code(problem.status)
    .header("content-type", "application/problem+json")
    .send(JSON.stringify(problem));
}

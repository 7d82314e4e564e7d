/**
 * The HTTP face: Fastify with the limits of the configuration, access checked before anything is read,
 * and every error as a problem.
 */
import { setMaxListeners } from "node:events";
import { fastify, LogController } from "fastify";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { SpillwayError } from "../base/index.ts";
import type { Config } from "../config/index.ts";
import type { Flow, Spillway } from "../spillway.ts";
import type { Access, Principal, Verb } from "./access.ts";
import { addJsonParser, answerExpectations, envelopeBytesMax, isUnread, passOver } from "./body.ts";
import { answerClientError, knownError, problemOf } from "./problem.ts";
import { Routes } from "./routes.ts";

/** What every part of the server works with. */
export interface Context {
  readonly config: Config;
  readonly spillway: Spillway;
  readonly access: Access;
  /** @throws {SpillwayError} not_found */
  flow(name: string): Flow<Uint8Array>;
  readonly flows: ReadonlyMap<string, Flow<Uint8Array>>;
  /** Absent: nothing is recorded. */
  readonly audit?: Audit;
}

/** Who did what, for operators' actions. */
export interface Audit {
  record(entry: AuditEntry): Promise<void>;
}

export interface AuditEntry {
  readonly principal: string;
  /** "flow.pause", "flow.policy", "dead-letters.redrive" and so on. */
  readonly action: string;
  readonly flow?: string;
  readonly partition?: number;
  readonly before?: unknown;
  readonly after?: unknown;
  readonly reason?: string;
  readonly requestId: string;
}

declare module "fastify" {
  interface FastifyContextConfig {
    /** What the caller must be allowed; "public": nothing. Every route says it. */
    verb?: Verb | "public";
    /**
     * "object": the handler checks each object with `request.principal.allows`, for the address names no
     * flow.
     */
    checks?: "object";
  }
  interface FastifyRequest {
    principal: Principal;
  }
  interface FastifyInstance {
    /** Aborts when the server begins to close: nothing waits any longer. */
    closing: AbortSignal;
  }
}

const headerBytesMax = 16 * 1024;
const headersMax = 100;

export function createApp(context: Context): FastifyInstance {
  const { limits, log } = context.config;
  const app = fastify({
    logger: log === "silent" ? false : { level: log, stream: process.stderr },
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: envelopeBytesMax,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.idleTimeoutMs,
    clientErrorHandler: answerClientError,
    http: {
      headersTimeout: limits.headersTimeoutMs,
      maxHeaderSize: headerBytesMax,
      connectionsCheckingInterval: 5000,
    },
    routerOptions: { maxParamLength: 512 },
    // While it closes, what is asked on an open connection is answered by its route, as a problem.
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) =>
      void answerProblem(request, reply, knownError(error)),
  });
  app.server.maxHeadersCount = headersMax;
  app.server.maxConnections = limits.connections;
  app.decorateRequest("principal");
  // Schemas are for the document: what they say is checked by the same shapes in `shapes.ts`.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (value) => JSON.stringify(value));
  addJsonParser(app);
  answerExpectations(app);
  closeInTime(app, context.config.drainMs);
  const routes = new Routes();
  app.addHook("onRoute", ({ config, path, method }) => {
    if (config?.verb === undefined) throw new Error(`the route ${path} says no verb`);
    routes.add(method, path);
  });
  app.addHook("onRequest", (request, _reply, done) => {
    try {
      admit(context, request);
    } catch (error) {
      return done(error as Error);
    }
    done();
  });
  app.setErrorHandler((error, request, reply) => {
    const known = knownError(error);
    if (known.code === "invariant_broken") request.log.error({ err: known.cause }, known.code);
    return answerProblem(request, reply, known);
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split("?", 1)[0]!;
    const allowed = routes.methodsAt(path);
    if (allowed.length === 0) {
      return answerProblem(request, reply, new SpillwayError("not_found", { path }));
    }
    reply.header("allow", allowed.join(", "));
    const found = request.method;
    return answerProblem(
      request,
      reply,
      new SpillwayError("method_not_allowed", { path, found, allowed: allowed.join(", ") }),
    );
  });
  return app;
}

/** What waits is told at once; what does not end in time is cut off. */
function closeInTime(app: FastifyInstance, drainMs: number): void {
  const closing = new AbortController();
  setMaxListeners(0, closing.signal); // Everyone who waits listens.
  app.decorate("closing", closing.signal);
  let cut: NodeJS.Timeout | undefined;
  app.addHook("preClose", (done) => {
    closing.abort();
    cut = setTimeout(() => app.server.closeAllConnections(), drainMs);
    done();
  });
  app.addHook("onClose", (_app, done) => {
    clearTimeout(cut);
    done();
  });
}

/** S3: who it is, whether they may, and how much they have used, before a byte of the body is read. */
function admit({ access }: Context, request: FastifyRequest): void {
  const { verb, checks } = request.routeOptions.config;
  if (verb === undefined || verb === "public") return; // Undefined: no such route.
  const principal = access.principalOf(request.raw);
  const { flow } = request.params as { readonly flow?: string };
  if (checks !== "object") demand(principal, verb, flow);
  request.principal = principal;
  access.charge(principal, Number(request.headers["content-length"] ?? 0));
}

/** @throws {SpillwayError} forbidden */
export function demand(principal: Principal, needed: Verb, flow: string | undefined): void {
  if (principal.allows(needed, flow)) return;
  throw new SpillwayError("forbidden", { needed, ...(flow === undefined ? {} : { flow }) });
}

function answerProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  error: SpillwayError,
): FastifyReply {
  const problem = problemOf(error);
  if (problem.retryAfterMs !== undefined) {
    reply.header("retry-after", Math.max(1, Math.ceil(problem.retryAfterMs / 1000)));
  }
  if (isUnread(request.raw)) {
    if (request.headers.expect === undefined) {
      reply.removeHeader("connection");
      passOver(request.raw);
    } else reply.header("connection", "close"); // Whether the body comes is up to the client.
  }
  return reply
    .code(problem.status)
    .header("content-type", "application/problem+json")
    .send(JSON.stringify(problem));
}

/**
 * The HTTP face: Fastify with the limits of the configuration, access checked before anything is read,
 * and every error as a problem.
 */
import { setMaxListeners } from "node:events";
import type { Socket } from "node:net";
import { fastify, LogController } from "fastify";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { catalogue, SpillwayError } from "../base/index.ts";
import type { Config } from "../config/index.ts";
import type { Flow, Spillway } from "../spillway.ts";
import { demand } from "./access.ts";
import type { Access, Principal, Verb } from "./access.ts";
import type { Audit } from "./audit.ts";
import { addJsonParser, envelopeBytesMax, isUnread, passOver } from "./body.ts";
import type { Connections } from "./connections.ts";
import { checkBody, createGuard, declaredBytes } from "./guard.ts";
import type { Log } from "./log.ts";
import { knownError, problemOf } from "./problem.ts";
import { Routes } from "./routes.ts";

/** What every part of the server works with. */
export interface Context {
  readonly config: Config;
  readonly spillway: Spillway;
  readonly access: Access;
  readonly audit: Pick<Audit, "record" | "list" | "head">;
  readonly log: Log;
  /** @throws {SpillwayError} not_found */
  flow(name: string): Flow<Uint8Array>;
  readonly flows: ReadonlyMap<string, Flow<Uint8Array>>;
}

declare module "fastify" {
  interface FastifyContextConfig {
    /** What the caller must be allowed; "public": nothing. Every route says it. */
    verb?: Verb | "public";
    /**
     * "object": the handler checks each object with `request.principal.allows`, for the path names no
     * flow. Without it such a call needs its verb on every flow.
     */
    checks?: "object";
    /** The handler holds a token of a group to that group (`groupOf`). Without it such a token gets 404. */
    byGroup?: true;
  }
  interface FastifyInstance {
    /** Every route, with what it demands. */
    readonly routeRows: RouteRow[];
    /** Aborts when the server begins to close: nothing waits any longer. */
    closing: AbortSignal;
  }
  interface FastifyRequest {
    principal: Principal;
  }
}

export interface RouteRow {
  readonly method: string;
  readonly path: string;
  readonly verb: Verb | "public";
  readonly byGroup: boolean;
  /** Whether the handler checks each object. */
  readonly checksObject: boolean;
}

export function createApp(context: Context, connections: Connections): FastifyInstance {
  const { config, log } = context;
  const guard = createGuard(config);
  const app = fastify({
    loggerInstance: log.forFastify(),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: envelopeBytesMax,
    genReqId: connections.requestId,
    // While it closes, what is asked on an open connection is answered by its route, as a problem.
    return503OnClosing: false,
    serverFactory: connections.createServer,
    clientErrorHandler: () => undefined, // `connections` answers.
    routerOptions: { maxParamLength: 512 },
    frameworkErrors: (error, request, reply) =>
      void answerProblem(request, reply, knownError(error)),
  }) as FastifyInstance;
  app.decorate("routeRows", []);
  app.decorateRequest("principal");
  // Schemas are for the document: what they say is checked by the same shapes in `shapes.ts`.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (value) => JSON.stringify(value));
  addJsonParser(app);
  tellOfClosing(app);
  const routes = new Routes();
  app.addHook("onRoute", ({ config, path, method }) => {
    if (config?.verb === undefined) throw new Error(`the route ${path} says no verb`);
    const { verb, byGroup = false, checks } = config;
    const row = { path, verb, byGroup, checksObject: checks === "object" };
    for (const each of [method].flat()) app.routeRows.push({ method: each, ...row });
    routes.add(method, path);
  });
  app.addHook("onRequest", (request, reply, done) => {
    reply.header("spillway-request-id", request.id).header("x-content-type-options", "nosniff");
    guard.check(request);
    if (guard.preflight(request, reply)) return;
    admit(context, request);
    connections.expectBody(request.raw);
    done();
  });
  app.addHook("onResponse", (request, _reply, done) => {
    settleUse(context, request);
    done();
  });
  app.addHook("preClose", (done) => {
    connections.endWithin(config.drainMs);
    done();
  });
  app.setErrorHandler((error, request, reply) => {
    const known = knownError(error);
    tellOf(log, request, known);
    return answerProblem(request, reply, known);
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split("?", 1)[0]!;
    const methods = routes.methodsAt(path);
    if (methods.length === 0) {
      return answerProblem(request, reply, new SpillwayError("not_found", { path }));
    }
    const allowed = methods.join(", ");
    const found = request.method;
    reply.header("allow", allowed);
    const refusal = new SpillwayError("method_not_allowed", { path, found, allowed });
    return answerProblem(request, reply, refusal);
  });
  return app;
}

/** What waits hears of it at once. */
function tellOfClosing(app: FastifyInstance): void {
  const closing = new AbortController();
  setMaxListeners(0, closing.signal); // Everyone who waits listens.
  app.decorate("closing", closing.signal);
  app.addHook("preClose", (done) => {
    closing.abort();
    done();
  });
}

/** S3: who it is, whether they may, and how much they have used, before a byte of the body is read. */
function admit({ access }: Context, request: FastifyRequest): void {
  const { config, bodyLimit } = request.routeOptions;
  const { verb } = config;
  if (verb === undefined) return; // No such route.
  if (verb !== "public") {
    const principal = access.principalOf(request.raw);
    const { flow } = (request.params ?? {}) as { readonly flow?: string };
    demand(principal, { ...config, verb }, flow);
    request.principal = principal;
    access.attach(principal, request.raw.socket);
    access.charge(principal, Math.min(declaredBytes(request.headers), bodyLimit));
  }
  checkBody(request, bodyLimit);
}

/** Bytes of each connection that somebody has paid for. */
const paidBytes = new WeakMap<Socket, number>();

/** What came in chunks had no length to be charged by: it is counted on the wire when it has come. */
function settleUse(
  { access }: Context,
  { principal, raw: { headers, socket } }: FastifyRequest,
): void {
  if (principal === undefined) return;
  const bytes = socket.bytesRead;
  if (headers["transfer-encoding"] !== undefined) {
    access.owe(principal, 0, Math.max(0, bytes - (paidBytes.get(socket) ?? 0)));
  }
  paidBytes.set(socket, bytes);
}

function tellOf(
  log: Log,
  { id, method, routeOptions, principal }: FastifyRequest,
  error: SpillwayError,
): void {
  const { code } = error;
  const status = catalogue[code].http;
  const fields = {
    requestId: id,
    method,
    route: routeOptions.url,
    status,
    code,
    principal: principal?.id,
  };
  if (code === "invariant_broken") log.error("request.failed", { ...fields, error });
  else if (status >= 500 || status === 401 || status === 403) log.warn("request.refused", fields);
  else log.info("request.refused", fields);
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
  if (problem.status === 401) reply.header("www-authenticate", 'Bearer realm="spillway"');
  if (isUnread(request.raw)) {
    if (request.headers.expect === undefined) {
      reply.removeHeader("connection");
      passOver(request.raw);
    } else reply.header("connection", "close"); // Whether the body comes is up to the client.
  }
  return reply
    .code(problem.status)
    .header("spillway-request-id", reply.request.id) // What no route was found for met no hook.
    .header("content-type", "application/problem+json")
    .send(JSON.stringify(problem));
}

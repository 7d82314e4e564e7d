/**
 * A server: the flows of a configuration on their store, reached over HTTP and WebSocket, pushed to their
 * targets. It owns all of it: closing takes nothing new, drains within the configuration's limit, and
 * loses nothing.
 */
import type { AddressInfo } from "node:net";
import type { FastifyInstance } from "fastify";
import { isSpillwayError, SpillwayError } from "../base/index.ts";
import type { Config } from "../config/index.ts";
import { sqlite } from "../engines/sqlite/index.ts";
import type { FlowOptions } from "../flow/index.ts";
import { openSpillway } from "../spillway.ts";
import type { Flow, Spillway } from "../spillway.ts";
import { createApp } from "./app.ts";
import type { Context, RouteRow } from "./app.ts";
import { addAuditRoutes } from "./audit-routes.ts";
import { addBatch } from "./batch.ts";
import { addControls } from "./controls.ts";
import { addDeadLetters } from "./dead-letters.ts";
import { addEvents } from "./events.ts";
import { addHealth } from "./health.ts";
import { addMessages } from "./messages.ts";
import { addOpenApi } from "./openapi.ts";
import { addPull } from "./pull.ts";
import { Pusher } from "./push/index.ts";
import { reload } from "./reload.ts";
import type { Reloadable, Reloaded } from "./reload.ts";
import { openSecurity } from "./security.ts";
import type { Security } from "./security.ts";
import { Sockets } from "./socket/index.ts";
import { addState } from "./state.ts";
import { addTokenRoutes } from "./token-routes.ts";
import { turnClock } from "./turn-clock.ts";

/** What answers are on their way may still be read by their callers when all the rest has ended. */
const lastAnswersMs = 1000;

/** Living things, for tests. */
export interface ServerDeps {
  /** Takes a line of the log; standard error by default. */
  readonly writeLog?: (line: string) => void;
}

interface Parts {
  readonly spillway: Spillway;
  readonly app: FastifyInstance;
  readonly sockets: Sockets;
  readonly security: Security;
  readonly running: Reloadable;
  /** All of them, in the order in which they were opened. */
  readonly owned: AsyncDisposableStack;
}

export class Server implements AsyncDisposable {
  readonly spillway: Spillway;
  readonly #parts: Parts;
  #reloading: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /**
   * Opens the store and listens.
   * @throws {SpillwayError} As `openSpillway`; contract_invalid, listen_unsafe, port_in_use
   */
  static async open(config: Config, deps: ServerDeps = {}): Promise<Server> {
    await using opening = new AsyncDisposableStack();
    const clock = turnClock();
    const engine = sqlite({ dir: config.engine.dir, defer: (call) => clock.defer(call) });
    const spillway = opening.use(
      await openSpillway({ engine, drainMaxMs: config.drainMs }, { clock }),
    );
    const writeLog = deps.writeLog ?? ((line: string) => void process.stderr.write(line));
    const security = await openSecurity(config, spillway.meta, opening, writeLog);
    const { access, audit, log } = security;
    const flows = new Map<string, Flow<Uint8Array>>();
    // Payloads are opaque here: what they mean is the ends' business.
    const flowOf = (name: string, options: FlowOptions): Flow<Uint8Array> =>
      spillway.flow<Uint8Array>(name, { ...options, payload: "bytes" });
    for (const [name, options] of Object.entries(config.flows)) {
      flows.set(name, flowOf(name, options));
    }
    const pusher = opening.use(new Pusher());
    for (const flow of flows.values()) pusher.add(flow);
    const context: Context = {
      config,
      spillway,
      access,
      audit,
      log,
      flows,
      flow: (name) => {
        const flow = flows.get(name);
        if (flow === undefined) throw new SpillwayError("not_found", { flow: name });
        return flow;
      },
    };
    const app = createApp(context, security.connections);
    opening.defer(() => app.close());
    addOpenApi(app);
    addMessages(app, context);
    addBatch(app, context);
    addPull(app, context);
    addState(app, context);
    addDeadLetters(app, context);
    addControls(app, context);
    addEvents(app, context);
    addHealth(app, context);
    addTokenRoutes(app, security.tokens);
    addAuditRoutes(app, context);
    const sockets = opening.use(new Sockets(app.server, context));
    for (const flow of flows.values()) await flow.opened();
    const { host, port } = config.listen;
    await app.listen({ host, port }).catch((error: unknown) => {
      throw listenError(error, config);
    });
    pusher.start();
    const openFlow = async (name: string, options: FlowOptions): Promise<Flow<Uint8Array>> => {
      const flow = flowOf(name, options);
      await flow.opened();
      pusher.add(flow);
      flows.set(name, flow);
      return flow;
    };
    const prepares = [
      async () => pusher.prepare(),
      async () => () => void security.certificates?.reload(),
    ];
    const running = { config, flows, openFlow, prepares };
    const owned = opening.move(); // From here the server closes them.
    return new Server({ spillway, app, sockets, security, running, owned });
  }

  private constructor(parts: Parts) {
    this.spillway = parts.spillway;
    this.#parts = parts;
  }

  /**
   * Takes up what of another configuration may change while it runs, all of it or nothing.
   * @throws {SpillwayError} contract_invalid, config_invalid, closed: nothing has changed.
   */
  reload(next: Config): Promise<Reloaded> {
    const reloaded = this.#reloading.then(() => {
      if (this.#closing !== undefined) throw new SpillwayError("closed", {});
      return reload(this.#parts.running, next);
    });
    this.#reloading = reloaded.catch(() => undefined); // Its caller hears of it.
    return reloaded;
  }

  /** "http://127.0.0.1:7411" */
  get url(): string {
    const { address, family, port } = this.#parts.app.server.address() as AddressInfo;
    const host = family === "IPv6" ? `[${address}]` : address;
    return `${this.#parts.security.certificates === undefined ? "http" : "https"}://${host}:${port}`;
  }

  /** Every route, with what it demands. */
  get routes(): readonly RouteRow[] {
    return this.#parts.app.routeRows;
  }

  /** Reads certificate, key and authority again. @returns Whether what the files hold is in use. */
  reloadCertificates(): boolean {
    return this.#parts.security.certificates?.reload() ?? true;
  }

  /** Takes nothing new, lets what is in flight end within the limit, and closes the store. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { app, sockets, owned } = this.#parts;
    await using _owned = owned; // What is closed already is closed once.
    sockets.drain();
    const answered = app.close(); // Nobody connects any more; what was asked is answered.
    await this.spillway.close(); // It ends the waits of those that wait for an answer.
    await sockets[Symbol.asyncDispose]();
    const timer = setTimeout(() => app.server.closeAllConnections(), lastAnswersMs);
    try {
      await answered;
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function listenError(error: unknown, { listen: { host, port } }: Config): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (isSpillwayError(error) || code === undefined) return error;
  if (code === "EADDRINUSE") return new SpillwayError("port_in_use", { host, port });
  const allowed = "an address of this machine and a port that this user may use";
  return new SpillwayError("config_invalid", { path: "listen", found: code, host, port, allowed });
}

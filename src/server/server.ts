/**
 * A server: the flows of a configuration on their store, reached over HTTP and WebSocket, pushed to their
 * targets. It owns all of it: closing takes nothing new, drains within the configuration's limit, and
 * loses nothing.
 */
import type { AddressInfo } from "node:net";
import type { FastifyInstance } from "fastify";
import { isSpillwayError, SpillwayError } from "../base/index.ts";
import type { Config } from "../config/index.ts";
import { openSpillway } from "../spillway.ts";
import type { Flow, Spillway } from "../spillway.ts";
import { createApp } from "./app.ts";
import type { Context, RouteRow } from "./app.ts";
import { addAuditRoutes } from "./audit-routes.ts";
import { addMessages } from "./messages.ts";
import { openSecurity } from "./security.ts";
import type { Security } from "./security.ts";
import { addTokenRoutes } from "./token-routes.ts";

/** Living things, for tests. */
export interface ServerDeps {
  /** Takes a line of the log; standard error by default. */
  readonly writeLog?: (line: string) => void;
}

export class Server implements AsyncDisposable {
  readonly spillway: Spillway;
  readonly #app: FastifyInstance;
  readonly #security: Security;
  readonly #owned: AsyncDisposableStack;
  #closing: Promise<void> | undefined;

  /**
   * Opens the store and listens.
   * @throws {SpillwayError} As `openSpillway`; contract_invalid, listen_unsafe, port_in_use
   */
  static async open(config: Config, deps: ServerDeps = {}): Promise<Server> {
    await using opening = new AsyncDisposableStack();
    const spillway = opening.use(
      await openSpillway({ dir: config.engine.dir, drainMaxMs: config.drainMs }),
    );
    const writeLog = deps.writeLog ?? ((line: string) => void process.stderr.write(line));
    const security = await openSecurity(config, spillway.meta, opening, writeLog);
    const { access, audit, log } = security;
    const flows = new Map<string, Flow<Uint8Array>>();
    for (const [name, options] of Object.entries(config.flows)) {
      // Payloads are opaque here: what they mean is the ends' business.
      flows.set(name, spillway.flow<Uint8Array>(name, { ...options, payload: "bytes" }));
    }
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
    addMessages(app, context);
    addTokenRoutes(app, security.tokens);
    addAuditRoutes(app, context);
    for (const flow of flows.values()) await flow.opened();
    const { host, port } = config.listen;
    await app.listen({ host, port }).catch((error: unknown) => {
      throw listenError(error, config);
    });
    return new Server(spillway, app, security, opening.move()); // From here the server closes them.
  }

  private constructor(
    spillway: Spillway,
    app: FastifyInstance,
    security: Security,
    owned: AsyncDisposableStack,
  ) {
    this.spillway = spillway;
    this.#app = app;
    this.#security = security;
    this.#owned = owned;
  }

  /** "http://127.0.0.1:7411" */
  get url(): string {
    const { address, family, port } = this.#app.server.address() as AddressInfo;
    const host = family === "IPv6" ? `[${address}]` : address;
    return `${this.#security.certificates === undefined ? "http" : "https"}://${host}:${port}`;
  }

  /** Every route, with what it demands. */
  get routes(): readonly RouteRow[] {
    return this.#app.routeRows;
  }

  /** Reads certificate, key and authority again. @returns Whether what the files hold is in use. */
  reloadCertificates(): boolean {
    return this.#security.certificates?.reload() ?? true;
  }

  /** Takes nothing new, lets what is in flight end within the limit, and closes the store. */
  close(): Promise<void> {
    this.#closing ??= this.#owned.disposeAsync();
    return this.#closing;
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

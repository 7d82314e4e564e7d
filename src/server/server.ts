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
import { openAccess } from "./access.ts";
import { createApp } from "./app.ts";
import type { Context } from "./app.ts";
import { addBatch } from "./batch.ts";
import { addControls } from "./controls.ts";
import { addDeadLetters } from "./dead-letters.ts";
import { addEvents } from "./events.ts";
import { addHealth } from "./health.ts";
import { addMessages } from "./messages.ts";
import { addOpenApi } from "./openapi.ts";
import { addPull } from "./pull.ts";
import { addState } from "./state.ts";

export class Server implements AsyncDisposable {
  readonly spillway: Spillway;
  readonly #app: FastifyInstance;
  #closing: Promise<void> | undefined;

  /**
   * Opens the store and listens.
   * @throws {SpillwayError} As `openSpillway`; contract_invalid, listen_unsafe, port_in_use
   */
  static async open(config: Config): Promise<Server> {
    await using opening = new AsyncDisposableStack();
    const spillway = opening.use(
      await openSpillway({ dir: config.engine.dir, drainMaxMs: config.drainMs }),
    );
    const flows = new Map<string, Flow<Uint8Array>>();
    for (const [name, options] of Object.entries(config.flows)) {
      // Payloads are opaque here: what they mean is the ends' business.
      flows.set(name, spillway.flow<Uint8Array>(name, { ...options, payload: "bytes" }));
    }
    const context: Context = {
      config,
      spillway,
      access: openAccess,
      flows,
      flow: (name) => {
        const flow = flows.get(name);
        if (flow === undefined) throw new SpillwayError("not_found", { flow: name });
        return flow;
      },
    };
    const app = createApp(context);
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
    for (const flow of flows.values()) await flow.opened();
    const { host, port } = config.listen;
    await app.listen({ host, port }).catch((error: unknown) => {
      throw listenError(error, config);
    });
    opening.move(); // From here the server closes them.
    return new Server(spillway, app);
  }

  private constructor(spillway: Spillway, app: FastifyInstance) {
    this.spillway = spillway;
    this.#app = app;
  }

  /** "http://127.0.0.1:7411" */
  get url(): string {
    const { address, family, port } = this.#app.server.address() as AddressInfo;
    const host = family === "IPv6" ? `[${address}]` : address;
    return `http://${host}:${port}`;
  }

  /** Takes nothing new, lets what is in flight end within the limit, and closes the store. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await using _spillway = this.spillway;
    await this.#app.close();
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

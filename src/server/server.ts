/**
 * A server: the flows of a configuration on their store, reached over HTTP and WebSocket, pushed to their
 * targets. It owns all of it: closing takes nothing new, drains within the configuration's limit, and
 * loses nothing.
 */
import type { AddressInfo } from "node:net";
import type { FastifyInstance } from "fastify";
import { isSpillwayError, SpillwayError } from "../base/index.ts";
import type { Config } from "../config/index.ts";
import type { FlowOptions } from "../flow/index.ts";
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
import { Pusher } from "./push/index.ts";
import { reload } from "./reload.ts";
import type { Reloadable, Reloaded } from "./reload.ts";
import { Sockets } from "./socket/index.ts";
import { addState } from "./state.ts";

/** What answers are on their way may still be read by their callers when all the rest has ended. */
const lastAnswersMs = 1000;

interface Parts {
  readonly spillway: Spillway;
  readonly app: FastifyInstance;
  readonly sockets: Sockets;
  readonly pusher: Pusher;
  readonly running: Reloadable;
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
  static async open(config: Config): Promise<Server> {
    await using opening = new AsyncDisposableStack();
    const spillway = opening.use(
      await openSpillway({ dir: config.engine.dir, drainMaxMs: config.drainMs }),
    );
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
    const sockets = opening.use(new Sockets(app.server, context));
    for (const flow of flows.values()) await flow.opened();
    const { host, port } = config.listen;
    await app.listen({ host, port }).catch((error: unknown) => {
      throw listenError(error, config);
    });
    pusher.start();
    opening.move(); // From here the server closes them.
    const openFlow = async (name: string, options: FlowOptions): Promise<Flow<Uint8Array>> => {
      const flow = flowOf(name, options);
      await flow.opened();
      pusher.add(flow);
      flows.set(name, flow);
      return flow;
    };
    const prepares = [async () => pusher.prepare()];
    const running = { config, flows, openFlow, prepares };
    return new Server({ spillway, app, sockets, pusher, running });
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
    return `http://${host}:${port}`;
  }

  /** Takes nothing new, lets what is in flight end within the limit, and closes the store. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { app, sockets, pusher } = this.#parts;
    using _pusher = pusher; // Its calls end while the flows drain.
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

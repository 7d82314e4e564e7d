/**
 * Server-sent events: what happens to flows, and a snapshot of each of them every second.
 *
 * W1  One text is made of an event, whoever listens. While nobody does, none is made.
 * W2  A reader that leaves more than `unreadBytes` unread is cut off: it connects again and goes on with
 *     the next snapshot.
 */
import type { ServerResponse } from "node:http";
import type { FastifyInstance } from "fastify";
import { SpillwayError } from "../base/index.ts";
import { fields } from "../flow/index.ts";
import type { Flow, FlowEvents } from "../spillway.ts";
import type { Principal } from "./access.ts";
import { demand } from "./access.ts";
import type { Context } from "./app.ts";
import { documented, freeText, parsed } from "./shapes.ts";
import { summaryOf } from "./state.ts";

/** Not those of every message: they would be a log, and dear. */
const told = [
  "blocked",
  "resumed",
  "retrying",
  "dead",
  "discarded",
  "redriven",
  "leaseEnded",
  "suspected",
  "stopped",
  "breaker",
  "error",
] as const satisfies readonly (keyof FlowEvents)[];

const snapshotMs = 1000;

interface Client {
  readonly response: ServerResponse;
  readonly principal: Principal;
  /** Absent: all flows that it may see. */
  readonly flow: string | undefined;
}

const query = fields.section({ flow: freeText("Only of this flow.", 128).optional() });

export function addEvents(app: FastifyInstance, context: Context): void {
  const hub = new Hub(context);
  app.addHook("preClose", (done) => {
    hub.close();
    done();
  });
  app.register((scope, _options, registered) => {
    scope.get(
      "/v1/events",
      { config: { verb: "observe", checks: "object" }, exposeHeadRoute: false, schema: eventsCall },
      (request, reply) => {
        const { flow } = parsed(query, request.query);
        if (flow !== undefined) {
          demand(request.principal, { verb: "observe" }, flow);
          context.flow(flow);
        }
        reply.hijack();
        reply.raw.writeHead(200, {
          "content-type": "text/event-stream",
          "cache-control": "no-store",
          "x-accel-buffering": "no", // A proxy that collected them would be a slow reader.
        });
        hub.add({ response: reply.raw, principal: request.principal, flow });
      },
    );
    registered();
  });
}

class Hub {
  readonly #context: Context;
  readonly #clients = new Set<Client>();
  #stop: (() => void) | undefined;

  constructor(context: Context) {
    this.#context = context;
  }

  add(client: Client): void {
    this.#clients.add(client);
    client.response.once("close", () => this.#remove(client));
    this.#stop ??= this.#listen();
    for (const flow of this.#context.flows.values()) {
      if (sees(client, flow.name)) this.#write(client, snapshotOf(flow));
    }
  }

  close(): void {
    for (const { response } of this.#clients) response.end();
  }

  #remove(client: Client): void {
    this.#clients.delete(client);
    if (this.#clients.size > 0) return;
    this.#stop?.();
    this.#stop = undefined;
  }

  /** @returns How to stop. */
  #listen(): () => void {
    const stops: (() => void)[] = [];
    for (const flow of this.#context.flows.values()) {
      for (const event of told) {
        const tell = (data?: object): void => this.#tell(flow.name, event, data);
        flow.on(event, tell);
        stops.push(() => flow.off(event, tell));
      }
    }
    const timer = setInterval(() => this.#snapshot(), snapshotMs);
    return () => {
      clearInterval(timer);
      for (const stop of stops) stop();
    };
  }

  #tell(flow: string, event: string, data: object | undefined): void {
    const shown = data instanceof SpillwayError ? { code: data.code } : data;
    this.#send(flow, eventText(event, { flow, ...shown }));
  }

  #snapshot(): void {
    for (const flow of this.#context.flows.values()) this.#send(flow.name, snapshotOf(flow));
    // Where there are no flows to tell of, a comment shows that the connection lives.
    for (const client of this.#clients) this.#write(client, ":\n\n");
  }

  #send(flow: string, text: string): void {
    for (const client of this.#clients) if (sees(client, flow)) this.#write(client, text);
  }

  #write({ response }: Client, text: string): void {
    response.write(text);
    if (response.writableLength > this.#context.config.limits.unreadBytes) response.destroy();
  }
}

function sees({ flow, principal }: Client, name: string): boolean {
  return flow === undefined ? principal.allows("observe", name) : flow === name;
}

function snapshotOf(flow: Flow<Uint8Array>): string {
  return eventText("state", summaryOf(flow));
}

function eventText(event: string, data: object): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

const eventsCall = documented({
  summary: "What happens, as server-sent events",
  tag: "flows",
  query,
  answers: {
    200: {
      description: `Events "state" (a snapshot of each flow, every second), ${told.map((name) => `"${name}"`).join(", ")}; their data are JSON with the flow's name.`,
      type: "text/event-stream",
    },
  },
});

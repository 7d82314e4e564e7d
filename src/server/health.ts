/** Whether the process lives, and whether it can be sent to. Both are open to everybody and tell no secrets. */
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { Context } from "./app.ts";
import { documented } from "./shapes.ts";

const liveShape = z.object({ status: z.literal("ok") });
const readyShape = z.object({
  status: z.enum(["ready", "not ready"]),
  reasons: z.array(z.string()).meta({ description: "What is not as it should be." }),
});

export function addHealth(app: FastifyInstance, context: Context): void {
  app.register((scope, _options, registered) => {
    scope.get("/healthz", { config: { verb: "public" }, schema: liveCall }, () => ({
      status: "ok",
    }));
    scope.get("/readyz", { config: { verb: "public" }, schema: readyCall }, (_request, reply) => {
      const reasons = app.closing.aborted ? ["the server is closing"] : unready(context);
      const isReady = reasons.length === 0;
      return reply
        .code(isReady ? 200 : 503)
        .send({ status: isReady ? "ready" : "not ready", reasons });
    });
    registered();
  });
}

/** Counts, not names: whoever asks here has shown no token. */
function unready({ flows }: Context): string[] {
  let claiming = 0;
  let stopped = 0;
  let isFull = false;
  for (const flow of flows.values()) {
    const { isStoreFull, partitions } = flow.state();
    isFull ||= isStoreFull;
    for (const { state } of partitions) {
      if (state === "claiming") claiming++;
      else if (state !== "open" && state !== "paused") stopped++;
    }
  }
  return [
    ...(isFull ? ["the store is full"] : []),
    ...(claiming > 0 ? [`partitions that are not open yet: ${claiming}`] : []),
    ...(stopped > 0 ? [`partitions that have stopped: ${stopped}`] : []),
  ];
}

const liveCall = documented({
  summary: "Whether the process lives",
  tag: "server",
  answers: { 200: { description: "It does.", shape: liveShape } },
});
const readyCall = documented({
  summary: "Whether it can be sent to",
  tag: "server",
  answers: {
    200: { description: "It can.", shape: readyShape },
    503: { description: "It cannot, and why.", shape: readyShape },
  },
});

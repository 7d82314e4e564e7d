/** Sending many messages: NDJSON in, NDJSON out, a result for each line, in order. */
import type { FastifyInstance } from "fastify";
import { SpillwayError } from "../base/index.ts";
import type { Context } from "./app.ts";
import { Batch } from "./batch-run.ts";
import { checkDeclared } from "./body.ts";
import { waitOf } from "./message-fields.ts";
import { RateLimits } from "./rate-headers.ts";
import { documented } from "./shapes.ts";

export function addBatch(app: FastifyInstance, context: Context): void {
  const rates = new RateLimits();
  const { batchBytes, batchMessages, requestTimeoutMs } = context.config.limits;
  const limits = { bytes: batchBytes, messages: batchMessages };
  app.register((scope, _options, registered) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser(
      ["application/x-ndjson", "application/ndjson", "application/jsonl"],
      (_request, payload, done) => done(null, payload),
    );
    scope.addContentTypeParser("*", ({ headers }, _payload, done) => {
      const found = headers["content-type"] ?? "none";
      const allowed = "application/x-ndjson: a JSON object in each line";
      done(new SpillwayError("media_type_unsupported", { found, allowed }));
    });
    scope.post<{ Params: { flow: string } }>(
      "/v1/flows/:flow/messages::batch",
      {
        bodyLimit: batchBytes,
        config: { verb: "produce", byGroup: true },
        schema: batchCall,
        onRequest: (request, _reply, done) => {
          context.flow(request.params.flow);
          checkDeclared(request, batchBytes);
          done();
        },
      },
      async (request, reply) => {
        const flow = context.flow(request.params.flow);
        const { policy, limit } = rates.of(flow);
        const waitMs = waitOf(request.headers, requestTimeoutMs);
        reply.hijack();
        const { raw } = reply;
        raw.setHeader("content-type", "application/x-ndjson");
        raw.setHeader("ratelimit-policy", policy);
        raw.setHeader("ratelimit", limit);
        if (waitMs !== undefined) {
          raw.setHeader("preference-applied", `wait=${Math.floor(waitMs / 1000)}`);
        }
        await new Batch(flow, limits, waitMs, request, reply).run();
      },
    );
    registered();
  });
}

const batchCall = documented({
  summary: "Send many messages",
  tag: "messages",
  params: ["flow"],
  headers: { prefer: '"wait=5" waits so many seconds for credit.' },
  body: {
    type: "application/x-ndjson",
    description:
      "In each line an object: payload (any JSON), text or base64; key, group, class, idempotencyKey, delay, deadline, cost, headers.",
  },
  answers: {
    200: {
      description:
        'In each line {"line":1,"accepted":true,"id":"orders/3/12","duplicate":false}, or {"line":2,"accepted":false,"code":"no_credit","retryAfterMs":180}; "rest":true stands for all lines from this one on.',
      type: "application/x-ndjson",
    },
  },
});

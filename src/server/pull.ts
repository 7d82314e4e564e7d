/**
 * Workers over HTTP: they pull deliveries, and settle each by its id. A settle answers when it is durable;
 * what nobody settles goes back when its lease ends.
 */
import { isUtf8 } from "node:buffer";
import type { FastifyInstance, FastifyReply } from "fastify";
import { z } from "zod";
import { isSpillwayError, SpillwayError } from "../base/index.ts";
import { fields } from "../flow/index.ts";
import type { Delivery, Flow } from "../spillway.ts";
import { demand } from "./access.ts";
import type { Context } from "./app.ts";
import { Deliveries, parseDeliveryId } from "./deliveries.ts";
import { documented, freeText, parsed, parsedBody } from "./shapes.ts";

const pullMax = 1000;
/** Of the payloads in one answer; the first one comes whatever its size. */
const pullBytesMax = 16 * 1024 ** 2;
const settlesMax = 1000;
const spanMax = "30d";

const pullShape = fields.section({
  max: fields
    .count({ min: 1, max: pullMax, description: "Deliveries at most.", default: 1 })
    .optional(),
  waitMs: fields
    .count({ min: 0, max: 86_400_000, description: "Waits so long for the first one.", default: 0 })
    .optional(),
});

const delay = fields
  .span({ min: "0ms", max: spanMax, description: "Not again before this has passed." })
  .optional();
const bodies = {
  ack: fields.section({}),
  nack: fields.section({ error: freeText("What went wrong.").optional(), delay }),
  release: fields.section({ delay }),
  term: fields.section({ reason: freeText("Why it is never to be retried.") }),
  working: fields.section({
    extend: fields
      .span({
        min: "1ms",
        max: spanMax,
        description: "The lease runs so long from now.",
        default: "30s",
      })
      .optional(),
  }),
};
type Verb = keyof typeof bodies;
const verbs = Object.keys(bodies) as Verb[];

const settlesShape = fields.section({
  settles: z
    .array(
      z.looseObject({
        id: z.string({ error: "the id of a delivery" }),
        verb: fields.choice(verbs, { description: "How it ends; its fields stand beside it." }),
      }),
      { error: "a list of settles" },
    )
    .min(1, { error: "at least one" })
    .max(settlesMax, { error: `at most ${settlesMax}` }),
});

export function addPull(app: FastifyInstance, context: Context): void {
  const deliveries = new Deliveries();
  app.register((scope, _options, registered) => {
    addPullRoute(scope, context, deliveries);
    addSettleRoutes(scope, deliveries);
    addBatchSettle(scope, deliveries);
    registered();
  });
}

function addPullRoute(scope: FastifyInstance, context: Context, deliveries: Deliveries): void {
  const waitMaxMs = context.config.limits.requestTimeoutMs;
  scope.post<{ Params: { flow: string } }>(
    "/v1/flows/:flow/deliveries",
    { config: { verb: "consume" }, schema: pullCall },
    async (request, reply) => {
      const flow = context.flow(request.params.flow);
      if (flow.contract.deliver !== undefined) {
        const found = "a flow that is pushed to its target";
        throw new SpillwayError("state_conflict", {
          flow: flow.name,
          found,
          allowed: "no `deliver`",
        });
      }
      const { max = 1, waitMs = 0 } = parsedBody(pullShape, request.body);
      const pulled = await pullFor(reply, flow, max, Math.min(waitMs, waitMaxMs));
      return { deliveries: pulled.map((each) => shown(each, deliveries.add(each), flow)) };
    },
  );
}

/** What comes for a worker that has gone, or more than an answer holds, goes back untried. */
async function pullFor(
  reply: FastifyReply,
  flow: Flow<Uint8Array>,
  max: number,
  waitMs: number,
): Promise<Delivery<Uint8Array>[]> {
  const gone = new AbortController();
  const onGone = (): void => gone.abort();
  const { closing } = reply.server;
  reply.raw.once("close", onGone);
  closing.addEventListener("abort", onGone);
  if (closing.aborted) gone.abort();
  let come: Delivery<Uint8Array>[];
  try {
    come = await flow.pull({ max, waitMs, signal: gone.signal });
  } finally {
    reply.raw.off("close", onGone);
    closing.removeEventListener("abort", onGone);
  }
  let bytes = 0;
  const kept: Delivery<Uint8Array>[] = [];
  for (const delivery of come) {
    bytes += delivery.bytes.length;
    const isKept = !reply.raw.destroyed && (kept.length === 0 || bytes <= pullBytesMax);
    if (isKept) kept.push(delivery);
    else delivery.release().catch(() => undefined); // Its lease has ended: it is back anyway.
  }
  return kept;
}

function shown(delivery: Delivery<Uint8Array>, id: string, flow: Flow<Uint8Array>): object {
  const { key, group, deadline, bytes } = delivery;
  return {
    id,
    messageId: delivery.id,
    attempt: delivery.attempt,
    class: delivery.class,
    ...(key === undefined ? {} : { key }),
    ...(group === undefined ? {} : { group }),
    headers: delivery.headers,
    acceptedAt: delivery.acceptedAt.toISOString(),
    ...(deadline === undefined ? {} : { deadline: deadline.toISOString() }),
    leaseMs: flow.contract.leaseMs,
    ...payloadText(bytes),
  };
}

/** Text where the bytes are UTF-8, else base64. */
export function payloadText(bytes: Uint8Array): { encoding: "utf-8" | "base64"; payload: string } {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return isUtf8(buffer)
    ? { encoding: "utf-8", payload: buffer.toString() }
    : { encoding: "base64", payload: buffer.toString("base64") };
}

function addSettleRoutes(scope: FastifyInstance, deliveries: Deliveries): void {
  for (const verb of verbs) {
    scope.post<{ Params: { delivery: string } }>(
      `/v1/deliveries/:delivery(^[A-Za-z0-9._-]+)::${verb}`,
      {
        config: { verb: "consume", checks: "object" },
        schema: settleCalls[verb],
        // On the flow that the delivery is of (S2), before the body is read.
        onRequest: ({ params: { delivery }, principal }, _reply, done) => {
          demand(principal, { verb: "consume" }, parseDeliveryId(delivery)?.flow ?? "");
          done();
        },
      },
      async (request, reply) => {
        await settle(deliveries, request.params.delivery, verb, request.body);
        return reply.code(204).send();
      },
    );
  }
}

/** @throws {SpillwayError} request_invalid, not_found, delivery_settled, outcome_unknown */
async function settle(
  deliveries: Deliveries,
  id: string,
  verb: Verb,
  body: unknown,
): Promise<void> {
  switch (verb) {
    case "ack":
      parsedBody(bodies.ack, body);
      return deliveries.take(id).ack();
    case "nack": {
      const { error, delay } = parsedBody(bodies.nack, body);
      return deliveries.take(id).nack({
        ...(error === undefined ? {} : { error }),
        ...(delay === undefined ? {} : { delay }),
      });
    }
    case "release": {
      const { delay } = parsedBody(bodies.release, body);
      return deliveries.take(id).release(delay === undefined ? {} : { delay });
    }
    case "term": {
      const { reason } = parsedBody(bodies.term, body);
      return deliveries.take(id).term(reason);
    }
    case "working": {
      const { extend = 30_000 } = parsedBody(bodies.working, body);
      deliveries.find(id).working(extend);
    }
  }
}

interface Settled {
  readonly id: string;
  readonly settled: boolean;
  readonly code?: string;
}

function addBatchSettle(scope: FastifyInstance, deliveries: Deliveries): void {
  scope.post<{ Params: { flow: string } }>(
    "/v1/flows/:flow/deliveries::settle",
    { config: { verb: "consume" }, schema: batchSettleCall },
    async (request) => {
      const { settles } = parsed(settlesShape, request.body);
      const one = async ({ id, verb, ...body }: (typeof settles)[number]): Promise<Settled> => {
        try {
          if (parseDeliveryId(id)?.flow !== request.params.flow) {
            throw new SpillwayError("not_found", { delivery: id });
          }
          await settle(deliveries, id, verb, body);
          return { id, settled: true };
        } catch (error) {
          if (!isSpillwayError(error)) throw error;
          return { id, settled: false, code: error.code };
        }
      };
      return { results: await Promise.all(settles.map(one)) };
    },
  );
}

const deliveryShape = z.object({
  id: z.string().meta({ description: "flow.partition.seq.attempt: settles this attempt." }),
  messageId: z.string().meta({ description: "flow/partition/seq: the same on every attempt." }),
  attempt: z.int(),
  class: z.enum(["critical", "normal", "bulk"]),
  key: z.string().optional(),
  group: z.string().optional(),
  headers: z.record(z.string(), z.string()),
  acceptedAt: z.iso.datetime(),
  deadline: z.iso.datetime().optional(),
  leaseMs: z.number().meta({ description: "So long without a settle, and it goes to another." }),
  encoding: z.enum(["utf-8", "base64"]),
  payload: z.string(),
});

const pullCall = documented({
  summary: "Take deliveries, waiting for the first one",
  tag: "deliveries",
  params: ["flow"],
  body: pullShape,
  answers: {
    200: {
      description: "None when nothing came in time.",
      shape: z.object({ deliveries: z.array(deliveryShape) }),
    },
  },
});

const summaries: Readonly<Record<Verb, string>> = {
  ack: "Done",
  nack: "Failed: try again later",
  release: "Not tried: give it back, it costs no attempt",
  term: "Never retry: a dead letter",
  working: "Still at it: extend the lease",
};

const settleCalls = Object.fromEntries(
  verbs.map((verb) => [
    verb,
    documented({
      summary: summaries[verb],
      tag: "deliveries",
      params: ["delivery"],
      body: bodies[verb],
      answers: { 204: { description: verb === "working" ? "It is extended." : "It is durable." } },
    }),
  ]),
) as Record<Verb, ReturnType<typeof documented>>;

const batchSettleCall = documented({
  summary: "Settle many deliveries",
  tag: "deliveries",
  params: ["flow"],
  body: settlesShape,
  answers: {
    200: {
      description: "A result for each, in order.",
      shape: z.object({
        results: z.array(
          z.object({ id: z.string(), settled: z.boolean(), code: z.string().optional() }),
        ),
      }),
    },
  },
});

/** Dead letters: listed page by page, redriven at a bounded rate, purged with a reason. */
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { SpillwayError } from "../base/index.ts";
import { fields, formatId, parseId } from "../flow/index.ts";
import type { DeadLetter } from "../spillway.ts";
import type { Context } from "./app.ts";
import { recorded } from "./controls.ts";
import { Redrives } from "./redrives.ts";
import { documented, freeText, parsed, parsedBody, queryChoice, queryCount } from "./shapes.ts";
import { shortened } from "./state.ts";

type Params = { readonly flow: string };
const path = "/v1/flows/:flow/dead-letters";
const idsMax = 1000;

export function addDeadLetters(app: FastifyInstance, context: Context): void {
  const redrives = new Redrives();
  app.addHook("preClose", async () => redrives.close());
  app.register((scope, _options, registered) => {
    addReading(scope, context);
    addRedrive(scope, context, redrives);
    addPurge(scope, context);
    registered();
  });
}

const listQuery = fields.section({
  limit: queryCount({
    min: 1,
    max: 1000,
    description: "Letters in a page; 100 by default.",
  }).optional(),
  after: freeText("Only those after this id; `next` of the page before.").optional(),
  payload: queryChoice(
    ["none", "short"],
    'By default "none"; "short" shows its beginning.',
  ).optional(),
});
/** Of each payload in a page, and of the one that is looked at. */
const shortBytesMax = 1024;
const lookedBytesMax = 64 * 1024;

function addReading(scope: FastifyInstance, context: Context): void {
  scope.get<{ Params: Params }>(
    path,
    { config: { verb: "observe" }, schema: listCall },
    async ({ params, query }) => {
      const flow = context.flow(params.flow);
      const { limit = 100, after, payload = "none" } = parsed(listQuery, query);
      const bytesMax = payload === "none" ? 0 : shortBytesMax;
      const letters: object[] = [];
      let last: string | undefined;
      for await (const letter of flow.deadLetters(after === undefined ? {} : { after })) {
        if (letters.length === limit) {
          return { deadLetters: letters, next: last! };
        }
        letters.push(shown(letter, bytesMax));
        last = letter.id;
      }
      return { deadLetters: letters };
    },
  );
  scope.get<{ Params: Params & { readonly partition: string; readonly seq: string } }>(
    `${path}/:partition(^\\d{1,6})/:seq(^\\d{1,16})`,
    { config: { verb: "observe" }, schema: oneCall },
    async ({ params: { flow: name, partition, seq } }) => {
      const id = formatId(name, Number(partition), Number(seq));
      const { state, stored } = await context.flow(name).look(id);
      if (state !== "dead" || stored === undefined) {
        throw new SpillwayError("not_found", { id, found: `a message that is ${state}` });
      }
      const { payload, ...known } = stored;
      return { id, ...known, ...shortened(payload, lookedBytesMax) };
    },
  );
}

function shown({ payload, ...letter }: DeadLetter, bytesMax: number): object {
  return bytesMax === 0
    ? { ...letter, payloadBytes: payload.length }
    : { ...letter, ...shortened(payload, bytesMax) };
}

const ids = z
  .array(z.string({ error: "ids of messages" }), { error: "a list of ids" })
  .min(1, { error: "at least one id" })
  .max(idsMax, { error: `at most ${idsMax} ids` });
const redriveShape = fields.section({
  ids: ids.optional(),
  max: fields
    .count({ min: 1, max: 1e12, description: "Letters at most; all by default." })
    .optional(),
  ratePerS: fields
    .quantity({ min: 0.1, max: 10_000, description: "Letters per second.", default: 100 })
    .optional(),
  reason: freeText("Why; for the audit log.").optional(),
});

function addRedrive(scope: FastifyInstance, context: Context, redrives: Redrives): void {
  const url = `${path}::redrive`;
  scope.post<{ Params: Params }>(
    url,
    { config: { verb: "admin" }, schema: redriveCall },
    async (request, reply) => {
      const flow = context.flow(request.params.flow);
      const { reason, ratePerS = 100, ...order } = parsedBody(redriveShape, request.body);
      checkIds(flow.name, order.ids ?? []);
      const entry = {
        action: "dead-letters.redrive",
        flow: flow.name,
        after: { ids: order.ids?.length, max: order.max, ratePerS },
        ...(reason === undefined ? {} : { reason }),
      };
      const started = await recorded(context, request, entry, () =>
        redrives.start(flow, { ...order, ratePerS }),
      );
      return reply.code(202).header("location", request.url).send(started);
    },
  );
  scope.get<{ Params: Params }>(
    url,
    { config: { verb: "observe" }, schema: redriveStateCall },
    ({ params }) => {
      const view = redrives.view(context.flow(params.flow).name);
      if (view === undefined) throw new SpillwayError("not_found", { redrive: params.flow });
      return view;
    },
  );
  scope.delete<{ Params: Params }>(
    url,
    { config: { verb: "admin" }, schema: redriveCancelCall },
    async (request) => {
      const { name } = context.flow(request.params.flow);
      if (redrives.view(name) === undefined) {
        throw new SpillwayError("not_found", { redrive: name });
      }
      const entry = { action: "dead-letters.redrive.cancel", flow: name };
      return recorded(context, request, entry, () => redrives.cancel(name));
    },
  );
}

function checkIds(flow: string, found: readonly string[]): void {
  for (const id of found) {
    if (parseId(id)?.flow !== flow) throw new SpillwayError("not_found", { id, flow });
  }
}

const purgeShape = fields.section({ ids, reason: freeText("Why; it stays listed.") });

function addPurge(scope: FastifyInstance, context: Context): void {
  scope.post<{ Params: Params }>(
    `${path}::purge`,
    { config: { verb: "admin" }, schema: purgeCall },
    async (request) => {
      const flow = context.flow(request.params.flow);
      const { ids: found, reason } = parsedBody(purgeShape, request.body);
      const entry = {
        action: "dead-letters.purge",
        flow: flow.name,
        after: { ids: found },
        reason,
      };
      const purged = await recorded(context, request, entry, () => flow.purge(found, reason));
      return { purged };
    },
  );
}

const letterShape = z.looseObject({
  id: z.string(),
  reason: z.string().optional(),
  attempts: z.int(),
  key: z.string().optional(),
  group: z.string().optional(),
  error: z.string().optional(),
  shelvedAt: z.iso.datetime().optional(),
  headers: z.record(z.string(), z.string()),
  payloadBytes: z.int(),
  payloadTruncated: z.boolean().optional(),
  encoding: z.enum(["utf-8", "base64"]).optional(),
  payload: z.string().optional(),
});
const redriveView = z.object({
  state: z.enum(["running", "done", "cancelled", "failed"]),
  redriven: z.int(),
  missing: z.int(),
  ratePerS: z.number(),
  startedAt: z.iso.datetime(),
  endedAt: z.iso.datetime().optional(),
  failure: z.string().optional(),
});

const listCall = documented({
  summary: "Dead letters, oldest first in each partition",
  tag: "dead letters",
  params: ["flow"],
  query: listQuery,
  answers: {
    200: {
      description: "A page; `next` is there while there are more.",
      shape: z.object({ deadLetters: z.array(letterShape), next: z.string().optional() }),
    },
  },
});
const oneCall = documented({
  summary: "One dead letter",
  tag: "dead letters",
  params: ["flow", "partition", "seq"],
  answers: { 200: { description: "The letter.", shape: letterShape } },
});
const redriveCall = documented({
  summary: "Bring dead letters back, at a bounded rate",
  tag: "dead letters",
  params: ["flow"],
  body: redriveShape,
  answers: { 202: { description: "It runs.", shape: redriveView } },
});
const redriveStateCall = documented({
  summary: "How the latest redrive stands",
  tag: "dead letters",
  params: ["flow"],
  answers: { 200: { description: "The redrive.", shape: redriveView } },
});
const redriveCancelCall = documented({
  summary: "Stop the redrive",
  tag: "dead letters",
  params: ["flow"],
  answers: { 200: { description: "How it stood.", shape: redriveView } },
});
const purgeCall = documented({
  summary: "Discard dead letters for good",
  tag: "dead letters",
  params: ["flow"],
  body: purgeShape,
  answers: {
    200: { description: "How many there were.", shape: z.object({ purged: z.int() }) },
  },
});

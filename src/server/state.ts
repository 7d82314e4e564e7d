/** Reading: flows, their partitions, and where a message is. */
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { SpillwayError } from "../base/index.ts";
import { formatId } from "../flow/index.ts";
import type { Contract, Flow, MessageView } from "../spillway.ts";
import type { Context } from "./app.ts";
import { payloadText } from "./pull.ts";
import { documented } from "./shapes.ts";

type Params = { readonly flow: string };

/** Flows, by a name without a colon: a verb follows one. */
export const flowPath = "/v1/flows/:flow(^[A-Za-z0-9._-]+)";

export function addState(app: FastifyInstance, context: Context): void {
  app.register((scope, _options, registered) => {
    addFlows(scope, context);
    addMessage(scope, context);
    registered();
  });
}

function addFlows(scope: FastifyInstance, context: Context): void {
  scope.get(
    "/v1/flows",
    { config: { verb: "observe", checks: "object" }, schema: flowsCall },
    ({ principal }) => ({
      flows: [...context.flows.values()]
        .filter(({ name }) => principal.allows("observe", name))
        .map((flow) => summaryOf(flow)),
    }),
  );
  scope.get<{ Params: Params }>(
    flowPath,
    { config: { verb: "observe" }, schema: flowCall },
    ({ params }) => {
      const flow = context.flow(params.flow);
      const { warnings } = flow;
      return { ...flow.state(), contract: shownContract(flow.contract), warnings };
    },
  );
  scope.get<{ Params: Params }>(
    `${flowPath}/partitions`,
    { config: { verb: "observe" }, schema: partitionsCall },
    ({ params }) => ({ partitions: context.flow(params.flow).state().partitions }),
  );
  scope.get<{ Params: Params & { readonly partition: string } }>(
    `${flowPath}/partitions/:partition(^\\d{1,6})`,
    { config: { verb: "observe" }, schema: partitionCall },
    ({ params }) => {
      const { partitions } = context.flow(params.flow).state();
      const found = partitions[Number(params.partition)];
      if (found === undefined) {
        throw new SpillwayError("not_found", { flow: params.flow, partition: params.partition });
      }
      return found;
    },
  );
}

function addMessage(scope: FastifyInstance, context: Context): void {
  scope.get<{ Params: Params & { readonly partition: string; readonly seq: string } }>(
    "/v1/flows/:flow/messages/:partition(^\\d{1,6})/:seq(^\\d{1,16})",
    { config: { verb: "observe" }, schema: messageCall },
    async ({ params: { flow, partition, seq } }) =>
      shownMessage(await context.flow(flow).look(formatId(flow, Number(partition), Number(seq)))),
  );
  scope.get<{ Params: Params & { readonly message: string } }>(
    "/v1/flows/:flow/messages/:message",
    { config: { verb: "observe" }, schema: messageByIdCall },
    async ({ params }) => shownMessage(await context.flow(params.flow).look(params.message)),
  );
}

/** What a list of flows shows of each. */
export function summaryOf(flow: Flow<Uint8Array>): object {
  const { partitions, target, producer, counters, ...rest } = flow.state();
  return {
    ...rest,
    counters,
    partitions: partitions.length,
    blockedSends: producer.waiting,
    window: target.window,
    breaker: target.breaker,
  };
}

/** Without what could be a secret: values of header fields, and the query of an address. */
export function shownContract(contract: Contract): object {
  const { deliver } = contract;
  if (deliver === undefined) return contract;
  const headers = Object.fromEntries(Object.keys(deliver.headers).map((name) => [name, "(set)"]));
  const url = deliver.url.replace(/\?.*$/, "?(set)");
  return { ...contract, deliver: { ...deliver, url, headers } };
}

/** Of a payload, in an answer about one message. */
const payloadBytesMax = 4096;

function shownMessage({ id, state, why, stored }: MessageView): object {
  const { untilMs, ...reason } = why;
  const until = untilMs === undefined || untilMs === Infinity ? undefined : instantOf(untilMs);
  const shown = { id, state, why: { ...reason, ...(until === undefined ? {} : { until }) } };
  if (stored === undefined) return shown;
  const { payload, ...known } = stored;
  return { ...shown, ...known, ...shortened(payload, payloadBytesMax) };
}

/** A payload, perhaps only its beginning, and how many bytes it has. */
export function shortened(payload: Uint8Array, bytesMax: number): object {
  const isWhole = payload.length <= bytesMax;
  const part = isWhole ? payload : payload.subarray(0, wholeText(payload, bytesMax));
  return {
    payloadBytes: payload.length,
    ...(isWhole ? {} : { payloadTruncated: true }),
    ...payloadText(part),
  };
}

/** The end of the last whole character of UTF-8 at or before `end`. */
function wholeText(bytes: Uint8Array, end: number): number {
  let at = end;
  while (at > end - 4 && at > 0 && (bytes[at]! & 0xc0) === 0x80) at--;
  return (bytes[at]! & 0xc0) === 0x80 ? end : at;
}

function instantOf(ms: number): string | undefined {
  return Number.isFinite(ms) && ms < 8.64e15 ? new Date(ms).toISOString() : undefined;
}

const partitionShape = z.object({
  partition: z.int(),
  state: z
    .string()
    .meta({ description: "open, paused, claiming, or the code of what stopped it." }),
  isIntakeClosed: z.boolean(),
  depth: z.int(),
  bytes: z.int(),
  accepted: z.int(),
  acked: z.int(),
  dead: z.int(),
  discarded: z.int(),
  known: z.int().meta({ description: "Messages whose place is known in memory." }),
});

const counters = z.object({
  accepted: z.int(),
  acked: z.int(),
  dead: z.int(),
  discarded: z.int(),
  pending: z.int(),
  bytes: z.int(),
});

const common = {
  flow: z.string(),
  isPaused: z.boolean(),
  isIntakeClosed: z.boolean(),
  isStoreFull: z.boolean(),
  depth: z.int(),
  bytes: z.int(),
  limitMessages: z.int(),
  limitBytes: z.int(),
  oldestAgeMs: z.number(),
  secondsOfWork: z.number().optional(),
  drainRatePerS: z.number().optional(),
  arrivalRatePerS: z.number(),
  stalledMs: z.number().optional(),
  handlerP95Ms: z.number(),
  inFlight: z.int(),
  prepared: z.int(),
  writeMs: z.number(),
  creditsOut: z.number(),
  signalLagMs: z.object({ p50: z.number(), p99: z.number(), max: z.number() }),
  pressure: z.number(),
  lowestClass: z.string().nullable(),
  retryBudget: z.object({ tokens: z.number(), tokensMax: z.number() }),
  counters,
};

const summaryShape = z.looseObject({
  ...common,
  partitions: z.int(),
  blockedSends: z.int(),
});

const flowShape: z.ZodType = z.looseObject({
  ...common,
  partitions: z.array(partitionShape),
  producer: z.object({ credits: z.number(), waiting: z.int(), blocked: z.boolean() }),
  target: z.looseObject({ target: z.string(), inFlight: z.int() }),
  contract: z.looseObject({}),
  warnings: z.array(z.looseObject({})),
});

const messageShape = z.object({
  id: z.string(),
  state: z.enum(["pending", "dead", "discarded", "acked"]),
  why: z.object({
    reason: z.string().meta({ description: "key, due, retry, budget, paused, credit, turn, ..." }),
    text: z.string(),
    until: z.iso.datetime().optional(),
    behindSeq: z.int().optional(),
  }),
  class: z.enum(["critical", "normal", "bulk"]).optional(),
  key: z.string().optional(),
  group: z.string().optional(),
  attempts: z.int().optional(),
  crashes: z.int().optional(),
  acceptedAt: z.iso.datetime().optional(),
  dueAt: z.iso.datetime().optional(),
  deadline: z.iso.datetime().optional(),
  error: z.string().optional(),
  shelvedAt: z.iso.datetime().optional(),
  reason: z.string().optional(),
  headers: z.record(z.string(), z.string()).optional(),
  payloadBytes: z.int().optional(),
  payloadTruncated: z.boolean().optional(),
  encoding: z.enum(["utf-8", "base64"]).optional(),
  payload: z.string().optional(),
});

const flowsCall = documented({
  summary: "All flows that the caller may see",
  tag: "flows",
  answers: { 200: { description: "Flows.", shape: z.object({ flows: z.array(summaryShape) }) } },
});
const flowCall = documented({
  summary: "One flow: state, limits, contract",
  tag: "flows",
  params: ["flow"],
  answers: { 200: { description: "The flow.", shape: flowShape } },
});
const partitionsCall = documented({
  summary: "Partitions of a flow",
  tag: "flows",
  params: ["flow"],
  answers: {
    200: { description: "Partitions.", shape: z.object({ partitions: z.array(partitionShape) }) },
  },
});
const partitionCall = documented({
  summary: "One partition",
  tag: "flows",
  params: ["flow", "partition"],
  answers: { 200: { description: "The partition.", shape: partitionShape } },
});
const messageCall = documented({
  summary: "Where a message is, and why it waits",
  tag: "flows",
  params: ["flow", "partition", "seq"],
  answers: { 200: { description: "The message.", shape: messageShape } },
});
const messageByIdCall = documented({
  summary: "Where a message is, and why it waits, by its whole id",
  tag: "flows",
  params: ["flow", "message"],
  answers: { 200: { description: "The message.", shape: messageShape } },
});

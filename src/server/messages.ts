/**
 * Sending over HTTP: one message a request. Bodies are opaque bytes and are kept as they came; only an
 * event in structured mode is looked at, for its attributes.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { isSpillwayError, SpillwayError } from "../base/index.ts";
import type { ErrorCode } from "../base/index.ts";
import type { Flow, MessageOptions, Receipt } from "../spillway.ts";
import { groupOf } from "./access.ts";
import type { Context } from "./app.ts";
import { checkDeclared, envelopeBytesMax, readBody } from "./body.ts";
import { isStructured, structuredFields } from "./cloud-events.ts";
import { messageFields, waitOf } from "./message-fields.ts";
import { RateLimits } from "./rate-headers.ts";
import { documented, sendJson } from "./shapes.ts";

type Request = FastifyRequest<{ Params: { flow: string } }>;
const empty = new Uint8Array(0);
/** Without `Prefer: wait`. */
const graceMs = 100;

export function addMessages(app: FastifyInstance, context: Context): void {
  const limits = new RateLimits();
  const waitMaxMs = context.config.limits.requestTimeoutMs;
  const bodyLimit = messageBytesMax(context);
  app.register((scope, _options, registered) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", (request, payload, done) => {
      const { flow } = request.params as { flow: string };
      readBody(payload, context.flow(flow).contract.messageBytesMax, done);
    });
    scope.post<{ Params: { flow: string } }>(
      "/v1/flows/:flow/messages",
      {
        bodyLimit,
        config: { verb: "produce", byGroup: true },
        schema: sendCall,
        onRequest: (request, _reply, done) => {
          // What can be refused is refused before the body is read (S3).
          checkDeclared(request, context.flow(request.params.flow).contract.messageBytesMax);
          isStructured(request.headers["content-type"]);
          done();
        },
      },
      (request, reply) => {
        const flow = context.flow(request.params.flow);
        const body = (request.body ?? empty) as Uint8Array;
        const fields = fieldsOf(request, body);
        const give = (receipt: Receipt): void => answer(reply, flow, fields, receipt, limits);
        const fail = (error: unknown): void => refuse(reply, flow, error, limits);
        const waitMs = waitOf(request.headers, waitMaxMs);
        if (waitMs !== undefined) {
          reply.header("preference-applied", `wait=${Math.floor(waitMs / 1000)}`);
          sendWaiting(flow, body, fields, waitMs, reply).then(give, fail);
          return;
        }
        const sent = flow.trySend(body, fields);
        if (sent instanceof Promise) sent.then(give, fail);
        else if (sent.code === "no_credit") {
          // Credit for what is about to be durable is back within a moment.
          sendWaiting(flow, body, fields, graceMs, reply).then(give, fail);
        } else fail(refusalOf(sent.code, sent.retryAfterMs));
      },
    );
    registered();
  });
}

/** Of any flow; each flow's own is checked by its calls. */
function messageBytesMax({ config }: Context): number {
  const largest = Object.values(config.contracts).map((each) => each.messageBytesMax);
  return Math.max(envelopeBytesMax, ...largest);
}

function fieldsOf({ headers, principal }: Request, body: Uint8Array): MessageOptions {
  const own = messageFields(headers, Date.now());
  const fields = isStructured(headers["content-type"])
    ? { ...structuredFields(body), ...own }
    : own;
  const group = groupOf(principal, fields.group);
  return group === fields.group ? fields : { ...fields, ...(group !== undefined && { group }) };
}

/** Waits for credit; whoever hangs up waits no longer, and nothing is sent. */
async function sendWaiting(
  flow: Flow<Uint8Array>,
  body: Uint8Array,
  fields: MessageOptions,
  waitMs: number,
  reply: FastifyReply,
): Promise<Receipt> {
  const gone = new AbortController();
  const onClose = (): void => gone.abort();
  const { closing } = reply.server;
  closing.addEventListener("abort", onClose);
  reply.raw.once("close", onClose);
  try {
    return await flow.send(body, { ...fields, timeout: waitMs, signal: gone.signal });
  } catch (error) {
    if (isSpillwayError(error, "timed_out")) {
      const { waitedFor, retryAfterMs } = error.details;
      throw refusalOf(waitedFor as ErrorCode, retryAfterMs);
    }
    if (closing.aborted && isSpillwayError(error, "aborted")) throw new SpillwayError("closed");
    throw error;
  } finally {
    closing.removeEventListener("abort", onClose);
    reply.raw.off("close", onClose);
  }
}

function refusalOf(code: ErrorCode, retryAfterMs: number | undefined): SpillwayError {
  return new SpillwayError(code, retryAfterMs === undefined ? {} : { retryAfterMs });
}

function answer(
  reply: FastifyReply,
  flow: Flow<Uint8Array>,
  fields: MessageOptions,
  { id, duplicate, durability }: Receipt,
  limits: RateLimits,
): void {
  const { policy, limit } = limits.of(flow, fields.class);
  reply.header("ratelimit-policy", policy);
  reply.header("ratelimit", limit);
  reply.header("location", locationOf(id));
  // An id and a durability hold nothing that JSON would escape.
  const text = `{"id":"${id}","duplicate":${duplicate},"durability":"${durability}"}`;
  sendJson(reply, duplicate ? 200 : 202, text);
}

/** Where a message is seen: its id is "flow/partition/seq". */
function locationOf(id: string): string {
  const slash = id.indexOf("/");
  return `/v1/flows/${id.slice(0, slash)}/messages${id.slice(slash)}`;
}

function refuse(
  reply: FastifyReply,
  flow: Flow<Uint8Array>,
  error: unknown,
  limits: RateLimits,
): void {
  if (isSpillwayError(error) && error.retry === "later") {
    const { policy, limit } = limits.refused(flow, error.retryAfterMs ?? 0);
    reply.header("ratelimit-policy", policy);
    reply.header("ratelimit", limit);
  }
  reply.send(error);
}

const receipt = z.object({
  id: z.string().meta({ description: "flow/partition/seq" }),
  duplicate: z.boolean().meta({ description: "It had been accepted before, under the same key." }),
  durability: z.enum(["memory", "fsync", "quorum", "page-cache"]),
});

const sendCall = documented({
  summary: "Send one message",
  tag: "messages",
  params: ["flow"],
  headers: {
    "idempotency-key": "A repeat under this key gets the first one's receipt.",
    "spillway-key": "Messages of one key are handled one at a time, in order.",
    "spillway-group": "Shares capacity with the other groups.",
    "spillway-class": "critical, normal or bulk.",
    "spillway-cost": "How much of the target's rate it uses; 1 unless given.",
    "spillway-deadline": 'Not started later: a span ("10s") from now, or an instant.',
    "spillway-delay": 'Not handled earlier: a span ("10s") from now.',
    traceparent: "W3C Trace Context; kept with the message.",
    prefer: '"wait=5" waits so many seconds for credit.',
  },
  body: { type: "*/*", description: "The message: bytes, kept as they come." },
  answers: {
    200: { description: "It had been accepted before.", shape: receipt },
    202: { description: "It is durable.", shape: receipt },
  },
});

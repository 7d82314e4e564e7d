/**
 * What calls take and answer, as shapes: the same ones check a request and stand in the OpenAPI document.
 * Answers are documented by their shapes and sent as they are.
 */
import type { FastifyReply, FastifySchema } from "fastify";
import { z } from "zod";
import { SpillwayError } from "../base/index.ts";
import { fields, problemsOf } from "../flow/index.ts";

/** @throws {SpillwayError} request_invalid, with `details.problems` (`Problem[]`) */
export function parsed<T>(shape: z.ZodType<T>, found: unknown): T {
  const result = shape.safeParse(found, { reportInput: true });
  if (result.success) return result.data;
  throw new SpillwayError("request_invalid", { problems: result.error.issues.flatMap(problemsOf) });
}

/** Of a body that may be absent, which is then an empty object. */
export function parsedBody<T>(shape: z.ZodType<T>, body: unknown): T {
  return parsed(shape, body ?? {});
}

/** A whole number in a query, where everything is text. */
export function queryCount(range: {
  readonly min: number;
  readonly max: number;
  readonly description: string;
}): z.ZodType<number> {
  const { min, max, description } = range;
  return fields.field({
    allowed: `a whole number from ${min} to ${max}`,
    json: { type: "integer", minimum: min, maximum: max, description },
    read: (value) => {
      if (typeof value !== "string" || !/^\d{1,15}$/.test(value)) return undefined;
      const number = Number(value);
      return number >= min && number <= max ? number : undefined;
    },
  });
}

export function queryChoice<const T extends string>(
  values: readonly T[],
  description: string,
): z.ZodType<T> {
  return fields.choice(values, { description });
}

export const freeText = (description: string, maxLength = 500): z.ZodType<string> =>
  fields.text({
    form: new RegExp(`^[\\s\\S]{1,${maxLength}}$`),
    allowed: `text of 1 to ${maxLength} characters`,
    description,
  });

type Json = Record<string, unknown>;

function jsonOf(shape: z.ZodType, io: "input" | "output"): Json {
  const { $schema: _, ...json } = z.toJSONSchema(shape, { io, unrepresentable: "any" });
  return json;
}

const params: Readonly<Record<string, Json>> = {
  flow: { type: "string", pattern: "^[A-Za-z0-9._-]{1,128}$", description: "Name of a flow." },
  partition: { type: "integer", minimum: 0, description: "Number of a partition, from 0." },
  seq: { type: "integer", minimum: 1, description: "Position in the partition, from 1." },
  message: { type: "string", description: 'Id of a message, "flow/partition/seq", URL-encoded.' },
  id: { type: "string", description: "Id of a token." },
  delivery: { type: "string", description: 'Id of a delivery, "flow.partition.seq.attempt".' },
};

const problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string(),
    retry: z.enum(["later", "never", "same"]),
    retryAfterMs: z.int().optional(),
    details: z.record(z.string(), z.unknown()).optional(),
  })
  .meta({ description: "An error (RFC 9457); docs/errors.md has the codes." });

/** What is documented of a call. */
export interface Call {
  readonly summary: string;
  readonly tag: "messages" | "deliveries" | "flows" | "dead letters" | "controls" | "server";
  readonly params?: readonly (keyof typeof params)[];
  readonly query?: z.ZodObject;
  readonly headers?: Readonly<Record<string, string>>;
  /** JSON; or a body of another content type, with a description. */
  readonly body?: z.ZodType | { readonly type: string; readonly description: string };
  readonly answers: Readonly<
    Record<
      number,
      { readonly description: string; readonly shape?: z.ZodType; readonly type?: string }
    >
  >;
}

export function documented(call: Call): FastifySchema {
  const { summary, tag, query, headers, body, answers } = call;
  const response: Json = {
    "4XX": answerOf("It was refused.", problem, "application/problem+json"),
    "5XX": answerOf("It failed.", problem, "application/problem+json"),
  };
  for (const [status, { description, shape, type }] of Object.entries(answers)) {
    response[status] = answerOf(description, shape, type);
  }
  return {
    summary,
    tags: [tag],
    ...(call.params !== undefined && {
      params: {
        type: "object",
        properties: Object.fromEntries(call.params.map((name) => [name, params[name]])),
      },
    }),
    ...(query !== undefined && { querystring: jsonOf(query, "input") }),
    ...(headers !== undefined && {
      headers: {
        type: "object",
        properties: Object.fromEntries(
          Object.entries(headers).map(([name, description]) => [
            name,
            { type: "string", description },
          ]),
        ),
      },
    }),
    ...(body !== undefined && { body: bodyOf(body) }),
    response,
  };
}

function answerOf(description: string, shape?: z.ZodType, type?: string): Json {
  if (shape === undefined && type === undefined) return { type: "null", description };
  const schema = shape === undefined ? {} : jsonOf(shape, "output");
  return { description, content: { [type ?? "application/json"]: { schema } } };
}

function bodyOf(body: NonNullable<Call["body"]>): Json {
  if (body instanceof z.ZodType) return jsonOf(body, "input");
  return { content: { [body.type]: { schema: { description: body.description } } } };
}

/** Sends JSON that stands as text already. */
export function sendJson(reply: FastifyReply, status: number, text: string): FastifyReply {
  return reply.code(status).header("content-type", "application/json").send(text);
}

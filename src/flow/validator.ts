/**
 * Payload schemas of any library that speaks Standard Schema v1 (zod, valibot, arktype). They run at
 * the client's edge alone: queue, engines and server carry opaque bytes.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { SpillwayError } from "../base/index.ts";
import { pathText } from "./problems.ts";

export type { StandardSchemaV1 } from "@standard-schema/spec";
export type InferInput<Schema extends StandardSchemaV1> = StandardSchemaV1.InferInput<Schema>;
export type InferOutput<Schema extends StandardSchemaV1> = StandardSchemaV1.InferOutput<Schema>;

/**
 * @returns What the schema makes of the value; a promise of it where the schema is asynchronous.
 * @throws {SpillwayError} message_invalid, with `details.issues` (`{ path, message }[]`, at most 20);
 *   an asynchronous schema rejects with it
 */
export type Validator<Output> = (value: unknown) => Output | Promise<Output>;

export function validatorOf<Schema extends StandardSchemaV1>(
  schema: Schema,
): Validator<InferOutput<Schema>> {
  const standard = (schema as StandardSchemaV1<unknown, InferOutput<Schema>>)["~standard"];
  return (value) => {
    let result: ReturnType<typeof standard.validate>;
    try {
      result = standard.validate(value);
    } catch (cause) {
      throw thrown(standard.vendor, cause);
    }
    if (!("then" in result)) return outputOf(standard.vendor, result);
    return result.then(
      (settled) => outputOf(standard.vendor, settled),
      (cause: unknown) => {
        throw thrown(standard.vendor, cause);
      },
    );
  };
}

function outputOf<Output>(vendor: string, result: StandardSchemaV1.Result<Output>): Output {
  if (result.issues === undefined) return result.value;
  const issues = result.issues.slice(0, 20).map(({ path = [], message }) => ({
    path: pathText(path.map((step) => (typeof step === "object" ? step.key : step))),
    message: message.slice(0, 200),
  }));
  throw new SpillwayError("message_invalid", { vendor, issues });
}

/** A schema that throws (a refinement of the user's own) judged the message no better. */
function thrown(vendor: string, cause: unknown): SpillwayError {
  return new SpillwayError("message_invalid", { vendor, issues: [] }, { cause });
}

/**
 * Payload schemas of any library that speaks Standard Schema v1 (zod, valibot, arktype). They run at
 * the client's edge alone: queue, engines and server carry opaque bytes.
 */
import { SpillwayError } from "../base/index.ts";
import { pathText } from "./problems.ts";

/** A schema of any library that speaks Standard Schema, version 1 (standardschema.dev): what is used of it. */
export interface StandardSchemaV1<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => Validated<Output> | Promise<Validated<Output>>;
    /** Of the types only; never there at run time. */
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

type Validated<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | {
      readonly issues: readonly {
        readonly message: string;
        readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
      }[];
    };

type Types<Schema extends StandardSchemaV1> = NonNullable<Schema["~standard"]["types"]>;
export type InferInput<Schema extends StandardSchemaV1> = Types<Schema>["input"];
export type InferOutput<Schema extends StandardSchemaV1> = Types<Schema>["output"];

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

function outputOf<Output>(vendor: string, result: Validated<Output>): Output {
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

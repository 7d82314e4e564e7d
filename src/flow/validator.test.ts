import { expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import { isSpillwayError } from "../base/index.ts";
import { validatorOf } from "./index.ts";
import type { InferInput, InferOutput, StandardSchemaV1 } from "./index.ts";

function invalid(call: () => unknown): Readonly<Record<string, unknown>> {
  try {
    call();
  } catch (error) {
    if (!isSpillwayError(error, "message_invalid")) throw error;
    return { ...error.details, cause: error.cause };
  }
  throw new Error("The message was accepted.");
}

function schemaOf(validate: StandardSchemaV1["~standard"]["validate"]): StandardSchemaV1 {
  return { "~standard": { version: 1, vendor: "test", validate } };
}

test("a message that fits comes out as the schema makes it, at once", () => {
  const schema = z.object({ id: z.string(), at: z.string().transform((text) => text.length) });
  const validate = validatorOf(schema);
  expect(validate({ id: "a", at: "four", extra: 1 })).toEqual({ id: "a", at: 4 });
  expectTypeOf<InferInput<typeof schema>>().toEqualTypeOf<{ id: string; at: string }>();
  expectTypeOf<InferOutput<typeof schema>>().toEqualTypeOf<{ id: string; at: number }>();
});

test("a message that does not fit is message_invalid, with the path of each issue", () => {
  const schema = z.object({ items: z.array(z.object({ price: z.number() })), "a b": z.string() });
  const details = invalid(() => validatorOf(schema)({ items: [{ price: 1 }, { price: "2" }] }));
  expect(details).toMatchObject({
    vendor: "zod",
    issues: [{ path: "items[1].price" }, { path: '["a b"]' }],
  });
});

test("paths may be given as segments, and issues are bounded", () => {
  const issue = { message: "m".repeat(1000), path: [{ key: "a" }, { key: 0 }, "b"] };
  const details = invalid(() =>
    validatorOf(schemaOf(() => ({ issues: Array.from({ length: 50 }, () => issue) })))(1),
  );
  const issues = details["issues"] as { path: string; message: string }[];
  expect(issues.length).toBe(20);
  expect(issues[0]).toEqual({ path: "a[0].b", message: "m".repeat(200) });
});

test("an asynchronous schema gives a promise that rejects with message_invalid", async () => {
  const schema = z.string().refine((text) => Promise.resolve(text === "yes"));
  const validate = validatorOf({
    "~standard": {
      ...schema["~standard"],
      validate: async (value) => schema["~standard"].validate(value),
    },
  } as typeof schema);
  await expect(Promise.resolve(validate("yes"))).resolves.toBe("yes");
  await expect(Promise.resolve(validate("no"))).rejects.toMatchObject({ code: "message_invalid" });
});

test("a schema that throws judges the message as little as one that rejects", async () => {
  const boom = new Error("boom");
  const details = invalid(() =>
    validatorOf(
      schemaOf(() => {
        throw boom;
      }),
    )(1),
  );
  expect(details).toMatchObject({ vendor: "test", cause: boom });
  const rejecting = validatorOf(schemaOf(() => Promise.reject(boom)));
  await expect(Promise.resolve(rejecting(1))).rejects.toMatchObject({
    code: "message_invalid",
    cause: boom,
  });
});

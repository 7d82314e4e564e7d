import { expect, test } from "vitest";
import { contractSchema } from "./index.ts";
import { fieldNames } from "./schema.ts";

interface JsonSchema {
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
  readonly prefixItems?: readonly JsonSchema[];
  readonly enum?: readonly string[];
  readonly anyOf?: readonly JsonSchema[];
  readonly additionalProperties?: unknown;
}

function leaves(schema: JsonSchema, path: string): [path: string, schema: JsonSchema][] {
  if (schema.properties !== undefined) {
    return Object.entries(schema.properties).flatMap(([name, inner]) =>
      leaves(inner, path === "" ? name : `${path}.${name}`),
    );
  }
  if (schema.prefixItems !== undefined) {
    return schema.prefixItems.flatMap((inner, i) => leaves(inner, `${path}[${i}]`));
  }
  if (schema.items !== undefined) return leaves(schema.items, `${path}[]`);
  return [[path, schema]];
}

test("the JSON schema is data, and tells kind and meaning of every field", () => {
  const schema = contractSchema() as JsonSchema;
  expect(JSON.parse(JSON.stringify(schema))).toEqual(schema);
  expect(Object.keys(schema.properties!)).toEqual(fieldNames());
  const bare = leaves(schema, "").filter(
    ([, leaf]) => (leaf.type ?? leaf.enum ?? leaf.anyOf) === undefined || !leaf.description,
  );
  expect(bare).toEqual([]);
});

test("the JSON schema closes every object and shows ranges and defaults", () => {
  const schema = contractSchema() as JsonSchema;
  expect(schema.additionalProperties).toBe(false);
  expect(schema.properties!["buffer"]!.additionalProperties).toBe(false);
  expect(schema.properties!["partitions"]).toEqual({
    type: "integer",
    minimum: 1,
    maximum: 1024,
    description: "Slices with one owner each.",
    default: 8,
  });
  expect(schema.properties!["retry"]!.properties!["delay"]!.prefixItems).toMatchObject([
    { default: "200ms" },
    { default: "15m" },
  ]);
  expect(schema).not.toHaveProperty("required");
});

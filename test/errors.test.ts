/** docs/errors.md and the catalogue say the same. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { catalogue } from "../src/base/errors.ts";

const page = readFileSync(new URL("../docs/errors.md", import.meta.url), "utf8");
const rows = page
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .map((line) => line.slice(2, -2).split(" | "));

test("docs/errors.md is the catalogue: every code in its order, with retry, http and text", () => {
  const documented = rows.map(([code, retry, http, text]) => [code, retry, http, text]);
  const known = Object.entries(catalogue).map(([code, { retry, http, text }]) => [
    `\`${code}\``,
    retry,
    String(http),
    text,
  ]);
  expect(documented).toEqual(known);
});

test("the page says of every code when it comes and what to do", () => {
  for (const row of rows) {
    expect(row).toHaveLength(6);
    expect(row[4]!.length, `${row[0]}: when it comes`).toBeGreaterThan(20);
    expect(row[5]!.length, `${row[0]}: what to do`).toBeGreaterThan(10);
  }
});

test("codes are in snake case, texts are sentences, statuses are those of refusals", () => {
  for (const [code, { http, text }] of Object.entries(catalogue)) {
    expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/);
    expect(text).toMatch(/^[A-Z].*\.$/);
    expect(http).toBeGreaterThanOrEqual(400);
    expect(http).toBeLessThan(600);
  }
});

/** DEPENDENCIES.md and package.json name the same packages, and no more than five. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const read = (name: string): string => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");

test("package.json has exactly the dependencies that DEPENDENCIES.md gives a reason for", () => {
  const rows = [...read("DEPENDENCIES.md").matchAll(/^\| `([^`]+)` \| (.+?) \|/gm)];
  const listed = rows.map(([, name]) => name!);
  const manifest = JSON.parse(read("package.json")) as Record<string, Record<string, string>>;
  expect(Object.keys(manifest["dependencies"]!).toSorted()).toEqual(listed.toSorted());
  expect(listed.toSorted()).toEqual(["@fastify/swagger", "commander", "fastify", "ws", "zod"]);
  for (const [, , reason] of rows) expect(reason!.length).toBeGreaterThan(20);
  for (const kind of ["optionalDependencies", "peerDependencies", "bundleDependencies"]) {
    expect(manifest[kind]).toBeUndefined();
  }
});

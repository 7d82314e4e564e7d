import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { dataFile } from "./data-files.ts";

test("the bundled files are unchanged: they have the checksums of data/README.md", async () => {
  const text = await readFile(dataFile("README.md"), "utf8");
  const rows = [...text.matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm)];
  expect(rows.length).toBe(4);
  for (const [, hash, name] of rows) {
    const content = await readFile(dataFile(name!));
    expect([name, createHash("sha256").update(content).digest("hex")]).toEqual([name, hash]);
  }
});

test("a file that is not there is named", () => {
  expect(() => dataFile("arrivals/none.csv")).toThrow(/none\.csv/);
});

test("the package is found from any depth, past packages of other names", async () => {
  const folder = await mkdtemp(join(tmpdir(), "spillway-data-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const deep = join(folder, "dist", "cli", "demo");
  await mkdir(deep, { recursive: true });
  await mkdir(join(folder, "data"));
  await mkdir(join(folder, "dist", "base"));
  await writeFile(join(folder, "package.json"), '{"name":"spillway","type":"module"}');
  await writeFile(join(folder, "dist", "package.json"), '{"name":"other","type":"module"}');
  await writeFile(join(folder, "data", "x.csv"), "");
  await writeFile(
    join(folder, "dist", "base", "index.ts"),
    "export class SpillwayError extends Error {}",
  );
  const copy = join(deep, "data-files.ts");
  await cp(join(import.meta.dirname, "data-files.ts"), copy);
  await cp(join(import.meta.dirname, "../package-root.ts"), join(deep, "../package-root.ts"));
  const { dataFile: found } = (await import(/* @vite-ignore */ copy)) as {
    dataFile: typeof dataFile;
  };
  expect(found("x.csv")).toBe(join(folder, "data", "x.csv"));
});

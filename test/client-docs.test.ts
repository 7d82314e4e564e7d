/** The program of docs/client.md compiles, and does against a server what it says. */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { compileProgram, programOf } from "./support/pages.ts";
import { openServer } from "./support/server.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..");
const folder = join(root, "reports/client");

test("the client's page compiles, runs, and prints what its comments say", async () => {
  const page = await readFile(join(root, "docs/client.md"), "utf8");
  expect(await compileProgram(folder, "client.ts", programOf(page))).toBe("");
  const server = await openServer({ flows: { orders: {} } });
  const program = join(folder, "client.ts");
  await writeFile(program, programOf(page).replace("http://127.0.0.1:7411", server.url));
  const args = ["--conditions=source", program];
  const { stdout } = await run(process.execPath, args, { timeout: 15_000 });
  const expected = [...page.matchAll(/\/\/ prints (.+)$/gm)].map((match) => match[1]!);
  expect(stdout.trimEnd().split("\n")).toEqual(expected);
});

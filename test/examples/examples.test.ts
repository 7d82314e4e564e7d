import { execFile } from "node:child_process";
import { globSync } from "node:fs";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const run = promisify(execFile);

for (const example of globSync("examples/*.ts").toSorted()) {
  test(`${example} runs and ends by itself`, async () => {
    const { stdout } = await run("node", ["--conditions=source", example], { timeout: 30_000 });
    expect(stdout.trim().length).toBeGreaterThan(0);
  }, 40_000);
}

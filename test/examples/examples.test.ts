import { execFile } from "node:child_process";
import { globSync } from "node:fs";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { missingTools } from "../support/tools.ts";
import { openServer } from "../support/server.ts";

const run = promisify(execFile);

for (const example of globSync("examples/*.ts").toSorted()) {
  test(`${example} runs and ends by itself`, async () => {
    const { stdout } = await run("node", ["--conditions=source", example], { timeout: 30_000 });
    expect(stdout.trim().length).toBeGreaterThan(0);
  }, 40_000);
}

const noCurl = missingTools().some(({ binaries }) => binaries.includes("curl"));

test.skipIf(noCurl)(
  "examples/curl.sh runs against a server, and proves what it says",
  async ({ skip }) => {
    const server = await openServer({ flows: { orders: { partitions: 2 } } });
    const { status } = await fetch(`${server.url}/v1/flows/orders`);
    skip(status === 404, "this server has no routes to pull, to settle and to look");
    const env = { ...process.env, SPILLWAY_URL: server.url, no_proxy: "127.0.0.1" };
    const { stdout } = await run("examples/curl.sh", { env, timeout: 30_000 });
    const statuses = stdout.split("\n").map((line) => line.slice(0, 3));
    expect(statuses.slice(0, 4)).toEqual(["202", "200", "422", "200"]);
    expect(stdout).toContain("and nothing is left in it");
    expect(server.spillway.flow("orders").state().counters).toMatchObject({ acked: 3, pending: 0 });
  },
  40_000,
);

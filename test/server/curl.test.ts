/** The lines of docs/http.md, run as they stand. */
import { execFile, execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { openServer } from "../support/server.ts";
import { TempDir } from "../support/temp-dir.ts";

const run = promisify(execFile);
const page = readFileSync(join(import.meta.dirname, "../../docs/http.md"), "utf8");

function hasCurl(): boolean {
  try {
    execFileSync("curl", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

test.skipIf(!hasCurl())("every curl line of the page works, in their order", async () => {
  const server = await openServer({ flows: { orders: { partitions: 1 } } });
  const dir = new TempDir();
  onTestFinished(() => dir[Symbol.dispose]());
  // What the page does not show: a refusal is a failure.
  writeFileSync(join(dir.path, ".curlrc"), 'fail-with-body\nsilent\nshow-error\nnoproxy = "*"\n');
  const blocks = [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => block!);
  expect(blocks.length).toBeGreaterThan(10);
  for (const block of blocks) {
    const script = `set -e -o pipefail\n${block.replaceAll("http://127.0.0.1:7411", server.url)}`;
    const { stdout } = await run("bash", ["-c", script], {
      env: { ...process.env, CURL_HOME: dir.path },
    });
    expect(stdout).not.toContain('"accepted":false');
    expect(stdout).not.toContain('"settled":false');
  }
  expect(server.spillway.flow("orders").state().counters).toMatchObject({ acked: 1, discarded: 1 });
});

/** `spillway init`: what it writes is valid, says the truth about defaults, and takes nothing away. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Finding } from "../../src/cli/doctor/finding.ts";
import type { Config } from "../../src/config/index.ts";
import { expect, test } from "vitest";
import { emptyDir, startIn } from "./spillway.ts";

/** What `serve` reads, in a process of its own: here another loader is in the way. */
function read(file: string): Config {
  const module = join(import.meta.dirname, "../../src/cli/config-file.ts");
  const program = `import { readConfig } from ${JSON.stringify(module)};
    console.log(JSON.stringify(await readConfig(${JSON.stringify(file)})));`;
  const flags = ["--conditions=source", "--input-type=module", "-e", program];
  return JSON.parse(execFileSync(process.execPath, flags, { encoding: "utf8" })) as Config;
}

test("what it writes serves at once, and doctor has nothing against it", async () => {
  const folder = await emptyDir();
  const made = await startIn(folder, "init").ended;
  expect(made).toMatchObject({ code: 0, stderr: "" });
  for (const next of [join(folder, "spillway.config.ts"), "spillway doctor", "spillway serve"]) {
    expect(made.stdout).toContain(next);
  }
  const { stdout } = await startIn(folder, "doctor", "--json").ended;
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  // The default port may be taken on this machine.
  const fails = findings.filter(({ level, check }) => level === "fail" && check !== "port");
  expect(fails).toEqual([]);
  const server = startIn(folder, "serve", "--port", "0", "--json");
  const { url } = JSON.parse(await server.said("\n")) as { url: string };
  const sent = await fetch(`${url}/v1/flows/orders/messages`, { method: "POST", body: "x" });
  expect(sent.status).toBe(202);
  server.child.kill("SIGTERM");
  expect(await server.ended).toMatchObject({ code: 0 });
});

test("every line that is commented out is valid, and but for the target it is the default", async () => {
  const folder = await emptyDir();
  await startIn(folder, "init").ended;
  const file = join(folder, "spillway.config.ts");
  const { flows: _, contracts, ...plain } = read(file);
  const text = readFileSync(file, "utf8");
  const whole = text.replaceAll(/^( +)\/\/ (\w+: .*,)$/gm, "$1$2");
  expect(whole.split("\n").filter((line) => /^ +\/\/ \w+: /.test(line))).toEqual([]);
  expect(whole).not.toBe(text);
  writeFileSync(file, whole);
  const { flows: _flows, contracts: written, ...same } = read(file);
  expect(same).toEqual(plain);
  const { deliver, ...orders } = written["orders"]!;
  expect(orders).toEqual(contracts["orders"]);
  expect(deliver?.url).toBe("https://example.com/orders");
});

test("with --json it writes JSON that means the same", async () => {
  const folder = await emptyDir();
  expect(await startIn(folder, "init", "--json").ended).toMatchObject({ code: 0 });
  const { flows: _, ...fromJson } = read(join(folder, "spillway.config.json"));
  await startIn(folder, "init", "--force").ended;
  const { flows: _flows, ...fromTs } = read(join(folder, "spillway.config.ts"));
  expect(fromJson).toEqual(fromTs);
});

test("a configuration that is there is written over with --force only", async () => {
  const folder = await emptyDir();
  const file = join(folder, "spillway.config.ts");
  writeFileSync(file, "// mine");
  const refused = await startIn(folder, "init").ended;
  expect(refused).toMatchObject({ code: 2, stdout: "" });
  expect(refused.stderr).toContain("--force");
  expect((await startIn(folder, "init", "--json").ended).code).toBe(2);
  expect(readFileSync(file, "utf8")).toBe("// mine");
  const both = await startIn(folder, "init", "--json", "--force").ended;
  expect(both.stdout).toContain("spillway.config.ts is here, too");
  expect((await startIn(folder, "init", "--force").ended).code).toBe(0);
  expect(readFileSync(file, "utf8")).toContain("defineConfig");
});

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { openSpillway } from "../../src/spillway.ts";
import { emptyDir, spillway } from "./spillway.ts";

const root = join(import.meta.dirname, "../..");

async function storeOf(messages: number): Promise<string> {
  const dir = await emptyDir();
  await using instance = await openSpillway({ dir });
  const flow = instance.flow<number>("orders", { partitions: 2 });
  for (let at = 0; at < messages; at++) await flow.send(at);
  return dir;
}

test("what cannot be used is named in a line or two, and the exit code is 2", async () => {
  const wrong: [string[], string][] = [
    [["demo", "--rate", "many"], "--rate"],
    [["demo", "--arrivals", "/nonexistent.csv"], "/nonexistent.csv"],
    [["demo", "--bogus"], "--bogus"],
    [["audit", "/nonexistent"], "/nonexistent"],
    [["nonsense"], "nonsense"],
  ];
  await Promise.all(
    wrong.map(async ([args, named]) => {
      const { code, stdout, stderr } = await spillway(...args);
      expect({ args, code, stdout }).toEqual({ args, code: 2, stdout: "" });
      expect(stderr.split("\n")[0]).toContain(named);
      expect(stderr.trimEnd().split("\n").length).toBeLessThanOrEqual(2);
    }),
  );
});

test("--version is the package's, --help names the commands, and the page has each of them", async () => {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    version: string;
  };
  expect(await spillway("--version")).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
  const help = await spillway("--help");
  expect(help.code).toBe(0);
  const page = readFileSync(join(root, "docs/cli.md"), "utf8");
  const commands = [...help.stdout.matchAll(/^ {2}(\w+) /gm)].map((match) => match[1]!);
  expect(commands).toEqual(
    expect.arrayContaining(["serve", "init", "doctor", "backup", "restore"]),
  );
  for (const command of commands.filter((name) => name !== "help")) {
    expect(page).toContain(`| \`spillway ${command}`);
  }
});

test("G2 audit prints the accounts of each partition and of the flow", async () => {
  const dir = await storeOf(5);
  const { code, stdout } = await spillway("audit", dir);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^ {2}orders +0 +\d /m);
  expect(stdout).toMatch(/^ {2}orders +all +5 +0 +0 +0 +5 /m);
  const { stdout: json } = await spillway("audit", dir, "--json");
  expect(JSON.parse(json)).toMatchObject({ ok: true, faults: [], partitions: [{}, {}] });
});

test("G2 audit names a difference and ends with 1", async () => {
  const dir = await storeOf(3);
  const db = new DatabaseSync(join(dir, "store.db"));
  db.exec("UPDATE part SET accepted = accepted + 1 WHERE n = 1");
  db.close();
  const { code, stdout } = await spillway("audit", dir);
  expect(code).toBe(1);
  expect(stdout).toMatch(/do not hold:\n +orders\/1: accepted/);
});

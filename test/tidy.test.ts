/**
 * The rules of the house hold: each layer rule catches a violation that is planted for it, the pure
 * rooms import nothing that acts, and what only a driver may touch is touched there only.
 */
import { spawnSync } from "node:child_process";
import { cpSync, globSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
// @ts-expect-error The configuration is plain JavaScript.
import cruiser from "../.dependency-cruiser.js";
import { TempDir } from "./support/temp-dir.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const { forbidden } = cruiser as { forbidden: readonly { readonly name: string }[] };

/** For each rule: a file, and what it must not import. */
const plants: Readonly<Record<string, readonly [file: string, imports: string]>> = {
  "base-imports-only-what-it-may": ["src/base/planted.ts", "../flow/index.ts"],
  "flow-imports-only-what-it-may": ["src/flow/planted.ts", "../control/index.ts"],
  "control-imports-only-what-it-may": ["src/control/planted.ts", "../protocol/index.ts"],
  "protocol-imports-only-what-it-may": ["src/protocol/planted.ts", "../flow/index.ts"],
  "producer-imports-only-what-it-may": ["src/producer/planted.ts", "../queue/index.ts"],
  "queue-imports-only-what-it-may": ["src/queue/planted.ts", "../consumer/index.ts"],
  "consumer-imports-only-what-it-may": ["src/consumer/planted.ts", "../engines/index.ts"],
  "engines-imports-only-what-it-may": ["src/engines/planted.ts", "../queue/index.ts"],
  "config-imports-only-what-it-may": ["src/config/planted.ts", "../engines/index.ts"],
  "client-imports-only-what-it-may": ["src/client/planted.ts", "../queue/index.ts"],
  "nothing-but-the-commands-imports-the-server": ["src/simulator/server.ts", "../server/index.ts"],
  "front-door-imports-only-what-is-below": ["src/spillway.ts", "./simulator/index.ts"],
  "nothing-imports-the-commands": ["src/simulator/planted.ts", "../cli/main.ts"],
  "only-doors-are-opened": ["src/queue/door.ts", "../base/errors.ts"],
  "pure-rooms-have-no-node-modules": ["src/queue/machine.ts", "node:fs"],
  "pure-rooms-have-no-packages": ["src/control/package.ts", "zod"],
  "no-cycles": ["src/base/circle-back.ts", "./circle.ts"],
  resolvable: ["src/base/lost.ts", "./nowhere.ts"],
  "no-dev-dependency-in-src": ["src/cli/planted.ts", "fast-check"],
  "the-checker-imports-nothing-of-ours": ["src/simulator/check-history.ts", "../base/index.ts"],
};
const doors = [
  "base",
  "flow",
  "control",
  "protocol",
  "queue",
  "consumer",
  "engines",
  "simulator",
  "server",
];

test("every layer rule has its planted violation", () => {
  expect(Object.keys(plants).toSorted()).toEqual(forbidden.map(({ name }) => name).toSorted());
});

test("each layer rule catches its planted violation", () => {
  using dir = new TempDir();
  const write = (file: string, text: string): void => {
    mkdirSync(dirname(join(dir.path, file)), { recursive: true });
    writeFileSync(join(dir.path, file), text);
  };
  for (const file of [".dependency-cruiser.js", "tsconfig.base.json", "package.json"]) {
    cpSync(join(root, file), join(dir.path, file));
  }
  symlinkSync(join(root, "node_modules"), join(dir.path, "node_modules"));
  for (const door of doors) write(`src/${door}/index.ts`, "export const door = 1;\n");
  write("src/cli/main.ts", "export const main = 1;\n");
  write("src/base/errors.ts", "export const errors = 1;\n");
  write("src/base/circle.ts", 'export * from "./circle-back.ts";\n');
  for (const [file, imports] of Object.values(plants)) write(file, `export * from "${imports}";\n`);
  const caught = cruise(dir.path, ["src"]);
  for (const [rule, [file]] of Object.entries(plants)) {
    expect(caught, `${rule}, planted in ${file}`).toContain(`${rule} ${file}`);
  }
}, 30_000);

/** @returns "rule file" of each violation. */
function cruise(cwd: string, folders: readonly string[]): string[] {
  const command = join(root, "node_modules/.bin/depcruise");
  const args = [...folders, "--config", ".dependency-cruiser.js", "--output-type", "json"];
  const { stdout, stderr } = spawnSync(process.execPath, [command, ...args], {
    cwd,
    encoding: "utf8",
    maxBuffer: 64 * 1024 ** 2,
  });
  if (stdout === "") throw new Error(stderr);
  const { summary } = JSON.parse(stdout) as {
    summary: { violations: { from: string; rule: { name: string } }[] };
  };
  return summary.violations.map(({ from, rule }) => `${rule.name} ${from}`);
}

const driving = /(digests|driver|codec|sender|taking|delivery|shelves|writes)\.ts$/;
const pure = globSync("src/{base,flow,control,protocol,producer,queue,consumer}/*.ts", {
  cwd: root,
})
  .filter((file) => !file.endsWith(".test.ts") && !file.endsWith("index.ts"))
  .filter((file) => !driving.test(file) || file === "src/queue/delivery.ts");

test("G8 what decides imports no platform, holds no promise and reads no clock", () => {
  expect(pure.length).toBeGreaterThan(50);
  for (const file of pure) {
    const code = codeOf(file);
    expect(code, `${file} imports a node module`).not.toMatch(/from "node:/);
    expect(code, `${file} awaits`).not.toMatch(/\bawait\b|\basync\b|\bnew Promise\b/);
    expect(code, `${file} reads a clock`).not.toMatch(/\bDate\.now\b|\bperformance\b/);
    expect(code, `${file} draws chance`).not.toMatch(/\bMath\.random\b/);
  }
});

test("the three parties never import each other", () => {
  for (const party of ["producer", "queue", "consumer"]) {
    const others = ["producer", "queue", "consumer"].filter((other) => other !== party);
    for (const file of globSync(`src/${party}/*.ts`, { cwd: root })) {
      if (file.endsWith(".test.ts")) continue;
      const isMeeting = new RegExp(`from "\\.\\./(${others.join("|")})/`).test(codeOf(file));
      expect({ file, isMeeting }).toEqual({ file, isMeeting: false });
    }
  }
});

test("the judge of histories shares no code with what it judges", () => {
  for (const file of globSync("src/simulator/{check-history,history-*}.ts", { cwd: root })) {
    for (const [, imported] of codeOf(file).matchAll(/from "([^"]+)"/g)) {
      const isOwn = /^(node:|\.\/(check-history|history-))/.test(imported!);
      expect({ file, imported, isOwn }).toEqual({ file, imported, isOwn: true });
    }
  }
});

test("no file of ours is longer than anybody reads", () => {
  const tooLong: string[] = [];
  for (const file of globSync("{src,scripts,bench}/**/*.ts", { cwd: root })) {
    const lines = readFileSync(join(root, file), "utf8").split("\n").length;
    if (lines >= 750) tooLong.push(file);
  }
  expect(tooLong).toEqual([]);
});

/** Without comments: those may name what the code must not. */
function codeOf(file: string): string {
  const text = readFileSync(join(root, file), "utf8");
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/\/\/.*$/gm, "");
}

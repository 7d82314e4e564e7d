/**
 * Runs a part of a benchmark in a process of its own, so that one heap, one warm compiler and one set
 * of caches do not colour the next measurement.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

/**
 * @param module Name of a file of this folder, without its ending.
 * @param flags Further ones for Node.
 */
export async function inFreshProcess<Result>(
  module: string,
  options: unknown,
  flags: readonly string[] = [],
): Promise<Result> {
  const args = [placeOf("task.ts"), module, JSON.stringify(options)];
  return run<Result>(module, [...process.execArgv, ...flags, ...args]);
}

/**
 * The same with the built package, which `buildPackage` makes.
 *
 * @param program Name of a file of plain JavaScript in this folder.
 */
export function withBuiltPackage<Result>(
  program: string,
  options: unknown,
  flags: readonly string[] = [],
): Promise<Result> {
  return run<Result>(program, [...flags, placeOf(program), JSON.stringify(options)]);
}

export function buildPackage(): void {
  const { status } = spawnSync("npm", ["run", "--silent", "build"], { stdio: "inherit" });
  if (status !== 0) throw new Error("npm run build failed");
}

function placeOf(file: string): string {
  return fileURLToPath(new URL(file, import.meta.url));
}

async function run<Result>(name: string, args: readonly string[]): Promise<Result> {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, "close")]);
  if (code !== 0) throw new Error(`${name} ended with code ${String(code)}`);
  return JSON.parse(output.trimEnd().split("\n").at(-1)!) as Result;
}

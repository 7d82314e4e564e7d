/**
 * Runs a part of a benchmark in a process of its own, so that one heap, one warm compiler and one set
 * of caches do not colour the next measurement.
 */
import { spawn } from "node:child_process";
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
  const program = fileURLToPath(new URL("task.ts", import.meta.url));
  const child = spawn(
    process.execPath,
    [...process.execArgv, ...flags, program, module, JSON.stringify(options)],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, "close")]);
  if (code !== 0) throw new Error(`${module} ended with code ${String(code)}`);
  return JSON.parse(output.trimEnd().split("\n").at(-1)!) as Result;
}

/** An instance on a store in a folder for temporary files, which goes when the work is done. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sqlite } from "../src/engines/sqlite/index.ts";
import type { SqliteOptions } from "../src/engines/sqlite/index.ts";
import { openSpillway } from "../src/spillway.ts";
import type { Flow, Spillway } from "../src/spillway.ts";

export async function inTempFolder<Result>(
  work: (dir: string) => Promise<Result>,
): Promise<Result> {
  const dir = await mkdtemp(join(tmpdir(), "bench-spillway-"));
  try {
    return await work(dir);
  } finally {
    await rm(dir, { recursive: true });
  }
}

export function withStore<Result>(
  work: (spillway: Spillway) => Promise<Result>,
  options: Omit<SqliteOptions, "dir"> = {},
): Promise<Result> {
  return inTempFolder(async (dir) => {
    await using spillway = await openSpillway({ engine: sqlite({ ...options, dir }) });
    return await work(spillway);
  });
}

/**
 * Resolves when nothing of the flow is pending: its acks are durable, too.
 * @throws {Error} A partition stopped, so that this would take for ever.
 */
export async function drained(flow: Flow<Uint8Array>): Promise<void> {
  for (;;) {
    const { depth, partitions } = flow.state();
    const stopped = partitions.find(({ state }) => state !== "open");
    if (stopped !== undefined) throw new Error(`partition stopped: ${stopped.state}`);
    if (depth === 0) return;
    await sleep(5);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

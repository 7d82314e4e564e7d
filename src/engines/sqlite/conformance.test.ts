/** The port's guarantees, on a store in a directory of its own for each case. */
import fc from "fast-check";
import { cpSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, test } from "vitest";
import { SmallDisk } from "../../../test/support/small-disk.ts";
import { conformance } from "../conformance.ts";
import type { Harness } from "../conformance.ts";
import type { Engine, PartitionRef } from "../engine.ts";
import { sqlite } from "./index.ts";
import { idSpan } from "./schema.ts";

const disk = SmallDisk.mount(96);
afterAll(() => {
  if (disk instanceof SmallDisk) disk[Symbol.dispose]();
});

conformance({ test, fc }, "sqlite", async (): Promise<Harness> => {
  const home = mkdtempSync(join(disk instanceof SmallDisk ? disk.dir : tmpdir(), "store-"));
  let dir = join(home, "0");
  let crashes = 0;
  let engine = await openAt(dir);
  const harness: Harness = {
    engine,
    async reopen() {
      await engine[Symbol.asyncDispose]();
      engine = await openAt(dir);
      return engine;
    },
    /** What kill -9 leaves are the files as they are. */
    async crash() {
      const left = join(home, `${++crashes}`);
      cpSync(dir, left, { recursive: true, filter: (path) => !path.endsWith("-shm") });
      await engine[Symbol.asyncDispose]();
      rmSync(dir, { recursive: true });
      dir = left;
      engine = await openAt(dir);
      return engine;
    },
    async damage(ref: PartitionRef, seq: number) {
      using db = new DatabaseSync(join(dir, "store.db"), { timeout: 1000 });
      const where = "(SELECT p FROM part WHERE flow = ? AND n = ?)";
      for (const sql of [
        `UPDATE msg SET data = CAST(data || 'x' AS BLOB) WHERE p = ${where} AND seq = ?`,
        `UPDATE body SET data = CAST(data || 'x' AS BLOB) WHERE id = ${where} * ${idSpan} + ?`,
      ]) {
        db.prepare(sql).run(ref.flow, ref.partition, seq);
      }
    },
    async usedBytes() {
      return readdirSync(dir)
        .filter((name) => name === "store.db" || name === "store.db-wal")
        .reduce((sum, name) => sum + statSync(join(dir, name)).size, 0);
    },
    async [Symbol.asyncDispose]() {
      await engine[Symbol.asyncDispose]();
      rmSync(home, { recursive: true, force: true });
    },
  };
  if (!(disk instanceof SmallDisk)) return harness;
  return Object.assign(harness, {
    fill: async () => disk.fill(),
    makeRoom: async () => disk.makeRoom(),
  });
});

async function openAt(dir: string): Promise<Engine> {
  const engine = sqlite({ dir, reserveBytes: 1024 ** 2, minFreeBytes: 1024 ** 2 });
  await engine.open();
  return engine;
}

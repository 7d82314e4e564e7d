/** Backup and restore by the commands, of stores that real processes write. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DatabaseSync } from "node:sqlite";
import { expect, onTestFinished, test } from "vitest";
import { auditStore } from "../../src/engines/sqlite/index.ts";
import type { PartitionAudit } from "../../src/engines/sqlite/index.ts";
import { openSpillway } from "../../src/spillway.ts";
import { emptyDir, spillway, start } from "./spillway.ts";
import type { Ended } from "./spillway.ts";

interface BackupJson {
  readonly ok: boolean;
  readonly left: readonly string[];
  readonly partitions: readonly PartitionAudit[];
}

/** A store with pending messages in two partitions, and one that was acked. */
async function storeOf(messages: number): Promise<string> {
  const dir = join(await emptyDir(), "data");
  await using instance = await openSpillway({ dir });
  const flow = instance.flow<number>("orders", { partitions: 2 });
  for (let at = 0; at < messages; at++) await flow.send(at, { key: `k${at % 5}` });
  const [delivery] = await flow.pull({ max: 1, waitMs: 5000 });
  await delivery!.ack();
  return dir;
}

interface Busy {
  readonly child: ChildProcess;
  /** Ids of everything that was accepted so far. */
  readonly ids: string[];
}

async function busyStore(dir: string): Promise<Busy> {
  const script = join(import.meta.dirname, "busy-store.ts");
  const child = spawn(process.execPath, ["--conditions=source", script, dir], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const ids: string[] = [];
  let rest = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    const lines = (rest + part).split("\n");
    rest = lines.pop()!;
    for (const line of lines) ids.push(...line.split(" "));
  });
  while (ids.length < 2000) await once(child.stdout, "data");
  return { child, ids };
}

/** Seqs are dense: what is not above the accepted count of its partition is in the accounts. */
function expectHolds(partitions: readonly PartitionAudit[], ids: readonly string[]): void {
  const accepted = new Map(partitions.map(({ ref, report }) => [ref.partition, report.counters]));
  const missing = ids.filter((id) => {
    const [, partition, seq] = id.split("/").map(Number);
    return seq! > (accepted.get(partition!)?.accepted ?? 0);
  });
  expect(missing).toEqual([]);
}

test("G14 a backup under load holds every message that was accepted before it began, and restores to accounts that hold", async () => {
  const home = await emptyDir();
  const [dir, to, restored] = ["data", "backups/one", "restored"].map((name) => join(home, name));
  const { child, ids } = await busyStore(dir!);
  const before = [...ids];
  const made = await spillway("backup", to!, "--dir", dir!, "--json");
  expect(made).toMatchObject({ code: 0, stderr: "" });
  // The writer was not stopped by it.
  const during = ids.length;
  while (ids.length === during) await once(child.stdout!, "data");
  child.kill("SIGKILL");
  const report = JSON.parse(made.stdout) as BackupJson;
  expect(report).toMatchObject({ ok: true, complete: true, left: [] });
  expectHolds(report.partitions, before);
  expect(report.partitions.some(({ report: { counters } }) => counters.acked > 0)).toBe(true);
  expect(readdirSync(to!).toSorted()).toEqual(["backup.json", "store.db"]);
  for (const name of readdirSync(to!)) expect(statSync(join(to!, name)).mode & 0o077).toBe(0);

  const back = await spillway("restore", to!, "--dir", restored!, "--json");
  expect(back).toMatchObject({ code: 0, stderr: "" });
  const audit = await spillway("audit", restored!, "--json");
  expect(audit).toMatchObject({ code: 0 });
  const { partitions } = JSON.parse(audit.stdout) as {
    partitions: readonly { partition: number; counters: unknown }[];
  };
  expect(partitions.map(({ counters }) => counters)).toEqual(
    report.partitions.map(({ report: { counters } }) => counters),
  );
}, 60_000);

test("G14 what was acked since the backup is delivered again, and nothing else is different", async () => {
  const dir = await storeOf(20);
  const to = join(dirname(dir), "backup");
  expect(await spillway("backup", to, "--dir", dir)).toMatchObject({ code: 0 });
  await using after = await openSpillway({ dir });
  const flow = after.flow<number>("orders", { partitions: 2 });
  const taken = await flow.pull({ max: 1, waitMs: 5000 });
  const id = taken[0]!.id;
  await taken[0]!.ack();
  await after.close();

  const restored = await spillway("restore", to, "--dir", dir, "--force");
  expect(restored).toMatchObject({ code: 0, stderr: "" });
  expect(restored.stdout).toContain("will be delivered again");
  const aside = /what was there lies in (\S+)/.exec(restored.stdout)![1]!;
  expect(auditStore(aside).map(({ report }) => report.firstDifference)).toEqual([
    undefined,
    undefined,
  ]);
  await using again = await openSpillway({ dir });
  const back = again.flow<number>("orders", { partitions: 2 });
  const ids = new Set<string>();
  while (ids.size < 19) {
    for (const each of await back.pull({ max: 19, waitMs: 5000 })) {
      ids.add(each.id);
      await each.ack();
    }
  }
  expect(ids).toContain(id);
  expect(back.state().counters).toMatchObject({ accepted: 20, acked: 20, pending: 0 });
}, 60_000);

test("G14 a backup that was killed is not taken for one, and the next one says what it left behind", async () => {
  const home = await emptyDir();
  const [dir, to] = ["data", "backup"].map((name) => join(home, name));
  const { child } = await busyStore(dir!);
  const half = (): string | undefined =>
    readdirSync(home).find((name) => name.startsWith("backup.incomplete-"));
  // One that was done before the kill came is no killed one: once more.
  while (half() === undefined) {
    await rm(to!, { recursive: true, force: true });
    const making = start("backup", to!, "--dir", dir!);
    while (half() === undefined && making.child.exitCode === null) await sleep(1);
    making.child.kill("SIGKILL");
    await making.ended;
  }
  child.kill("SIGKILL");
  expect(existsSync(to!)).toBe(false);
  const left = join(home, half()!);
  const target = join(home, "restored");
  const refused = await spillway("restore", left, "--dir", target);
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toContain("no backup.json");
  expect(existsSync(target)).toBe(false);
  const next = await spillway("backup", to!, "--dir", dir!, "--json");
  expect(next.code).toBe(0);
  expect((JSON.parse(next.stdout) as BackupJson).left).toEqual([left]);
}, 60_000);

test("Ctrl-C ends a backup and leaves nothing behind", async () => {
  const home = await emptyDir();
  const [dir, to] = ["data", "backup"].map((name) => join(home, name));
  const { child } = await busyStore(dir!);
  // One that was done before the signal came was not ended by it: once more.
  let ended: Ended;
  do {
    await rm(to!, { recursive: true, force: true });
    const making = start("backup", to!, "--dir", dir!);
    while (readdirSync(home).length === 1 && making.child.exitCode === null) await sleep(1);
    making.child.kill("SIGINT");
    ended = await making.ended;
  } while (ended.code === 0);
  expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining("ended before") });
  child.kill("SIGKILL");
  expect(readdirSync(home)).toEqual(["data"]);
}, 60_000);

test("G13 a damaged backup is refused, and the directory is not touched", async () => {
  const dir = await storeOf(50);
  const to = join(dirname(dir), "backup");
  await spillway("backup", to, "--dir", dir);
  const file = join(to, "store.db");
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(file, bytes);
  const before = readdirSync(dir).toSorted();
  const refused = await spillway("restore", to, "--dir", dir, "--force");
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toMatch(/backup is not complete or is damaged.*SHA-256/);
  expect(readdirSync(dir).toSorted()).toEqual(before);
  writeFileSync(file, bytes.subarray(0, bytes.length - 4096));
  expect((await spillway("restore", to, "--dir", dir, "--force")).stderr).toMatch(/bytes, not/);
}, 60_000);

test("a backup is not written over anything, nor a restore over a store, nor beside a holder", async () => {
  const dir = await storeOf(3);
  const to = join(dirname(dir), "backup");
  await spillway("backup", to, "--dir", dir);
  for (const wrong of [to, join(to, "backup.json", "x"), "/proc/backup"]) {
    const refused = await spillway("backup", wrong, "--dir", dir);
    expect(refused).toMatchObject({ code: 2, stdout: "" });
    expect(refused.stderr).toMatch(/^spillway: An option is not valid\. .*\n$/);
  }
  expect((await spillway("backup", join(to, "new"), "--dir", "/nonexistent")).code).toBe(2);
  expect((await spillway("restore", "/nonexistent", "--dir", join(to, "new"))).code).toBe(2);
  expect((await spillway("restore", to, "--dir", join(to, "store.db", "x"))).code).toBe(2);
  const filled = await spillway("restore", to, "--dir", dir);
  expect(filled).toMatchObject({ code: 2 });
  expect(filled.stderr).toContain("--force");
  expect((await spillway("restore", to, "--dir", import.meta.dirname, "--force")).code).toBe(2);
  await using holder = await openSpillway({ dir });
  const held = await spillway("restore", to, "--dir", dir, "--force");
  expect(held).toMatchObject({ code: 1 });
  expect(held.stderr).toContain(`pid: ${process.pid}`);
  expect(holder.flowNames).toEqual(["orders"]);
}, 60_000);

test("G14 a restore that was killed leaves a directory that is refused until it is done again", async () => {
  const dir = await storeOf(10);
  const to = join(dirname(dir), "backup");
  await spillway("backup", to, "--dir", dir);
  // What a kill in the middle leaves: the mark, the old store moved aside, and no new one.
  await rm(join(dir, "store.db"));
  writeFileSync(join(dir, "restoring"), "{}\n");
  writeFileSync(join(dir, "store.db.restoring"), "half");
  await expect(openSpillway({ dir })).rejects.toMatchObject({ code: "backup_invalid" });
  expect(await spillway("restore", to, "--dir", dir)).toMatchObject({ code: 0 });
  await using whole = await openSpillway({ dir });
  const flow = whole.flow("orders", { partitions: 2 });
  await flow.opened();
  expect(flow.state().counters.accepted).toBe(10);
  expect(existsSync(join(dir, "store.db.restoring"))).toBe(false);
}, 60_000);

test("G13 a store with a damaged message is backed up as it is, and the damage is named", async () => {
  const dir = await storeOf(5);
  const db = new DatabaseSync(join(dir, "store.db"));
  db.exec(
    "UPDATE msg SET data = x'00' WHERE seq = (SELECT max(seq) FROM msg WHERE p = 1) AND p = 1",
  );
  db.close();
  const to = join(dirname(dir), "backup");
  const made = await spillway("backup", to, "--dir", dir);
  expect(made.code).toBe(1);
  expect(made.stdout).toMatch(
    /complete, and so is the damage.*\n {2}orders\/\d: 1 damaged message/,
  );
  expect((await spillway("restore", to, "--dir", join(dirname(dir), "new"))).code).toBe(0);
});

test("G13 a store whose log is damaged is not backed up: SQLite would cut it short", async () => {
  const home = await emptyDir();
  const dir = join(home, "data");
  const { child } = await busyStore(dir);
  child.kill("SIGKILL");
  await once(child, "exit");
  const log = join(dir, "store.db-wal");
  const bytes = readFileSync(log);
  bytes[32 + 24 + 100]! ^= 1;
  writeFileSync(log, bytes);
  const refused = await spillway("backup", join(home, "backup"), "--dir", dir);
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toContain("store.db-wal");
  expect(readdirSync(home)).toEqual(["data"]);
}, 60_000);

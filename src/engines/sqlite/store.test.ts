/** The data directory, its lock, versions and damage; and how calls become commits. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, onTestFinished, test } from "vitest";
import type { Append, Claim, Engine, PartitionWrite } from "../engine.ts";
import { refuseNetworkFileSystem } from "./directory.ts";
import { auditStore, sqlite } from "./index.ts";
import { decodeSeqs, encodeSeqs } from "./partition.ts";
import { migrations, pragma, prepareStore, requireSqlite } from "./schema.ts";
import { scanWal } from "./walscan.ts";

const owner = { node: "n", address: "a" };
const limits = { messages: 1e9, bytes: 1e12 };
const append: Append = {
  class: "normal",
  headers: new Uint8Array(0),
  payload: new Uint8Array(100),
};

function folder(): string {
  const home = mkdtempSync(join(tmpdir(), "spillway-store-"));
  onTestFinished(() => rmSync(home, { recursive: true, force: true }));
  return join(home, "data");
}

async function opened(dir: string): Promise<Engine> {
  const engine = sqlite({ dir, reserveBytes: 4096, minFreeBytes: 0 });
  onTestFinished(() => engine[Symbol.asyncDispose]());
  await engine.open();
  return engine;
}

async function claimed(engine: Engine, partition = 0): Promise<Claim> {
  const result = await engine.claim({ flow: "f", partition }, owner, 1000);
  if (result.kind === "held") throw new Error("held");
  return result.claim;
}

let writes = 0;
function draft(claim: Claim, parts: Partial<PartitionWrite>): PartitionWrite {
  const writeId = `w${++writes}`;
  return { claim, writeId, nowMs: 1, appends: [], changes: [], limits, ...parts };
}

function commitsIn(dir: string): number {
  const log = readFileSync(join(dir, "store.db-wal"));
  let commits = 0;
  for (let at = 32; at < log.length; at += 24 + 4096) if (log.readUInt32BE(at + 4) > 0) commits++;
  return commits;
}

test("a second instance in this process is told who holds the directory", async () => {
  const dir = folder();
  const first = await opened(dir);
  const second = sqlite({ dir });
  await expect(second.open()).rejects.toMatchObject({
    code: "store_locked",
    details: { dir, pid: process.pid },
  });
  await first[Symbol.asyncDispose]();
  await second.open();
  await second[Symbol.asyncDispose]();
});

test("a process holds the directory while it lives, also stopped, and no longer", async () => {
  const dir = folder();
  const index = new URL("index.ts", import.meta.url).href;
  const script = `import { sqlite } from ${JSON.stringify(index)};
    const engine = sqlite({ dir: ${JSON.stringify(dir)} });
    await engine.open(); gc(); console.log("held"); setInterval(gc, 20);`;
  const flags = ["--conditions=source", "--expose-gc", "--input-type=module", "-e", script];
  const cwd = new URL(".", import.meta.url);
  const child = spawn(process.execPath, flags, { cwd, stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child.stdout, "data");
  child.kill("SIGSTOP");
  const engine = sqlite({ dir });
  const refusal = { code: "store_locked", details: { pid: child.pid } };
  await expect(engine.open()).rejects.toMatchObject(refusal);
  child.kill("SIGKILL");
  await once(child, "exit");
  await engine.open();
  await engine[Symbol.asyncDispose]();
});

test("the directory and its files are the owner's alone", async () => {
  const dir = folder();
  const engine = await opened(dir);
  await engine.write([draft(await claimed(engine), { appends: [append] })]);
  expect(statSync(dir).mode & 0o777).toBe(0o700);
  for (const name of ["store.db", "store.db-wal", "lock.db", "owner.json", "reserve"]) {
    expect([name, statSync(join(dir, name)).mode & 0o777]).toEqual([name, 0o600]);
  }
});

test("a newer store is refused and left alone", async () => {
  const dir = folder();
  await (await opened(dir))[Symbol.asyncDispose]();
  using db = new DatabaseSync(join(dir, "store.db"));
  db.exec("PRAGMA user_version=99");
  await expect(sqlite({ dir }).open()).rejects.toMatchObject({ code: "store_newer" });
  expect(() => auditStore(dir)).toThrow(expect.objectContaining({ code: "store_newer" }));
  expect(pragma(db, "user_version")).toBe(99);
});

test("an older store is brought forward step by step; a failing step changes nothing", () => {
  const path = `${folder()}.db`;
  const older = migrations.slice(0, 1);
  using db = new DatabaseSync(path);
  prepareStore(db, older);
  db.exec("INSERT INTO meta VALUES('k', x'01', 7)");
  const next = "ALTER TABLE meta ADD COLUMN note TEXT; UPDATE meta SET note = 'moved'";
  const broken = "DELETE FROM meta; SELECT no_such_function()";
  expect(() => prepareStore(db, [...older, next, broken])).toThrow("no_such_function");
  expect(pragma(db, "user_version")).toBe(2);
  expect(db.prepare("SELECT * FROM meta").get()).toMatchObject({ key: "k", note: "moved" });
  prepareStore(db, [...older, next]);
});

test("what a store of version 1 holds is read though its checksums were made in another way", async () => {
  const dir = folder();
  const before = await opened(dir);
  await before.write([draft(await claimed(before), { appends: [append] })]);
  await before[Symbol.asyncDispose]();
  {
    using db = new DatabaseSync(join(dir, "store.db"));
    db.exec("UPDATE msg SET crc = 7; PRAGMA user_version = 1");
  }
  expect(auditStore(dir).flatMap(({ report }) => report.damaged)).toEqual([]);
  const engine = await opened(dir);
  const [message] = await engine.payloads({ flow: "f", partition: 0 }, [1]);
  expect(message?.payload.length).toBe(100);
});

test("settings that break promises are refused by name", async () => {
  const dir = folder();
  await (await opened(dir))[Symbol.asyncDispose]();
  const db = new DatabaseSync(join(dir, "store.db"));
  db.exec("PRAGMA journal_mode=DELETE; PRAGMA auto_vacuum=NONE; VACUUM");
  db.close();
  const refusal = {
    code: "store_unsafe",
    details: { setting: "auto_vacuum", found: 0, needed: 2 },
  };
  await expect(sqlite({ dir }).open()).rejects.toMatchObject(refusal);
  expect(() => requireSqlite("3.51.2")).toThrow(expect.objectContaining({ code: "store_unsafe" }));
  expect(() => requireSqlite("3.51.3")).not.toThrow();
  expect(() => refuseNetworkFileSystem("/d", 0x6969)).toThrow("nfs");
  expect(() => refuseNetworkFileSystem("/d", 0xff534d42)).toThrow("cifs");
  expect(() => refuseNetworkFileSystem("/d", 0xef53)).not.toThrow();
});

test("what is not a store is refused", async () => {
  const dir = folder();
  await (await opened(dir))[Symbol.asyncDispose]();
  writeFileSync(
    join(dir, "store.db"),
    "not a database, but longer than its header would have to be".repeat(9),
  );
  await expect(sqlite({ dir }).open()).rejects.toMatchObject({ code: "store_corrupt" });
});

test("G13 a damaged log is refused, a torn tail is not", async () => {
  const dir = folder();
  const engine = await opened(dir);
  const claim = await claimed(engine);
  for (let i = 0; i < 8; i++) await engine.write([draft(claim, { appends: [append] })]);
  const copy = `${dir}-copy`;
  cpSync(dir, copy, { recursive: true, filter: (path) => !path.endsWith("-shm") });
  const path = join(copy, "store.db-wal");
  const log = readFileSync(path);
  expect(scanWal(log)).toMatchObject({ firstBad: -1, damaged: false });
  const torn = Buffer.from(log);
  torn[log.length - 100]! ^= 1;
  expect(scanWal(torn)).toMatchObject({ commitsBehind: 0, damaged: false });
  for (const at of [20, 40, 32 + 24 + 500]) {
    const damaged = Buffer.from(log);
    damaged[at]! ^= 1;
    expect([at, scanWal(damaged).damaged]).toEqual([at, true]);
  }
  log[32 + 24 + 500]! ^= 1;
  writeFileSync(path, log);
  await expect(sqlite({ dir: copy }).open()).rejects.toMatchObject({ code: "store_corrupt" });
});

test("the writes of one turn, of all partitions, share a commit; a refused one fails alone", async () => {
  const dir = folder();
  const engine = await opened(dir);
  const claims = await Promise.all([0, 1, 2].map((partition) => claimed(engine, partition)));
  const before = commitsIn(dir);
  const tight = { messages: 1, bytes: 1e9 };
  const results = await Promise.allSettled([
    engine.write([draft(claims[0]!, { appends: [append] })]),
    engine.write([draft(claims[0]!, { appends: [append], limits: tight })]),
    engine.write([draft(claims[1]!, { appends: [append, append] })]),
    engine.write([draft({ ...claims[2]!, fence: 9 }, { appends: [append] })]),
    engine.write([draft(claims[0]!, { appends: [append], changes: [{ seq: 1, kind: "ack" }] })]),
  ]);
  expect(commitsIn(dir) - before).toBe(1);
  expect(results.map(({ status }) => status)).toEqual([
    "fulfilled",
    "rejected",
    "fulfilled",
    "rejected",
    "fulfilled",
  ]);
  expect(results[1]).toMatchObject({ reason: { code: "bound_reached" } });
  expect(results[3]).toMatchObject({ reason: { code: "fenced" } });
  expect(results[4]).toMatchObject({ value: [{ appended: [{ kind: "stored", seq: 2 }] }] });
  const reports = auditStore(dir).map(({ report }) => report);
  expect(reports.map(({ counted }) => counted.pending)).toEqual([1, 2, 0]);
  expect(reports.map(({ firstDifference }) => firstDifference)).toEqual(Array(3).fill(undefined));
});

test("an attempt that succeeds writes no row of its own", async () => {
  const dir = folder();
  const engine = await opened(dir);
  const claim = await claimed(engine);
  await engine.write([draft(claim, { appends: [append, append, append] })]);
  const started = [1, 2, 3].map((seq) => ({ seq, kind: "started" }) as const);
  await engine.write([draft(claim, { changes: started })]);
  using db = new DatabaseSync(join(dir, "store.db"), { readOnly: true });
  expect(db.prepare("SELECT count(*) AS n FROM side").get()).toEqual({ n: 0 });
  const again = await claimed(engine);
  expect(again.interrupted.map(({ attempts, crashes }) => [attempts, crashes])).toEqual([
    [1, 1],
    [1, 1],
    [1, 1],
  ]);
  expect(db.prepare("SELECT count(*) AS n FROM side").get()).toEqual({ n: 3 });
});

test("a long audit lets commits pass", async () => {
  const dir = folder();
  const engine = await opened(dir);
  const claim = await claimed(engine);
  await engine.write([draft(claim, { appends: Array.from({ length: 20_000 }, () => append) })]);
  const order: string[] = [];
  const audit = engine.audit(claim.ref).then(({ counted }) => order.push(`${counted.pending}`));
  const write = engine.write([draft(claim, { appends: [append] })]).then(() => order.push("write"));
  await Promise.all([audit, write]);
  expect(order).toEqual(["write", "20001"]);
});

test("an audit names what the rows say otherwise", async () => {
  const dir = folder();
  const engine = await opened(dir);
  const claim = await claimed(engine);
  const large = { ...append, payload: new Uint8Array(3000) };
  await engine.write([draft(claim, { appends: [append, large, append] })]);
  expect(auditStore(dir)[0]!.report.firstDifference).toBeUndefined();
  await engine[Symbol.asyncDispose]();
  using db = new DatabaseSync(join(dir, "store.db"));
  const differenceAfter = (sql: string): string | undefined => {
    db.exec(sql);
    return auditStore(dir)[0]!.report.firstDifference;
  };
  expect(differenceAfter("DELETE FROM msg WHERE seq = 2; UPDATE part SET bytes = 200")).toMatch(
    /^pending/,
  );
  expect(differenceAfter("UPDATE part SET pending = 2, acked = 1")).toMatch(
    /^rows of nothing pending/,
  );
  expect(differenceAfter("DELETE FROM body")).toBeUndefined();
  expect(differenceAfter("UPDATE part SET next_seq = 9")).toMatch(/^accepted and the next seq/);
  db.exec("UPDATE msg SET seq = 8 WHERE seq = 3");
  expect(auditStore(dir)[0]!.report.damaged).toEqual([8]);
});

test("E16 a drained store is small again, and upkeep stays near its budget", async () => {
  const dir = folder();
  const engine = await opened(dir);
  const claim = await claimed(engine);
  const sizes = (): number => statSync(join(dir, "store.db")).size;
  for (let i = 0; i < 10; i++) {
    await engine.write([draft(claim, { appends: Array.from({ length: 2000 }, () => append) })]);
  }
  const changes = Array.from({ length: 20_000 }, (_, i) => ({ seq: i + 1, kind: "ack" }) as const);
  await engine.write([draft(claim, { changes })]);
  let rounds = 0;
  // Without a budget each call does the least it can: one slice.
  for (let more = true; more; rounds++) ({ more } = await engine.maintain(claim, 2, 0));
  expect(rounds).toBeGreaterThan(1);
  expect(sizes()).toBeLessThan(1024 ** 2);
  expect(statSync(join(dir, "store.db-wal")).size).toBe(0);
});

test("calls after closing are refused, those before are done", async () => {
  const dir = folder();
  const engine = await opened(dir);
  const claim = await claimed(engine);
  const last = engine.write([draft(claim, { appends: [append] })]);
  const closing = engine[Symbol.asyncDispose]();
  expect((await last)[0]!.counters.pending).toBe(1);
  await closing;
  await expect(claimed(engine)).rejects.toMatchObject({ code: "closed" });
  await engine.open();
  expect((await claimed(engine)).counters.pending).toBe(1);
});

test("the set in flight survives its encoding, in any order and over any distance", () => {
  for (const seqs of [
    [],
    [1],
    [3, 1, 2],
    [1, 128, 2 ** 40, 5],
    Array.from({ length: 500 }, (_, i) => i),
  ]) {
    expect(decodeSeqs(encodeSeqs(seqs))).toEqual(seqs);
  }
});

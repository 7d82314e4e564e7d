import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { Report } from "../../src/cli/demo/report.ts";
import { emptyDir, pressUntilEnded, spillway, start } from "./spillway.ts";
import type { Ended } from "./spillway.ts";
import { auditStore } from "../../src/engines/sqlite/index.ts";

function reportIn({ stdout }: Ended): Report {
  expect(stdout.trimEnd().split("\n")).toHaveLength(1);
  return JSON.parse(stdout) as Report;
}

/** G2, from the store's audit, and D1. */
function expectAccounts(report: Report): void {
  const { accepted, acked, deadLettered, discarded, pending, pendingBefore } = report;
  expect(report).toMatchObject({ lost: 0, faults: [] });
  expect(accepted + pendingBefore).toBe(acked + deadLettered + discarded + pending);
  const refused = Object.values(report.refusedByCode).reduce((sum, n) => sum + n, 0);
  expect(report.offered).toBe(accepted + refused + report.duplicates);
  expect(report.peakStoredMessages).toBeLessThanOrEqual(report.limitMessages);
}

/** Children are found in /proc. */
const noProc = process.platform !== "linux";

function childOf(pid: number): number {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
  return Number(child);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function gone(pid: number): Promise<void> {
  while (isAlive(pid)) await sleep(20);
}

test("G2 a short demo accounts for every message in one JSON object with all fields", async () => {
  const args = ["--json", "--seconds", "1.5", "--no-compare", "--rate", "600"];
  const ended = await spillway("demo", ...args);
  expect(ended).toMatchObject({ code: 0, stderr: "" });
  const report = reportIn(ended);
  expectAccounts(report);
  expect(report).toMatchObject({
    offered: 900,
    accepted: 900,
    acked: 900,
    deadLettered: 0,
    discarded: 0,
    pending: 0,
    refusedByCode: {},
    duplicates: 0,
    limitMessages: 20_000,
    bestFixedGoodputPerSecond: null,
    goodputRatio: null,
  });
  for (const value of [
    report.peakStoredMessages,
    report.peakInFlight,
    report.goodputPerSecond,
    report.handlerLatencyMs.p50,
    report.handlerLatencyMs.p99,
    report.rssPeakMiB,
    report.windowFound,
  ]) {
    expect(value).toBeGreaterThan(0);
  }
  expect(report.producerBlockedMs).toBeGreaterThanOrEqual(0);
  expect(report.signalLagMs.p99).toBeGreaterThanOrEqual(report.signalLagMs.p50);
});

/** Reads the store beside the process that writes it; it may not be there yet. */
function hasAcked(dir: string): boolean {
  try {
    return auditStore(dir).some(({ report }) => report.counters.acked > 0);
  } catch {
    return false;
  }
}

test("G2 after Ctrl-C a second run goes on where the first stopped, and nothing is lost", async () => {
  const dir = await emptyDir();
  const args = ["--json", "--no-compare", "--data", dir];
  const first = start("demo", ...args, "--concurrency", "2", "--rate", "1500", "--seconds", "60");
  while (!hasAcked(dir)) await sleep(50);
  first.child.kill("SIGINT");
  const stopped = await first.ended;
  expect(stopped).toMatchObject({ code: 0, stderr: "" });
  const before = reportIn(stopped);
  expectAccounts(before);
  expect(before).toMatchObject({ wasStopped: true, dir, peakInFlight: 2 });
  expect(before.acked).toBeGreaterThan(0);
  expect(before.pending).toBeGreaterThan(0);

  const after = reportIn(await spillway("demo", ...args, "--rate", "100", "--seconds", "0.5"));
  expectAccounts(after);
  expect(after).toMatchObject({
    pendingBefore: before.pending,
    accepted: 50,
    acked: before.pending + 50,
    pending: 0,
    store: { accepted: before.accepted + 50, acked: before.accepted + 50, pending: 0 },
  });

  const audit = await spillway("audit", dir);
  expect(audit).toMatchObject({ code: 0, stderr: "" });
  expect(audit.stdout).toContain("The accounts hold");
});

test("the recorded spike is replayed by name, and people get a page", async () => {
  const args = ["--arrivals", "elb_request_count_8c0756", "--seconds", "1", "--rate", "50"];
  const { code, stdout } = await spillway("demo", ...args, "--no-compare");
  expect(code).toBe(0);
  expect(stdout).toContain("elb_request_count_8c0756: 6 h 15 min in 1 s");
  expect(stdout).toMatch(/^ {2}offered +50 /m);
  expect(stdout).toMatch(/^ {2}lost +0 /m);
  const dir = /store +(\S+) \(removed at the end\)/.exec(stdout)![1]!;
  expect(existsSync(dir)).toBe(false);
});

test.skipIf(noProc)(
  "a second Ctrl-C ends the demo at once, with 130 and its consumer",
  async () => {
    // A thousand calls at once take the consumer many minutes: a clean end would wait for them.
    const demo = start("demo", "--concurrency", "1000", "--rate", "5000", "--no-compare");
    await demo.said("in flight 1000/1000");
    const consumer = childOf(demo.child.pid!);
    const { code, stdout } = await pressUntilEnded(demo);
    expect(code).toBe(130);
    await gone(consumer);
    expect(existsSync(/store +(\S+)/.exec(stdout)![1]!)).toBe(false);
  },
);

test.skipIf(noProc)(
  "kill -9 of the demo ends its consumer, and the store still accounts for all",
  async () => {
    const dir = await emptyDir();
    const demo = start("demo", "--rate", "1000", "--data", dir);
    await demo.said("00:00");
    const consumer = childOf(demo.child.pid!);
    demo.child.kill("SIGKILL");
    await demo.ended;
    await gone(consumer);
    expect((await spillway("audit", dir)).code).toBe(0);
  },
);

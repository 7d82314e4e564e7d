/** G1: no power cut, no kill and no failing sync takes back what was acknowledged. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { killCycles } from "./kill.ts";
import { record, whyNot } from "./record.ts";
import { replay } from "./replay.ts";
import type { ReplayReport } from "./replay.ts";

const absent = whyNot();

function look(recording: ReturnType<typeof record>, statesMax: number): ReplayReport {
  const scratch = mkdtempSync(join(tmpdir(), "spillway-states-"));
  try {
    const { log, dir } = recording;
    return replay({ log, dir, scratch, partitions: 2, statesMax, variants: 4 });
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

test("G1 every state that a power cut can leave holds all receipts and no part of a write", (context) => {
  if (absent !== undefined) context.skip(absent);
  using recording = record(75, "full");
  expect(recording.stderr).toBe("");
  const report = look(recording, 2000);
  expect(report.first).toBeUndefined();
  expect(report.receipts).toBe(150);
  expect(report.states).toBeGreaterThan(1500);
}, 180_000);

test("the replay finds a store that does not sync its commits", (context) => {
  if (absent !== undefined) context.skip(absent);
  using recording = record(40, "unsafe-normal");
  const report = look(recording, 400);
  expect(report.bad).toBeGreaterThan(report.states / 10);
}, 60_000);

test("R7 after a failed sync the write's outcome is unknown, the next is refused, no receipt is lost", (context) => {
  if (absent !== undefined) context.skip(absent);
  const unknown: string[] = [];
  // One sync after the other, for some belong to upkeep and not to a write.
  for (const failingSync of [29, 30, 31, 32]) {
    using recording = record(40, "full", failingSync);
    expect(recording.stderr).toBe("");
    expect(recording.exitCode).toBe(0);
    const lines = readFileSync(recording.ledger, "utf8").split("\n").slice(0, -1);
    const ends = lines.filter((line) => line.startsWith("F "));
    expect(ends.at(-1), `sync ${failingSync}: the next write is refused`).toBe("F store_failed");
    expect(lines.slice(-ends.length), "nothing is acknowledged after a failure").toEqual(ends);
    unknown.push(...ends.filter((end) => end === "F outcome_unknown"));
    expect(look(recording, 50).first).toBeUndefined();
  }
  expect(unknown.length).toBeGreaterThan(0);
}, 120_000);

test("E1 and E2 kill -9 at random instants loses no receipt and leaves no part of a write", async () => {
  const report = await killCycles(20, 1);
  expect(report.fault).toBeUndefined();
  expect(report.cycles).toBe(20);
  expect(report.receipts).toBeGreaterThan(20);
}, 180_000);

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
  using recording = record(40, "full", 30);
  expect(recording.stderr).toBe("");
  expect(recording.exitCode).toBe(0);
  const ends = readFileSync(recording.ledger, "utf8").split("\n").slice(-3, -1);
  expect(ends).toEqual(["F outcome_unknown", "F store_failed"]);
  expect(look(recording, 200).first).toBeUndefined();
}, 60_000);

test("E1 and E2 kill -9 at random instants loses no receipt and leaves no part of a write", async () => {
  const report = await killCycles(20, 1);
  expect(report.fault).toBeUndefined();
  expect(report.cycles).toBe(20);
  expect(report.receipts).toBeGreaterThan(20);
}, 180_000);

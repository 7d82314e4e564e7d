/** One flow of a queue in the harness, small enough to write a history down step by step. */
import { expect } from "vitest";
import { MachineHarness } from "./machine-harness.ts";
import type { Run } from "./machine-harness.ts";

export function world(
  more: ConstructorParameters<typeof MachineHarness>[0] = {},
  window = 3,
): MachineHarness {
  return new MachineHarness(
    {
      partitions: 1,
      order: "key",
      buffer: { messages: 60 },
      classes: { critical: 1, normal: 1, bulk: 1 },
      retry: { attempts: 3, delay: [100, 1000] },
      lease: 2000,
      ...more,
    },
    window,
  );
}

export function runOf(of: MachineHarness, seq: number): Run {
  const run = of.runs.find(({ delivered }) => delivered.seq === seq);
  expect(run, `${seq} is out`).toBeDefined();
  return run!;
}

export function out(of: MachineHarness): number[] {
  return of.runs.map(({ delivered }) => delivered.seq).toSorted((a, b) => a - b);
}

export function isSeq(row: unknown, seq: number): boolean {
  return (row as { readonly seq: number }).seq === seq;
}

export function store(of: MachineHarness, ...sent: Parameters<MachineHarness["send"]>[2][]): void {
  for (const each of sent) expect(of.send("p0", 0, each)).toBe(true);
  of.turn();
  of.settleStore();
}

/** Ten lives killed with -9 over one store, and a judge that can say no. */
import { beforeAll, describe, expect, test } from "vitest";
import { judge } from "./judge.ts";
import { killLoop } from "./kill.ts";
import type { Loop } from "./kill.ts";
import type { Line } from "./ledger.ts";

const cycles = 10;
let loop: Loop;

beforeAll(async () => {
  loop = await killLoop(cycles, 4711);
}, 120_000);

test("G1, G2, G4, G5 kill -9 loses nothing, doubles nothing and keeps the order per key", () => {
  const { problems, accepted, handled, redelivered } = judge(loop.lines, loop.audits);
  expect(problems).toEqual([]);
  expect(handled).toBe(accepted);
  expect(accepted).toBeGreaterThan(200);
  expect(redelivered).toBeGreaterThan(10);
  expect(loop.killed.working).toBeGreaterThan(3);
});

describe("the judge says no to", () => {
  const at = (holds: (line: Line) => boolean): number => loop.lines.findIndex(holds);
  const without = (index: number): Line[] => loop.lines.toSpliced(index, 1);
  const problemsOf = (lines: readonly Line[]): string =>
    judge(lines, loop.audits).problems.join("\n");

  test("J1 a message whose end nobody knows", () => {
    expect(problemsOf(without(at(({ kind }) => kind === "end")))).toContain("J1");
  });

  test("J1 an ack that nobody asked for", () => {
    const { id } = loop.lines.find((line) => line.kind === "acked") as { id: string };
    const lines = loop.lines.filter((line) => !(line.kind === "ack" && line.id === id));
    expect(problemsOf(lines)).toContain(`J1 ${id} is acked, and nobody asked`);
  });

  test("J2 one idempotency key under two ids", () => {
    const index = at(({ kind }) => kind === "receipt");
    const { op } = loop.lines[index] as { op: string };
    const again: Line = { kind: "receipt", op, id: "orders/0/999999" };
    expect(problemsOf(loop.lines.toSpliced(index + 1, 0, again))).toContain(`J2 ${op}`);
  });

  test("J3 a message that starts before an earlier one of its key was settled", () => {
    const index = at(({ kind }) => kind === "ack");
    const { id } = loop.lines[index] as { id: string };
    const lines = loop.lines.filter((line) => !(line.kind === "ack" && line.id === id));
    expect(problemsOf(lines)).toMatch(new RegExp(`J3 .* starts before ${id} `));
  });

  test("J4 two attempts of one key at once", () => {
    const index = at((line) => line.kind === "start");
    const start = loop.lines[index] as Extract<Line, { kind: "start" }>;
    const twice: Line = { ...start, attempt: start.attempt };
    expect(problemsOf(loop.lines.toSpliced(index + 1, 0, twice))).toMatch(/J4 .* starts while/);
  });

  test("J5 a store that counts otherwise", () => {
    const [first, ...rest] = loop.audits;
    const { counters } = first!.report;
    const less = { ...counters, accepted: counters.accepted - 1, acked: counters.acked - 1 };
    const audits = [{ ...first!, report: { ...first!.report, counters: less } }, ...rest];
    expect(judge(loop.lines, audits).problems.join()).toContain("J5");
  });
});

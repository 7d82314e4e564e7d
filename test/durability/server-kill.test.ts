/** A server killed with -9 under producers and workers that reconnect. */
import { expect, test } from "vitest";
import { judge } from "./judge.ts";
import { killServerLoop } from "./server-kill.ts";

test("G1, G2, G4, G5 a server that is killed loses nothing, doubles nothing, keeps the order per key", async () => {
  const { lines, audits, killed } = await killServerLoop(6, 4711);
  const { problems, accepted, handled, redelivered } = judge(lines, audits);
  expect(problems).toEqual([]);
  expect(handled).toBe(accepted);
  expect(accepted).toBeGreaterThan(100);
  expect(redelivered).toBeGreaterThan(3);
  expect(killed.working).toBeGreaterThan(2);
}, 120_000);

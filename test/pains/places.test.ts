/** The places of a window, over more settles than a flow could make in a test. */
import { expect, test } from "vitest";
import { sequence } from "../../src/base/index.ts";
import type { Verdict } from "../../src/flow/index.ts";
import { TargetMachine } from "../../src/consumer/index.ts";
import type { Run } from "../../src/consumer/machine.ts";
import { spender } from "../../src/protocol/index.ts";
import type { Delivered } from "../../src/protocol/index.ts";

const none = new Uint8Array(0);
const verdicts: readonly Verdict[] = [
  { kind: "ack" },
  { kind: "nack", error: "no", fault: "message" },
  { kind: "release" },
  { kind: "term", reason: "no" },
];

test("pain 19: a million settles in any order, and not one place of the window is lost or made", () => {
  const places = 40;
  const draw = sequence(19);
  const options = { start: places, min: 1, max: places, fixed: places };
  const machine = new TargetMachine(
    { name: "t", window: options, creditLeaseMs: 2000, seed: 1 },
    0,
  );
  machine.queueJoined("q", 0);
  machine.setDemand("q", Infinity, 0);
  const credit = spender.init();
  const running: Run[] = [];
  let [nowMs, seq, settled, most, idle] = [0, 0, 0, 0, 0];
  while (settled < 1_000_000) {
    nowMs += draw();
    const messages: Delivered[] = [];
    while (spender.canSpend(credit, nowMs, 0) && draw() < 0.95) {
      spender.spend(credit, nowMs, 0);
      messages.push(delivered(++seq));
    }
    const stamp = spender.stamp(credit, nowMs);
    const beat = spender.heartbeat(credit, nowMs, 100, 0);
    machine.frame("q", { kind: "deliver", stamp, messages, beat }, nowMs);
    machine.turn(nowMs);
    for (const effect of machine.take()) {
      if (effect.kind === "run") running.push(effect.run);
      if (effect.kind !== "frame" || effect.frame.kind !== "credit") continue;
      spender.granted(credit, nowMs, effect.frame.grant);
    }
    most = Math.max(most, running.length);
    idle = running.length === 0 ? idle + 1 : 0;
    if (idle > 10_000) throw new Error(`no place is left after ${settled} settles`);
    for (let ends = Math.ceil(draw() * running.length); ends > 0; ends--) {
      const at = Math.floor(draw() * running.length);
      const run = running[at]!;
      running[at] = running.at(-1)!;
      running.pop();
      settled++;
      const verdict = verdicts[settled % 50 < 47 ? 0 : 1 + (settled % 3)]!;
      if (!machine.settle(run, verdict, nowMs)) throw new Error("a settle was not taken");
    }
  }
  machine.check();
  expect(most).toBe(places);
  for (const run of running.splice(0)) machine.settle(run, verdicts[0]!, nowMs);
  expect(machine.view().inFlight).toBe(0);
});

function delivered(seq: number): Delivered {
  return {
    partition: 0,
    seq,
    attempt: 1,
    class: "normal",
    cost: 1,
    acceptedAtMs: 0,
    leaseMs: 30_000,
    headers: none,
    payload: none,
  };
}

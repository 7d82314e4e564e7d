/**
 * Decisions of the regulators per second, on one core, without stores, links or timers. One message
 * passes through all that decides about it, 8 decisions: admitted, steered, credited on hop 1, chosen
 * by class and group, credited on hop 2, tagged by the window, its end learnt by window and drain,
 * judged by the breaker. The floor decides as often with a bare counter: in flight below a limit.
 */
import { admission, breaker, drain, fair, steering, window } from "../src/control/index.ts";
import { spender } from "../src/protocol/index.ts";
import { figure, median } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";

const rounds = 5;
const messages = 500_000;
const decisionsPerMessage = 8;
const groups = 100;
const partitions = 8;

interface Rates {
  readonly regulatorsPerS: number;
  readonly counterPerS: number;
}

export const core: Bench = {
  name: "core",
  describe: "control decisions per second on one core, 8 a message",
  run: async () => {
    const { regulatorsPerS, counterPerS } = await inFreshProcess<Rates>("core", {});
    return [
      figure(
        { name: "decisions", value: regulatorsPerS, unit: "/s", floor: counterPerS },
        { of: "value", atLeast: 1_000_000 },
      ),
      figure({ name: "messages", value: regulatorsPerS / decisionsPerMessage, unit: "/s" }),
    ];
  },
};

export function task(): Rates {
  const regulators: number[] = [];
  const counters: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    const counter = perS(decideByCounter);
    const regulator = perS(decide);
    if (round === 0) continue; // Warms the compiler up.
    counters.push(counter);
    regulators.push(regulator);
  }
  return { regulatorsPerS: median(regulators), counterPerS: median(counters) };
}

function perS(work: () => number): number {
  const beganMs = performance.now();
  const decisions = work();
  return (decisions / (performance.now() - beganMs)) * 1000;
}

function decide(): number {
  const epochMs = 1.7e12;
  const limits = {
    messages: 1e6,
    bytes: 2 ** 31,
    seconds: undefined,
    classes: { critical: 1, normal: 0.8, bulk: 0.5 },
  };
  const intake = admission.init(limits);
  const rates = drain.init({}, epochMs);
  const target = window.init({ start: 16, max: 1000 }, epochMs);
  const guard = breaker.init({ seed: 1, target: "bench" }, epochMs);
  const ring = new fair.Ring<number>();
  for (let group = 0; group < groups; group++) ring.activate(group, 1 + (group % 3));
  const hops = [creditOf(), creditOf()] as const;
  const message = { class: "normal", bytes: 256 } as const;
  const occupied = { pending: 1000, bytes: 256_000, promised: 100, ratePerS: 1600, stalledMs: 0 };
  let decisions = 0;
  for (let at = 0; at < messages; at++) {
    const nowMs = epochMs + at * 0.01;
    admission.observe(intake, occupied);
    if (admission.admit(intake, message, nowMs, 1000, 5) === undefined) decisions++;
    if (steering.pickOfTwo(1, at, partitions, (partition) => partition) >= 0) decisions++;
    for (const hop of hops) {
      if (!spender.canSpend(hop, nowMs, 256)) continue;
      spender.spend(hop, nowMs, 256);
      decisions++;
    }
    if (ring.next(priceOfOne) !== undefined) decisions++;
    const tag = window.dispatched(target, nowMs, 1 + (at % window.limitOf(target)));
    breaker.started(guard, nowMs);
    window.settled(target, nowMs + 5, nowMs, tag, "ok");
    drain.handled(rates, 5);
    drain.settled(rates, nowMs, 1);
    breaker.settled(guard, nowMs, "ok", 1600, nowMs - 5);
    decisions += 3;
  }
  return decisions;
}

/** Credit that lasts for the run. */
function creditOf(): ReturnType<typeof spender.init> {
  const made = spender.init();
  spender.granted(made, 0, {
    epoch: 1,
    grantId: 1,
    limitMessages: 1e9,
    limitBytes: Infinity,
    echoHeartbeatMs: 0,
    leaseMs: Infinity,
  });
  return made;
}

function decideByCounter(): number {
  const limits = Array.from({ length: partitions }, () => 16);
  const inFlight = Array.from({ length: partitions }, () => 0);
  let decisions = 0;
  for (let at = 0; at < messages * decisionsPerMessage; at++) {
    const slot = at % partitions;
    if (inFlight[slot]! >= limits[slot]!) inFlight[slot] = 0;
    inFlight[slot] = inFlight[slot]! + 1;
    decisions++;
  }
  return decisions;
}

function priceOfOne(): number {
  return 1;
}

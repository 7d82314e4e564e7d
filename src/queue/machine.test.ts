import fc from "fast-check";
import { test } from "vitest";
import { MachineHarness } from "../../test/support/machine-harness.ts";

type Step = readonly [kind: number, a: number, b: number];

const steps = fc.array(fc.tuple(fc.nat(99), fc.nat(999), fc.nat(999)), {
  minLength: 20,
  maxLength: 200,
  size: "max",
});
const lanes = ["normal", "normal", "critical", "bulk"] as const;
const groups = ["", "a", "b"];
const even = { critical: 1, normal: 1, bulk: 1 };

/** One of `count`, by any number. */
function one<T>(of: readonly T[], at: number): T | undefined {
  return of[at % Math.max(1, of.length)];
}

function send(world: MachineHarness, a: number, b: number): void {
  world.send(`p${a % 2}`, a % world.contract.partitions, {
    class: lanes[b % 4]!,
    keyHash: b % 5,
    group: groups[(a >> 3) % 3]!,
    bytes: 1 + (b % 3),
    ...(b % 7 === 0 ? { delayMs: (a % 5) * 700 } : {}),
    ...(b % 11 === 0 ? { id: a % 3 } : {}),
    ...(b % 13 === 0 ? { deadlineMs: 1 + (a % 9) * 200 } : {}),
  });
}

function settle(world: MachineHarness, a: number, b: number): void {
  const run = one(world.runs, a);
  if (run === undefined) return;
  if (b % 10 < 5) world.settle(run, { kind: "ack" });
  else if (b % 10 < 7) world.settle(run, { kind: "nack", error: "no" });
  else if (b % 10 === 7) world.settle(run, { kind: "release" });
  else if (b % 10 === 8) world.settle(run, { kind: "release", delayMs: b });
  else world.settle(run, { kind: "term", reason: "bad" });
}

/** What an operator, a failing process or a failing store does. */
function disturb(world: MachineHarness, kind: number, a: number, b: number): void {
  const partition = a % world.contract.partitions;
  const some = b % 2 === 0 ? partition : undefined;
  switch (kind) {
    case 91:
      return world.machine.pause(some);
    case 92:
      return world.machine.resume(some);
    case 93: {
      const letters = world.stores[partition]!.list("dead", 0, 3);
      if (world.machine.partitions[partition]!.isOpen) world.machine.redrive(partition, letters);
      return;
    }
    case 94:
      return b % 3 === 0 ? world.begin() : undefined;
    case 95:
      return world.leaveConsumer(`c${a % 2}`);
    case 96:
      return world.consumers.has(`c${a % 2}`) ? undefined : world.joinConsumer(`c${a % 2}`);
    case 97: {
      const write = world.writes.find(({ result }) => result === undefined);
      if (write !== undefined) world.refuse(write, b % 2 === 0 ? "store_full" : "buffer_full");
      return;
    }
    case 98:
      return world.consumers.has("c0") ? world.says("c0", { kind: "recovered" }) : undefined;
    default:
      return b % 20 === 0 ? world.stop(partition) : world.turn();
  }
}

function step(world: MachineHarness, [kind, a, b]: Step): void {
  if (kind < 30) return send(world, a, b);
  if (kind < 42) return world.turn();
  if (kind < 57) {
    const read = one(world.reads, a);
    return read === undefined ? undefined : world.advance(read);
  }
  if (kind < 70) {
    const write = one(world.writes, a);
    if (write === undefined) return;
    return kind < 63 ? world.apply(write) : world.answer(write);
  }
  if (kind < 75) return world.grant(`c${a % 2}`);
  if (kind < 86) return settle(world, a, b);
  if (kind < 91) world.nowMs += b;
  else disturb(world, kind, a, b);
}

test.each([
  ["one partition", { partitions: 1, order: "key" }],
  ["three partitions", { partitions: 3, order: "key" }],
  ["no order", { partitions: 2, order: "none" }],
  ["little memory", { partitions: 1, order: "key", readAhead: 1 }],
] as const)(
  "G2, G3, G4, G11, L1, N1, P5, V1 and V2 over random histories: %s",
  (_name, options) => {
    fc.assert(
      fc.property(steps, (history) => {
        const world = new MachineHarness({
          ...options,
          buffer: { messages: 24 },
          classes: even,
          retry: { attempts: 3, delay: [100, 1000] },
          lease: 2000,
        });
        for (const each of history) {
          step(world, each);
          world.check();
        }
        world.drainAll();
      }),
      { numRuns: 80 },
    );
  },
);

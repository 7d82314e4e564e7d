/**
 * What one seed plays: the contract, who sends, how the consumer behaves, what the operators do, and the
 * faults, of which about half of the kinds are off in any one run, so that rare mixtures are reached.
 * A plan is data. Each of its parts has a name, and a run without some of them is a smaller run of the
 * same seed: that is how a failure is shrunk.
 */
import type { FlowOptions } from "../flow/index.ts";
import { Draw } from "./draw.ts";

export interface Fault {
  readonly name: string;
  readonly kind: FaultKind;
  readonly atMs: number;
  readonly forMs: number;
  /** How strong: a factor, a share, or which write of the run. */
  readonly degree: number;
  /** By how much the wall of the process that starts next is off. */
  readonly jumpMs: number;
}

const faultKinds = [
  "crash",
  "crashBeforeWrite",
  "crashAfterWrite",
  "restart",
  "stall",
  "takeover",
  "slowDisk",
  "hungDisk",
  "fullDisk",
  "failedDisk",
  "noDisk",
  "unknownWrites",
  "staleReads",
  "slowConsumer",
  "failingConsumer",
  "targetDown",
  "hungConsumer",
  "overloaded",
] as const;
export type FaultKind = (typeof faultKinds)[number];

const habits = [
  "verbs",
  "double",
  "release",
  "term",
  "nack",
  "working",
  "forward",
  "pull",
  "poison",
] as const;
/** How a consumer settles, beside returning and throwing. */
export type Habit = (typeof habits)[number];

const troubles = ["loss", "doubling", "disorder"] as const;
/** What happens to grants and heartbeats on a link. */
export type Trouble = (typeof troubles)[number];

export interface ProducerPlan {
  readonly name: string;
  readonly sends: number;
  readonly gapMs: number;
  /** 0: messages have no key. */
  readonly keys: number;
  readonly groups: number;
  readonly classes: boolean;
  readonly idempotent: number;
  readonly repeats: number;
  readonly delayed: number;
  readonly deadlines: number;
  readonly tries: number;
  readonly batches: number;
  readonly aborts: number;
  readonly padBytes: number;
}

const operationKinds = [
  "pause",
  "pausePartition",
  "lower",
  "redrive",
  "closeIntake",
  "purge",
  "window",
] as const;

export interface Operation {
  readonly name: string;
  readonly kind: (typeof operationKinds)[number];
  readonly atMs: number;
  readonly forMs: number;
}

export interface Plan {
  readonly seed: number;
  /** Names of everything that can be left out. */
  readonly parts: readonly string[];
  readonly contract: FlowOptions & { readonly partitions: number };
  /** "many": claims are leases, as on a store that several nodes share. */
  readonly nodes: "one" | "many";
  /** Faults and sends end here; then everything accepted is to end. */
  readonly phaseMs: number;
  readonly commitMs: number;
  readonly clockRate: number;
  /** Absent: the links are function calls. */
  readonly link?: { readonly delayMs: number; readonly troubles: ReadonlySet<Trouble> };
  readonly producers: readonly ProducerPlan[];
  readonly consumer: {
    readonly serviceMs: number;
    /** Calls at once beyond which it slows down, by the square. */
    readonly knee: number;
    readonly habits: ReadonlySet<Habit>;
  };
  readonly operations: readonly Operation[];
  readonly faults: readonly Fault[];
}

export interface Less {
  /** Parts to leave out. */
  readonly without?: readonly string[];
  /** At most so many sends of each producer. */
  readonly sends?: number;
}

export function drawPlan(seed: number, less: Less = {}): Plan {
  const draw = new Draw(seed, "plan");
  const parts: string[] = [];
  const left = new Set(less.without);
  const keep = (name: string): boolean => {
    parts.push(name);
    return !left.has(name);
  };
  const contract = drawContract(draw);
  const nodes = draw.chance(0.25) ? "many" : "one";
  // After a crash a claim that is a lease is held for ten seconds: the run must see what comes then.
  const phaseMs = nodes === "one" ? draw.whole(3_000, 9_000) : draw.whole(9_000, 25_000);
  const commitMs = draw.log(0.2, 8);
  const clockRate = draw.chance(0.2) ? draw.between(0.95, 1.05) : 1;
  const isLinked = draw.chance(0.5);
  const wishMs = draw.chance(0.2) ? draw.between(60, 500) : draw.log(0.2, 60);
  const link = {
    // Credit lives as long as its lease after it was asked for: a link must be quicker.
    delayMs: Math.min(wishMs, Number(contract.credit!.leaseMs) / 6),
    troubles: new Set(troubles.filter((each) => draw.chance(0.5) && keep(each))),
  };
  const producers = Array.from({ length: draw.whole(1, 3) }, (_, at) =>
    drawProducer(draw, `producer${at + 1}`, phaseMs, less.sends),
  ).filter(({ name }) => keep(name));
  const consumer = {
    serviceMs: draw.log(0.5, 30),
    knee: draw.whole(1, 12),
    habits: new Set(habits.filter((each) => draw.chance(0.5) && keep(each))),
  };
  const operations = drawOperations(draw, phaseMs).filter(({ name }) => keep(name));
  const faults = drawFaults(draw, phaseMs, nodes).filter(({ name }) => keep(name));
  return {
    seed,
    parts,
    contract,
    nodes,
    phaseMs,
    commitMs,
    clockRate,
    ...(isLinked && keep("link") ? { link } : {}),
    producers,
    consumer,
    operations,
    faults,
  };
}

function drawContract(draw: Draw): Plan["contract"] {
  const partitions = draw.whole(1, 4);
  const messages = Math.max(partitions, Math.round(draw.log(5, 200)));
  const isSmall = draw.chance(0.3);
  const bytes = isSmall ? Math.round(draw.log(4096, 20_000)) : 1024 ** 2;
  const window = draw.chance(0.5) ? { fixed: draw.whole(1, 8) } : { max: draw.whole(4, 32) };
  return {
    partitions,
    buffer: { messages, bytes, ...(draw.chance(0.2) ? { seconds: draw.whole(1, 20) } : {}) },
    messageBytesMax: isSmall ? Math.min(1000, Math.floor(bytes / partitions)) : 4096,
    order: draw.chance(0.85) ? "key" : "none",
    dedup: { window: draw.whole(2_000, 30_000) },
    ...(draw.chance(0.5) ? { classes: { critical: 1, normal: 1, bulk: 1 } } : {}),
    ...(draw.chance(0.15) ? { deadline: draw.whole(1_000, 10_000) } : {}),
    discard: draw.chance(0.5) ? ["expired"] : [],
    retry: {
      attempts: draw.whole(2, 5),
      delay: [Math.round(draw.log(1, 100)), draw.whole(200, 1_000)],
      budget: draw.pick([0.1, 0.5, 1]),
    },
    lease: draw.whole(300, 2_500),
    window,
    ...(draw.chance(0.15) ? { rate: { perSecond: draw.whole(30, 300) } } : {}),
    ...(draw.chance(0.15) ? { boundary: { rate: { perSecond: draw.whole(30, 300) } } } : {}),
    credit: { leaseMs: Math.round(draw.log(300, 4_000)) },
    ...(draw.chance(0.3) ? { readAhead: draw.whole(1, 12) } : {}),
  };
}

function drawProducer(
  draw: Draw,
  name: string,
  phaseMs: number,
  sendsMax: number = Infinity,
): ProducerPlan {
  const sends = draw.whole(40, 130);
  const maybe = (share: number): number => (draw.chance(0.5) ? draw.share() * share : 0);
  return {
    name,
    sends: Math.min(sendsMax, sends),
    gapMs: (phaseMs * draw.between(0.3, 0.9)) / sends,
    keys: draw.chance(0.75) ? draw.pick([1, 2, 5, 20]) : 0,
    groups: draw.chance(0.3) ? draw.whole(2, 5) : 0,
    classes: draw.chance(0.4),
    idempotent: draw.chance(0.6) ? draw.share() : 0,
    repeats: maybe(0.3),
    delayed: maybe(0.3),
    deadlines: maybe(0.3),
    tries: maybe(0.6),
    batches: maybe(0.3),
    aborts: maybe(0.2),
    padBytes: draw.chance(0.3) ? 700 : 40,
  };
}

function drawOperations(draw: Draw, phaseMs: number): Operation[] {
  return operationKinds
    .filter(() => draw.chance(0.3))
    .map((kind) => ({
      name: kind,
      kind,
      atMs: draw.between(0.1, 0.9) * phaseMs,
      forMs: draw.log(100, 2_000),
    }));
}

/** These end a process, and leave what was asked of it unknown: a run has few of them. */
const deadly: ReadonlySet<FaultKind> = new Set([
  "crash",
  "crashBeforeWrite",
  "crashAfterWrite",
  "hungDisk",
  "failedDisk",
  "takeover",
]);
const deadlyMax = 3;

function drawFaults(draw: Draw, phaseMs: number, nodes: "one" | "many"): Fault[] {
  const faults: Fault[] = [];
  const isOnOf = new Map(faultKinds.map((kind) => [kind, draw.chance(0.33)]));
  const order = faultKinds.map((kind) => ({ kind, place: draw.share() }));
  let deaths = 0;
  for (const { kind } of order.toSorted((a, b) => a.place - b.place)) {
    const isOn = isOnOf.get(kind)! && (!deadly.has(kind) || deaths++ < deadlyMax);
    const count = deadly.has(kind) || kind === "restart" ? 1 : draw.whole(1, 2);
    for (let at = 1; at <= count; at++) {
      const fault: Fault = {
        name: `${kind}${at}`,
        kind,
        atMs: draw.between(0.02, 0.95) * phaseMs,
        forMs: draw.log(50, kind === "stall" && nodes === "many" ? 15_000 : 3_000),
        degree: draw.share(),
        jumpMs: draw.chance(0.25) ? draw.pick([-1, 1]) * draw.log(100, 3_600_000) : 0,
      };
      if (isOn) faults.push(fault);
    }
  }
  return faults;
}

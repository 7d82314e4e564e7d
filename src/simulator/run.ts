/** One run: the plan of a seed played to its end, and judged. */
import { createHash } from "node:crypto";
import { checkHistory } from "./check-history.ts";
import type { HistoryEvent } from "./history-events.ts";
import { Cluster } from "./cluster.ts";
import { Observer } from "./observer.ts";
import type { Plan } from "./plan.ts";
import { mainName, nextContract, nextName } from "./process.ts";
import { Producer } from "./producers.ts";
import { Store } from "./store.ts";
import { World } from "./world.ts";

export interface RunResult {
  readonly seed: number;
  readonly history: readonly HistoryEvent[];
  /** What is broken, "code: text"; empty: the run passed. */
  readonly broken: readonly string[];
  /** Too many sends had no answer: the run proves nothing. */
  readonly isInconclusive: boolean;
  readonly marks: ReadonlyMap<string, number>;
  readonly simulatedMs: number;
}

const checkEvery = 40;
/** A wall that is off by less changes no window. */
const dayMs = 86_400_000;

export async function run(plan: Plan): Promise<RunResult> {
  const world = new World(plan);
  const onUnhandled = (error: unknown): void => {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    world.broke("G12.uncaught", text);
  };
  world.time.onError = onUnhandled;
  process.on("unhandledRejection", onUnhandled);
  try {
    await play(world);
  } finally {
    process.off("unhandledRejection", onUnhandled);
  }
  const verdict = checkHistory(world.history);
  const broken = world.findings.map(({ code, text, atMs }) => `${code}: ${text} [t=${atMs}]`);
  let isInconclusive = false;
  for (const { code, text, events } of verdict.violations) {
    if (code === "R4.inconclusive") isInconclusive = true;
    else broken.push(`${code}: ${text} [${events.map(({ t }) => `t=${t}`).join(", ")}]`);
  }
  const { history, marks, time } = world;
  return { seed: plan.seed, history, broken, isInconclusive, marks, simulatedMs: time.nowMs };
}

/** The same run has the same hash, to the byte (R2). */
export function hashOf(history: readonly HistoryEvent[]): string {
  const hash = createHash("sha256");
  for (const event of history) hash.update(JSON.stringify(event));
  return hash.digest("hex");
}

async function play(world: World): Promise<void> {
  const { plan, time } = world;
  const store = new Store(world);
  await store.open();
  const cluster = new Cluster(world, store);
  const observer = new Observer(world, store, cluster);
  const boundMs = settleBoundMs(plan);
  tellConfig(world, boundMs);
  cluster.start();
  observer.start();
  for (const each of plan.producers) new Producer(world, cluster, each).start();
  let checkedAt = 0;
  const check = (): void => {
    if (time.count - checkedAt < checkEvery) return;
    checkedAt = time.count;
    for (const each of cluster.processes) if (each.life.isAlive) each.check();
  };
  await time.run(() => {
    check();
    return time.nowMs >= plan.phaseMs;
  });

  world.isHealing = true;
  world.record({ kind: "faultsEnd" });
  let isHealed = false;
  void cluster.heal().then(() => (isHealed = true));
  const endMs = time.nowMs + boundMs + 1_000;
  await time.run(() => {
    check();
    return (isHealed && observer.isDone()) || time.nowMs > endMs;
  });

  await end(world, store, cluster, observer, isHealed);
}

async function end(
  world: World,
  store: Store,
  cluster: Cluster,
  observer: Observer,
  isHealed: boolean,
): Promise<void> {
  const { time } = world;
  const last = cluster.active;
  if (!isHealed || last === undefined) {
    world.broke("G11.stuck", "no process came up after the faults");
  } else {
    if (!observer.isDone()) tellStuck(world, store, last);
    // What was durable is still to be heard of.
    await time.run(until(time.nowMs + 1_000, time));
    for (const flow of [mainName, nextName]) observer.snapshot(flow, observer.isDone());
    observer.atRest(last);
    observer.forwards();
    last.check();
    let told = false;
    void observer.waiting(last).then(() => (told = true));
    await time.run(() => told);
    await store.audit().catch((error: unknown) => world.broke("E14.audit", String(error)));
    let closed = false;
    void last.close().then(() => (closed = true));
    const closeMs = time.nowMs + 30_000;
    await time.run(() => closed || time.nowMs > closeMs);
    if (!closed) world.broke("G12.hang", "a process did not close");
  }
  world.record({ kind: "end" });
}

function until(atMs: number, time: { readonly nowMs: number }): () => boolean {
  return () => time.nowMs >= atMs;
}

function tellStuck(
  world: World,
  store: Store,
  last: { sends: { open: readonly string[] }; openAsks: number },
): void {
  const left = [mainName, nextName].flatMap((flow) => store.pendingOf(flow));
  if (left.length > 0) world.broke("G11.stuck", `not ended: ${left.slice(0, 5).join(" ")}`);
  if (last.sends.open.length > 0) {
    world.broke("G12.hang", `sends without an answer: ${last.sends.open.slice(0, 5).join(" ")}`);
  }
  if (last.openAsks > 0) world.broke("G12.hang", `${last.openAsks} settles without an answer`);
}

function tellConfig(world: World, settleBoundMs: number): void {
  const { contract, faults, clockRate, phaseMs } = world.plan;
  const { retry, order = "key", dedup, lease } = contract;
  const jumps = faults.map(({ jumpMs }) => jumpMs);
  const offMs = Math.max(0, ...jumps) - Math.min(0, ...jumps);
  // A life with a slow clock falls behind, and the next one begins at the right time: its wall jumps.
  const lagMs = Math.max(0, 1 - clockRate) * (phaseMs + 1000);
  const windowMs = Number(dedup?.window ?? dayMs) / Math.max(1, clockRate) - offMs - lagMs;
  world.record({
    kind: "config",
    flow: mainName,
    order,
    dedupWindowMs: Math.max(0, windowMs),
    attemptsMax: retry!.attempts!,
    leaseMs: Number(lease),
    settleBoundMs,
  });
  world.record({
    kind: "config",
    flow: nextName,
    attemptsMax: nextContract.retry.attempts,
    settleBoundMs,
  });
}

/** Three times the longest waits of the run, and the work that may be left at one retry a second. */
function settleBoundMs({ contract }: Plan): number {
  const attempts = contract.retry!.attempts!;
  const delayMaxMs = Number(contract.retry!.delay![1]);
  const longestMs = Number(contract.lease) + attempts * delayMaxMs + 30_000;
  return 3 * longestMs + contract.buffer!.messages! * attempts * 1_000;
}

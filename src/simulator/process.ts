/** One process: an open Spillway on the shared store, with its consumers, from its start to its end. */
import { isSpillwayError } from "../base/index.ts";
import { openSpillway } from "../spillway.ts";
import type { Flow, Spillway, SpillwayError } from "../spillway.ts";
import { Consumer } from "./consumers.ts";
import { Sends } from "./sends.ts";
import type { Store } from "./store.ts";
import { LifeClock } from "./time.ts";
import type { Life } from "./time.ts";
import { layLinks } from "./wire.ts";
import type { Work } from "./work.ts";
import type { World } from "./world.ts";

export const mainName = "main";
export const nextName = "next";
const drainMaxMs = 1_000;

export class Process {
  readonly life: Life;
  readonly clock: LifeClock;
  readonly offsetMs: number;
  readonly sends: Sends;
  readonly main: Flow<Work>;
  readonly next: Flow<Work>;
  readonly #world: World;
  readonly #spillway: Spillway;
  readonly #consumers: readonly Consumer[];
  /** What operators paused here: "main" or "main/2". */
  readonly #paused: Set<string>;
  isClosing: boolean = false;
  /** Every partition is claimed. */
  isOpen: boolean = false;
  /** A partition has stopped: it will be closed. */
  isStopping: boolean = false;

  private constructor(
    world: World,
    life: Life,
    clock: LifeClock,
    offsetMs: number,
    spillway: Spillway,
    paused: Set<string>,
    onStopped: (process: Process) => void,
  ) {
    this.#world = world;
    this.life = life;
    this.clock = clock;
    this.offsetMs = offsetMs;
    this.#spillway = spillway;
    this.#paused = paused;
    this.sends = new Sends(world, life);
    const { contract } = world.plan;
    this.main = spillway.flow<Work>(mainName, contract);
    this.next = spillway.flow<Work>(nextName, nextContract);
    for (const flow of [this.main, this.next]) this.#watch(flow, () => onStopped(this));
    this.#consumers = [
      new Consumer(world, this, this.main, this.next),
      new Consumer(world, this, this.next, undefined),
    ];
    for (const consumer of this.#consumers) consumer.start();
    Promise.all([this.main.opened(), this.next.opened()]).then(
      () => (this.isOpen = true),
      () => onStopped(this),
    );
  }

  /** @throws {SpillwayError} The store could not be opened. */
  static async start(
    world: World,
    store: Store,
    life: Life,
    offsetMs: number,
    onStopped: (process: Process) => void,
  ): Promise<Process> {
    const clock = new LifeClock(life, world.time, offsetMs, world.plan.clockRate);
    const paused = new Set<string>();
    const links = layLinks(world, life, clock, {
      deadlineOf: (id) => store.deadlineOf(id),
      isPaused: (flow, partition) => paused.has(flow) || paused.has(`${flow}/${partition}`),
    });
    const spillway = await openSpillway(
      { engine: store.connect(life), drainMaxMs },
      { clock, seed: world.plan.seed, links },
    );
    return new Process(world, life, clock, offsetMs, spillway, paused, onStopped);
  }

  #watch(flow: Flow<Work>, onStopped: () => void): void {
    const world = this.#world;
    flow.on("leaseEnded", ({ id, attempt }) => world.record({ kind: "leaseEnded", id, attempt }));
    flow.on("stopped", ({ code }) => {
      world.sometimes(`a partition stopped: ${code}`);
      this.isStopping = true;
      onStopped();
    });
    flow.on("suspected", () => world.sometimes("a suspect ran alone"));
    flow.on("breaker", ({ to }) => world.sometimes(`the breaker went ${to}`));
    flow.on("blocked", ({ code }) => world.sometimes(`blocked: ${code}`));
    flow.on("dead", ({ reason }) => world.sometimes(`dead: ${reason.split(":")[0]}`));
    flow.on("discarded", ({ reason }) => world.sometimes(`discarded: ${reason}`));
    flow.on("error", (error: SpillwayError) => {
      if (isSpillwayError(error, "invariant_broken")) {
        const cause = error.cause instanceof Error ? (error.cause.stack ?? "") : "";
        world.broke("invariant", `${error.message} ${cause}`);
      }
    });
  }

  get openAsks(): number {
    return this.#consumers.reduce((sum, consumer) => sum + consumer.openAsks, 0);
  }

  pause(partition?: number): Promise<void> {
    const pausing = this.main.pause(partition);
    this.#paused.add(partition === undefined ? mainName : `${mainName}/${partition}`);
    return pausing;
  }

  resume(partition?: number): Promise<void> {
    this.#paused.delete(partition === undefined ? mainName : `${mainName}/${partition}`);
    return this.main.resume(partition);
  }

  /** Every invariant of every machine. */
  check(): void {
    try {
      this.#spillway.check();
    } catch (error) {
      this.#world.broke("invariant", String(error));
    }
  }

  crash(): void {
    this.life.end();
    this.#world.record({ kind: "crash", node: this.life.name });
    this.sends.loseAll();
    for (const consumer of this.#consumers) consumer.lose();
  }

  /** Ends in good order. What was asked of it is answered by then. */
  async close(): Promise<void> {
    this.isClosing = true;
    for (const consumer of this.#consumers) consumer.stop();
    await Promise.race([this.#spillway.close(), this.life.ended]);
    await Promise.resolve(); // The answers given on the way out are heard first.
    if (!this.life.isAlive) return;
    const { open } = this.sends;
    if (open.length > 0) {
      this.#world.broke("G12.hang", `sends without an answer after the end: ${open.join(" ")}`);
    }
    if (this.openAsks > 0) {
      this.#world.broke("G12.hang", `${this.openAsks} settles without an answer after the end`);
    }
    this.life.end();
    this.sends.loseAll();
    for (const consumer of this.#consumers) consumer.lose();
  }
}

/** Where deliveries are forwarded to: small, so that its pressure is felt. */
export const nextContract = {
  partitions: 2,
  buffer: { messages: 20 },
  window: { fixed: 4 },
  lease: 2_000,
  retry: { attempts: 20, delay: [10, 500] },
} as const;

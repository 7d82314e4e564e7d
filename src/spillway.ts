/**
 * The front door: one process, its engine, and the three parties wired together by function calls.
 *
 *     await using spillway = await openSpillway({ dir: "./data" });
 *     const orders = spillway.flow<Order>("orders");
 *     orders.consume(async (order) => bill(order));
 *     await orders.send(order, { key: order.customerId });
 */
import { randomInt } from "node:crypto";
import { hostname } from "node:os";
import { checkOptions, SpillwayError } from "./base/index.ts";
import type { Clock, Timer } from "./base/index.ts";
import { TargetDriver } from "./consumer/index.ts";
import type { SavedBreaker, SavedHistory } from "./control/index.ts";
import type { Engine, MetaEntry, MetaStore } from "./engines/index.ts";
import { sqlite } from "./engines/sqlite/index.ts";
import { Flow } from "./flow-handle.ts";
import type { Controls } from "./flow-handle.ts";
import { parseContract, validatorOf } from "./flow/index.ts";
import type {
  Contract,
  FlowOptions,
  InferOutput,
  StandardSchemaV1,
  Validator,
} from "./flow/index.ts";
import { ProducerDriver } from "./producer/index.ts";
import { directLink } from "./protocol/index.ts";
import type {
  ConsumerFrame,
  Link,
  ProducerFrame,
  ToConsumerFrame,
  ToProducerFrame,
} from "./protocol/index.ts";
import { QueueDriver, Writes } from "./queue/index.ts";
import { systemClock } from "./system-clock.ts";

export interface OpenOptions {
  /** Where the embedded store lives; made if it is not there. One process at a time. */
  readonly dir?: string;
  /** Another engine instead of the embedded one. */
  readonly engine?: Engine;
  /** How long `close` waits for handlers; 10 s by default. What is not done then is released. */
  readonly drainMaxMs?: number;
}

/** Living things, for tests and simulations. */
export interface OpenDeps {
  readonly clock?: Clock;
  /** Of every decision that takes chance; the same seed and events give the same decisions (G8). */
  readonly seed?: number;
  /** Lays the links between the parties; a function call by default. */
  readonly links?: Links;
}

export interface Links {
  producer(
    flow: string,
  ): [Link<ProducerFrame, ToProducerFrame>, Link<ToProducerFrame, ProducerFrame>];
  consumer(
    flow: string,
  ): [Link<ConsumerFrame, ToConsumerFrame>, Link<ToConsumerFrame, ConsumerFrame>];
  /** Least time between heartbeats of a blocked producer; 0: the link is a function call. */
  readonly beatGapMs: number;
}

const directLinks: Links = {
  producer: () => directLink(),
  consumer: () => directLink(),
  beatGapMs: 0,
};

const drainMaxMsDefault = 10_000;
/** For what goes back at the end to become durable; else its next start counts it as a crash. */
const writeMaxMs = 1000;
const waitingMax = 10_000;
const claimLeaseMs = 10_000;
/** What a crash may forget of what arrivals have taught. */
const learntEveryMs = 5 * 60_000;
const noControls: Controls = {
  paused: false,
  pausedPartitions: [],
  intakeClosed: false,
  closedPartitions: [],
};

/**
 * Opens the store and what it holds.
 * @throws {SpillwayError} store_locked, store_newer, store_unsafe, store_corrupt, option_invalid
 */
export async function openSpillway(options: OpenOptions, deps: OpenDeps = {}): Promise<Spillway> {
  const engine = engineOf(options);
  await using opening = new AsyncDisposableStack();
  opening.use(engine);
  await engine.open();
  const saved = await engine.meta.list("flow/");
  const breakers = await engine.meta.list("breaker/");
  const learnt = await engine.meta.list("learnt/");
  const spillway = new Spillway(engine, options, deps, {
    flows: new Map(saved.map(parseSaved)),
    breakers: new Map(breakers.map(parseBreaker)),
    learnt: new Map(learnt.map(parseLearnt)),
  });
  opening.move(); // From here the instance closes the engine.
  return spillway;
}

function engineOf({ dir, engine }: OpenOptions): Engine {
  if (engine !== undefined && dir === undefined) return engine;
  if (dir !== undefined && engine === undefined) return sqlite({ dir });
  throw new SpillwayError("option_invalid", { option: "dir", allowed: "either dir or engine" });
}

/** Partitions that one group of the flow uses. */
function shardsOf({ groups, partitions }: Contract): number {
  return groups.shards === "off" ? partitions : Math.min(partitions, groups.shards);
}

/** What is kept of a flow: what must not change, and what an operator has set. */
interface SavedFlow {
  readonly partitions: number;
  readonly controls: Controls;
  readonly revision: number;
}

function parseSaved(entry: MetaEntry): [string, SavedFlow] {
  const value = jsonOf(entry) as SavedFlow;
  const controls = { ...noControls, ...value.controls }; // Some are newer than some stores.
  return [entry.key.slice("flow/".length), { ...value, controls, revision: entry.revision }];
}

interface SavedTarget {
  readonly breaker: SavedBreaker;
  readonly revision: number;
}

function parseBreaker(entry: MetaEntry): [string, SavedTarget] {
  const { key, revision } = entry;
  return [key.slice("breaker/".length), { breaker: jsonOf(entry) as SavedBreaker, revision }];
}

/** What arrivals of a flow have taught, as of a few minutes ago. */
interface SavedLearnt {
  readonly history: SavedHistory;
  readonly revision: number;
}

function parseLearnt(entry: MetaEntry): [string, SavedLearnt] {
  const { key, revision } = entry;
  return [key.slice("learnt/".length), { history: jsonOf(entry) as SavedHistory, revision }];
}

function jsonOf({ value }: MetaEntry): unknown {
  return JSON.parse(new TextDecoder().decode(value ?? undefined));
}

interface Saved {
  readonly flows: Map<string, SavedFlow>;
  readonly breakers: Map<string, SavedTarget>;
  readonly learnt: Map<string, SavedLearnt>;
}

interface Open {
  readonly flow: Flow<never>;
  readonly queue: QueueDriver;
  readonly producer: ProducerDriver;
  readonly target: TargetDriver;
  readonly opened: Promise<void>;
}

export class Spillway implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #seed: number;
  readonly #links: Links;
  readonly #drainMaxMs: number;
  readonly #writes: Writes;
  readonly #saving = new Map<string, Promise<void>>();
  readonly #saved: Map<string, SavedFlow>;
  readonly #breakers: Map<string, SavedTarget>;
  readonly #learnt: Map<string, SavedLearnt>;
  readonly #flows = new Map<string, Open>();
  readonly #targets = new Map<string, TargetDriver>();
  readonly #closed = new AbortController();
  #closing: Promise<void> | undefined;
  #learntTimer: Timer | undefined;

  constructor(engine: Engine, options: OpenOptions, deps: OpenDeps, saved: Saved) {
    this.#engine = engine;
    this.#clock = deps.clock ?? systemClock;
    this.#seed = deps.seed ?? randomInt(2 ** 31);
    this.#links = deps.links ?? directLinks;
    this.#drainMaxMs = options.drainMaxMs ?? drainMaxMsDefault;
    this.#writes = new Writes(engine);
    this.#saved = saved.flows;
    this.#breakers = saved.breakers;
    this.#learnt = saved.learnt;
    this.#keepLearnt();
  }

  /** What "accepted" means here. */
  get durability(): Engine["profile"]["durability"] {
    return this.#engine.profile.durability;
  }

  /** Small durable values beside the flows, for what is built on top; `flow/` and `breaker/` are taken. */
  get meta(): MetaStore {
    return this.#engine.meta;
  }

  /** Names of the flows that the store knows, open or not. */
  get flowNames(): readonly string[] {
    return [...new Set([...this.#saved.keys(), ...this.#flows.keys()])].toSorted();
  }

  /**
   * A flow, made at its first use. The same name gives the same flow; its options count the first
   * time. With a Standard Schema (zod, valibot, arktype, ...) messages are validated as they are sent.
   * @throws {SpillwayError} contract_invalid, closed
   */
  flow<T = unknown>(name: string, options?: FlowOptions & { readonly schema?: undefined }): Flow<T>;
  flow<Schema extends StandardSchemaV1>(
    name: string,
    options: FlowOptions & { readonly schema: Schema },
  ): Flow<InferOutput<Schema>>;
  flow<T>(
    name: string,
    options: FlowOptions & { readonly schema?: StandardSchemaV1 | undefined } = {},
  ): Flow<T> {
    if (this.#closing !== undefined) throw new SpillwayError("closed", { flow: name });
    const known = this.#flows.get(name);
    if (known !== undefined) return known.flow;
    checkOptions(options);
    const { schema, ...rest } = options;
    const contract = parseContract(name, rest);
    const saved = this.#saved.get(name);
    if (saved !== undefined && saved.partitions !== contract.partitions) {
      throw new SpillwayError("contract_invalid", {
        path: "partitions",
        flow: name,
        found: contract.partitions,
        allowed: `${saved.partitions}, with which the flow was made: a key would change its partition`,
      });
    }
    const engineMax = this.#engine.profile.maxMessageBytes;
    if (contract.messageBytesMax > engineMax) {
      throw new SpillwayError("contract_invalid", {
        path: "messageBytesMax",
        flow: name,
        found: contract.messageBytesMax,
        allowed: `at most ${engineMax}, what the ${this.#engine.profile.name} engine takes`,
      });
    }
    const validate = schema === undefined ? undefined : validatorOf(schema);
    const open = this.#open(contract, saved?.controls ?? noControls, validate);
    this.#flows.set(name, open);
    return open.flow;
  }

  #open(contract: Contract, controls: Controls, validate: Validator<unknown> | undefined): Open {
    const { name } = contract;
    const clock = this.#clock;
    const queue = new QueueDriver(
      { contract, node: hostname(), seed: this.#seed, claimLeaseMs },
      {
        engine: this.#engine,
        clock,
        writes: this.#writes,
        onFact: (fact) => flow.tell(fact),
        onError: (error) => flow.tellError(error),
      },
    );
    const learnt = this.#learnt.get(name);
    if (learnt !== undefined) queue.machine.recall(learnt.history, clock.now());
    const [producerEnd, queueEnd] = this.#links.producer(name);
    const producer = new ProducerDriver(
      {
        partitions: contract.partitions,
        shards: shardsOf(contract),
        seed: this.#seed,
        waitingMax,
        beatGapMs: this.#links.beatGapMs,
      },
      {
        clock,
        link: producerEnd,
        onBlocked: (refusal) => flow.tellBlocked(refusal),
        onResumed: () => flow.tellResumed(),
      },
    );
    const target = this.#target(contract);
    const opened = this.#claim(contract, queue);
    const flow = new Flow<never>({
      contract,
      clock,
      durability: this.durability,
      queue,
      producer,
      target,
      writes: this.#writes,
      validate,
      opened,
      closed: this.#closed.signal,
      controls,
      saveControls: (changed) => this.#save(contract, changed),
    });
    opened.catch((error: unknown) => {
      if (this.#closing === undefined) flow.tellError(error as SpillwayError);
    });
    if (controls.paused) queue.pause();
    for (const partition of controls.pausedPartitions) queue.pause(partition);
    if (controls.intakeClosed) queue.setIntake(true);
    for (const partition of controls.closedPartitions) queue.setIntake(true, partition);
    queue.addProducer("local", queueEnd);
    const [consumerEnd, targetEnd] = this.#links.consumer(name);
    target.addFlow(name, contract.payload === "json", consumerEnd);
    queue.addConsumer("local", targetEnd);
    return { flow, queue, producer, target, opened };
  }

  #target(contract: Contract): TargetDriver {
    const known = this.#targets.get(contract.target);
    if (known !== undefined) return known;
    const { target: name, window, rate, credit } = contract;
    const driver = new TargetDriver(
      {
        name,
        window,
        ...(rate === undefined ? {} : { rate }),
        creditLeaseMs: credit.leaseMs,
        seed: this.#seed,
      },
      {
        clock: this.#clock,
        saved: this.#breakers.get(name)?.breaker,
        onBreaker: (from, to) => {
          this.#saveBreaker(name, driver.saved());
          for (const open of this.#flows.values()) {
            if (open.target === driver) open.flow.tellBreaker(from, to);
          }
        },
      },
    );
    this.#targets.set(name, driver);
    return driver;
  }

  /** Kept so that a restart does not rush at a target that is away; a lost save costs one probe. */
  #saveBreaker(name: string, breaker: SavedBreaker): void {
    const known = this.#breakers.get(name)?.revision ?? 0;
    const value = new TextEncoder().encode(JSON.stringify(breaker));
    this.#engine.meta.set(`breaker/${name}`, value, known).then(
      (revision) => this.#breakers.set(name, { breaker, revision }),
      () => undefined,
    );
  }

  #keepLearnt(): void {
    const timer = this.#clock.after(learntEveryMs, () => {
      for (const name of this.#flows.keys()) void this.#saveLearnt(name);
      this.#keepLearnt();
    });
    this.#learntTimer = timer;
  }

  /** A week's season has to survive a restart; a save that fails costs what it would have kept. */
  async #saveLearnt(name: string): Promise<void> {
    const history = this.#flows.get(name)?.queue.machine.learnt(this.#clock.now());
    if (history === undefined) return;
    const known = this.#learnt.get(name);
    const { slot, count } = known?.history ?? { slot: history.slot, count: 0 };
    if (history.slot === slot && history.count === count) return; // Nothing has come since.
    const value = new TextEncoder().encode(JSON.stringify(history));
    try {
      const revision = await this.#engine.meta.set(`learnt/${name}`, value, known?.revision ?? 0);
      this.#learnt.set(name, { history, revision });
    } catch {
      // Another node that has the flow has kept its own, or the store is full.
    }
  }

  async #claim(contract: Contract, queue: QueueDriver): Promise<void> {
    if (!this.#saved.has(contract.name)) await this.#save(contract, noControls);
    await queue.open();
  }

  /** One at a time for each flow: an entry is written over the revision that it had. */
  #save(contract: Contract, controls: Controls): Promise<void> {
    const { name } = contract;
    const before = this.#saving.get(name) ?? Promise.resolve();
    const saved = before.then(() => this.#write(contract, controls));
    const quiet = saved.catch(() => undefined); // Its caller hears of it; the next one still goes on.
    this.#saving.set(name, quiet);
    return saved;
  }

  async #write({ name, partitions }: Contract, controls: Controls): Promise<void> {
    const known = this.#saved.get(name)?.revision ?? 0;
    const value = new TextEncoder().encode(JSON.stringify({ partitions, controls }));
    const revision = await this.#engine.meta.set(`flow/${name}`, value, known);
    this.#saved.set(name, { partitions, controls, revision });
  }

  /**
   * Holds every invariant of every machine, for simulations and whoever doubts.
   * @throws {SpillwayError} invariant_broken
   */
  check(): void {
    for (const { queue, producer } of this.#flows.values()) {
      queue.machine.check();
      producer.check();
    }
    for (const target of this.#targets.values()) target.check();
  }

  /**
   * Takes nothing new, lets handlers end for `drainMaxMs`, releases what they did not finish, and
   * closes the store. Nothing accepted is lost.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await using _engine = this.#engine;
    const flows = [...this.#flows.values()];
    this.#closed.abort();
    for (const { producer } of flows) producer.stop();
    for (const { queue } of flows) queue.drain();
    for (const target of this.#targets.values()) target.drain();
    const { promise: timeUp, resolve: onTimeUp } = Promise.withResolvers<void>();
    const timer = this.#clock.after(this.#drainMaxMs, onTimeUp);
    const handled = Promise.all([...this.#targets.values()].map((target) => target.idle()));
    await Promise.race([handled, timeUp]);
    for (const target of this.#targets.values()) target.release();
    const idle = Promise.all(flows.map(({ queue }) => queue.idle()));
    await Promise.race([idle, timeUp]);
    timer.cancel();
    for (const { queue } of flows) queue.release();
    const { promise: written, resolve: onWritten } = Promise.withResolvers<void>();
    const last = this.#clock.after(writeMaxMs, onWritten);
    await Promise.race([idle, written]);
    last.cancel();
    this.#learntTimer?.cancel();
    await Promise.all([...this.#flows.keys()].map((name) => this.#saveLearnt(name)));
    for (const { producer, queue } of flows) {
      producer.close();
      await queue.close();
    }
    for (const target of this.#targets.values()) target.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export { SpillwayError } from "./base/index.ts";
export type { ErrorCode } from "./base/index.ts";
export { Delivery } from "./consumer/index.ts";
export type { Handler, HandlerOptions } from "./consumer/index.ts";
export type { Contract, FlowOptions, MessageClass, PolicyPatch, Verdict } from "./flow/index.ts";
export { Flow } from "./flow-handle.ts";
export type {
  BatchResult,
  Consumer,
  FlowEvents,
  FlowState,
  MessageOptions,
  Receipt,
  Refusal,
  SendOptions,
} from "./flow-handle.ts";
export type { DeadLetter, MessageView } from "./message-view.ts";
export type { Reason } from "./queue/index.ts";

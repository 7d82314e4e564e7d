/**
 * Runs handlers: what the target's machine starts is handed to the flow's handlers or pullers, what
 * they return or throw becomes a verdict. All that one turn brings goes back together.
 */
import { Line, SpillwayError, textOf } from "../base/index.ts";
import type { Clock, Member, Timer } from "../base/index.ts";
import type { SavedBreaker } from "../control/index.ts";
import type { Fault, Verdict } from "../flow/index.ts";
import type { ConsumerFrame, Link, ToConsumerFrame } from "../protocol/index.ts";
import { Delivery } from "./delivery.ts";
import type { Settler } from "./delivery.ts";
import { TargetMachine } from "./machine.ts";
import type { Run, TargetEffect, TargetOptions, TargetView } from "./machine.ts";

export type Handler<T> = (value: T, delivery: Delivery<T>) => unknown;

/** Who takes the deliveries of a flow: a handler as many as come, a puller as many as it asks for. */
interface Taker {
  demand: number;
  readonly take: (delivery: Delivery<never>) => void;
}

/**
 * Who waits for a verdict to become durable. The token of a run is its delivery while it runs, and
 * then this, if anybody waits.
 */
class Confirm implements Member<Confirm> {
  before: Confirm | undefined;
  after: Confirm | undefined;
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;

  constructor() {
    ({
      promise: this.promise,
      resolve: this.resolve,
      reject: this.reject,
    } = Promise.withResolvers<void>());
  }
}

interface Flow {
  readonly name: string;
  readonly isJson: boolean;
  readonly link: Link<ConsumerFrame, ToConsumerFrame>;
  takers: Taker[];
  next: number;
}

export interface TargetDeps {
  readonly clock: Clock;
  /** The breaker as the process before left it. */
  readonly saved?: SavedBreaker | undefined;
  readonly onBreaker: (from: string, to: string) => void;
}

export interface HandlerOptions {
  /** Whose failure an error is; a refused connection or a time-out is the target's by default. */
  readonly faultOf?: ((error: unknown) => Fault) | undefined;
}

export class TargetDriver implements Settler {
  readonly #machine: TargetMachine;
  readonly #deps: TargetDeps;
  readonly #flows = new Map<string, Flow>();
  readonly #confirms = new Line<Confirm>();
  #isScheduled = false;
  #timer: Timer | undefined;
  #onIdle: (() => void)[] = [];
  #isClosed = false;

  constructor(options: TargetOptions, deps: TargetDeps) {
    this.#machine = new TargetMachine(options, deps.clock.now(), deps.saved);
    this.#deps = deps;
  }

  addFlow(name: string, isJson: boolean, link: Link<ConsumerFrame, ToConsumerFrame>): void {
    this.#flows.set(name, { name, isJson, link, takers: [], next: 0 });
    this.#machine.queueJoined(name, this.#deps.clock.now());
    link.onFrame = (frame) => {
      this.#machine.frame(name, frame, this.#deps.clock.now());
      this.#schedule();
    };
  }

  /** The queue at the other end begins anew: what it had given is lost, who takes from it stays. */
  resetFlow(name: string): void {
    if (!this.#flows.has(name)) return;
    const nowMs = this.#deps.clock.now();
    this.#machine.queueLeft(name, nowMs);
    this.#machine.queueJoined(name, nowMs);
    this.#demand(name);
  }

  /** A handler takes deliveries from now on. @returns How to take it away again. */
  handle<T>(flow: string, handler: Handler<T>, options: HandlerOptions = {}): () => void {
    const faultOf = options.faultOf ?? faultOfError;
    return this.#add(flow, {
      demand: Infinity,
      take: (delivery) => this.#run(delivery, handler, faultOf),
    }).remove;
  }

  /** Deliveries one at a time, as they are asked for. */
  pull<T>(flow: string, take: (delivery: Delivery<T>) => void): { ask(): void; remove(): void } {
    const { taker, remove } = this.#add(flow, {
      demand: 0,
      take,
    });
    return {
      ask: () => {
        taker.demand++;
        this.#demand(flow);
      },
      remove,
    };
  }

  #add(flow: string, taker: Taker): { taker: Taker; remove: () => void } {
    const known = this.#flows.get(flow)!;
    known.takers.push(taker);
    this.#demand(flow);
    return {
      taker,
      remove: () => {
        known.takers = known.takers.filter((other) => other !== taker);
        this.#demand(flow);
      },
    };
  }

  #demand(flow: string): void {
    const known = this.#flows.get(flow);
    if (known === undefined) return;
    let demand = 0;
    for (const taker of known.takers) demand += taker.demand;
    this.#machine.setDemand(flow, demand, this.#deps.clock.now());
    this.#schedule();
  }

  #run<T>(delivery: Delivery<T>, handler: Handler<T>, faultOf: (error: unknown) => Fault): void {
    const { run } = delivery;
    let value: T;
    try {
      ({ value } = delivery);
    } catch (error) {
      this.#finish(run, { kind: "term", reason: `the payload is not JSON: ${String(error)}` });
      return;
    }
    try {
      const result = handler(value, delivery);
      if (result instanceof Promise) {
        result.then(
          () => this.#finish(run, ack),
          (error: unknown) => this.#fail(run, error, faultOf),
        );
      } else this.#finish(run, ack);
    } catch (error) {
      this.#fail(run, error, faultOf);
    }
  }

  #fail(run: Run, error: unknown, faultOf: (error: unknown) => Fault): void {
    this.#finish(run, { kind: "nack", error: describe(error), fault: faultOf(error) });
  }

  /** What was settled already, by a verb or by the end of its lease, stays as it is. */
  #finish(run: Run, verdict: Verdict): void {
    this.#machine.settle(run, verdict, this.#deps.clock.now());
    if (run.token instanceof Delivery) run.token = undefined;
    this.#schedule();
  }

  settle(run: Run, verdict: Verdict): Promise<void> {
    return this.settleWith(run, verdict, undefined);
  }

  /** @param joint Ties the verdict to an append: both become durable together. */
  settleWith(run: Run, verdict: Verdict, joint: number | undefined): Promise<void> {
    const confirm = new Confirm();
    if (this.#machine.settle(run, verdict, this.#deps.clock.now(), true, joint)) {
      this.#confirms.join(confirm);
      run.token = confirm;
      this.#schedule();
    } else {
      const { partition, seq, attempt } = run.delivered;
      confirm.reject(
        new SpillwayError("delivery_settled", { partition, seq, attempt, found: run.state }),
      );
    }
    return confirm.promise;
  }

  working(run: Run, extendMs: number): void {
    this.#machine.working(run, extendMs);
    this.#schedule();
  }

  /** New limits of the window and the rate. */
  change(options: Pick<TargetOptions, "window" | "rate">): void {
    this.#machine.change(options, this.#deps.clock.now());
    this.#schedule();
  }

  /** How much the target says it takes; null: it says nothing. */
  publish(limit: number | null): void {
    this.#machine.published(limit);
    this.#schedule();
  }

  /** How many calls the target says it takes in a second; null: it says so no more. */
  publishRate(ratePerS: number | null): void {
    this.#machine.publishedRate(ratePerS, this.#deps.clock.now());
    this.#schedule();
  }

  /** When the target says to come back. */
  publishPause(retryAfterMs: number): void {
    this.#machine.publishedPause(retryAfterMs, this.#deps.clock.now());
    this.#schedule();
  }

  /** The breaker, to be kept over a restart. */
  saved(): SavedBreaker {
    return this.#machine.saved();
  }

  view(): TargetView {
    return this.#machine.view();
  }

  /** @throws {SpillwayError} invariant_broken */
  check(): void {
    this.#machine.check();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isClosed) return;
    this.#isScheduled = true;
    this.#deps.clock.defer(() => {
      this.#isScheduled = false;
      if (!this.#isClosed) this.#turn();
    });
  }

  #turn(): void {
    const { clock } = this.#deps;
    this.#machine.turn(clock.now());
    this.#carryOut();
    const nowMs = clock.now();
    const atMs = this.#machine.nextWakeAtMs(nowMs);
    this.#timer?.cancel();
    this.#timer =
      atMs === Infinity
        ? undefined
        : clock.after(Math.max(1, atMs - nowMs), () => this.#schedule());
    if (this.#onIdle.length > 0 && this.#machine.running.size === 0) {
      for (const resolve of this.#onIdle.splice(0)) resolve();
    }
  }

  #carryOut(): void {
    for (const effect of this.#machine.take()) this.#carryOutOne(effect);
  }

  #carryOutOne(effect: TargetEffect): void {
    switch (effect.kind) {
      case "frame":
        this.#flows.get(effect.queue)?.link.send(effect.frame);
        break;
      case "run":
        this.#start(effect.run);
        break;
      case "lost":
        abort(effect.run);
        break;
      case "confirmed": {
        const { run, effective } = effect;
        const confirm = run.token;
        if (!(confirm instanceof Confirm)) break;
        run.token = undefined;
        this.#confirms.leave(confirm);
        if (effective) confirm.resolve();
        else {
          const { partition, seq, attempt } = run.delivered;
          confirm.reject(new SpillwayError("delivery_settled", { partition, seq, attempt }));
        }
        break;
      }
      case "unconfirmed": {
        const confirm = effect.run.token;
        if (!(confirm instanceof Confirm)) break;
        effect.run.token = undefined;
        this.#confirms.leave(confirm);
        confirm.reject(new SpillwayError("outcome_unknown"));
        break;
      }
      case "breaker":
        this.#deps.onBreaker(effect.from, effect.to);
        break;
    }
  }

  #start(run: Run): void {
    const flow = this.#flows.get(run.queue);
    const taker = flow === undefined ? undefined : nextTaker(flow);
    if (flow === undefined || taker === undefined) {
      this.#finish(run, { kind: "release" }); // Its taker left meanwhile.
      return;
    }
    taker.demand--;
    const delivery = new Delivery<never>(flow.name, run, this, flow.isJson);
    run.token = delivery;
    taker.take(delivery);
  }

  /** Takes nothing new. */
  drain(): void {
    this.#machine.close();
    this.#schedule();
  }

  /** Resolves when no handler runs. */
  idle(): Promise<void> {
    if (this.#machine.running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle.push(resolve);
      this.#schedule();
    });
  }

  /** What still runs is told to stop, and goes back untried. */
  release(): void {
    for (const run of this.#machine.running) {
      abort(run);
      this.#finish(run, { kind: "release" });
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    // Their verdicts have left: nobody here will hear whether they became durable.
    for (const confirm of this.#confirms) {
      this.#confirms.leave(confirm);
      confirm.reject(new SpillwayError("outcome_unknown"));
    }
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }
}

const ack: Verdict = { kind: "ack" };

/** Whoever works on it is to stop. */
function abort(run: Run): void {
  if (!(run.token instanceof Delivery)) return;
  run.token.abort();
  run.token = undefined;
}

function nextTaker(flow: Flow): Taker | undefined {
  for (let tries = 0; tries < flow.takers.length; tries++) {
    const taker = flow.takers[flow.next++ % flow.takers.length]!;
    if (taker.demand > 0) return taker;
  }
  return undefined;
}

const errorTextMax = 500;

function describe(error: unknown): string {
  return textOf(error).slice(0, errorTextMax);
}

const targetCodes: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EPIPE",
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "UND_ERR_SOCKET",
]);

/** A target that cannot be reached or does not answer; anything else is the message's. */
function faultOfError(error: unknown): Fault {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ("code" in at && targetCodes.has(at.code)) return "target";
    if (at.name === "TimeoutError") return "target";
  }
  return "message";
}

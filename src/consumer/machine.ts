/**
 * The receiving end: one target and all flows that deliver to it. Its window, rate limit and breaker
 * become credit for the queues; what they send runs at once, and how it ends teaches the window.
 *
 * T1  in flight + outstanding credit <= window, rate tokens and breaker allowance (G3): when these
 *     shrink, unspent credit is taken back.
 * T2  A delivery that is not covered by live credit goes back untried: it costs no attempt.
 * T3  Every delivery is settled once, or was lost by its lease first.
 * T4  While the target is away its failures cost no attempt: an outage must not dead-letter.
 *
 * It must not know handlers, payloads or timers.
 */
import { assert, IntegerMap, Line } from "../base/index.ts";
import type { Member } from "../base/index.ts";
import { breaker, drain, overload, window } from "../control/index.ts";
import type {
  Breaker,
  Drain,
  Overload,
  OverloadOptions,
  OverloadView,
  SavedBreaker,
  Tag,
  Window,
  WindowView,
} from "../control/index.ts";
import type { Fault, Verdict } from "../flow/index.ts";
import { issuer } from "../protocol/index.ts";
import type {
  ConsumerFrame,
  Delivered,
  FrameVerdict,
  Heartbeat,
  Issuer,
  Settlement,
  ToConsumerFrame,
} from "../protocol/index.ts";

export interface TargetOptions {
  readonly name: string;
  readonly window: {
    readonly start: number;
    readonly min: number;
    readonly max: number;
    readonly fixed?: number;
  };
  readonly rate?: { readonly perSecond: number; readonly burst?: number };
  readonly creditLeaseMs: number;
  readonly seed: number;
}

/** One delivery that is being handled; while it runs, it stands in line in the order of the starts. */
export interface Run extends Member<Run> {
  readonly queue: string;
  readonly delivered: Delivered;
  readonly startedAtMs: number;
  tag: Tag;
  state: "running" | "lost" | "settled";
  /** The caller's. */
  token: unknown;
}

export type TargetEffect =
  | { readonly kind: "frame"; readonly queue: string; readonly frame: ConsumerFrame }
  | { readonly kind: "run"; readonly run: Run }
  /** Its lease ended, or its queue is gone: whoever works on it should stop. */
  | { readonly kind: "lost"; readonly run: Run }
  | { readonly kind: "confirmed"; readonly run: Run; readonly effective: boolean }
  /** Its queue is gone: whether its verdict counted will not be heard. */
  | { readonly kind: "unconfirmed"; readonly run: Run }
  | { readonly kind: "breaker"; readonly from: string; readonly to: string };

interface Queue {
  readonly id: string;
  /** Deliveries that somebody is there to take; Infinity for handlers. */
  demand: number;
  beat: Heartbeat | undefined;
  settlements: Settlement[];
  /** Settled, and not told yet whether it counted: the latest of each message, and those before. */
  readonly confirming: IntegerMap<Run>;
  overtaken: Run[];
}

export interface TargetView {
  readonly target: string;
  readonly inFlight: number;
  readonly window: WindowView;
  readonly rate: OverloadView;
  readonly breaker: ReturnType<typeof breaker.view>;
}

/** Not tried because the target is away: back soon, the breaker decides when it is let through. */
const awayDelayMs = 1000;
const okWithinMs = 10_000;

export class TargetMachine {
  #options: TargetOptions;
  #window: Window;
  #overload: Overload;
  readonly #breaker: Breaker;
  readonly #issuer: Issuer;
  readonly #drain: Drain;
  readonly #queues = new Map<string, Queue>();
  readonly #runs = new Line<Run>();
  #effects: TargetEffect[] = [];
  #okAtMs: number;
  #hungCheckAtMs = Infinity;
  #isClosing = false;

  constructor(options: TargetOptions, nowMs: number, saved?: SavedBreaker) {
    this.#options = options;
    this.#window = window.init(options.window, nowMs);
    const { seed, name } = options;
    this.#overload = overload.init(overloadOptions(options));
    this.#breaker = breaker.init({ seed, target: name }, nowMs, saved);
    this.#issuer = issuer.init(
      { firstEpoch: 1, ttlMs: options.creditLeaseMs, toeMessages: 0, toeBytes: 0 },
      nowMs,
    );
    this.#drain = drain.init({}, nowMs);
    this.#okAtMs = nowMs;
  }

  /** New limits; what was learnt is learnt again, what the target says of itself stays. */
  change(options: Pick<TargetOptions, "window" | "rate">, nowMs: number): void {
    const { rate: _before, ...rest } = this.#options;
    const { window: limits, rate } = options;
    this.#options = { ...rest, window: limits, ...(rate === undefined ? {} : { rate }) };
    const { published } = this.#window;
    this.#window = window.init(options.window, nowMs);
    if (published < Infinity) window.publish(this.#window, published);
    this.#overload = overload.changed(this.#overload, nowMs, overloadOptions(this.#options));
    for (const run of this.#runs) run.tag = 0; // Evidence of the window before.
  }

  // Queues.

  queueJoined(queue: string, nowMs: number): void {
    const confirming = new IntegerMap<Run>();
    const demand = 0;
    this.#queues.set(queue, {
      id: queue,
      demand,
      beat: undefined,
      settlements: [],
      confirming,
      overtaken: [],
    });
    issuer.join(this.#issuer, queue, nowMs);
  }

  queueLeft(queue: string, nowMs: number): void {
    for (const run of this.#runs) if (run.queue === queue) this.#lose(run);
    const known = this.#queues.get(queue);
    if (known !== undefined) {
      for (const [, run] of known.confirming) this.#effects.push({ kind: "unconfirmed", run });
      for (const run of known.overtaken) this.#effects.push({ kind: "unconfirmed", run });
    }
    this.#queues.delete(queue);
    issuer.leave(this.#issuer, queue, nowMs, true);
  }

  /** How many deliveries of a flow somebody is there to take. */
  setDemand(queue: string, demand: number, nowMs: number): void {
    const known = this.#queues.get(queue);
    if (known === undefined || known.demand === demand) return;
    known.demand = demand;
    this.#hear(known, nowMs);
  }

  frame(queue: string, frame: ToConsumerFrame, nowMs: number): void {
    const known = this.#queues.get(queue);
    if (known === undefined) return;
    switch (frame.kind) {
      case "want":
        known.beat = frame.beat;
        this.#hear(known, nowMs);
        break;
      case "deliver":
        this.#arrive(known, frame, nowMs);
        known.beat = frame.beat;
        this.#hear(known, nowMs);
        break;
      case "settled": {
        const run = takeConfirming(known, frame);
        if (run === undefined) return;
        this.#effects.push({ kind: "confirmed", run, effective: frame.effective });
        break;
      }
      case "lost": {
        const run = this.#running(queue, frame);
        if (run === undefined) return;
        window.settled(this.#window, nowMs, run.startedAtMs, run.tag, "failed");
        this.#transition(this.#blame("target", nowMs, run), nowMs);
        this.#lose(run);
        break;
      }
    }
  }

  #hear(queue: Queue, nowMs: number): void {
    if (queue.beat === undefined) return;
    const want = Math.min(queue.beat.want, queue.demand);
    issuer.heard(this.#issuer, queue.id, nowMs, { ...queue.beat, want });
    // What it will not use is another's, or waits for the demand to return.
    const { messages } = issuer.outstandingOf(this.#issuer, queue.id);
    if (messages > want && (this.#queues.size > 1 || messages > queue.demand)) {
      issuer.contract(this.#issuer, queue.id, nowMs, want);
    }
  }

  #arrive(queue: Queue, frame: Extract<ToConsumerFrame, { kind: "deliver" }>, nowMs: number): void {
    const { messages } = frame;
    const { accepted } = issuer.arrived(
      this.#issuer,
      queue.id,
      nowMs,
      frame.stamp,
      messages.length,
    );
    if (queue.demand !== Infinity) queue.demand = Math.max(0, queue.demand - accepted);
    for (let at = 0; at < messages.length; at++) {
      const delivered = messages[at]!;
      const run: Run = {
        queue: queue.id,
        delivered,
        startedAtMs: nowMs,
        tag: 0,
        state: "running",
        token: undefined,
        before: undefined,
        after: undefined,
      };
      if (at >= accepted || this.#isClosing) {
        run.state = "settled";
        this.#push(queue, run, { kind: "release" }, 0, false, undefined); // T2
        continue;
      }
      this.#runs.join(run);
      overload.spend(this.#overload, nowMs, delivered.cost);
      this.#transition(breaker.started(this.#breaker, nowMs), nowMs);
      run.tag = window.dispatched(this.#window, nowMs, this.#runs.size);
      this.#hungCheckAtMs = Math.min(this.#hungCheckAtMs, nowMs + window.hungAfterMs(this.#window));
      this.#effects.push({ kind: "run", run });
    }
    drain.backlog(this.#drain, nowMs, this.#runs.size >= window.limitOf(this.#window) ? 1 : 0);
  }

  // Runs.

  /**
   * A run ended. @param confirm Tell with `confirmed` once it is durable.
   * @returns False when its lease had ended: nothing is changed (T3).
   */
  settle(run: Run, verdict: Verdict, nowMs: number, confirm = false, joint?: number): boolean {
    if (run.state !== "running") return false;
    run.state = "settled";
    this.#runs.leave(run);
    const queue = this.#queues.get(run.queue);
    if (queue === undefined) return false;
    const durationMs = nowMs - run.startedAtMs;
    const sent = this.#learn(run, verdict, nowMs);
    this.#push(queue, run, sent, durationMs, confirm, joint);
    return true;
  }

  /** The run goes on: its lease is extended from now. */
  working(run: Run, extendMs: number): void {
    if (run.state !== "running") return;
    const { partition, seq, attempt } = run.delivered;
    const frame = { kind: "working", partition, seq, attempt, extendMs } as const;
    this.#effects.push({ kind: "frame", queue: run.queue, frame });
  }

  /** The target says how much it takes at once; null: it says so no more. */
  published(limit: number | null): void {
    window.publish(this.#window, limit);
  }

  /** The target says how many calls it takes in a second; null: it says so no more. */
  publishedRate(ratePerS: number | null, nowMs: number): void {
    overload.setCap(this.#overload, nowMs, ratePerS);
  }

  /** The target says when to come back. */
  publishedPause(retryAfterMs: number, nowMs: number): void {
    overload.pauseUntil(this.#overload, nowMs, retryAfterMs);
  }

  #learn(run: Run, verdict: Verdict, nowMs: number): FrameVerdict {
    const { startedAtMs, tag } = run;
    if (verdict.kind !== "release") drain.handled(this.#drain, nowMs - startedAtMs);
    switch (verdict.kind) {
      case "ack":
        this.#okAtMs = nowMs;
        window.settled(this.#window, nowMs, startedAtMs, tag, "ok");
        overload.settled(this.#overload, nowMs, false);
        drain.settled(this.#drain, nowMs, 1);
        this.#transition(
          breaker.settled(this.#breaker, nowMs, "ok", drain.ratePerS(this.#drain), startedAtMs),
          nowMs,
        );
        return verdict;
      case "nack": {
        window.settled(this.#window, nowMs, startedAtMs, tag, "failed");
        overload.settled(this.#overload, nowMs, false);
        const fault = verdict.fault ?? "message";
        const burns = breaker.burnsAttempts(this.#breaker) || fault !== "target"; // T4
        this.#transition(this.#blame(fault, nowMs, run), nowMs);
        const { error, delayMs } = verdict;
        if (!burns) return { kind: "release", delayMs: Math.max(awayDelayMs, delayMs ?? 0) };
        return { kind: "nack", error, ...(delayMs === undefined ? {} : { delayMs }) };
      }
      case "release": {
        const isOverload = verdict.overload === true;
        window.settled(this.#window, nowMs, startedAtMs, tag, isOverload ? "overload" : "released");
        this.#transition(
          breaker.settled(this.#breaker, nowMs, "neutral", undefined, startedAtMs),
          nowMs,
        );
        const { delayMs } = verdict;
        if (isOverload) {
          overload.settled(this.#overload, nowMs, true);
          if (delayMs !== undefined) overload.pauseUntil(this.#overload, nowMs, delayMs);
        }
        return { kind: "release", ...(delayMs === undefined ? {} : { delayMs }) };
      }
      case "term":
        window.settled(this.#window, nowMs, startedAtMs, tag, "failed");
        overload.settled(this.#overload, nowMs, false);
        this.#transition(
          breaker.settled(this.#breaker, nowMs, "neutral", undefined, startedAtMs),
          nowMs,
        );
        return { kind: "term", reason: verdict.reason };
    }
  }

  /**
   * A message's own failures say nothing about the target while others succeed: a tenant that sends
   * only nonsense must not open the breaker for all (G7). When nothing succeeds, they do.
   */
  #blame(fault: Fault, nowMs: number, run: Run): breaker.Transition | undefined {
    const isTarget = fault === "target" || nowMs - this.#okAtMs > okWithinMs;
    return breaker.settled(
      this.#breaker,
      nowMs,
      isTarget ? "failed" : "neutral",
      drain.ratePerS(this.#drain),
      run.startedAtMs,
    );
  }

  #transition(transition: breaker.Transition | undefined, nowMs: number): void {
    if (transition === undefined) return;
    const { from, to } = transition;
    this.#effects.push({ kind: "breaker", from, to });
    if (to !== "recovering") return;
    // Calls that hang since before hold their places: the window begins beside them.
    window.restart(this.#window, nowMs, 1 + this.#runs.size);
    for (const queue of this.#queues.keys()) {
      this.#effects.push({ kind: "frame", queue, frame: { kind: "recovered" } });
    }
  }

  #push(
    queue: Queue,
    run: Run,
    verdict: FrameVerdict,
    durationMs: number,
    confirm: boolean,
    joint: number | undefined,
  ): void {
    const { partition, seq, attempt } = run.delivered;
    if (confirm) {
      const name = runName(partition, seq);
      const before = queue.confirming.get(name);
      if (before !== undefined) queue.overtaken.push(before);
      queue.confirming.set(name, run);
    }
    const settlement = { partition, seq, attempt, verdict, durationMs, confirm };
    queue.settlements.push(joint === undefined ? settlement : { ...settlement, joint });
  }

  #lose(run: Run): void {
    if (run.state !== "running") return;
    run.state = "lost";
    this.#runs.leave(run);
    this.#effects.push({ kind: "lost", run });
  }

  /** Looked for when a lease has ended, which is rare: an index would cost every message. */
  #running(queue: string, lost: Extract<ToConsumerFrame, { kind: "lost" }>): Run | undefined {
    for (const run of this.#runs) {
      const { partition, seq, attempt } = run.delivered;
      if (seq !== lost.seq || partition !== lost.partition || attempt !== lost.attempt) continue;
      if (run.queue === queue) return run;
    }
    return undefined;
  }

  // Turns.

  /** Ends a batch of events: verdicts go back in one frame a queue, credit follows the window. */
  turn(nowMs: number): void {
    this.#transition(breaker.tick(this.#breaker, nowMs), nowMs);
    if (nowMs >= this.#hungCheckAtMs) this.#checkHung(nowMs);
    for (const queue of this.#queues.values()) {
      if (queue.settlements.length === 0) continue;
      const frame = { kind: "settle", settlements: queue.settlements } as const;
      queue.settlements = [];
      this.#effects.push({ kind: "frame", queue: queue.id, frame });
    }
    this.#grant(nowMs);
  }

  #grant(nowMs: number): void {
    const messages = this.#room(nowMs);
    let over = issuer.outstanding(this.#issuer).messages - messages;
    const isOver = over > 0;
    for (const { id } of this.#queues.values()) {
      if (over <= 0) break;
      const held = issuer.outstandingOf(this.#issuer, id).messages;
      const kept = Math.max(0, held - over);
      issuer.contract(this.#issuer, id, nowMs, kept); // T1
      over -= held - kept;
    }
    for (const { senderId, ...grant } of issuer.issue(
      this.#issuer,
      nowMs,
      { messages, bytes: Infinity },
      isOver ? "rise" : undefined,
    )) {
      this.#effects.push({ kind: "frame", queue: senderId, frame: { kind: "credit", grant } });
    }
  }

  /** What may be outstanding: places in the window that the breaker and the rate limit let through. */
  #room(nowMs: number): number {
    if (this.#isClosing) return 0;
    let room = this.#places(nowMs) - this.#runs.size;
    const readyAtMs = breaker.readyAtMs(this.#breaker, nowMs, this.#runs.size);
    if (readyAtMs > nowMs) return 0;
    const { state } = this.#breaker;
    if (state === "half_open") room = Math.min(room, 1);
    if (state === "recovering") room = Math.min(room, Math.floor(this.#breaker.tokens + 1e-6));
    if (overload.readyAtMs(this.#overload, nowMs, 1) > nowMs) return 0;
    if (overload.view(this.#overload).ratePerS !== null) {
      room = Math.min(room, Math.floor(this.#overload.tokens + 1e-6));
    }
    return Math.max(0, room);
  }

  /**
   * Places of the window. In a dip the calls that hang keep theirs beside it, or a dip that they fill
   * would not end before they do; in flight stays within the window all the same.
   */
  #places(nowMs: number): number {
    const limit = window.limitOf(this.#window);
    const full = window.fullLimitOf(this.#window);
    if (limit === full) return limit;
    const hungBeforeMs = nowMs - window.hungAfterMs(this.#window);
    let hung = 0;
    for (const { startedAtMs } of this.#runs) {
      if (startedAtMs > hungBeforeMs || limit + hung === full) break; // In order of their starts.
      hung++;
    }
    return limit + hung;
  }

  /** When the oldest call of a dip that is filled begins to hang; Infinity: that will not be waited for. */
  get #placeAtMs(): number {
    const limit = window.limitOf(this.#window);
    if (this.#runs.size < limit || limit === window.fullLimitOf(this.#window)) return Infinity;
    return this.#runs.first!.startedAtMs + window.hungAfterMs(this.#window);
  }

  #checkHung(nowMs: number): void {
    const afterMs = window.hungAfterMs(this.#window);
    this.#hungCheckAtMs = Infinity;
    for (const run of this.#runs) {
      if (run.tag === 0) continue;
      run.tag = window.hung(this.#window, nowMs, run.startedAtMs, run.tag);
      if (run.tag !== 0) {
        this.#hungCheckAtMs = Math.min(this.#hungCheckAtMs, run.startedAtMs + afterMs);
      }
    }
  }

  /** Nothing new is taken; what runs may end. */
  close(): void {
    this.#isClosing = true;
  }

  get running(): Line<Run> {
    return this.#runs;
  }

  take(): TargetEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  nextWakeAtMs(nowMs: number): number {
    let wants = false;
    for (const { beat, demand } of this.#queues.values()) {
      if (beat !== undefined && beat.want > 0 && demand > 0) wants = true;
    }
    const least = Math.min(this.#hungCheckAtMs, issuer.issueDue(this.#issuer));
    if (!wants) return least;
    const ready = Math.max(
      breaker.readyAtMs(this.#breaker, nowMs, this.#runs.size),
      overload.readyAtMs(this.#overload, nowMs, 1),
    );
    if (ready > nowMs) return Math.min(least, ready);
    // Ready now: an ended run, or one that hangs, makes the next place.
    const placeAtMs = this.#placeAtMs;
    return placeAtMs > nowMs ? Math.min(least, placeAtMs) : least;
  }

  saved(): SavedBreaker {
    return breaker.save(this.#breaker);
  }

  view(): TargetView {
    return {
      target: this.#options.name,
      inFlight: this.#runs.size,
      window: window.view(this.#window),
      rate: overload.view(this.#overload),
      breaker: breaker.view(this.#breaker),
    };
  }

  check(): void {
    window.check(this.#window);
    overload.check(this.#overload);
    breaker.check(this.#breaker);
    for (const run of this.#runs) assert(run.state === "running", "T3 what runs is not settled");
  }
}

function overloadOptions({ rate, seed }: TargetOptions): OverloadOptions {
  return {
    seed,
    ...(rate === undefined ? {} : { ratePerS: rate.perSecond }),
    ...(rate?.burst === undefined ? {} : { burst: rate.burst }),
  };
}

/** The run that an answer is about: on a slow link an earlier attempt's may come after a later settle. */
function takeConfirming(
  queue: Queue,
  { partition, seq, attempt }: Extract<ToConsumerFrame, { kind: "settled" }>,
): Run | undefined {
  const name = runName(partition, seq);
  const latest = queue.confirming.get(name);
  if (latest?.delivered.attempt === attempt) {
    queue.confirming.delete(name);
    return latest;
  }
  const at = queue.overtaken.findIndex(
    ({ delivered }) =>
      runName(delivered.partition, delivered.seq) === name && delivered.attempt === attempt,
  );
  return at < 0 ? undefined : queue.overtaken.splice(at, 1)[0];
}

function runName(partition: number, seq: number): number {
  return partition * 2 ** 42 + seq;
}

/** Who handles: well, slowly, badly, twice, too late or not at all, and tells the history of each verdict. */
import { isSpillwayError } from "../base/index.ts";
import type { Delivery, Flow } from "../spillway.ts";
import type { Draw } from "./draw.ts";
import type { Habit } from "./plan.ts";
import type { Sends } from "./sends.ts";
import type { Life, LifeClock } from "./time.ts";
import { digest } from "./work.ts";
import type { Work } from "./work.ts";
import type { World } from "./world.ts";

type VerdictKind = "ack" | "nack" | "release" | "term";

/** What a handler makes of one delivery. */
type Mood =
  | "return"
  | "throw"
  | "targetDown"
  | "hang"
  | "overload"
  | Exclude<Habit, "pull" | "poison">;

/** The process that it runs in. */
export interface Home {
  readonly life: Life;
  readonly clock: LifeClock;
  readonly sends: Sends;
  readonly isClosing: boolean;
  readonly isStopping: boolean;
}

interface Held {
  readonly delivery: Delivery<Work>;
  readonly consumer: string;
  isTold: boolean;
}

const pullers = 3;
/** How soon after the end of its lease a handler is told, at the latest. */
const toldWithinMs = 200;

export class Consumer {
  readonly #world: World;
  readonly #process: Home;
  readonly #flow: Flow<Work>;
  readonly #next: Flow<Work> | undefined;
  readonly #draw: Draw;
  readonly #leaseMs: number;
  readonly #name: string;
  readonly #stop = new AbortController();
  /** Verbs that wait for their answer. */
  readonly #asks = new Map<Promise<unknown>, () => void>();
  /** Forwards that have no answer yet: a message that comes again before it was given back. */
  readonly #passing = new Map<string, () => void>();
  #running = 0;
  #windowBefore = 0;
  #forwards = 0;
  readonly #held = new Set<Held>();

  constructor(world: World, process: Home, flow: Flow<Work>, next: Flow<Work> | undefined) {
    this.#world = world;
    this.#process = process;
    this.#flow = flow;
    this.#next = next;
    this.#leaseMs = flow.contract.leaseMs;
    this.#name = `${process.life.name} ${flow.name}`;
    this.#draw = world.draw(`consumer ${this.#name}`);
  }

  start(): void {
    const { signal } = this.#stop;
    if (!this.#world.plan.consumer.habits.has("pull")) {
      this.#flow.consume((_, delivery) => this.#handle(delivery, false), { signal });
      return;
    }
    for (let i = 0; i < pullers; i++) void this.#pull();
  }

  async #pull(): Promise<void> {
    for await (const delivery of this.#flow.deliveries({ signal: this.#stop.signal })) {
      await this.#handle(delivery, true).catch(() => {});
    }
  }

  stop(): void {
    this.#stop.abort();
  }

  get openAsks(): number {
    return this.#asks.size;
  }

  /** The process died: nobody will hear. */
  lose(): void {
    for (const lose of this.#asks.values()) lose();
    this.#asks.clear();
    this.#held.clear();
  }

  async #handle(delivery: Delivery<Work>, isPulled: boolean): Promise<void> {
    const held: Held = { delivery, consumer: this.#name, isTold: false };
    this.#begin(held);
    this.#held.add(held);
    this.#running++;
    let isRunning = true;
    const end = (): void => {
      if (isRunning) this.#running--;
      isRunning = false;
    };
    delivery.signal.addEventListener("abort", () => {
      end();
      // A closing process gives back what its handlers have not finished.
      if (this.#process.isClosing) this.#tell(held, "release", false, this.#world.time.nowMs);
      else this.#world.sometimes("a handler lost its lease");
    });
    try {
      await this.#act(held, this.#mood(delivery, isPulled), isPulled);
    } finally {
      end();
      this.#held.delete(held);
    }
  }

  #begin({ delivery, consumer }: Held): void {
    const { id, attempt, key, headers } = delivery;
    const { life } = this.#process;
    this.#passing.get(id)?.();
    const fence = life.fences.get(id.slice(0, id.lastIndexOf("/")));
    this.#world.record({
      kind: "delivered",
      consumer,
      id,
      attempt,
      node: life.name,
      content: digest(delivery.value),
      ...(fence === undefined ? {} : { fence }),
      ...(headers["op"] === undefined ? {} : { op: headers["op"] }),
      ...(key === undefined ? {} : { key }),
    });
    this.#checkWindow();
  }

  /** A delivery itself may begin the next probe: then it came in under the window before. */
  #checkWindow(): void {
    const { inFlight, window } = this.#flow.state().target;
    const most = Math.max(window.limit, window.window, this.#windowBefore);
    this.#windowBefore = window.limit;
    if (inFlight <= most) return;
    this.#world.broke("G3.window", `${inFlight} in flight of a window of ${most}`);
  }

  #mood(delivery: Delivery<Work>, isPulled: boolean): Mood {
    const world = this.#world;
    const draw = this.#draw;
    if (delivery.value.poison === true) return "throw";
    const isMain = this.#next !== undefined;
    if (!world.isHealing) {
      if (world.suffers("targetDown") !== undefined) return "targetDown";
      if (isMain && world.suffers("hungConsumer") !== undefined && draw.chance(0.5)) return "hang";
      if (isMain && world.suffers("overloaded") !== undefined && draw.chance(0.5))
        return "overload";
      const failing = world.suffers("failingConsumer");
      if (failing !== undefined && draw.chance(0.2 + 0.7 * failing.degree)) return "throw";
    }
    if (!isMain) return isPulled ? "verbs" : "return";
    const habits = [...world.plan.consumer.habits].filter(
      (habit) => habit !== "pull" && habit !== "poison" && (!world.isHealing || isKind(habit)),
    ) as Mood[];
    if (habits.length > 0 && draw.chance(0.4)) return draw.pick(habits);
    return isPulled ? "verbs" : "return";
  }

  #serviceMs(): number {
    const { serviceMs, knee } = this.#world.plan.consumer;
    const slow = this.#world.suffers("slowConsumer");
    const factor = slow === undefined ? 1 : 2 + 30 * slow.degree;
    const over = Math.max(1, this.#running / knee);
    return serviceMs * factor * over * over * (0.5 + this.#draw.share());
  }

  async #act(held: Held, mood: Mood, isPulled: boolean): Promise<void> {
    const { delivery } = held;
    const { clock } = this.#process;
    const draw = this.#draw;
    switch (mood) {
      case "return":
        await clock.sleep(this.#serviceMs());
        return this.#returns(held);
      case "throw":
        await clock.sleep(this.#serviceMs());
        return this.#throws(held, isPulled, new Error("it failed"), "nack");
      case "targetDown": {
        await clock.sleep(draw.log(0.1, 20));
        const error = Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
        // While its breaker is open such a failure costs no attempt: either number may follow.
        return this.#throws(held, isPulled, error, "release");
      }
      case "hang":
        await this.#hang(held);
        await this.#asked(held, "ack", () => delivery.ack());
        return;
      case "overload":
        return this.#asked(held, "release", () =>
          delivery.release({ overload: true, delay: draw.whole(1, 500) }),
        );
      case "verbs":
        await clock.sleep(this.#serviceMs());
        return this.#asked(held, "ack", () => delivery.ack());
      case "double": {
        await clock.sleep(this.#serviceMs());
        const first = this.#asked(held, "ack", () => delivery.ack());
        await this.#asked(held, "ack", () => delivery.ack());
        return first;
      }
      case "release":
        return this.#asked(held, "release", () =>
          delivery.release(draw.chance(0.5) ? {} : { delay: draw.whole(1, 300) }),
        );
      case "term":
        return this.#asked(held, "term", () => delivery.term("not wanted"));
      case "nack":
        await clock.sleep(this.#serviceMs());
        return this.#asked(held, "nack", () =>
          delivery.nack(draw.chance(0.5) ? {} : { delay: draw.whole(1, 400) }),
        );
      case "working":
        return this.#works(held);
      case "forward":
        return this.#forward(held, isPulled);
    }
  }

  /** Past its lease, of which it is told in time. */
  async #hang({ delivery }: Held): Promise<void> {
    const { life, clock } = this.#process;
    const { time, plan } = this.#world;
    this.#world.sometimes("a handler hung past its lease");
    const startedAtMs = time.nowMs;
    const delayMs = plan.link?.delayMs ?? 0;
    // Often just before it hears of it: its verdict meets the end of the lease on the way.
    const hangsMs = this.#draw.chance(0.5)
      ? this.#leaseMs - delayMs * this.#draw.between(-0.2, 1)
      : this.#leaseMs * this.#draw.between(1.1, 3);
    await clock.sleep(hangsMs);
    const spareMs = toldWithinMs + 4 * delayMs;
    const isLate = time.nowMs - startedAtMs > this.#leaseMs / plan.clockRate + spareMs;
    const isDisturbed = this.#process.isStopping || life.wokenAtMs >= startedAtMs;
    if (!isLate || isDisturbed || delivery.isSettled) return;
    this.#world.broke("G11.lease", `${delivery.id} is held past its lease`);
  }

  async #works(held: Held): Promise<void> {
    this.#world.sometimes("a handler extended its lease");
    for (let i = 0; i < 3; i++) {
      held.delivery.working(this.#leaseMs);
      await this.#process.clock.sleep(0.6 * this.#leaseMs);
    }
    await this.#asked(held, "ack", () => held.delivery.ack());
  }

  async #forward(held: Held, isPulled: boolean): Promise<void> {
    const { delivery } = held;
    const { sends } = this.#process;
    const next = this.#next!;
    const work = { n: `${delivery.value.n}>`, pad: "" };
    const op = `${this.#name} ${++this.#forwards}`;
    const { nowMs } = this.#world.time;
    this.#world.record({
      kind: "send",
      producer: this.#name,
      op,
      flow: next.name,
      content: digest(work),
      bytes: 1,
    });
    sends.begin(op, () => {});
    this.#world.forwards.set(op, delivery.id);
    const options = { headers: { op }, timeout: this.#draw.whole(50, 2_000) };
    const forwarding = this.#flow.forward(delivery, next, work, options);
    const giveBack = (): void => {
      if (this.#passing.get(delivery.id) !== giveBack) return;
      this.#passing.delete(delivery.id);
      this.#tell(held, "release", false, nowMs);
    };
    this.#passing.set(delivery.id, giveBack);
    this.#asks.set(forwarding, giveBack);
    let receipt;
    try {
      receipt = await forwarding;
      this.#asks.delete(forwarding);
    } catch (error) {
      this.#asks.delete(forwarding);
      if (isSpillwayError(error, "delivery_settled")) sends.lose(op);
      else sends.failed(op, error);
      if (!isSpillwayError(error)) throw error;
      // Its ack had left and could not be done: it goes back untried.
      if (delivery.isSettled) giveBack();
      else this.#passing.delete(delivery.id);
      return this.#throws(held, isPulled, error, "nack");
    }
    this.#passing.delete(delivery.id);
    this.#world.sometimes("a delivery was forwarded");
    sends.accepted(op, receipt);
    this.#tell(held, "ack", true, nowMs);
  }

  /** A handler that returns acks; nobody tells it whether that counted. */
  #returns(held: Held): void {
    if (!held.delivery.isSettled) this.#tell(held, "ack", false, this.#world.time.nowMs);
    this.#world.plainAcks.add(held.delivery.id);
  }

  #throws(held: Held, isPulled: boolean, error: Error, told: VerdictKind): void {
    const { delivery } = held;
    if (delivery.isSettled) return;
    this.#tell(held, told, false, this.#world.time.nowMs);
    if (!isPulled) throw error;
    const fault = told === "release" ? { fault: "target" as const } : {};
    void delivery.nack({ error: error.message, ...fault }).catch(() => {});
  }

  /** A verb that waits for its answer. */
  async #asked(held: Held, verdict: VerdictKind, verb: () => Promise<void>): Promise<void> {
    const askedAt = this.#world.time.nowMs;
    if (verdict === "ack") this.#world.plainAcks.add(held.delivery.id);
    const asking = verb();
    this.#asks.set(asking, () => this.#tell(held, verdict, false, askedAt));
    try {
      await asking;
      if (this.#asks.delete(asking)) this.#tell(held, verdict, true, askedAt);
    } catch (error) {
      if (!this.#asks.delete(asking)) return;
      this.#world.sometimes("a settle came too late");
      if (!isSpillwayError(error)) this.#world.broke("G12.refusal", `a settle: ${String(error)}`);
      // Its first verdict may still count: only that one was asked for.
      this.#tell(held, verdict, false, askedAt);
    }
  }

  #tell(held: Held, verdict: VerdictKind, effective: boolean, askedAt: number): void {
    const { delivery, consumer } = held;
    const { id, attempt } = delivery;
    this.#world.record({ kind: "settled", consumer, id, attempt, verdict, effective, askedAt });
  }
}

/** After the faults a consumer ends what it gets. */
function isKind(habit: Habit): boolean {
  return habit === "verbs" || habit === "double" || habit === "forward" || habit === "working";
}

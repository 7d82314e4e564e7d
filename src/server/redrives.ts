/**
 * Redrives that run in the background: dead letters come back at a bounded rate, as the buffer takes them.
 *
 * V1  At most one a flow; it ends when it is done, cancelled, or the server closes.
 */
import { SpillwayError } from "../base/index.ts";
import type { Flow } from "../spillway.ts";

export interface RedriveOrder {
  /** Only these; all that are dead letters by default. */
  readonly ids?: readonly string[] | undefined;
  readonly max?: number | undefined;
  readonly ratePerS: number;
}

export interface RedriveView {
  readonly state: "running" | "done" | "cancelled" | "failed";
  readonly redriven: number;
  /** Of the ids that were named: which were no dead letters (any more). */
  readonly missing: number;
  readonly ratePerS: number;
  readonly startedAt: string;
  readonly endedAt?: string;
  /** The code of what ended it. */
  readonly failure?: string;
}

const tickMs = 100;

export class Redrives {
  readonly #jobs = new Map<string, Redrive>();

  /** @throws {SpillwayError} state_conflict: one runs already; not_found: an id is of another flow */
  start(flow: Flow<Uint8Array>, order: RedriveOrder): RedriveView {
    if (this.#jobs.get(flow.name)?.isRunning === true) {
      const found = "a redrive that runs";
      throw new SpillwayError("state_conflict", {
        flow: flow.name,
        found,
        allowed: "one at a time",
      });
    }
    const job = new Redrive(flow, order);
    this.#jobs.set(flow.name, job);
    return job.view();
  }

  view(flow: string): RedriveView | undefined {
    return this.#jobs.get(flow)?.view();
  }

  /** @returns How it stood; undefined: there was none. */
  cancel(flow: string): RedriveView | undefined {
    const job = this.#jobs.get(flow);
    job?.end("cancelled");
    return job?.view();
  }

  /** Resolves when none touches its flow any more. */
  async close(): Promise<void> {
    const jobs = [...this.#jobs.values()];
    for (const job of jobs) job.end("cancelled");
    await Promise.all(jobs.map((job) => job.turned));
  }
}

class Redrive {
  readonly #flow: Flow<Uint8Array>;
  readonly #order: RedriveOrder;
  readonly #startedAt = new Date();
  readonly #timer: NodeJS.Timeout;
  /** Of the ids that were named, those that are left. */
  readonly #ids: string[] | undefined;
  #state: RedriveView["state"] = "running";
  #endedAt: Date | undefined;
  #failure: string | undefined;
  #redriven = 0;
  #missing = 0;
  #allowance = 0;
  #tickedAtMs = performance.now();
  #isTurning = false;
  turned: Promise<void> = Promise.resolve();

  constructor(flow: Flow<Uint8Array>, order: RedriveOrder) {
    this.#flow = flow;
    this.#order = order;
    this.#ids = order.ids === undefined ? undefined : [...new Set(order.ids)];
    this.#timer = setInterval(() => this.#tick(), tickMs);
  }

  get isRunning(): boolean {
    return this.#state === "running";
  }

  view(): RedriveView {
    return {
      state: this.#state,
      redriven: this.#redriven,
      missing: this.#missing,
      ratePerS: this.#order.ratePerS,
      startedAt: this.#startedAt.toISOString(),
      ...(this.#endedAt === undefined ? {} : { endedAt: this.#endedAt.toISOString() }),
      ...(this.#failure === undefined ? {} : { failure: this.#failure }),
    };
  }

  end(state: RedriveView["state"], failure?: string): void {
    if (!this.isRunning) return;
    clearInterval(this.#timer);
    this.#state = state;
    this.#failure = failure;
    this.#endedAt = new Date();
  }

  #tick(): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    this.turned = this.#turn()
      .catch((error: unknown) => {
        this.end("failed", error instanceof SpillwayError ? error.code : "invariant_broken");
      })
      .finally(() => (this.#isTurning = false));
  }

  async #turn(): Promise<void> {
    const nowMs = performance.now();
    const { ratePerS, max = Infinity } = this.#order;
    const most = Math.max(1, ratePerS); // What was not used while the buffer was full does not pile up.
    this.#allowance = Math.min(
      most,
      this.#allowance + ((nowMs - this.#tickedAtMs) / 1000) * ratePerS,
    );
    this.#tickedAtMs = nowMs;
    const count = Math.min(Math.floor(this.#allowance), max - this.#redriven);
    if (count < 1) return;
    const taken = await (this.#ids === undefined
      ? this.#flow.redrive({ max: count })
      : this.#redriveSome(this.#ids, count));
    this.#allowance -= taken;
    this.#redriven += taken;
    const isThrough =
      this.#ids === undefined
        ? taken === 0 && this.#flow.state().counters.dead === 0
        : this.#ids.length === 0;
    if (isThrough || this.#redriven >= max) this.end("done");
  }

  /** The first of the ids that are left; the buffer may take only some of them, or none. */
  async #redriveSome(ids: string[], count: number): Promise<number> {
    let taken = 0;
    for (let tried = 0; tried < count && ids.length > 0 && this.isRunning; tried++) {
      const id = ids[0]!;
      if ((await this.#flow.redrive({ ids: [id] })) === 1) taken++;
      else if ((await this.#reasonOf(id)) === "dead") break; // There is no room now.
      else this.#missing++;
      ids.shift();
    }
    return taken;
  }

  async #reasonOf(id: string): Promise<string | undefined> {
    try {
      return (await this.#flow.why(id)).reason;
    } catch {
      return undefined;
    }
  }
}

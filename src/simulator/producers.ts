/** Who sends: in all ways that the library offers, and again where the outcome was unknown. */
import { isSpillwayError } from "../base/index.ts";
import type { Clock } from "../base/index.ts";
import type { BatchResult, Flow, MessageOptions, Receipt, Refusal } from "../spillway.ts";
import type { Draw } from "./draw.ts";
import type { ProducerPlan } from "./plan.ts";
import type { Sends } from "./sends.ts";
import { digest } from "./work.ts";
import type { Work } from "./work.ts";
import type { World } from "./world.ts";

/** A process as those who send see it. */
export interface Sender {
  readonly main: Flow<Work>;
  readonly clock: Clock;
  readonly sends: Sends;
}

interface Message {
  readonly work: Work;
  readonly options: MessageOptions & { readonly delay?: number };
  readonly tries: number;
}

const classes = ["critical", "normal", "bulk"] as const;
const outMax = 3;
const resendsMax = 3;

export class Producer {
  readonly #world: World;
  readonly #cluster: { readonly active: Sender | undefined };
  readonly #plan: ProducerPlan;
  readonly #draw: Draw;
  #ops = 0;
  #sent = 0;
  #out = 0;
  readonly #remembered: Message[] = [];

  constructor(world: World, cluster: { readonly active: Sender | undefined }, plan: ProducerPlan) {
    this.#world = world;
    this.#cluster = cluster;
    this.#plan = plan;
    this.#draw = world.draw(plan.name);
  }

  start(): void {
    this.#next();
  }

  #next(): void {
    if (this.#sent >= this.#plan.sends) return;
    this.#world.time.after(this.#plan.gapMs * 2 * this.#draw.share(), () => {
      if (this.#world.isHealing) return;
      const process = this.#cluster.active;
      if (process !== undefined && this.#out < outMax) this.#go(process);
      this.#next();
    });
  }

  #go(process: Sender): void {
    const draw = this.#draw;
    const { repeats, tries, batches } = this.#plan;
    this.#sent++;
    if (this.#remembered.length > 0 && draw.chance(repeats)) {
      const first = draw.pick(this.#remembered);
      const isOther = draw.chance(0.2);
      const work = isOther ? { ...first.work, n: `${first.work.n}+` } : first.work;
      this.#send(process, { ...first, work });
    } else if (draw.chance(tries)) this.#try(process, this.#message());
    else if (draw.chance(batches)) {
      this.#batch(process, [this.#message(), this.#message(), this.#message()]);
    } else this.#send(process, this.#message());
  }

  #message(): Message {
    const draw = this.#draw;
    const plan = this.#plan;
    const n = `${plan.name}-${this.#sent}-${draw.whole(0, 999_999)}`;
    const key = plan.keys > 0 ? `k${draw.whole(1, plan.keys)}` : undefined;
    const isPoison = this.#world.plan.consumer.habits.has("poison") && draw.chance(0.05);
    const options = {
      ...(key === undefined ? {} : { key }),
      ...(plan.groups > 0 ? { group: `g${Math.floor(plan.groups * draw.share() ** 2)}` } : {}),
      ...(plan.classes ? { class: draw.pick(classes) } : {}),
      ...(draw.chance(plan.idempotent) ? { idempotencyKey: `i-${n}` } : {}),
      ...(draw.chance(plan.delayed) ? { delay: Math.round(draw.log(5, 2_000)) } : {}),
      ...(draw.chance(plan.deadlines) ? { deadline: Math.round(draw.log(20, 5_000)) } : {}),
      ...(draw.chance(0.05) ? { cost: draw.whole(1, 3) } : {}),
    };
    const pad = "x".repeat(Math.floor(plan.padBytes * draw.share()));
    const message: Message = {
      work: { n, pad, ...(isPoison ? { poison: true } : {}) },
      options,
      tries: 0,
    };
    if ("idempotencyKey" in options) this.#remembered.push(message);
    return message;
  }

  #begin(process: Sender, flow: string, { work, options }: Message): string {
    const op = `${this.#plan.name}.${++this.#ops}`;
    const { key, group, class: messageClass, idempotencyKey, delay } = options;
    this.#world.record({
      kind: "send",
      producer: this.#plan.name,
      op,
      flow,
      content: digest(work),
      bytes: work.n.length + work.pad.length,
      ...(key === undefined ? {} : { key }),
      ...(group === undefined ? {} : { group }),
      ...(messageClass === undefined ? {} : { class: messageClass }),
      ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
      ...(delay === undefined ? {} : { dueAt: this.#world.time.nowMs + delay }),
    });
    this.#out++;
    process.sends.begin(op, () => this.#out--);
    return op;
  }

  #send(process: Sender, message: Message): void {
    const draw = this.#draw;
    const op = this.#begin(process, process.main.name, message);
    const options = { ...message.options, headers: { op } };
    const { aborts } = this.#plan;
    const abort = draw.chance(aborts) ? new AbortController() : undefined;
    if (abort !== undefined) process.clock.after(draw.log(0.1, 300), () => abort.abort());
    const timeout = draw.chance(aborts) ? { timeout: draw.whole(1, 500) } : {};
    const signal = abort === undefined ? {} : { signal: abort.signal };
    process.main.send(message.work, { ...options, ...timeout, ...signal }).then(
      (receipt) => process.sends.accepted(op, receipt),
      (error: unknown) => this.#failed(process, op, message, error),
    );
  }

  #failed(process: Sender, op: string, message: Message, error: unknown): void {
    if (!process.sends.failed(op, error)) return;
    if (isSpillwayError(error, "outcome_unknown")) this.resend(message);
  }

  /** With an idempotency key the same send is safe. */
  resend(message: Message): void {
    if (message.options.idempotencyKey === undefined || message.tries >= resendsMax) return;
    this.#world.time.after(this.#draw.log(5, 500), () => {
      const process = this.#cluster.active;
      if (process === undefined || this.#world.isHealing) return;
      this.#world.sometimes("a send was repeated after an unknown outcome");
      this.#send(process, { ...message, tries: message.tries + 1 });
    });
  }

  #try(process: Sender, message: Message): void {
    const op = this.#begin(process, process.main.name, message);
    const sent: Promise<Receipt> | Refusal = process.main.trySend(message.work, {
      ...message.options,
      headers: { op },
    });
    if (sent instanceof Promise) {
      sent.then(
        (receipt) => process.sends.accepted(op, receipt),
        (error: unknown) => this.#failed(process, op, message, error),
      );
    } else {
      this.#world.sometimes(`trySend: ${sent.code}`);
      process.sends.refused(op, sent.code, sent.retryAfterMs);
    }
  }

  #batch(process: Sender, messages: readonly Message[]): void {
    const ops = messages.map((message) => this.#begin(process, process.main.name, message));
    const optionsOf = (_: Work, at: number): MessageOptions => ({
      ...messages[at]!.options,
      headers: { op: ops[at]! },
    });
    void process.main
      .sendBatch(
        messages.map(({ work }) => work),
        optionsOf,
      )
      .then((results: readonly BatchResult[]) => {
        for (const [at, result] of results.entries()) {
          if (result.accepted) process.sends.accepted(ops[at]!, result);
          else this.#failed(process, ops[at]!, messages[at]!, result.error);
        }
      });
  }
}

/**
 * Hop 2 from the sending end: messages whose attempt is durable wait here for a consumer's credit, go
 * out under a lease, and come back settled.
 *
 * V1  A message goes out only on live credit of the consumer that gets it (G3).
 * V2  Its attempt is durable before (E9): what waits here has been started.
 * V3  A settle counts only for the attempt that is out, from who has it; another changes nothing.
 * V4  What is neither settled nor extended within its lease comes back as a failed attempt (G11).
 * V5  A remote consumer that let a lease end gets nothing until it gives credit again: a dead one costs a
 *     message one attempt, however short its lease is against that of credit.
 *
 * It must not know lanes, keys or the store.
 */
import { assert, Deque, Line } from "../base/index.ts";
import type { Entry, Holder } from "./entry.ts";
import { deliveryBytes, spender } from "../protocol/index.ts";
import type { Delivered, Grant, Spender, ToConsumerFrame } from "../protocol/index.ts";
import { messageClasses } from "../flow/index.ts";

interface Consumer extends Holder {
  readonly spender: Spender;
  outbox: Delivered[];
  wanted: number;
  /** In another process: what it grants takes a while to come. */
  readonly isRemote: boolean;
  /** It let a lease end and has given no credit since: it may be dead, and gets nothing (V5). */
  isSilent: boolean;
}

/** Attempts made durable ahead of credit cover this many times what is settled during one write. */
const pipelineFactor = 3;
const pipelineMax = 4096;
const rateSampleMs = 20;
/** Wanted of a consumer in another process: a little always, its whole window while messages wait. */
const remoteWant = { idle: 16, busy: pipelineMax };
/** A moment without ready messages is no reason to want less. */
const busyMs = 200;
/** Whoever settled this lately gives credit again in a moment: its next attempt joins the same write. */
const servedMs = 20;

export interface DeliveryHost {
  leaseMs(): number;
  send(consumer: string, frame: ToConsumerFrame): void;
  isPaused(partition: number): boolean;
  /** @returns Whether it cannot be done in time any more: then it has ended. */
  expire(entry: Entry, nowMs: number): boolean;
}

export interface DeliveryView {
  readonly inFlight: number;
  /** Of consumers, and not spent. */
  readonly credits: number;
  readonly prepared: number;
  /** Mean time of a durable write. */
  readonly writeMs: number;
}

export class Delivery {
  readonly #host: DeliveryHost;
  readonly #consumers = new Map<string, Consumer>();
  readonly #prepared = new Deque<Entry>();
  /** Of paused partitions: their attempt is durable, they go out when the partition resumes. */
  #held: Entry[] = [];
  readonly #out = new Line<Entry>();
  starting = 0;
  #writeMs = 1;
  #settledPerMs = 0;
  #sampleAtMs: number | undefined;
  #sampled = 0;
  #nextLeaseCheckMs = Infinity;
  #servedUntilMs = -Infinity;
  #busyUntilMs = -Infinity;

  constructor(host: DeliveryHost) {
    this.#host = host;
  }

  get inFlight(): number {
    return this.#out.size;
  }

  get preparedCount(): number {
    return this.#prepared.size;
  }

  join(consumer: string, isRemote: boolean): void {
    this.#consumers.set(consumer, {
      isRemote,
      id: consumer,
      spender: spender.init(),
      out: 0,
      outbox: [],
      wanted: 0,
      isSilent: false,
    });
  }

  /** The consumer is gone. @returns What it had: the caller counts each as a failed attempt. */
  leave(consumer: string): Entry[] {
    this.#consumers.delete(consumer);
    const entries: Entry[] = [];
    for (const entry of this.#out) {
      if (entry.holder!.id !== consumer) continue;
      this.#takeBack(entry);
      entries.push(entry);
    }
    return entries;
  }

  granted(consumer: string, grant: Grant, nowMs: number): void {
    const known = this.#consumers.get(consumer);
    if (known === undefined) return;
    known.isSilent = false;
    spender.granted(known.spender, nowMs, grant);
  }

  /**
   * How many more attempts may be started ahead of credit: none for consumers that neither have a
   * message nor give credit, for there may be no handler, or the target is away.
   */
  room(nowMs: number): number {
    if (!this.isServed(nowMs)) return 0;
    const ahead = 1 + Math.ceil(pipelineFactor * this.#writeMs * this.#settledPerMs);
    const busy = this.starting + this.#prepared.size;
    const wanted = Math.max(ahead, 4) + this.#remoteCredit(nowMs);
    return Math.max(0, Math.min(pipelineMax, wanted) - busy);
  }

  /** Credit that lies here: what it covers is not ahead of it. */
  #remoteCredit(nowMs: number): number {
    let credit = 0;
    for (const { isRemote, isSilent, spender: own } of this.#consumers.values()) {
      if (!isRemote || isSilent) continue;
      const left = spender.available(own, nowMs);
      if (left.bytes > 0) credit += left.messages;
    }
    return credit;
  }

  /** Somebody has a message, or would take one. */
  isServed(nowMs: number): boolean {
    if (this.#out.size > 0) return true;
    if (nowMs < this.#servedUntilMs && this.#consumers.size > 0) return true;
    for (const { isSilent, spender: own } of this.#consumers.values()) {
      if (!isSilent && spender.messagesLeft(own, nowMs) > 0) return true;
    }
    return false;
  }

  prepared(entry: Entry): void {
    this.starting--;
    assert(entry.state === "prepared", "V2 what waits for credit is started");
    if (this.#host.isPaused(entry.partition)) this.#held.push(entry);
    else this.#prepared.pushBack(entry);
  }

  /** A write took this long: attempts are started that far ahead. */
  wrote(durationMs: number): void {
    this.#writeMs += 0.2 * (durationMs - this.#writeMs);
  }

  /** Spends credit on what is prepared, which makes room for more: to be called before `room`. */
  fill(nowMs: number): void {
    // Who was served goes behind the others: no worker has all while another has credit.
    for (const consumer of Array.from(this.#consumers.values())) {
      if (this.#prepared.size === 0) return;
      if (!this.#fill(consumer, nowMs) || this.#consumers.size === 1) continue;
      this.#consumers.delete(consumer.id);
      this.#consumers.set(consumer.id, consumer);
    }
  }

  /** Hands out what credit was spent on, and says what more is wanted. */
  flush(nowMs: number, hasReady: boolean): void {
    if (hasReady) this.#busyUntilMs = nowMs + busyMs;
    for (const consumer of this.#consumers.values()) {
      const want = this.#wantOf(consumer, nowMs, hasReady);
      const beat = (): ReturnType<typeof spender.heartbeat> =>
        spender.heartbeat(consumer.spender, nowMs, want, 0);
      if (consumer.outbox.length > 0) {
        const messages = consumer.outbox;
        consumer.outbox = [];
        consumer.wanted = want;
        const stamp = spender.stamp(consumer.spender, nowMs);
        this.#host.send(consumer.id, { kind: "deliver", stamp, messages, beat: beat() });
      } else if (this.#shouldAsk(consumer, want, nowMs)) {
        consumer.wanted = want;
        this.#host.send(consumer.id, { kind: "want", beat: beat() });
      }
    }
  }

  #wantOf({ isRemote }: Consumer, nowMs: number, hasReady: boolean): number {
    const own = this.#prepared.size + this.starting;
    if (!isRemote) return own + (hasReady ? 1 : 0);
    return Math.max(own, nowMs < this.#busyUntilMs ? remoteWant.busy : remoteWant.idle);
  }

  /** Asked when it would send and cannot, when the need has changed much, and as the lease demands. */
  #shouldAsk(consumer: Consumer, want: number, nowMs: number): boolean {
    if (want === 0) return consumer.wanted > 0;
    if (want > 2 * consumer.wanted || want < consumer.wanted / 4) return true;
    return spender.heartbeatDue(consumer.spender, nowMs, this.#prepared.size > 0) <= nowMs;
  }

  /** @returns Whether it got something. */
  #fill(consumer: Consumer, nowMs: number): boolean {
    if (consumer.isSilent) return false;
    const before = consumer.outbox.length;
    const leaseMs = this.#host.leaseMs();
    for (let entry = this.#prepared.front(); entry !== undefined; entry = this.#prepared.front()) {
      const bytes = entry.bytes + deliveryBytes;
      if (!spender.canSpend(consumer.spender, nowMs, bytes)) break;
      this.#prepared.popFront();
      if (this.#host.expire(entry, nowMs)) continue;
      spender.spend(consumer.spender, nowMs, bytes); // V1
      entry.state = "out";
      entry.leaseAtMs = nowMs + leaseMs;
      this.#nextLeaseCheckMs = Math.min(this.#nextLeaseCheckMs, entry.leaseAtMs);
      consumer.out++;
      entry.holder = consumer;
      this.#out.join(entry);
      consumer.outbox.push(deliveredOf(entry, leaseMs));
    }
    return consumer.outbox.length > before;
  }

  /** Takes back what is out. @returns False when that consumer does not have that attempt (V3). */
  settled(entry: Entry, consumer: string, attempt: number, nowMs: number): boolean {
    if (entry.holder?.id !== consumer || entry.attempts !== attempt) return false;
    this.#takeBack(entry);
    this.#servedUntilMs = nowMs + servedMs;
    this.#sample(nowMs);
    return true;
  }

  #takeBack(entry: Entry): void {
    entry.holder!.out--;
    entry.holder = undefined;
    this.#out.leave(entry);
  }

  extend(entry: Entry, consumer: string, attempt: number, untilMs: number): boolean {
    if (entry.holder?.id !== consumer || entry.attempts !== attempt) return false;
    entry.leaseAtMs = Math.max(entry.leaseAtMs, untilMs);
    return true;
  }

  /** V4: what is out past its lease; the consumer is told to stop. */
  expired(nowMs: number): Entry[] {
    if (nowMs < this.#nextLeaseCheckMs) return [];
    const entries: Entry[] = [];
    this.#nextLeaseCheckMs = Infinity;
    for (const entry of this.#out) {
      if (entry.leaseAtMs > nowMs) {
        this.#nextLeaseCheckMs = Math.min(this.#nextLeaseCheckMs, entry.leaseAtMs);
        continue;
      }
      const { id } = entry.holder!;
      const holder = this.#consumers.get(id);
      if (holder?.isRemote === true) holder.isSilent = true;
      this.#takeBack(entry);
      entries.push(entry);
      const { partition, seq, attempts: attempt } = entry;
      this.#host.send(id, { kind: "lost", partition, seq, attempt });
    }
    return entries;
  }

  get nextLeaseAtMs(): number {
    return this.#nextLeaseCheckMs;
  }

  /** When a consumer's credit must be asked for again. */
  nextAskAtMs(nowMs: number): number {
    let least = Infinity;
    for (const { spender: s, wanted } of this.#consumers.values()) {
      if (wanted > 0)
        least = Math.min(least, spender.heartbeatDue(s, nowMs, this.#prepared.size > 0));
    }
    return least;
  }

  paused(partition: number): void {
    const keep: Entry[] = [];
    for (let e = this.#prepared.popFront(); e !== undefined; e = this.#prepared.popFront()) {
      (e.partition === partition ? this.#held : keep).push(e);
    }
    for (const entry of keep) this.#prepared.pushBack(entry);
  }

  resumed(partition: number): void {
    for (const entry of this.#held.filter((held) => held.partition === partition).toReversed()) {
      this.#prepared.pushFront(entry);
    }
    this.#held = this.#held.filter((held) => held.partition !== partition);
  }

  /** Started, not handed out: a closing owner takes their attempt back. */
  takePrepared(): Entry[] {
    const entries = [...this.#held, ...this.#prepared];
    this.#held = [];
    while (this.#prepared.popFront() !== undefined);
    return entries;
  }

  /** The partition is gone: nothing of it counts any more. */
  drop(partition: number): void {
    this.paused(partition);
    this.#held = this.#held.filter((held) => held.partition !== partition);
    for (const entry of this.#out) if (entry.partition === partition) this.#takeBack(entry);
  }

  view(nowMs: number): DeliveryView {
    let credits = 0;
    for (const c of this.#consumers.values()) credits += spender.messagesLeft(c.spender, nowMs);
    return {
      inFlight: this.#out.size,
      credits,
      prepared: this.#prepared.size + this.#held.length,
      writeMs: this.#writeMs,
    };
  }

  check(): void {
    let out = 0;
    for (const consumer of this.#consumers.values()) out += consumer.out;
    assert(out === this.#out.size, "V1 what is out is counted once");
    assert(this.starting >= 0, "V2 starts are counted");
  }

  #sample(nowMs: number): void {
    this.#sampled++;
    this.#sampleAtMs ??= nowMs;
    const elapsedMs = nowMs - this.#sampleAtMs;
    if (elapsedMs < rateSampleMs) return;
    const perMs = this.#sampled / elapsedMs;
    // Quick to rise, slow to fall: an attempt too many started ahead costs less than one too few.
    this.#settledPerMs += (perMs > this.#settledPerMs ? 0.5 : 0.05) * (perMs - this.#settledPerMs);
    this.#sampled = 0;
    this.#sampleAtMs = nowMs;
  }
}

/** Fields are set one by one, for this runs for every message and spread objects are slow. */
function deliveredOf(entry: Entry, leaseMs: number): Delivered {
  const message = entry.message!;
  const delivered: { -readonly [Field in keyof Delivered]: Delivered[Field] } = {
    partition: entry.partition,
    seq: entry.seq,
    attempt: entry.attempts,
    class: messageClasses[entry.rank],
    cost: entry.cost,
    acceptedAtMs: entry.acceptedAtMs,
    leaseMs,
    headers: message.headers,
    payload: message.payload,
  };
  if (message.key !== undefined) delivered.key = message.key;
  if (entry.group !== "") delivered.group = entry.group;
  if (entry.deadlineAtMs !== undefined) delivered.deadlineAtMs = entry.deadlineAtMs;
  return delivered;
}

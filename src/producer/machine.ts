/**
 * The sending end: steers messages to partitions, spends credit, holds what has none, and matches
 * answers to what was sent. One machine serves one flow in one process; a stream is its connection to
 * one partition.
 *
 * Q1  A draft is sent only on live credit of a grant that takes its class; otherwise it waits here.
 * Q2  Drafts of one class and group leave a stream in the order in which they were offered; groups take
 *     turns.
 * Q3  Every offered draft gets one answer: accepted, duplicate, refused, or unknown when its stream
 *     closed before the answer came. What was offered to wait is never answered "no credit".
 * Q4  While `waitingMax` drafts or `waitingBytesMax` bytes wait, one that is offered is refused at
 *     once. On top come only those
 *     that had left and wait again, at most as many as credit let leave, and up to `waitingMax` of groups
 *     that have few waiting. Who gave up is forgotten.
 * Q5  What a group sends beyond the pace that the queue holds it to waits here, and holds up no other.
 *
 * It must not know what a link is, when timers fire, or what a promise is.
 */
import { assert, catalogue, IntegerMap } from "../base/index.ts";
import { steering } from "../control/index.ts";
import { spender } from "../protocol/index.ts";
import type {
  ClassName,
  Draft,
  Grant,
  ProducerFrame,
  RefusalCode,
  SendResult,
  Spender,
  ToProducerFrame,
} from "../protocol/index.ts";
import { Holds } from "./holds.ts";
import { Lane } from "./lane.ts";

export interface ProducerOptions {
  readonly partitions: number;
  /** Partitions that one group uses; the number of partitions when sharding is off. */
  readonly shards: number;
  readonly seed: number;
  readonly waitingMax: number;
  /** Of those that wait; no bound where absent. */
  readonly waitingBytesMax?: number;
  /** Least time between heartbeats of a blocked stream; 0 where the link is a function call. */
  readonly beatGapMs: number;
}

/** One message on its way. `token` belongs to the caller. */
export interface Op<T> {
  readonly token: T;
  readonly draft: Draft;
  readonly offeredAtMs: number;
  readonly wait: boolean;
  readonly partition: number;
  state: "waiting" | "sent" | "ended";
  /** It was sent before, on a stream that closed without an answer: it may have been accepted. */
  maybe: boolean;
}

/** What decides the partition: a hash (key or idempotency key), or chance; within a group's shards. */
export interface Route {
  readonly hash?: number;
  readonly group?: string;
}

export interface Refused {
  readonly code: RefusalCode;
  readonly retryAfterMs?: number;
  readonly bound?: string;
  readonly found?: unknown;
  readonly allowed?: unknown;
}

export type ProducerEffect<T> =
  | { readonly kind: "frame"; readonly frame: ProducerFrame }
  /** Of one partition, in a row: `seq` is the first one's. */
  | {
      readonly kind: "accepted";
      readonly ops: readonly Op<T>[];
      readonly partition: number;
      readonly seq: number;
      readonly duplicate: boolean;
    }
  | { readonly kind: "refused"; readonly op: Op<T>; readonly refusal: Refused }
  /** Half of a joint write is on its way: the other half may follow. */
  | { readonly kind: "left"; readonly op: Op<T> }
  | { readonly kind: "blocked"; readonly refusal: Refused }
  | { readonly kind: "resumed" };

interface Stream<T> {
  readonly partition: number;
  readonly spender: Spender;
  isOpen: boolean;
  /** Spent, and leaving with the next flush. */
  readonly outgoing: Op<T>[];
  readonly waiting: readonly [Lane<Op<T>>, Lane<Op<T>>, Lane<Op<T>>];
  waitingCount: number;
  waitingBytes: number;
  /** Gave up, and still stand in their queue. */
  gone: number;
  readonly unanswered: IntegerMap<Op<T>>;
  position: number;
  /** How many the last turns sent: credit to ask for before it is missed. */
  recent: number;
  classLimit: number;
  refusal: Refused;
  beatDue: boolean;
}

/** How things stand at the other end. */
interface Hint {
  readonly lowestClass: ClassName | null;
  readonly limitedBy: RefusalCode;
  readonly retryAfterMs: number;
}

const classOf: Readonly<Record<ClassName, 0 | 1 | 2>> = { critical: 0, normal: 1, bulk: 2 };
const waitable: ReadonlySet<RefusalCode> = new Set([
  "no_credit",
  "buffer_full",
  "class_closed",
  "group_limited",
]);
/** Not a matter of waiting: an operator or a new disk ends it. */
const ending: ReadonlySet<RefusalCode> = new Set(["intake_closed", "store_full"]);
const blockedAfterMs = 20;
/** Where a stopped partition may be open again. */
const closedRetryMs = 1000;
/** More than that, and more than wait, are swept out of the queues. */
const goneMax = 64;
/** Of all places, those that a group may have though all are taken. */
const fewShare = 1 / 16;
/** Most that is asked for beyond what waits. */
const burstMax = 256;
const noCredit: Refused = { code: "no_credit", retryAfterMs: 50 };

const away: Refused = { code: "disconnected", retryAfterMs: closedRetryMs };

export class ProducerMachine<T> {
  readonly #options: ProducerOptions;
  readonly #streams: readonly Stream<T>[];
  readonly #shards = new Map<string, readonly number[]>();
  readonly #holds = new Holds();
  /** When a group that waits for its pace may go on. */
  #heldUntilMs = Infinity;
  #effects: ProducerEffect<T>[] = [];
  #steered = 0;
  /** What `steer` is at, for the one closure that all messages share. */
  #steering: readonly number[] | undefined;
  #steeringAtMs = 0;
  readonly #freeAt = (at: number): number => {
    const stream = this.#streams[this.#steering?.[at] ?? at]!;
    if (!takesNew(stream)) return -Infinity;
    return spender.messagesLeft(stream.spender, this.#steeringAtMs) - stream.waitingCount;
  };
  #waiting = 0;
  #blocked = false;
  #waitingSinceMs = Infinity;

  constructor(options: ProducerOptions) {
    this.#options = options;
    this.#streams = Array.from({ length: options.partitions }, (_, partition) => ({
      partition,
      spender: spender.init(),
      isOpen: false,
      outgoing: [],
      waiting: [new Lane<Op<T>>(), new Lane<Op<T>>(), new Lane<Op<T>>()],
      waitingCount: 0,
      waitingBytes: 0,
      gone: 0,
      unanswered: new IntegerMap<Op<T>>(),
      position: 0,
      recent: 0,
      classLimit: 2,
      refusal: noCredit,
      beatDue: false,
    }));
  }

  /**
   * Takes a draft. With credit it leaves at the next flush; without, it waits if it may.
   * @returns The op, or why it is not taken: only without `wait`, or when too many wait already.
   */
  offer(partition: number, draft: Draft, token: T, nowMs: number, wait: boolean): Op<T> | Refused {
    const stream = this.#streams[partition]!;
    const op: Op<T> = {
      token,
      draft,
      offeredAtMs: nowMs,
      wait,
      partition,
      state: "waiting",
      maybe: false,
    };
    const isHeld = !this.#holds.isEmpty && this.#holds.waitMs(groupOf(draft), nowMs) > 0; // Q5
    if (!isHeld && this.#isFree(stream, classOf[draft.class], nowMs)) {
      if (this.#trySpend(stream, op, nowMs)) return op;
    }
    const hasStopped = !stream.isOpen && stream.refusal !== noCredit && stream.refusal !== away;
    if (!wait || hasStopped) {
      stream.beatDue ||= !isHeld;
      return this.#refusalOf(stream, draft, nowMs);
    }
    const isFull = this.#waiting >= this.#options.waitingMax && !this.#hasFewWaiting(draft);
    if (isFull || this.#isOverBytes(draft.bytes)) {
      return {
        ...this.#refusalOf(stream, draft, nowMs),
        found: this.#waiting,
        allowed: this.#options.waitingMax,
      };
    }
    this.#enqueue(stream, op, false);
    return op;
  }

  #isOverBytes(bytes: number): boolean {
    const { waitingBytesMax } = this.#options;
    if (waitingBytesMax === undefined) return false;
    let waiting = 0;
    for (const stream of this.#streams) waiting += stream.waitingBytes;
    return waiting > 0 && waiting + bytes > waitingBytesMax;
  }

  /** Asks for credit at the next flush: for a caller who can have the answer within this turn. */
  ask(partition: number, bytes: number, nowMs: number): void {
    const stream = this.#streams[partition]!;
    if (!stream.isOpen) return;
    stream.recent = Math.min(burstMax, Math.max(1, 2 * stream.recent));
    this.#beat(stream, nowMs, this.#want(stream), stream.waitingBytes + stream.recent * bytes);
  }

  /** Takes back an op that still waits. @returns False when it was sent or has ended. */
  cancel(op: Op<T>): boolean {
    if (op.state !== "waiting") return false;
    op.state = "ended"; // Its place in the queue is skipped when it is reached.
    const stream = this.#streams[op.partition]!;
    stream.waitingCount--;
    stream.waitingBytes -= op.draft.bytes;
    this.#waiting--;
    if (++stream.gone > stream.waitingCount + goneMax) clearGone(stream);
    return true;
  }

  /** What an op that still waits is waiting for. */
  waitsFor(op: Op<T>, nowMs: number): Refused {
    return this.#refusalOf(this.#streams[op.partition]!, op.draft, nowMs);
  }

  /** Why a draft has to wait at its stream. */
  #refusalOf(stream: Stream<T>, draft: Draft, nowMs: number): Refused {
    const group = groupOf(draft);
    const heldMs = this.#holds.isEmpty ? 0 : this.#holds.waitMs(group, nowMs);
    if (heldMs === 0) return refusalOf(stream, draft);
    const allowed = this.#holds.paceOf(group);
    return { code: "group_limited", retryAfterMs: Math.ceil(heldMs), allowed };
  }

  /** Q4: while all places are taken, a group that has few of them still gets one. */
  #hasFewWaiting(draft: Draft): boolean {
    const { waitingMax } = this.#options;
    if (this.#waiting >= 2 * waitingMax) return false;
    const group = groupOf(draft);
    let waiting = 0;
    for (const stream of this.#streams) {
      for (const lane of stream.waiting) waiting += lane.sizeOf(group);
    }
    return waiting < fewShare * waitingMax;
  }

  frame(frame: ToProducerFrame, nowMs: number): void {
    const stream = this.#streams[frame.partition];
    if (stream === undefined) return;
    switch (frame.kind) {
      case "opened":
        this.#close(stream);
        stream.isOpen = true;
        stream.beatDue = true;
        break;
      case "closed":
        this.#close(stream);
        stream.refusal =
          catalogue[frame.code].retry === "later"
            ? { code: frame.code, retryAfterMs: closedRetryMs } // G12
            : { code: frame.code };
        this.#endWaiting(stream, stream.refusal);
        break;
      case "grant":
        this.#granted(stream, frame.grant, frame, nowMs);
        break;
      case "held":
        hear(stream, frame);
        if (ending.has(frame.limitedBy)) this.#endWaiting(stream, stream.refusal);
        break;
      case "results":
        this.#answer(stream, frame.results, nowMs);
        this.#release(stream, nowMs);
        break;
    }
  }

  /** The connection and all that was on it is gone; what waits goes on waiting for another one. */
  disconnected(): void {
    for (const stream of this.#streams) {
      this.#close(stream);
      stream.refusal = away;
    }
  }

  /** Ends what waits: the instance closes. What was sent is still to be answered. */
  stop(): void {
    for (const stream of this.#streams) this.#endWaiting(stream, { code: "closed" });
  }

  #endWaiting(stream: Stream<T>, refusal: Refused): void {
    for (const lane of stream.waiting) {
      for (let queue = lane.first; queue !== undefined; queue = lane.first) {
        const op = lane.pop(queue);
        if (op.state === "waiting") this.#end(op, refusal);
      }
    }
    this.#waiting -= stream.waitingCount;
    stream.waitingCount = 0;
    stream.waitingBytes = 0;
    stream.gone = 0;
  }

  /** Ends every op. */
  close(): void {
    for (const stream of this.#streams) this.#close(stream);
    this.stop();
  }

  /** Ends a turn: what was spent leaves in one frame a stream, heartbeats go where they are due. */
  flush(nowMs: number): ProducerEffect<T>[] {
    this.#heldUntilMs = Infinity;
    for (const stream of this.#streams) {
      if (!stream.isOpen) continue;
      if (stream.waitingCount > 0) this.#release(stream, nowMs);
      if (stream.outgoing.length > 0) this.#send(stream, nowMs);
      else if (this.#beatIsDue(stream, nowMs)) {
        this.#beat(stream, nowMs, this.#want(stream), stream.waitingBytes);
      }
    }
    this.#showBlocked(nowMs);
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** When `flush` is to be called again though nothing happens; Infinity: never. */
  nextWakeAtMs(nowMs: number): number {
    const blockedAtMs = this.#blocked ? Infinity : this.#waitingSinceMs + blockedAfterMs;
    let least = Math.min(blockedAtMs, this.#heldUntilMs);
    for (const stream of this.#streams) {
      if (!stream.isOpen) continue;
      const wants = stream.waitingCount > 0;
      if (!wants && stream.recent === 0 && spender.messagesLeft(stream.spender, nowMs) === 0) {
        continue; // Idle and without credit: nothing to renew.
      }
      least = Math.min(least, this.#beatAtMs(stream, nowMs));
    }
    return least;
  }

  /** How many drafts wait for credit. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Nothing is on its way. */
  get isAnswered(): boolean {
    return this.#streams.every(
      ({ unanswered, outgoing }) => unanswered.size === 0 && outgoing.length === 0,
    );
  }

  /** Credit in hand, messages that wait for it, and whether anything does. */
  view(nowMs: number): { credits: number; waiting: number; unanswered: number; blocked: boolean } {
    let credits = 0;
    let unanswered = 0;
    for (const stream of this.#streams) {
      if (stream.isOpen) credits += spender.messagesLeft(stream.spender, nowMs);
      unanswered += stream.unanswered.size;
    }
    return { credits, waiting: this.#waiting, unanswered, blocked: this.#blocked };
  }

  check(): void {
    let waiting = 0;
    for (const stream of this.#streams) {
      waiting += stream.waitingCount;
      const [critical, normal, bulk] = stream.waiting;
      const held = critical.size + normal.size + bulk.size;
      assert(held === stream.waitingCount + stream.gone, "Q4 waiting is counted");
      assert(stream.gone <= stream.waitingCount + goneMax, "Q4 who gave up is forgotten");
    }
    assert(waiting === this.#waiting, "Q4 waiting is counted once");
  }

  /** The partition that a message goes to: by its hash, or the better of two by free credit. */
  steer(route: Route, nowMs: number): number {
    const { partitions, shards, seed } = this.#options;
    const among =
      route.group === undefined || shards >= partitions ? undefined : this.#shardsOf(route.group);
    const count = among?.length ?? partitions;
    this.#steering = among;
    this.#steeringAtMs = nowMs;
    const at =
      route.hash === undefined
        ? steering.pickOfTwo(seed, this.#steered++, count, this.#freeAt)
        : steering.ofHash(route.hash, count);
    if (route.hash !== undefined) return among?.[at] ?? at;
    // Both may be away: what has no key goes to any partition that takes it.
    for (let step = 0; step < count; step++) {
      const partition = among?.[(at + step) % count] ?? (at + step) % count;
      if (takesNew(this.#streams[partition]!)) return partition;
    }
    return among?.[at] ?? at;
  }

  #shardsOf(group: string): readonly number[] {
    let shards = this.#shards.get(group);
    if (shards === undefined) {
      if (this.#shards.size >= 10_000) this.#shards.clear(); // A cache: the hash gives them again.
      shards = steering.shardsOf(group, this.#options.partitions, this.#options.shards);
      this.#shards.set(group, shards);
    }
    return shards;
  }

  /** Nothing of the same or a better class waits before it, but what waits for its group's pace (Q2). */
  #isFree(stream: Stream<T>, rank: number, nowMs: number): boolean {
    if (stream.waitingCount === 0) return true;
    for (let at = 0; at <= rank; at++) {
      for (let queue = stream.waiting[at]!.first; queue !== undefined; queue = queue.after) {
        if (this.#holds.isEmpty || this.#holds.waitMs(queue.group, nowMs) === 0) return false;
      }
    }
    return true;
  }

  #trySpend(stream: Stream<T>, op: Op<T>, nowMs: number): boolean {
    if (!stream.isOpen || classOf[op.draft.class] > stream.classLimit) return false;
    if (!spender.canSpend(stream.spender, nowMs, op.draft.bytes)) return false; // Q1
    spender.spend(stream.spender, nowMs, op.draft.bytes);
    if (!this.#holds.isEmpty) this.#holds.spend(groupOf(op.draft), nowMs);
    op.state = "sent";
    stream.outgoing.push(op);
    return true;
  }

  #enqueue(stream: Stream<T>, op: Op<T>, first: boolean): void {
    stream.waiting[classOf[op.draft.class]].push(op, first);
    op.state = "waiting";
    stream.waitingCount++;
    stream.waitingBytes += op.draft.bytes;
    this.#waiting++;
    stream.beatDue = true;
  }

  /** Spends new credit on what waits: best class first, its groups in turn. */
  #release(stream: Stream<T>, nowMs: number): void {
    if (!stream.isOpen) return;
    for (let rank = 0; rank <= stream.classLimit; rank++) {
      const lane = stream.waiting[rank]!;
      let hasMoved = false;
      for (let queue = lane.first; queue !== undefined;) {
        const next = queue.after;
        const op = queue.ops.front()!;
        if (op.state !== "waiting") {
          stream.gone--;
          lane.pop(queue);
          hasMoved = true;
        } else if (!this.#isPaced(queue.group, nowMs)) {
          if (!this.#trySpend(stream, op, nowMs)) return;
          stream.waitingCount--;
          stream.waitingBytes -= op.draft.bytes;
          this.#waiting--;
          lane.pop(queue);
          hasMoved = true;
        }
        queue = next;
        if (queue !== undefined || !hasMoved) continue;
        queue = lane.first;
        hasMoved = false;
      }
    }
  }

  /** Q5 */
  #isPaced(group: string, nowMs: number): boolean {
    if (this.#holds.isEmpty) return false;
    const waitMs = this.#holds.waitMs(group, nowMs);
    if (waitMs > 0) this.#heldUntilMs = Math.min(this.#heldUntilMs, nowMs + waitMs);
    return waitMs > 0;
  }

  #granted(stream: Stream<T>, grant: Grant, hint: Hint, nowMs: number): void {
    if (grant.epoch > stream.spender.epoch) {
      // What was spent in the epoch before and has not left yet waits again, for it cannot be stamped.
      for (const op of stream.outgoing.splice(0).toReversed()) this.#enqueue(stream, op, true);
    }
    spender.granted(stream.spender, nowMs, grant);
    hear(stream, hint);
    this.#release(stream, nowMs);
  }

  #answer(stream: Stream<T>, results: readonly SendResult[], nowMs: number): void {
    let again: Op<T>[] | undefined;
    for (const result of results) {
      if (result.kind !== "refused") {
        this.#accepted(stream, result);
        continue;
      }
      const op = stream.unanswered.delete(result.position);
      if (op === undefined) continue;
      if (result.code === "group_limited" && typeof result.allowed === "number") {
        this.#holds.hold(groupOf(op.draft), result.allowed, nowMs);
      }
      if (op.wait && waitable.has(result.code)) {
        (again ??= []).push(op);
      } else {
        this.#end(op, result);
      }
    }
    // Q2, Q3: they wait again, before their followers.
    for (const op of again?.toReversed() ?? []) this.#enqueue(stream, op, true);
  }

  /** One effect for all in a row; one that was answered already ends a row. */
  #accepted(stream: Stream<T>, result: Exclude<SendResult, { kind: "refused" }>): void {
    const { partition } = stream;
    const duplicate = result.kind === "duplicate";
    const count = duplicate ? 1 : result.count;
    let ops: Op<T>[] = [];
    for (let at = 0; at <= count; at++) {
      const op = at < count ? stream.unanswered.delete(result.position + at) : undefined;
      if (op !== undefined) {
        op.state = "ended";
        ops.push(op);
      } else if (ops.length > 0) {
        const seq = result.seq + at - ops.length;
        this.#effects.push({ kind: "accepted", ops, partition, seq, duplicate });
        ops = [];
      }
    }
  }

  /** Of what may have been accepted before, only a conflict is sure: that time it was refused, too. */
  #end(op: Op<T>, refusal: Refused): void {
    op.state = "ended";
    const isUnsure = op.maybe && refusal.code !== "idempotency_conflict";
    this.#effects.push({
      kind: "refused",
      op,
      refusal: isUnsure ? { code: "outcome_unknown" } : refusal,
    });
  }

  #send(stream: Stream<T>, nowMs: number): void {
    const position = stream.position;
    const drafts: Draft[] = [];
    for (const op of stream.outgoing) {
      stream.unanswered.set(stream.position++, op);
      if (op.draft.joint !== undefined) this.#effects.push({ kind: "left", op });
      const waitedMs = nowMs - op.offeredAtMs;
      const { deadlineMs } = op.draft;
      // A deadline runs while the message waits here.
      drafts.push(
        deadlineMs === undefined || waitedMs === 0
          ? op.draft
          : { ...op.draft, deadlineMs: deadlineMs - waitedMs },
      );
    }
    stream.recent = Math.max(drafts.length, stream.recent >> 1);
    stream.outgoing.length = 0;
    stream.beatDue = false;
    const beat = spender.heartbeat(
      stream.spender,
      nowMs,
      this.#want(stream),
      stream.waitingBytes + bytesOf(drafts),
    );
    this.#effects.push({
      kind: "frame",
      frame: {
        kind: "send",
        partition: stream.partition,
        stamp: spender.stamp(stream.spender, nowMs),
        position,
        drafts,
        beat,
      },
    });
  }

  /** What it would send at once, and as much again as lately: credit comes before it is missed. */
  #want(stream: Stream<T>): number {
    return stream.waitingCount + stream.recent;
  }

  #beat(stream: Stream<T>, nowMs: number, want: number, wantBytes: number): void {
    stream.beatDue = false;
    if (stream.waitingCount === 0) stream.recent >>= 1;
    this.#effects.push({
      kind: "frame",
      frame: {
        kind: "beat",
        partition: stream.partition,
        beat: spender.heartbeat(stream.spender, nowMs, want, wantBytes),
      },
    });
  }

  #beatIsDue(stream: Stream<T>, nowMs: number): boolean {
    if (stream.beatDue && this.#options.beatGapMs === 0) return true;
    return this.#beatAtMs(stream, nowMs) <= nowMs;
  }

  #beatAtMs(stream: Stream<T>, nowMs: number): number {
    return spender.heartbeatDue(stream.spender, nowMs, stream.beatDue || stream.waitingCount > 0);
  }

  /** The stream's owner is gone: credit is void, and what was not answered may have happened. */
  #close(stream: Stream<T>): void {
    spender.reset(stream.spender);
    stream.isOpen = false;
    stream.position = 0;
    stream.recent = 0;
    stream.classLimit = 2;
    stream.refusal = noCredit;
    // Sent but never answered: only an idempotency key makes a repeat safe, so that those wait again.
    const unanswered = [...stream.unanswered].toSorted(([a], [b]) => a - b);
    const lost = unanswered.map(([, op]) => op);
    stream.unanswered.clear();
    for (const op of stream.outgoing.splice(0).toReversed()) this.#enqueue(stream, op, true);
    for (const op of lost.toReversed()) {
      if (isRepeatable(op.draft) && op.wait) {
        op.maybe = true;
        this.#enqueue(stream, op, true);
      } else this.#end(op, { code: "outcome_unknown" });
    }
  }

  /** A wait of a moment, while credit is on its way, is not worth an event. */
  #showBlocked(nowMs: number): void {
    if (this.#waiting === 0) this.#waitingSinceMs = Infinity;
    else this.#waitingSinceMs = Math.min(this.#waitingSinceMs, nowMs);
    const blocked = nowMs - this.#waitingSinceMs >= blockedAfterMs;
    if (blocked === this.#blocked) return;
    this.#blocked = blocked;
    if (!blocked) this.#effects.push({ kind: "resumed" });
    else {
      const stream = this.#streams.find((stream) => stream.waitingCount > 0);
      const draft = stream?.waiting.find((lane) => lane.size > 0)?.first?.ops.front()?.draft;
      const refusal =
        stream === undefined || draft === undefined
          ? noCredit
          : this.#refusalOf(stream, draft, nowMs);
      this.#effects.push({ kind: "blocked", refusal });
    }
  }
}

function clearGone(stream: Stream<unknown>): void {
  for (const lane of stream.waiting) lane.keep(({ state }) => state === "waiting");
  stream.gone = 0;
}

function groupOf({ group = "" }: Draft): string {
  return group;
}

/** Why a draft has to wait for credit at its stream. */
function refusalOf<T>({ classLimit, refusal }: Stream<T>, draft: Draft): Refused {
  return classOf[draft.class] > classLimit && classLimit >= 0
    ? { ...refusal, code: "class_closed" }
    : refusal;
}

function takesNew<T>({ isOpen, refusal }: Stream<T>): boolean {
  return isOpen && refusal.code !== "intake_closed";
}

function hear(stream: Stream<unknown>, hint: Hint): void {
  stream.classLimit = hint.lowestClass === null ? -1 : classOf[hint.lowestClass];
  stream.refusal = { code: hint.limitedBy, retryAfterMs: hint.retryAfterMs };
}

function isRepeatable({ idempotencyKey, idempotency }: Draft): boolean {
  return idempotencyKey !== undefined || idempotency !== undefined;
}

function bytesOf(drafts: readonly Draft[]): number {
  let bytes = 0;
  for (const draft of drafts) bytes += draft.bytes;
  return bytes;
}

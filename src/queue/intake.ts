/**
 * Hop 1 from the receiving end: how much credit producers get, and which of the messages that arrive
 * are taken.
 *
 * N1  stored + outstanding credit <= the buffer, in messages and in bytes (G3): the buffer is one for
 *     all partitions of the flow that this process owns.
 * N2  A message that is not taken is answered with a code, and a time to come back where one helps
 *     (G12, C5).
 * N3  What is taken and not durable yet is bounded as well: a slow disk holds producers back (G6).
 *
 * It must not know lanes, consumers or the store.
 */
import { admission, drain } from "../control/index.ts";
import type { Admission, Candidate, Drain, EnvelopeView, SavedHistory } from "../control/index.ts";
import { issuer } from "../protocol/index.ts";
import type {
  ClassName,
  Draft,
  Issuer,
  ProducerFrame,
  RefusalCode,
  SendResult,
  ToProducerFrame,
} from "../protocol/index.ts";
import type { Contract } from "../flow/index.ts";
import { Boundary, promiseSpanS } from "./boundary.ts";
import type { Denial } from "./boundary.ts";

/** Not durable yet, of the whole flow: a few group commits. */
const unwrittenMax = 8192;
const unwrittenBytesMax = 16 * 1024 * 1024;
const retryMinMs = 50;
/** After a full store: how often a few messages are let through to see whether it has space again. */
const fullRetryMs = 1000;

export interface Stored {
  messages: number;
  bytes: number;
  /** Of these, not durable yet. */
  unwritten: number;
  unwrittenBytes: number;
}

export interface IntakeHost {
  send(producer: string, frame: ToProducerFrame): void;
  /** Takes a message that was admitted. */
  take(producer: string, partition: number, position: number, draft: Draft): void;
  stored(): Stored;
  /** Every partition was claimed: before, nobody knows how much is stored. */
  isKnown(): boolean;
  /** Messages wait that would be handed out if a consumer had room. */
  waits(): boolean;
}

export interface IntakeView {
  readonly creditsOut: number;
  readonly signalLagMs: { readonly p50: number; readonly p99: number; readonly max: number };
  /** Largest share of a bound that is stored. */
  readonly pressure: number;
  readonly lowestClass: ClassName | null;
  readonly isStoreFull: boolean;
  readonly boundary: EnvelopeView;
}

interface Stream {
  readonly id: string;
  readonly producer: string;
  readonly partition: number;
}

export class Intake {
  readonly #host: IntakeHost;
  #contract: Contract;
  readonly #issuer: Issuer;
  readonly #admission: Admission;
  readonly #drain: Drain;
  readonly #boundary: Boundary;
  readonly #streams = new Map<string, Stream>();
  /** They want credit and have not been answered. */
  readonly #asking = new Set<Stream>();
  /** The whole flow takes nothing new. */
  isClosed = false;
  readonly #closedPartitions = new Set<number>();
  #rateReadyAtMs = Infinity;
  /** One object for all messages: nobody keeps it. */
  readonly #candidate: { -readonly [Field in keyof Candidate]: Candidate[Field] } = {
    class: "normal",
    bytes: 0,
    deadlineAtMs: undefined,
    dueAtMs: undefined,
  };
  #fullUntilMs = 0;
  /** How things stand, as it was told last. */
  readonly #hint: {
    lowestClass: ClassName | null;
    limitedBy: RefusalCode;
    /** Not all who want something have heard of the class. */
    isUntold: boolean;
  } = { lowestClass: null, limitedBy: "no_credit", isUntold: false };

  constructor(contract: Contract, drainState: Drain, host: IntakeHost, nowMs: number) {
    this.#contract = contract;
    this.#drain = drainState;
    this.#host = host;
    this.#issuer = issuer.init({ firstEpoch: 1, ttlMs: contract.credit.leaseMs }, nowMs);
    this.#admission = admission.init(limitsOf(contract));
    this.#boundary = new Boundary(contract, nowMs);
  }

  change(contract: Contract, nowMs: number): void {
    this.#contract = contract;
    admission.setLimits(this.#admission, limitsOf(contract));
    this.#boundary.change(contract, nowMs);
  }

  join(producer: string, partition: number, nowMs: number): void {
    const id = streamId(producer, partition);
    this.#streams.set(id, { id, producer, partition });
    issuer.join(this.#issuer, id, nowMs);
    this.#host.send(producer, { kind: "opened", partition });
  }

  /** @param sure Nothing can arrive from it any more. */
  leave(producer: string, partition: number, nowMs: number, sure: boolean): void {
    const id = streamId(producer, partition);
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    this.#streams.delete(id);
    this.#asking.delete(stream);
    issuer.leave(this.#issuer, id, nowMs, sure);
  }

  frame(producer: string, frame: ProducerFrame, nowMs: number): void {
    const id = streamId(producer, frame.partition);
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    if (frame.kind === "send") this.#arrive(stream, frame, nowMs);
    const isClosed = this.#closedPartitions.has(frame.partition);
    issuer.heard(this.#issuer, id, nowMs, isClosed ? { ...frame.beat, want: 0 } : frame.beat);
    if (frame.beat.want > 0) this.#asking.add(stream);
  }

  /** @param partition Absent: the whole flow. Producers are told at once. */
  setClosed(isClosed: boolean, partition?: number): void {
    if (partition === undefined) this.isClosed = isClosed;
    else if (isClosed) this.#closedPartitions.add(partition);
    else this.#closedPartitions.delete(partition);
    for (const stream of this.#streams.values()) this.#asking.add(stream);
  }

  get closedPartitions(): readonly number[] {
    return [...this.#closedPartitions].toSorted((a, b) => a - b);
  }

  /** The store took nothing: no credit for a while, then a little to try. */
  storeIsFull(nowMs: number): void {
    this.#fullUntilMs = nowMs + fullRetryMs;
  }

  #arrive(stream: Stream, frame: Extract<ProducerFrame, { kind: "send" }>, nowMs: number): void {
    const { drafts, position } = frame;
    const sizes = drafts.map((draft) => draft.bytes);
    const { accepted } = issuer.arrived(
      this.#issuer,
      stream.id,
      nowMs,
      frame.stamp,
      drafts.length,
      sizes,
    );
    const refused: SendResult[] = [];
    const stored = this.#host.stored();
    this.#observe(stored, nowMs);
    const p95Ms = drain.p95Ms(this.#drain);
    let taken = 0;
    let ungrouped = 0;
    for (let at = 0; at < drafts.length; at++) {
      const draft = drafts[at]!;
      const refusal =
        at >= accepted
          ? ({ code: "no_credit", retryAfterMs: retryMinMs } as const)
          : this.#refusal(draft, stream.partition, stored, p95Ms, nowMs);
      if (refusal !== undefined) {
        refused.push({ kind: "refused", position: position + at, ...refusal });
        continue;
      }
      stored.messages++;
      stored.bytes += draft.bytes;
      admission.grew(this.#admission, draft.bytes);
      taken++;
      if (draft.group === undefined) ungrouped++;
      else this.#boundary.acceptedOf(draft.group, nowMs);
      this.#host.take(stream.producer, stream.partition, position + at, draft);
    }
    drain.arrived(this.#drain, nowMs, taken);
    this.#boundary.accepted(taken, ungrouped, nowMs);
    if (refused.length > 0) {
      const { partition } = stream;
      this.#host.send(stream.producer, { kind: "results", partition, results: refused });
    }
  }

  #refusal(
    draft: Draft,
    partition: number,
    stored: Stored,
    p95Ms: number,
    nowMs: number,
  ): Denial | undefined {
    if (draft.bytes > this.#contract.messageBytesMax) {
      const allowed = this.#contract.messageBytesMax;
      return { code: "message_too_large", found: draft.bytes, allowed };
    }
    if (this.isClosed || this.#closedPartitions.has(partition)) {
      return { code: "intake_closed", retryAfterMs: fullRetryMs };
    }
    const deadlineMs = draft.deadlineMs ?? this.#contract.deadlineMs;
    const candidate = this.#candidate;
    candidate.class = draft.class;
    candidate.bytes = draft.bytes;
    candidate.deadlineAtMs = deadlineMs === undefined ? undefined : nowMs + deadlineMs;
    candidate.dueAtMs = draft.delayMs === undefined ? undefined : nowMs + draft.delayMs;
    const refusal = admission.admit(this.#admission, candidate, nowMs, stored.messages, p95Ms);
    return refusal ?? this.#boundary.deny(draft, nowMs);
  }

  #observe(stored: Stored, nowMs: number): void {
    this.#boundary.advance(nowMs);
    if (!this.#host.isKnown()) return;
    const stalledSinceMs = drain.stalledSinceMs(this.#drain, nowMs, this.#drain.busy ? 1 : 0, 0);
    admission.observe(this.#admission, {
      pending: stored.messages,
      bytes: stored.bytes,
      promised: issuer.outstanding(this.#issuer).messages,
      ratePerS: drain.ratePerS(this.#drain),
      stalledMs: stalledSinceMs === undefined ? 0 : nowMs - stalledSinceMs,
    });
    const waits = this.#admission.steps > 0 && this.#host.waits();
    this.#boundary.observe(this.#admission, drain.ratePerS(this.#drain), waits, nowMs);
  }

  /** Gives what can be given, and tells how things stand when that has changed. */
  issue(nowMs: number): void {
    if (nowMs >= this.#fullUntilMs) this.#fullUntilMs = 0;
    const stored = this.#host.stored();
    this.#observe(stored, nowMs);
    const lowestClass = lowestTaken(this.#admission);
    const { room, limitedBy } = this.#room(stored, lowestClass, nowMs);
    const ratePerS = drain.ratePerS(this.#drain);
    const retryAfterMs = this.#retryAfterMs(stored, limitedBy, ratePerS, nowMs);
    // How things stand is told when it changes, whether or not there is credit to give.
    const grants = issuer.issue(
      this.#issuer,
      nowMs,
      room,
      this.#news(lowestClass, limitedBy, room),
    );
    for (const { senderId, ...grant } of grants) {
      const stream = this.#streams.get(senderId);
      if (stream === undefined) continue;
      this.#asking.delete(stream);
      const { producer, partition } = stream;
      const frame = {
        kind: "grant",
        partition,
        grant,
        lowestClass,
        limitedBy,
        retryAfterMs,
      } as const;
      this.#host.send(producer, frame);
    }
    // Who asked in vain is told why.
    for (const { producer, partition } of this.#asking) {
      const why = this.#closedPartitions.has(partition) ? "intake_closed" : limitedBy;
      const frame = { kind: "held", partition, lowestClass, limitedBy: why, retryAfterMs } as const;
      this.#host.send(producer, frame);
    }
    this.#asking.clear();
    this.#rateReadyAtMs = this.#boundary.readyAtMs(nowMs);
  }

  /** What has to be told, and to whom. */
  #news(
    lowestClass: ClassName | null,
    limitedBy: RefusalCode,
    room: { readonly messages: number; readonly bytes: number },
  ): "rise" | "all" | undefined {
    const hint = this.#hint;
    const isOther = lowestClass !== hint.lowestClass || limitedBy !== hint.limitedBy;
    hint.isUntold ||= lowestClass !== hint.lowestClass;
    hint.lowestClass = lowestClass;
    hint.limitedBy = limitedBy;
    const { messages, bytes } = issuer.outstanding(this.#issuer);
    // What better classes were given may be more than those that come back may use: they wait a little.
    if (hint.isUntold && messages <= room.messages && bytes <= room.bytes) {
      hint.isUntold = false;
      return "all";
    }
    return isOther ? "rise" : undefined;
  }

  #room(
    stored: Stored,
    lowestClass: ClassName | null,
    nowMs: number,
  ): { room: { messages: number; bytes: number }; limitedBy: RefusalCode } {
    const none = { messages: 0, bytes: 0 };
    if (this.isClosed) return { room: none, limitedBy: "intake_closed" };
    if (this.#fullUntilMs > 0) return { room: none, limitedBy: "store_full" };
    if (!this.#host.isKnown()) return { room: none, limitedBy: "no_credit" }; // N1
    if (lowestClass === null) return { room: none, limitedBy: "buffer_full" };
    const { buffer } = this.#contract;
    const ratePerS = drain.ratePerS(this.#drain);
    const promiseMax = Math.max(
      8 * this.#streams.size,
      promiseSpanS * drain.arrivalRatePerS(this.#drain, nowMs),
    );
    // Up to where the lowest open class stops: what is sent on live credit is not refused for space.
    const share = this.#contract.classes[lowestClass];
    const space = Math.ceil(share * buffer.messages) - stored.messages;
    // Into an empty buffer even the largest message fits, or it would wait for ever.
    const spaceBytes =
      stored.messages === 0 ? buffer.bytes : Math.ceil(share * buffer.bytes) - stored.bytes;
    const seconds =
      buffer.seconds === undefined || ratePerS === undefined
        ? Infinity
        : Math.max(Math.ceil(share * buffer.seconds * ratePerS), 1) - stored.messages;
    const unwritten = unwrittenMax - stored.unwritten;
    const { byRate, byPace } = this.#boundary.left(nowMs);
    const messages = Math.max(
      0,
      Math.floor(Math.min(space, seconds, promiseMax, unwritten, byRate, byPace)),
    );
    // The largest message must be grantable, however large it is.
    const unwrittenBytes = Math.max(unwrittenBytesMax, this.#contract.messageBytesMax);
    const bytes = Math.max(0, Math.min(spaceBytes, unwrittenBytes - stored.unwrittenBytes));
    let limitedBy: RefusalCode = "no_credit";
    if (Math.min(space, seconds, spaceBytes) < 1) limitedBy = "buffer_full";
    else if (byRate < 1) limitedBy = "rate_limited";
    return { room: { messages, bytes }, limitedBy };
  }

  #retryAfterMs(
    stored: Stored,
    limitedBy: RefusalCode,
    ratePerS: number | undefined,
    nowMs: number,
  ): number {
    if (limitedBy === "store_full")
      return Math.max(retryMinMs, Math.ceil(this.#fullUntilMs - nowMs));
    if (limitedBy === "no_credit" || limitedBy === "rate_limited") return retryMinMs;
    if (limitedBy === "intake_closed" || ratePerS === undefined || ratePerS <= 0)
      return fullRetryMs;
    const over = stored.messages - 0.95 * this.#contract.buffer.messages;
    return Math.max(retryMinMs, Math.ceil((1000 * over) / ratePerS));
  }

  /** Credit given out and not used. */
  get outstanding(): { messages: number; bytes: number } {
    return issuer.outstanding(this.#issuer);
  }

  get dueAtMs(): number {
    return Math.min(
      issuer.issueDue(this.#issuer),
      this.#rateReadyAtMs,
      this.#boundary.dueAtMs,
      this.#fullUntilMs > 0 ? this.#fullUntilMs : Infinity,
    );
  }

  view(nowMs: number): IntakeView {
    const { lag } = issuer.view(this.#issuer);
    const { pressure, lowestOpenClass } = admission.view(this.#admission);
    return {
      creditsOut: issuer.outstanding(this.#issuer).messages,
      signalLagMs: { p50: lag.p50Ms, p99: lag.p99Ms, max: lag.maxMs },
      pressure,
      lowestClass: lowestOpenClass,
      isStoreFull: this.#fullUntilMs > 0,
      boundary: this.#boundary.view(nowMs),
    };
  }

  /** What was learnt of arrivals, to be kept over a restart. */
  learnt(nowMs: number): SavedHistory | undefined {
    return this.#boundary.learnt(nowMs);
  }

  recall(learnt: SavedHistory, nowMs: number): void {
    this.#boundary.recall(learnt, nowMs);
  }

  check(): void {
    admission.check(this.#admission);
    this.#boundary.check();
  }
}

function limitsOf(contract: Contract): Parameters<typeof admission.init>[0] {
  const { messages, bytes, seconds } = contract.buffer;
  return { messages, bytes, seconds, classes: contract.classes };
}

/**
 * The lowest class that is taken as it arrives. What is promised does not count here: credit that a
 * class holds would else close the class to itself, and be held for ever.
 */
function lowestTaken({ closed }: Admission): ClassName | null {
  if (!closed.bulk) return "bulk";
  if (!closed.normal) return "normal";
  return closed.critical ? null : "critical";
}

function streamId(producer: string, partition: number): string {
  return `${producer}:${partition}`;
}

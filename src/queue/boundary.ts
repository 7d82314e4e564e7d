/**
 * What the boundary of a flow lets in, beyond space: contracted rates, the shares and envelopes of groups
 * under pressure, and the pace of credit once normal has stopped.
 *
 * N4  Once normal has stopped, credit is given no faster than the consumers drain.
 * N5  A message is refused by its group's share before it is charged to a contracted rate: a group that
 *     floods does not use the flow's rate up with what is refused.
 *
 * It must not know streams, partitions or the store.
 */
import { admission, envelope, limiter } from "../control/index.ts";
import type { Admission, Envelope, EnvelopeView, Limiter, SavedHistory } from "../control/index.ts";
import type { Contract } from "../flow/index.ts";
import type { Draft, SendResult } from "../protocol/index.ts";

/** Why a message is not taken. */
export type Denial = Omit<Extract<SendResult, { kind: "refused" }>, "kind" | "position">;

/** What may be promised at once, as a span of a rate. */
export const promiseSpanS = 0.25;
/** How long the rest of the buffer has to last for several groups while no drain rate is known. */
const unknownSpanS = 10;
/** Below this part of its burst the flow's rate is divided among its groups. */
const scarceShare = 0.5;
const groupsMax = 10_000;

export class Boundary {
  #contract: Contract;
  /** Of the flow. */
  #rate: Limiter | undefined;
  readonly #groups = new Map<string, Limiter>();
  readonly #envelope: Envelope;
  /** N4: while it holds. */
  #pace: Limiter | undefined;

  constructor(contract: Contract, nowMs: number) {
    this.#contract = contract;
    this.#rate = rateOf(contract, nowMs);
    this.#envelope = envelope.init(envelopeOf(contract), nowMs);
  }

  change(contract: Contract, nowMs: number): void {
    this.#contract = contract;
    const { rate } = contract.boundary;
    if (rate !== undefined && this.#rate !== undefined) {
      limiter.setRate(this.#rate, { ratePerS: rate.perSecond, burst: rate.burst }, nowMs);
    } else this.#rate = rateOf(contract, nowMs);
    this.#groups.clear();
    envelope.setOptions(this.#envelope, envelopeOf(contract), nowMs);
  }

  /** Ends the slots of history that are over. */
  advance(nowMs: number): void {
    envelope.advance(this.#envelope, this.#contract.boundary.surges, nowMs);
  }

  /**
   * How things stand, after the admission has observed it.
   * @param waits Messages wait that could be handed out if a consumer had room.
   */
  observe(a: Admission, drainPerS: number | undefined, waits: boolean, nowMs: number): void {
    const { steps, pressure, closed } = a;
    envelope.observe(this.#envelope, {
      steps,
      pressure,
      drainPerS: drainPerS ?? this.#spanPerS(pressure),
      waits,
      ratePerS: this.#scarceRatePerS(nowMs),
    });
    // Where normal stops later than by default, this step is taken with it.
    const ratePerS = closed.normal ? admission.flowRatePerS(a) : undefined;
    if (ratePerS === undefined) this.#pace = undefined;
    else if (this.#pace === undefined) this.#pace = limiter.init(paceOf(ratePerS), nowMs);
    else limiter.setRate(this.#pace, paceOf(ratePerS), nowMs);
  }

  /** While no drain rate is known: as if what is left below the level of normal had to last. */
  #spanPerS(pressure: number): number {
    const { classes, buffer } = this.#contract;
    return Math.max(1, (Math.max(0, classes.normal - pressure) * buffer.messages) / unknownSpanS);
  }

  /** The flow's rate while it is nearly used up: what is left of it is for all groups. */
  #scarceRatePerS(nowMs: number): number | undefined {
    if (this.#rate === undefined) return undefined;
    const { left, burst, ratePerS } = limiter.view(this.#rate, nowMs);
    const share = Math.max(0, left) / (scarceShare * burst);
    if (share > 1) return undefined;
    // A little less than it is, or one group's credit would keep it at nothing for the others.
    return ratePerS * (0.8 + 0.2 * share) * this.#factor(nowMs);
  }

  /** @returns undefined: it may pass, and is paid for. */
  deny(draft: Draft, nowMs: number): Denial | undefined {
    if (this.#envelope.isHolding) {
      const { group = "" } = draft;
      const held = envelope.admit(this.#envelope, group, nowMs, this.#factor(nowMs)); // N5
      if (held !== undefined) return held;
    }
    return this.#overRate(draft, nowMs);
  }

  #overRate(draft: Draft, nowMs: number): Denial | undefined {
    const { groupRate } = this.#contract.boundary;
    if (this.#rate === undefined && groupRate === undefined) return undefined;
    const factor = this.#factor(nowMs);
    const cost = draft.cost ?? 1;
    // The flow's first: a message that it refuses costs its group nothing.
    const retryAfterMs =
      this.#rate === undefined ? 0 : limiter.take(this.#rate, nowMs, cost, factor);
    if (retryAfterMs > 0) return { code: "rate_limited", retryAfterMs };
    if (groupRate === undefined || draft.group === undefined) return undefined;
    const waitMs = limiter.take(this.#groupLimiter(draft.group, nowMs), nowMs, cost, factor);
    return waitMs > 0 ? { code: "rate_limited", retryAfterMs: waitMs } : undefined;
  }

  #groupLimiter(group: string, nowMs: number): Limiter {
    let known = this.#groups.get(group);
    if (known === undefined) {
      const rate = this.#contract.boundary.groupRate!;
      // A limiter at rest is as good as a new one, so the oldest may be forgotten.
      if (this.#groups.size >= groupsMax) this.#groups.delete(this.#groups.keys().next().value!);
      known = limiter.init({ ratePerS: rate.perSecond, burst: rate.burst }, nowMs);
      this.#groups.set(group, known);
    }
    return known;
  }

  #factor(nowMs: number): number {
    return limiter.surgeFactor(this.#contract.boundary.surges, nowMs);
  }

  /** A message of a group was accepted. */
  acceptedOf(group: string, nowMs: number): void {
    envelope.acceptedOf(this.#envelope, group, nowMs);
  }

  /** Messages were accepted, so many of them without a group. */
  accepted(messages: number, ungrouped: number, nowMs: number): void {
    envelope.accepted(this.#envelope, messages);
    if (ungrouped > 0) envelope.acceptedOf(this.#envelope, "", nowMs, ungrouped);
    if (this.#pace !== undefined) limiter.take(this.#pace, nowMs, messages);
  }

  /** What the contracted rate and the pace of credit (N4) leave, in messages; Infinity without one. */
  left(nowMs: number): { readonly byRate: number; readonly byPace: number } {
    const leftOf = (of: Limiter | undefined): number =>
      of === undefined ? Infinity : limiter.view(of, nowMs).left;
    return { byRate: leftOf(this.#rate), byPace: leftOf(this.#pace) };
  }

  /** When the next message is earned, for nothing else may happen until then; Infinity: one is there. */
  readyAtMs(nowMs: number): number {
    const { byRate, byPace } = this.left(nowMs);
    const byRateMs = byRate < 1 ? 1000 / this.#rate!.ratePerS : Infinity;
    const byPaceMs = byPace < 1 ? 1000 / this.#pace!.ratePerS : Infinity;
    return nowMs + Math.min(byRateMs, byPaceMs);
  }

  /** When a slot of history ends. */
  get dueAtMs(): number {
    return envelope.dueAtMs(this.#envelope);
  }

  view(nowMs: number): EnvelopeView {
    this.advance(nowMs);
    return envelope.view(this.#envelope, this.#contract.boundary.surges, nowMs);
  }

  /** What was learnt of arrivals, to be kept over a restart. */
  learnt(nowMs: number): SavedHistory | undefined {
    return envelope.saved(this.#envelope, nowMs);
  }

  recall(learnt: SavedHistory, nowMs: number): void {
    envelope.restore(this.#envelope, learnt, nowMs);
  }

  check(): void {
    envelope.check(this.#envelope);
  }
}

function rateOf({ boundary: { rate } }: Contract, nowMs: number): Limiter | undefined {
  if (rate === undefined) return undefined;
  return limiter.init({ ratePerS: rate.perSecond, burst: rate.burst }, nowMs);
}

function envelopeOf(contract: Contract): Parameters<typeof envelope.init>[0] {
  return { learn: contract.boundary.learn, weights: contract.groups.weights };
}

function paceOf(ratePerS: number): { readonly ratePerS: number; readonly burst: number } {
  return { ratePerS, burst: Math.max(1, promiseSpanS * ratePerS) };
}

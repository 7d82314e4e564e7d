/** The state of a flow in numbers, for people, metrics and the dashboard. */
import { budget, drain } from "../control/index.ts";
import type { Budget, Drain, EnvelopeView } from "../control/index.ts";
import type { Counters } from "../engines/engine.ts";
import type { Contract } from "../flow/index.ts";
import type { ClassName } from "../protocol/index.ts";
import type { DeliveryView } from "./delivery.ts";
import type { IntakeView } from "./intake.ts";
import type { Partition } from "./partition.ts";

export interface PartitionView {
  readonly partition: number;
  /** "open", "paused", "claiming", or the code for which it stopped. */
  readonly state: string;
  readonly isIntakeClosed: boolean;
  readonly depth: number;
  readonly bytes: number;
  readonly accepted: number;
  readonly acked: number;
  readonly dead: number;
  readonly discarded: number;
  /** Messages known in memory: the read-ahead. */
  readonly known: number;
}

export interface QueueView {
  readonly flow: string;
  readonly isPaused: boolean;
  readonly isIntakeClosed: boolean;
  /** Pending, those that are not durable yet included. */
  readonly depth: number;
  readonly bytes: number;
  readonly limitMessages: number;
  readonly limitBytes: number;
  readonly counters: Counters;
  /** Age of the oldest message known in memory; 0 when nothing is pending. */
  readonly oldestAgeMs: number;
  /** depth / drain rate; undefined until a rate is known. */
  readonly secondsOfWork: number | undefined;
  readonly drainRatePerS: number | undefined;
  readonly arrivalRatePerS: number;
  /** How long no message has ended though some wait; undefined: it is not stalled. */
  readonly stalledMs: number | undefined;
  readonly handlerP95Ms: number;
  readonly inFlight: number;
  readonly prepared: number;
  readonly writeMs: number;
  /** Credit that producers hold. */
  readonly creditsOut: number;
  readonly signalLagMs: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly pressure: number;
  readonly lowestClass: ClassName | null;
  readonly isStoreFull: boolean;
  /** Who is held at the boundary, to what and why, and what is forecast to come. */
  readonly boundary: EnvelopeView;
  readonly retryBudget: { readonly tokens: number; readonly tokensMax: number };
  readonly partitions: readonly PartitionView[];
}

export interface Situation {
  readonly contract: Contract;
  readonly partitions: readonly Partition[];
  readonly isPaused: boolean;
  readonly isIntakeClosed: boolean;
  readonly closedPartitions: readonly number[];
  readonly drain: Drain;
  readonly budget: Budget;
  readonly delivery: DeliveryView;
  readonly intake: IntakeView;
  readonly isBusy: boolean;
}

export function viewOf(now: Situation, nowMs: number): QueueView {
  const { contract, delivery, intake } = now;
  const partitions = now.partitions.map((owned) =>
    viewOfPartition(owned, now.isIntakeClosed || now.closedPartitions.includes(owned.index)),
  );
  const rates = drain.view(now.drain, nowMs);
  let depth = 0;
  let bytes = 0;
  let oldestAtMs = Infinity;
  const counters = { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0, bytes: 0 };
  for (const owned of now.partitions) {
    depth += owned.storedMessages;
    bytes += owned.storedBytes;
    for (const field of Object.keys(counters) as (keyof Counters)[]) {
      counters[field] += owned.counters[field];
    }
    owned.entries.forEach(({ acceptedAtMs }) => {
      if (acceptedAtMs < oldestAtMs) oldestAtMs = acceptedAtMs;
    });
  }
  const stalledSinceMs = drain.stalledSinceMs(now.drain, nowMs, now.isBusy ? 1 : 0, rates.meanMs);
  const { tokens, tokensMax } = budget.view(now.budget);
  return {
    flow: contract.name,
    isPaused: now.isPaused,
    isIntakeClosed: now.isIntakeClosed,
    depth,
    bytes,
    limitMessages: contract.buffer.messages,
    limitBytes: contract.buffer.bytes,
    counters,
    oldestAgeMs: oldestAtMs === Infinity ? 0 : Math.max(0, nowMs - oldestAtMs),
    secondsOfWork: drain.secondsOfWork(now.drain, depth),
    drainRatePerS: rates.ratePerS,
    arrivalRatePerS: rates.arrivalRatePerS,
    stalledMs: stalledSinceMs === undefined ? undefined : nowMs - stalledSinceMs,
    handlerP95Ms: rates.p95Ms,
    inFlight: delivery.inFlight,
    prepared: delivery.prepared,
    writeMs: delivery.writeMs,
    ...intake,
    retryBudget: { tokens, tokensMax },
    partitions,
  };
}

function viewOfPartition(owned: Partition, isIntakeClosed: boolean): PartitionView {
  const { accepted, acked, dead, discarded } = owned.counters;
  const isOpen = owned.isPaused ? "paused" : "open";
  return {
    partition: owned.index,
    state: owned.stopped ?? (owned.claim === undefined ? "claiming" : isOpen),
    isIntakeClosed,
    depth: owned.storedMessages,
    bytes: owned.storedBytes,
    accepted,
    acked,
    dead,
    discarded,
    known: owned.entries.size,
  };
}

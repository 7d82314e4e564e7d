/**
 * One run: a store, a flow, a consumer process; the load is offered, what was accepted is drained, and
 * the accounts are read from the store when it is closed.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { openSpillway } from "../../spillway.ts";
import type { Flow } from "../../spillway.ts";
import { accountsOf } from "./accounts.ts";
import type { Accounts } from "./accounts.ts";
import type { Load } from "./load.ts";
import { Meter } from "./meter.ts";
import type { Latency, Sample } from "./meter.ts";
import type { Concurrency } from "./options.ts";
import { Producer } from "./producer.ts";
import { Service } from "./service.ts";

const flowName = "demo";
/** The spike of the demo fills it; half a minute of work for the consumer at its best. */
const bufferMessages = 20_000;
const offerEveryMs = 5;
const sampleEveryMs = 100;

export interface RunOptions {
  readonly dir: string;
  readonly load: Load;
  readonly concurrency: Concurrency;
  /** How long what was accepted may be drained after the load's end. */
  readonly drainMaxMs: number;
}

export interface RunDeps {
  /** Ends the run: nothing more is offered or drained. */
  readonly signal: AbortSignal;
  readonly onSample: (sample: Sample) => void;
}

export interface RunResult {
  readonly concurrency: Concurrency;
  /** From the load's end to the run's. */
  readonly drainMs: number;
  readonly offered: number;
  /** Receipts that the producer got. */
  readonly accepted: number;
  readonly duplicates: number;
  readonly refused: Readonly<Record<string, number>>;
  readonly handled: number;
  readonly before: Accounts;
  readonly after: Accounts;
  readonly limitMessages: number;
  readonly peakDepth: number;
  /** By the producer's end of the wire and by the service's own count, the larger. */
  readonly peakInFlight: number;
  readonly overrun: number;
  readonly goodputPerS: number;
  readonly latencyMs: Latency;
  readonly blockedMs: number;
  readonly signalLagMs: Latency;
  readonly rssPeakBytes: number;
  readonly windowFound: number;
  readonly wasStopped: boolean;
}

/** @throws {SpillwayError} store_locked, store_newer, store_corrupt, ... */
export async function run(options: RunOptions, deps: RunDeps): Promise<RunResult> {
  const before = accountsOf(options.dir, flowName);
  const measured = await runOpen(options, deps);
  return { ...measured, before, after: accountsOf(options.dir, flowName) };
}

async function runOpen(
  { dir, load, concurrency, drainMaxMs }: RunOptions,
  { signal, onSample }: RunDeps,
): Promise<Omit<RunResult, "before" | "after">> {
  await using service = await Service.start();
  await using spillway = await openSpillway({ dir });
  const flow = spillway.flow<Uint8Array>(flowName, {
    payload: "bytes",
    buffer: { messages: bufferMessages },
    classes: { normal: 1 },
    ...(concurrency !== "adaptive" && { window: { fixed: concurrency } }),
  });
  await flow.opened();
  const ending = new AbortController();
  const producer = new Producer(flow, load, AbortSignal.any([signal, ending.signal]));
  const meter = new Meter(flow, producer, load.durationMs);
  flow.consume((payload) => handle(payload, service, meter));
  const startedAtMs = performance.now();
  const elapsedMs = (): number => performance.now() - startedAtMs;
  const sampler = setInterval(() => onSample(meter.sample(elapsedMs())), sampleEveryMs);
  let offeredMs = 0;
  try {
    await offer(producer, load, elapsedMs, signal);
    offeredMs = elapsedMs();
    await drained(flow, producer, drainMaxMs, signal);
    ending.abort(); // What still waits for credit is refused.
    await producer.settled();
  } finally {
    clearInterval(sampler);
  }
  meter.sample(elapsedMs());
  const state = flow.state();
  const drainMs = elapsedMs() - offeredMs;
  await spillway.close();
  const counted = await service.stats();
  const { p50, p99 } = state.signalLagMs;
  return {
    concurrency,
    drainMs,
    offered: producer.offered,
    accepted: producer.accepted,
    duplicates: producer.duplicates,
    refused: Object.fromEntries(producer.refused),
    handled: meter.handled,
    limitMessages: state.limitMessages,
    peakDepth: meter.peakDepth,
    peakInFlight: Math.max(meter.peakInFlight, counted?.parallelMax ?? 0),
    overrun: meter.overrun,
    goodputPerS: meter.goodputPerS,
    latencyMs: meter.latencyMs,
    blockedMs: producer.blockedMs,
    signalLagMs: { p50, p99 },
    rssPeakBytes: meter.rssPeakBytes,
    windowFound: Math.round(state.target.window.window),
    wasStopped: signal.aborted,
  };
}

async function handle(payload: Uint8Array, service: Service, meter: Meter): Promise<void> {
  const beganAtMs = performance.now();
  let isHandled = false;
  meter.began();
  try {
    await service.call(payload);
    isHandled = true;
  } finally {
    meter.ended(performance.now() - beganAtMs, isHandled);
  }
}

async function offer(
  producer: Producer,
  load: Load,
  elapsedMs: () => number,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const nowMs = elapsedMs();
    producer.offerUntil(nowMs);
    if (nowMs >= load.durationMs) return;
    await sleep(offerEveryMs);
  }
}

async function drained(
  flow: Flow<Uint8Array>,
  producer: Producer,
  drainMaxMs: number,
  signal: AbortSignal,
): Promise<void> {
  const untilMs = performance.now() + drainMaxMs;
  const isDone = (): boolean => flow.state().depth === 0 && producer.waiting === 0;
  while (!signal.aborted && performance.now() < untilMs && !isDone()) await sleep(20);
}

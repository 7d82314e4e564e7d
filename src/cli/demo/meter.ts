/**
 * Measures a run from outside: samples at 10 Hz, latencies of the handler, peaks.
 *
 * Goodput is what was handled per second under overload: over the time between samples that both saw
 * messages offered and a backlog of a tenth of its limit or more. The calm before a spike says nothing
 * about what a consumer can do, nor does the end of a drain, when a few busy keys wait for themselves.
 */
import { createHistogram } from "node:perf_hooks";
import type { RecordableHistogram } from "node:perf_hooks";
import type { Flow } from "../../spillway.ts";
import type { Producer } from "./producer.ts";

export interface Sample {
  readonly atMs: number;
  readonly offered: number;
  readonly accepted: number;
  readonly handled: number;
  readonly refused: ReadonlyMap<string, number>;
  readonly depth: number;
  readonly limitMessages: number;
  readonly secondsOfWork: number | undefined;
  readonly window: number;
  readonly inFlight: number;
  readonly credits: number;
  readonly waiting: number;
  readonly isBlocked: boolean;
  readonly blockedMs: number;
  readonly breaker: string;
  readonly latencyMs: Latency;
}

export interface Latency {
  readonly p50: number;
  readonly p99: number;
}

const busyShare = 0.1;
/** With less time under load than this, goodput is what was handled over the whole run. */
const busyLeastMs = 1000;

export class Meter {
  handled = 0;
  peakInFlight = 0;
  peakDepth = 0;
  rssPeakBytes = 0;
  /** The most by which calls in flight passed the window that was granted for them. */
  overrun = 0;
  #inFlight = 0;
  #busyMs = 0;
  #busyHandled = 0;
  #workedMs = 0;
  #last: Sample | undefined;
  readonly #latency: RecordableHistogram = createHistogram({ figures: 3 });
  readonly #flow: Flow<Uint8Array>;
  readonly #producer: Producer;
  readonly #offeredMs: number;

  /** @param offeredMs How long messages are offered. */
  constructor(flow: Flow<Uint8Array>, producer: Producer, offeredMs: number) {
    this.#flow = flow;
    this.#producer = producer;
    this.#offeredMs = offeredMs;
  }

  /** A call of the handler begins. */
  began(): void {
    this.#inFlight++;
    if (this.#inFlight <= this.peakInFlight) return;
    this.peakInFlight = this.#inFlight;
    const { limit } = this.#flow.state().target.window;
    this.overrun = Math.max(this.overrun, this.#inFlight - limit);
  }

  ended(durationMs: number, isHandled: boolean): void {
    this.#inFlight--;
    if (isHandled) this.handled++;
    this.#latency.record(Math.max(1, Math.round(durationMs * 1000)));
  }

  get latencyMs(): Latency {
    if (this.#latency.count === 0) return { p50: 0, p99: 0 };
    const at = (percent: number): number => this.#latency.percentile(percent) / 1000;
    return { p50: at(50), p99: at(99) };
  }

  get goodputPerS(): number {
    const [handled, ms] =
      this.#busyMs >= busyLeastMs
        ? [this.#busyHandled, this.#busyMs]
        : [this.handled, this.#workedMs];
    return ms === 0 ? 0 : (handled * 1000) / ms;
  }

  sample(atMs: number): Sample {
    const state = this.#flow.state();
    const { offered, accepted, refused, waiting, isBlocked, blockedMs } = this.#producer;
    const sample: Sample = {
      atMs,
      offered,
      accepted,
      handled: this.handled,
      refused,
      depth: state.depth,
      limitMessages: state.limitMessages,
      secondsOfWork: state.secondsOfWork,
      window: state.target.window.limit,
      inFlight: this.#inFlight,
      credits: state.producer.credits,
      waiting,
      isBlocked,
      blockedMs,
      breaker: state.target.breaker.state,
      latencyMs: this.latencyMs,
    };
    this.peakDepth = Math.max(this.peakDepth, state.depth);
    this.rssPeakBytes = Math.max(this.rssPeakBytes, process.memoryUsage.rss());
    const last = this.#last;
    if (last !== undefined) {
      const least = busyShare * sample.limitMessages;
      if (atMs <= this.#offeredMs && Math.min(last.depth, sample.depth) >= least) {
        this.#busyMs += sample.atMs - last.atMs;
        this.#busyHandled += sample.handled - last.handled;
      }
      if (sample.handled > last.handled) this.#workedMs = sample.atMs;
    }
    this.#last = sample;
    return sample;
  }
}

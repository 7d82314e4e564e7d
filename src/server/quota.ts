/**
 * What each principal has used of its quota: requests and bytes by rate (GCRA, `control/limiter`),
 * connections by count. All of it is in memory and of this process; a restart begins rested.
 *
 * Q1  A refused request spends nothing of the quota that refused it.
 * Q2  What was not declared is paid when it has come, by whoever comes next: sending in chunks gains
 *     nothing, and a WebSocket is read no faster than its quota is earned.
 */
import type { Duplex } from "node:stream";
import { SpillwayError } from "../base/index.ts";
import type { Clock } from "../base/index.ts";
import type { Quota } from "../config/index.ts";
import { limiter } from "../control/index.ts";
import type { Limiter } from "../control/index.ts";

interface Usage {
  readonly quota: Quota;
  readonly requests: Limiter | undefined;
  readonly bytes: Limiter | undefined;
  readonly connections: Set<Duplex>;
}

/** How long to wait for a connection to become free: nobody knows, so often enough and not too often. */
const connectionRetryMs = 1000;

export class Quotas {
  readonly #standard: Quota;
  readonly #clock: Clock;
  readonly #usages = new Map<string, Usage>();

  /** @param standard Of every principal that has none of its own. */
  constructor(standard: Quota, clock: Clock) {
    this.#standard = standard;
    this.#clock = clock;
  }

  /** @throws {SpillwayError} quota_exceeded */
  charge(id: string, own: Quota | undefined, bytes: number): void {
    const quota = own ?? this.#standard;
    if (quota.requests === undefined && quota.bytes === undefined) return;
    const usage = this.#usageOf(id, quota);
    const nowMs = this.#clock.now();
    if (usage.requests !== undefined) {
      const waitMs = limiter.take(usage.requests, nowMs, 1);
      if (waitMs > 0) throw exceeded("requests", waitMs);
    }
    if (usage.bytes !== undefined) {
      const waitMs = limiter.take(usage.bytes, nowMs, bytes);
      if (waitMs > 0) throw exceeded("bytes", waitMs);
    }
  }

  /** @returns How long nothing more should be taken from it, in ms. */
  owe(id: string, own: Quota | undefined, requests: number, bytes: number): number {
    const quota = own ?? this.#standard;
    if (quota.requests === undefined && quota.bytes === undefined) return 0;
    const usage = this.#usageOf(id, quota);
    const nowMs = this.#clock.now();
    const owed = (of: Limiter | undefined, cost: number): number =>
      of === undefined ? 0 : limiter.owe(of, nowMs, cost);
    return Math.max(owed(usage.requests, requests), owed(usage.bytes, bytes));
  }

  /** @throws {SpillwayError} quota_exceeded */
  attach(id: string, own: Quota | undefined, connection: Duplex): void {
    const quota = own ?? this.#standard;
    if (quota.connections === undefined) return;
    const { connections } = this.#usageOf(id, quota);
    if (connections.has(connection)) return;
    if (connections.size >= quota.connections) throw exceeded("connections", connectionRetryMs);
    connections.add(connection);
    connection.once("close", () => connections.delete(connection));
  }

  /** Of a principal that is gone. */
  forget(id: string): void {
    this.#usages.delete(id);
  }

  #usageOf(id: string, quota: Quota): Usage {
    const known = this.#usages.get(id);
    if (known?.quota === quota) return known;
    const usage: Usage = {
      quota,
      requests: this.#limiter(quota.requests),
      bytes: this.#limiter(quota.bytes),
      connections: known?.connections ?? new Set(),
    };
    this.#usages.set(id, usage);
    return usage;
  }

  #limiter(rate: Quota["requests"]): Limiter | undefined {
    if (rate === undefined) return undefined;
    return limiter.init({ ratePerS: rate.perSecond, burst: rate.burst }, this.#clock.now());
  }
}

function exceeded(quota: keyof Quota, retryAfterMs: number): SpillwayError {
  return new SpillwayError("quota_exceeded", { quota, retryAfterMs: Math.ceil(retryAfterMs) });
}

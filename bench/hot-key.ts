/**
 * One key has 100,000 messages that wait behind a message which fails each time it is tried; other
 * keys send 1,000 messages/s. The floor is the latency of those keys without the hot one. Both run in
 * turn, each time in a fresh process.
 */
import { figure, median, percentile } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { paced, steady } from "./pace.ts";
import { sleep, withStore } from "./store.ts";
import type { Flow } from "../src/spillway.ts";

const rounds = 5;
const stuck = 100_000;
const batchSize = 4096;
const ratePerS = 1000;
const otherKeys = 500;
const warmUpMs = 2000;
const durationMs = 6000;

interface Latencies {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export const hotKey: Bench = {
  name: "hot-key",
  describe:
    "latency of 500 keys at 1,000/s beside a key with 100,000 messages stuck, and without it",
  run: async () => {
    const pairs: { hot: Latencies; cold: Latencies }[] = [];
    for (let round = 0; round < rounds; round++) {
      pairs.push({
        cold: await inFreshProcess<Latencies>("hot-key", { stuck: 0 }),
        hot: await inFreshProcess<Latencies>("hot-key", { stuck }),
      });
    }
    const compared = (
      name: string,
      pick: (found: Latencies) => number,
    ): Parameters<typeof figure>[0] => ({
      name,
      value: median(pairs.map(({ hot }) => pick(hot))),
      unit: "ms",
      floor: median(pairs.map(({ cold }) => pick(cold))),
      ratio: median(pairs.map(({ hot, cold }) => pick(hot) / pick(cold))),
    });
    return [
      figure(
        compared("p99 of the other keys", ({ p99Ms }) => p99Ms),
        { of: "ratio", atMost: 1.1 },
      ),
      figure(compared("p50 of the other keys", ({ p50Ms }) => p50Ms)),
    ];
  },
};

export function task({ stuck }: { readonly stuck: number }): Promise<Latencies> {
  return withStore(async (spillway) => {
    const flow = spillway.flow<Uint8Array>("hot-key", {
      payload: "bytes",
      retry: { attempts: 1000, delay: ["100ms", "1s"] },
    });
    const latencies: number[] = [];
    let measuring = false;
    flow.consume((payload, delivery) => {
      if (delivery.key === "hot") throw new Error("it always fails");
      const sentMs = new DataView(payload.buffer, payload.byteOffset).getFloat64(0);
      if (measuring) latencies.push(performance.now() - sentMs);
    });
    await flow.opened();
    await sendHot(flow, stuck);
    const send = (at: number): void => {
      const payload = new Uint8Array(256);
      new DataView(payload.buffer).setFloat64(0, performance.now());
      void flow.send(payload, { key: `key-${at % otherKeys}` });
    };
    await paced(warmUpMs, steady(ratePerS), send);
    measuring = true;
    await paced(durationMs, steady(ratePerS), send);
    while (flow.state().depth > stuck) await sleep(1);
    return { p50Ms: percentile(latencies, 0.5), p99Ms: percentile(latencies, 0.99) };
  });
}

async function sendHot(flow: Flow<Uint8Array>, count: number): Promise<void> {
  const payload = new Uint8Array(256);
  for (let sent = 0; sent < count; sent += batchSize) {
    const batch = Array.from({ length: Math.min(batchSize, count - sent) }, () => payload);
    const results = await flow.sendBatch(batch, () => ({ key: "hot" }));
    for (const result of results) if (!result.accepted) throw result.error;
  }
}

/**
 * How long the process's event loop is held up while the disk is slow: 3 ms are added to every flush,
 * and 5,000 messages/s are sent and handled. The floor is the same loop without a load. A delay is
 * what a timer of 1 ms took beyond that; the timer itself rounds up by as much as 1 ms.
 */
import { figure, median, percentile } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { paced, steady } from "./pace.ts";
import { drained, sleep, withStore } from "./store.ts";

const rounds = 3;
const slowDiskMs = 3;
const ratePerS = 5000;

interface Delays {
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly idleP99Ms: number;
}

export const eventLoop: Bench = {
  name: "event-loop",
  describe: "delay of the event loop at 5,000/s with 3 ms added to every flush",
  run: async () => {
    const found: Delays[] = [];
    for (let i = 0; i < rounds; i++) found.push(await inFreshProcess<Delays>("event-loop", {}));
    const of = (pick: (round: Delays) => number): number => median(found.map(pick));
    return [
      figure(
        {
          name: "p99",
          value: of(({ p99Ms }) => p99Ms),
          unit: "ms",
          floor: of(({ idleP99Ms }) => idleP99Ms),
        },
        { of: "value", atMost: 5 },
      ),
      figure({ name: "longest", value: of(({ maxMs }) => maxMs), unit: "ms" }),
    ];
  },
};

export async function task(): Promise<Delays> {
  const idle = await delaysDuring(sleep(2000));
  const delays = await withStore(
    async (spillway) => {
      const flow = spillway.flow<Uint8Array>("event-loop", { payload: "bytes" });
      flow.consume(() => undefined);
      await flow.opened();
      const payload = new Uint8Array(256);
      const load = (durationMs: number): Promise<void> =>
        paced(durationMs, steady(ratePerS), () => void flow.send(payload));
      await load(2000);
      const delays = await delaysDuring(load(6000));
      await drained(flow);
      return delays;
    },
    { slowDiskMs },
  );
  return {
    p99Ms: percentile(delays, 0.99),
    maxMs: Math.max(...delays),
    idleP99Ms: percentile(idle, 0.99),
  };
}

async function delaysDuring(work: Promise<void>): Promise<number[]> {
  const delays: number[] = [];
  const state = { isOver: false };
  void work.finally(() => (state.isOver = true));
  while (!state.isOver) {
    const beganMs = performance.now();
    await sleep(1);
    delays.push(Math.max(0, performance.now() - beganMs - 1));
  }
  return delays;
}

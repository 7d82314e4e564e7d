/**
 * What faults of the network cost: a producer and a worker in one process, a server in another, and a
 * way between them that stalls, resets, is cut for ten seconds, or loses one end. Told for each: how long
 * after the fault is over until nine tenths of the rate before it are back.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { figure } from "./bench.ts";
import type { Bench, Figure } from "./bench.ts";
import { connect } from "../src/client/index.ts";
import { FaultProxy } from "../test/support/fault-proxy.ts";
import { freePort, Serve } from "../test/support/serve.ts";
import { TempDir } from "../test/support/temp-dir.ts";

interface Fault {
  readonly name: string;
  run(way: FaultProxy): Promise<void>;
}

const faults: readonly Fault[] = [
  { name: "stall of 1 s", run: (way) => cutFor(way, 1000) },
  { name: "reset", run: async (way) => way.reset() },
  { name: "partition of 10 s", run: (way) => cutFor(way, 10_000) },
  { name: "half-open connection", run: async (way) => way.halfOpen() },
];
const jitterMs = 50;
const rateSpanMs = 1000;
const recoveryMaxMs = 30_000;
const handlerMs = 20;
const window = 64;
const flows = {
  orders: { buffer: { messages: 2000 }, order: "none", window: { fixed: window } },
} as const;

async function cutFor(way: FaultProxy, ms: number): Promise<void> {
  way.cut();
  await sleep(ms);
  way.mend();
}

export const network: Bench = {
  name: "network",
  describe: "recovery from faults between client and server, with 50 ms of jitter always",
  run: async () => {
    using dir = new TempDir();
    await using server = new Serve(dir.path, await freePort(), { flows });
    await server.start();
    await using way = await FaultProxy.open(server.url, 1);
    way.jitterMs = jitterMs;
    await using client = connect({ url: way.url, drain: "1s" });
    const load = new Load(client.flow<number>("orders"));
    await sleep(4000);
    const figures: Figure[] = [];
    for (const fault of faults) figures.push(await recovery(fault, way, load));
    load.stop();
    return figures;
  },
};

async function recovery(fault: Fault, way: FaultProxy, load: Load): Promise<Figure> {
  const from = load.handled;
  await sleep(2000);
  const usualPerS = (load.handled - from) / 2;
  await fault.run(way);
  const overAtMs = performance.now();
  const counts: { readonly atMs: number; readonly handled: number }[] = [];
  let tookMs = recoveryMaxMs;
  while (performance.now() - overAtMs < recoveryMaxMs) {
    await sleep(50);
    const nowMs = performance.now();
    counts.push({ atMs: nowMs, handled: load.handled });
    const before = counts.findLast(({ atMs }) => atMs <= nowMs - rateSpanMs);
    if (before === undefined) continue;
    const perS = ((load.handled - before.handled) * 1000) / (nowMs - before.atMs);
    if (perS < 0.9 * usualPerS) continue;
    tookMs = before.atMs - overAtMs; // From there on the rate was back.
    break;
  }
  await sleep(2000);
  const name = `${fault.name}: 90 % of ${Math.round(usualPerS)}/s back after`;
  return figure({ name, value: Math.max(0, tookMs / 1000), unit: "s" }, { of: "value", atMost: 5 });
}

/** Sends as credit allows, and handles what comes. */
class Load {
  handled = 0;
  #isStopped = false;

  constructor(flow: ReturnType<ReturnType<typeof connect>["flow"]>) {
    flow.consume(async () => {
      await sleep(handlerMs);
      this.handled++;
    });
    for (let n = 0; n < 4; n++) void this.#send(flow);
  }

  async #send(flow: ReturnType<ReturnType<typeof connect>["flow"]>): Promise<void> {
    while (!this.#isStopped) await flow.sendBatch(Array.from({ length: 100 }, (_, n) => n));
  }

  stop(): void {
    this.#isStopped = true;
  }
}

/**
 * The reference spike through a server: 800 messages/s for 5 s, 5,000/s for 20 s, 800/s for 5 s, from a
 * producer process over a WebSocket, into the knee consumer: in a worker process over a WebSocket, and
 * behind HTTP, to which the server pushes. The floor is the best that the consumer can do.
 */
import { figure } from "./bench.ts";
import type { Bench, Figure } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { Knee } from "./knee.ts";
import { paced } from "./pace.ts";
import { sleep } from "./store.ts";
import { Service } from "../src/cli/demo/service.ts";
import { connect, SpillwayError } from "../src/client/index.ts";
import type { FlowOptions } from "../src/spillway.ts";
import { freePort, Serve } from "../test/support/serve.ts";
import { TempDir } from "../test/support/temp-dir.ts";

interface Part {
  readonly part: "producer" | "worker";
  readonly url: string;
  readonly startAtMs: number;
}

/** Counts at times since the start. */
type Samples = readonly (readonly [atMs: number, count: number])[];

const calmMs = 5000;
const spikeMs = 20_000;
const settledMs = 5000;
const calmPerS = 800;
const spikePerS = 5000;
const bestPerS = 1659;
const totalMs = calmMs + spikeMs + calmMs;
const buffer = { messages: 20_000, seconds: 5 };
const leadMs = 3000;
const idleMs = 2000;
const sampleMs = 50;

export const spike: Bench = {
  name: "spike",
  describe: "5,000/s for 20 s through a server, to a worker and by push, against the best fixed",
  run: async () => [...(await toWorker()), ...(await byPush())],
};

async function withServer<T>(
  orders: FlowOptions,
  run: (server: Serve, startAtMs: number) => Promise<T>,
): Promise<T> {
  using dir = new TempDir();
  await using server = new Serve(dir.path, await freePort(), { flows: { orders } });
  await server.start();
  return await run(server, Date.now() + leadMs);
}

function toWorker(): Promise<Figure[]> {
  return withServer({ buffer, payload: "bytes", order: "none" }, async ({ url }, startAtMs) => {
    const [accepted, handled] = await Promise.all([
      inFreshProcess<Samples>("spike", { part: "producer", url, startAtMs }),
      inFreshProcess<Samples>("spike", { part: "worker", url, startAtMs }),
    ]);
    return [...figuresOf("worker", accepted, handled), await lagFigure("worker", url)];
  });
}

async function byPush(): Promise<Figure[]> {
  await using service = await Service.start();
  const { port } = service;
  const url = `http://127.0.0.1:${port}/`;
  const deliver = { kind: "push", url, allow: ["http", "loopback"], ports: [port] } as const;
  const orders: FlowOptions = { buffer, payload: "bytes", order: "none", deliver };
  return await withServer(orders, async (server, startAtMs) => {
    const before = (await service.stats())!.served;
    const samples: [number, number][] = [];
    const watch = setInterval(() => {
      void service.stats().then((stats) => {
        if (stats !== undefined) samples.push([Date.now() - startAtMs, stats.served - before]);
      });
    }, sampleMs);
    const part = { part: "producer", url: server.url, startAtMs };
    const accepted = await inFreshProcess<Samples>("spike", part);
    const total = accepted.at(-1)![1];
    for (let waitedMs = 0; (samples.at(-1)?.[1] ?? 0) < total; waitedMs += 100) {
      if (waitedMs > 60_000) break;
      await sleep(100);
    }
    clearInterval(watch);
    return [...figuresOf("push", accepted, samples), await lagFigure("push", server.url)];
  });
}

function figuresOf(name: string, accepted: Samples, handled: Samples): Figure[] {
  const from = calmMs + settledMs;
  const to = calmMs + spikeMs;
  const goodput = rateOf(handled, from, to);
  const lost = accepted.at(-1)![1] - handled.at(-1)![1];
  return [
    figure(
      { name: `${name}: goodput in the spike`, value: goodput, unit: "/s", floor: bestPerS },
      { of: "ratio", atLeast: 0.95 },
    ),
    figure({
      name: `${name}: taken in the spike`,
      value: rateOf(accepted, from, to),
      unit: "/s",
      floor: goodput,
    }),
    figure(
      { name: `${name}: lost`, value: Math.max(0, lost), unit: "messages" },
      { of: "value", atMost: 0 },
    ),
  ];
}

/** From a grant's issue to its use by the producer, by the server's own clock. */
async function lagFigure(name: string, url: string): Promise<Figure> {
  const response = await fetch(`${url}/v1/flows/orders`);
  const { signalLagMs } = (await response.json()) as { signalLagMs: { p99: number } };
  const { p99 } = signalLagMs;
  return figure(
    { name: `${name}: signal lag, p99`, value: p99, unit: "ms" },
    { of: "value", atMost: 50 },
  );
}

function rateOf(samples: Samples, fromMs: number, toMs: number): number {
  const first = samples.find(([atMs]) => atMs >= fromMs)!;
  const last = samples.findLast(([atMs]) => atMs <= toMs)!;
  return ((last[1] - first[1]) * 1000) / (last[0] - first[0]);
}

export async function task({ part, url, startAtMs }: Part): Promise<Samples> {
  await using client = connect({ url, drain: "1s" });
  const flow = client.flow<Uint8Array>("orders");
  const samples: [number, number][] = [];
  let count = 0;
  const sample = (): void => void samples.push([Date.now() - startAtMs, count]);
  const watch = setInterval(sample, sampleMs);
  if (part === "worker") {
    const knee = new Knee();
    flow.consume(async () => {
      await knee.call();
      count++;
    });
    const endAtMs = startAtMs + totalMs;
    while (Date.now() < endAtMs || samples.at(-idleMs / sampleMs)?.[1] !== count) await sleep(20);
  } else {
    await flow.ready();
    await sleep(startAtMs - Date.now());
    const payload = new Uint8Array(256);
    const answers: Promise<void>[] = [];
    const offer = (): void => {
      const sent = flow.trySend(payload);
      if (sent instanceof Promise) answers.push(sent.then(() => void count++, isRefusal));
    };
    await paced(calmMs, (ms) => (ms * calmPerS) / 1000, offer);
    await paced(spikeMs, (ms) => (ms * spikePerS) / 1000, offer);
    await paced(calmMs, (ms) => (ms * calmPerS) / 1000, offer);
    await Promise.all(answers);
  }
  clearInterval(watch);
  sample();
  return samples;
}

function isRefusal(error: unknown): void {
  if (error instanceof SpillwayError && error.retry === "later") return;
  throw error;
}

/**
 * Ten thousand producers that are connected and send nothing: what each costs the server, and what they
 * cost a producer that sends.
 */
import { readFileSync } from "node:fs";
import { figure } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { sleep } from "./store.ts";
import { connect } from "../src/client/index.ts";
import type { Client } from "../src/client/index.ts";
import { freePort, Serve } from "../test/support/serve.ts";
import { TempDir } from "../test/support/temp-dir.ts";

interface Idle {
  readonly url: string;
  readonly count: number;
  readonly pid: number;
}

const idleCount = 10_000;
const atOnce = 100;
const restMs = 5000;
const sends = 40_000;
const flows = { orders: { payload: "bytes", buffer: { messages: 2000 } } } as const;

export const idle: Bench = {
  name: "idle",
  describe: "10,000 idle WebSocket producers: memory of the server, and the rate of an active one",
  run: async () => {
    using dir = new TempDir();
    await using server = new Serve(dir.path, await freePort(), { flows });
    await server.start();
    const [pid, url] = [server.pid!, server.url];
    // The compiler and the heap have grown to what the work needs before the first reading.
    await inFreshProcess<Outcome>("idle", { url, count: 500, pid });
    const { kibEach, alonePerS, amongPerS } = await inFreshProcess<Outcome>("idle", {
      url,
      count: idleCount,
      pid,
    });
    return [
      figure(
        { name: "resident memory of each", value: kibEach, unit: "KiB" },
        { of: "value", atMost: 40 },
      ),
      figure({
        name: "an active producer among them",
        value: amongPerS,
        unit: "messages/s",
        floor: alonePerS,
      }),
    ];
  },
};

interface Outcome {
  readonly kibEach: number;
  readonly alonePerS: number;
  readonly amongPerS: number;
}

export async function task({ url, count, pid }: Idle): Promise<Outcome> {
  await using active = connect({ url });
  active.flow<Uint8Array>("orders").consume(() => undefined);
  await perSecond(active);
  const alonePerS = await perSecond(active);
  const before = residentKib(pid);
  const clients: Client[] = [];
  for (let from = 0; from < count; from += atOnce) {
    const some = Array.from({ length: atOnce }, () => connect({ url, drain: 1 }));
    await Promise.all(some.map((client) => client.flow("orders").ready()));
    clients.push(...some);
  }
  await sleep(restMs);
  const kibEach = (residentKib(pid) - before) / count;
  const amongPerS = await perSecond(active);
  await Promise.all(clients.map((client) => client.close()));
  return { kibEach, alonePerS, amongPerS };
}

async function perSecond(client: Client): Promise<number> {
  const flow = client.flow<Uint8Array>("orders");
  const batch = Array.from({ length: 500 }, () => new Uint8Array(256));
  const beganMs = performance.now();
  for (let sent = 0; sent < sends; sent += batch.length) await flow.sendBatch(batch);
  return (sends / (performance.now() - beganMs)) * 1000;
}

function residentKib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]);
}

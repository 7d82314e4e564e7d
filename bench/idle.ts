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

const idleCount = 10_000;
const atOnce = 100;
const restMs = 5000;
const sends = 40_000;
/** The worker keeps up: the credit of producers is what may be short. */
const flows = {
  orders: { payload: "bytes", buffer: { messages: 2000 }, window: { fixed: 256 } },
} as const;

export const idle: Bench = {
  name: "idle",
  describe: "10,000 idle WebSocket producers: memory of the server, and the rate of an active one",
  run: async () => {
    const alonePerS = await withServer(({ url }) => activePerS(url));
    const { kibEach, amongPerS } = await withServer(async (server) => {
      const beforeKib = residentKib(server.pid!); // Before it has done anything.
      const clients = await connectMany(server.url);
      await sleep(restMs);
      const kibEach = (residentKib(server.pid!) - beforeKib) / clients.length;
      const amongPerS = await activePerS(server.url);
      await Promise.all(clients.map((client) => client.close()));
      return { kibEach, amongPerS };
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

async function withServer<Result>(use: (server: Serve) => Promise<Result>): Promise<Result> {
  using dir = new TempDir();
  await using server = new Serve(dir.path, await freePort(), { flows });
  await server.start();
  return await use(server);
}

async function connectMany(url: string): Promise<Client[]> {
  const clients: Client[] = [];
  for (let from = 0; from < idleCount; from += atOnce) {
    const some = Array.from({ length: atOnce }, () => connect({ url, drain: 1 }));
    await Promise.all(some.map((client) => client.flow("orders").ready()));
    clients.push(...some);
  }
  return clients;
}

/** In a process of its own, which does not have the idle ones to serve. */
function activePerS(url: string): Promise<number> {
  return inFreshProcess<number>("idle", { url });
}

export async function task({ url }: { readonly url: string }): Promise<number> {
  await using client = connect({ url });
  const flow = client.flow<Uint8Array>("orders");
  flow.consume(() => undefined);
  const batch = Array.from({ length: 500 }, () => new Uint8Array(256));
  let perS = 0;
  // The first time is for the compiler.
  for (let time = 0; time < 2; time++) {
    const beganMs = performance.now();
    for (let sent = 0; sent < sends; sent += batch.length) await flow.sendBatch(batch);
    perS = (sends / (performance.now() - beganMs)) * 1000;
  }
  return perS;
}

function residentKib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]);
}

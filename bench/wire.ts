/**
 * Durable messages per second over the wire, and in process in the same run: a producer process sends
 * batches over a WebSocket to a server process, whose flow nobody takes from.
 */
import { figure, median } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { withStore } from "./store.ts";
import { connect } from "../src/client/index.ts";
import { freePort, Serve } from "../test/support/serve.ts";
import { TempDir } from "../test/support/temp-dir.ts";

interface Load {
  readonly subject: "library" | "websocket";
  readonly url?: string;
}

const payloadBytes = 256;
const messages = 150_000;
const batchSize = 500;
const senders = 4;
const rounds = 3;
const flows = { orders: { payload: "bytes", buffer: { messages: 10_000_000 } } } as const;

export const wire: Bench = {
  name: "wire",
  describe: "durable sends of 256 B over a WebSocket, against the library's in the same run",
  run: async () => {
    const pairs: { library: number; websocket: number }[] = [];
    for (let round = 0; round < rounds; round++) {
      pairs.push({
        library: await inFreshProcess<number>("wire", { subject: "library" }),
        websocket: await overWebSocket(),
      });
    }
    return [
      figure(
        {
          name: "WebSocket producer",
          value: median(pairs.map(({ websocket }) => websocket)),
          unit: "messages/s",
          floor: median(pairs.map(({ library }) => library)),
          ratio: median(pairs.map(({ websocket, library }) => websocket / library)),
        },
        { of: "value", atLeast: 30_000 },
      ),
    ];
  },
};

async function overWebSocket(): Promise<number> {
  using dir = new TempDir();
  await using server = new Serve(dir.path, await freePort(), { flows });
  await server.start();
  return await inFreshProcess<number>("wire", { subject: "websocket", url: server.url });
}

export async function task({ subject, url }: Load): Promise<number> {
  if (subject === "library") {
    return withStore((spillway) => perSecond(spillway.flow<Uint8Array>("orders", flows.orders)));
  }
  await using client = connect({ url: url! });
  return await perSecond(client.flow<Uint8Array>("orders"));
}

interface Sending {
  sendBatch(values: readonly Uint8Array[]): Promise<readonly { readonly accepted: boolean }[]>;
}

async function perSecond(flow: Sending): Promise<number> {
  await send(flow, messages / 5);
  const beganMs = performance.now();
  await send(flow, messages);
  return (messages / (performance.now() - beganMs)) * 1000;
}

async function send(flow: Sending, count: number): Promise<void> {
  const batch = Array.from({ length: batchSize }, () => new Uint8Array(payloadBytes).fill(7));
  let sent = 0;
  const sender = async (): Promise<void> => {
    while (sent < count) {
      sent += batchSize;
      const results = await flow.sendBatch(batch);
      if (results.some(({ accepted }) => !accepted)) throw new Error(JSON.stringify(results[0]));
    }
  };
  await Promise.all(Array.from({ length: senders }, sender));
}

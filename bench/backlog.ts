/**
 * A process that meets a large backlog: how long it takes to open the store and to hand out the first
 * message, how much memory it holds while it drains, and how fast it does. One process fills the
 * store and ends, another one opens it. The same with a tenth of the backlog is the floor: memory and
 * the time to open must not grow with what is stored.
 */
import { figure } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { drained, inTempFolder } from "./store.ts";
import { openSpillway } from "../src/spillway.ts";
import type { Flow, Spillway } from "../src/spillway.ts";

const messages = 2_000_000;
const batchSize = 4096;
const megabyte = 1e6;
/** V8 keeps three times this for the young; by default it lets garbage pile up where memory is plenty. */
const leanHeap = "--max-semi-space-size=2";

interface Step {
  readonly step: "fill" | "drain";
  readonly dir: string;
  readonly messages: number;
}

interface Drained {
  readonly openMs: number;
  readonly firstMs: number;
  readonly rssMb: number;
  readonly perS: number;
}

export const backlog: Bench = {
  name: "backlog",
  describe: "2 million pending messages of 256 B: open, first delivery, drain, against 200,000",
  run: async () => {
    const small = await fillAndDrain(messages / 10);
    const large = await fillAndDrain(messages);
    const lean = await fillAndDrain(messages, [leanHeap]);
    return [
      figure(
        { name: "open", value: large.openMs, unit: "ms", floor: small.openMs },
        { of: "value", atMost: 2000 },
      ),
      figure({ name: "first delivery", value: large.firstMs, unit: "ms", floor: small.firstMs }),
      figure(
        { name: "largest RSS", value: large.rssMb, unit: "MB", floor: small.rssMb },
        { of: "value", atMost: 350 },
        { of: "ratio", atMost: 1.2 },
      ),
      figure(
        { name: `largest RSS, ${leanHeap}`, value: lean.rssMb, unit: "MB" },
        { of: "value", atMost: 350 },
      ),
      figure({ name: "drain", value: large.perS, unit: "messages/s", floor: small.perS }),
    ];
  },
};

function fillAndDrain(messages: number, flags: readonly string[] = []): Promise<Drained> {
  return inTempFolder(async (dir) => {
    await inFreshProcess("backlog", { step: "fill", dir, messages });
    return await inFreshProcess<Drained>("backlog", { step: "drain", dir, messages }, flags);
  });
}

export async function task({ step, dir, messages }: Step): Promise<Drained | undefined> {
  const beganMs = performance.now();
  await using spillway = await openSpillway({ dir });
  const flow = flowOf(spillway);
  await flow.opened();
  const openMs = performance.now() - beganMs;
  if (step === "drain") return await drain(flow, messages, beganMs, openMs);
  await fill(flow, messages);
  return undefined;
}

function flowOf(spillway: Spillway): Flow<Uint8Array> {
  return spillway.flow<Uint8Array>("backlog", {
    payload: "bytes",
    // A fifth of the buffer is kept for critical messages.
    buffer: { messages: 2 * messages, bytes: "4 GiB" },
    window: { fixed: 1000 },
  });
}

async function fill(flow: Flow<Uint8Array>, messages: number): Promise<void> {
  const payload = new Uint8Array(256).fill(7);
  for (let sent = 0; sent < messages; sent += batchSize) {
    const batch = Array.from({ length: Math.min(batchSize, messages - sent) }, () => payload);
    for (const result of await flow.sendBatch(batch)) if (!result.accepted) throw result.error;
  }
}

async function drain(
  flow: Flow<Uint8Array>,
  messages: number,
  beganMs: number,
  openMs: number,
): Promise<Drained> {
  let handled = 0;
  let firstMs = 0;
  let rss = 0;
  const watch = setInterval(() => {
    rss = Math.max(rss, process.memoryUsage.rss());
  }, 50);
  const drainMs = performance.now();
  flow.consume(() => {
    if (handled++ === 0) firstMs = performance.now() - beganMs;
  });
  await drained(flow);
  const tookMs = performance.now() - drainMs;
  clearInterval(watch);
  if (handled < messages) throw new Error(`${handled} of ${messages} were handled`);
  return { openMs, firstMs, rssMb: rss / megabyte, perS: (messages / tookMs) * 1000 };
}

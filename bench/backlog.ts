/**
 * A process that meets a large backlog: how long it takes to open the store and to hand out the first
 * message, how much memory it holds while it drains, and how fast it does. One process fills the
 * store and ends, another one opens it: the built package, as those have it who installed it. The same
 * with a tenth of the backlog is the floor: memory and the time to open must not grow with what is stored.
 */
import { figure } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { buildPackage, inFreshProcess, withBuiltPackage } from "./fresh.ts";
import { inTempFolder } from "./store.ts";
import { openSpillway } from "../src/spillway.ts";
import type { Flow } from "../src/spillway.ts";

const messages = 2_000_000;
const batchSize = 4096;
/** How the `spillway` command runs itself: V8 lets garbage pile up where memory is plenty. */
const lean = ["--max-semi-space-size=4"];

const contract = {
  payload: "bytes",
  // A fifth of the buffer is kept for critical messages.
  buffer: { messages: 2 * messages, bytes: "4 GiB" },
  window: { fixed: 1000 },
} as const;

interface Fill {
  readonly dir: string;
  readonly messages: number;
  /** Of the flow; the same for who fills it and who drains it. */
  readonly contract: typeof contract;
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
    buildPackage();
    const small = await fillAndDrain(messages / 10, lean);
    const large = await fillAndDrain(messages, lean);
    const byDefault = await fillAndDrain(messages, []);
    return [
      figure(
        { name: "open", value: large.openMs, unit: "ms", floor: small.openMs },
        { of: "value", atMost: 2000 },
      ),
      figure({ name: "first delivery", value: large.firstMs, unit: "ms", floor: small.firstMs }),
      figure(
        {
          name: `largest RSS, ${lean.join(" ")}`,
          value: large.rssMb,
          unit: "MB",
          floor: small.rssMb,
        },
        { of: "value", atMost: 350 },
        { of: "ratio", atMost: 1.2 },
      ),
      figure(
        { name: "largest RSS, V8's defaults", value: byDefault.rssMb, unit: "MB" },
        { of: "value", atMost: 350 },
      ),
      figure({ name: "drain", value: large.perS, unit: "messages/s", floor: small.perS }),
    ];
  },
};

function fillAndDrain(messages: number, flags: readonly string[]): Promise<Drained> {
  return inTempFolder(async (dir) => {
    const fill: Fill = { dir, messages, contract };
    await inFreshProcess("backlog", fill);
    return await withBuiltPackage<Drained>("drain.js", fill, flags);
  });
}

/** Fills the store, in a process that was made for it. */
export async function task({ dir, messages, contract }: Fill): Promise<void> {
  await using spillway = await openSpillway({ dir });
  const flow = spillway.flow<Uint8Array>("backlog", contract);
  await flow.opened();
  await fill(flow, messages);
}

async function fill(flow: Flow<Uint8Array>, messages: number): Promise<void> {
  const payload = new Uint8Array(256).fill(7);
  for (let sent = 0; sent < messages; sent += batchSize) {
    const batch = Array.from({ length: Math.min(batchSize, messages - sent) }, () => payload);
    for (const result of await flow.sendBatch(batch)) if (!result.accepted) throw result.error;
  }
}

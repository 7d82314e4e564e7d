/**
 * One life of the kill loop: a process that sends and handles over the library until it is killed, or
 * until everything has ended in the last life.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sequence } from "../../src/base/index.ts";
import { openSpillway, SpillwayError } from "../../src/spillway.ts";
import type { Delivery, Flow } from "../../src/spillway.ts";
import { Ledger, readLedger } from "./ledger.ts";

export interface LifeOptions {
  readonly store: string;
  readonly ledgers: string;
  readonly life: number;
  readonly seed: number;
  /** It begins to close after this long; 0: it is killed before. */
  readonly closeAfterMs: number;
  /** Sends nothing new, ends everything. */
  readonly isLast: boolean;
}

interface Work {
  readonly op: string;
}

const keys = 12;
const batch = 24;
/** With keys that wait for one another a handler of some ms lets a backlog grow and shrink. */
const handlerMsMax = 4;

const options = JSON.parse(process.argv[2]!) as LifeOptions;
const path = join(options.ledgers, "ledger");
const before = readLedger(path);
const draw = sequence(options.seed);
using ledger = new Ledger(path);
ledger.write({ kind: "life", life: options.life });
const spillway = await openSpillway({ dir: options.store, drainMaxMs: 500 });
const orders = spillway.flow<Work>("orders", {
  partitions: 4,
  buffer: { messages: 400 },
  retry: { attempts: 1000, delay: ["5ms", "50ms"], budget: 1 },
});
await orders.opened();
process.stdout.write("open\n");
orders.consume(handle);
await Promise.all([produce(orders), closeSoon()]);
if (options.isLast) await end(orders);

async function handle({ op }: Work, delivery: Delivery<Work>): Promise<void> {
  const { id, attempt, key } = delivery;
  ledger.write({ kind: "start", id, op, key: key!, attempt });
  if (draw() < 0.7) await sleep(draw() * handlerMsMax);
  if (draw() < 0.1) {
    ledger.write({ kind: "nack", id });
    await delivery.nack({ error: "by lot" });
    return;
  }
  ledger.write({ kind: "ack", id });
  await delivery.ack();
  ledger.write({ kind: "acked", id });
}

/** What has no answer from the lives before goes again, under its idempotency key and before the rest. */
async function produce(flow: Flow<Work>): Promise<void> {
  const open = new Map<string, string>();
  let next = 0;
  for (const line of before) {
    if (line.kind === "send") {
      open.set(line.op, line.key);
      next = Math.max(next, Number(line.op) + 1);
    } else if (line.kind === "receipt") open.delete(line.op);
  }
  for (;;) {
    while (!options.isLast && open.size < batch) {
      open.set(String(next++), `k${Math.floor(draw() * keys)}`);
    }
    if (open.size === 0) return;
    const answers = [...open].map(([op, key]) => send(flow, op, key, open));
    ledger.sync(); // What was sent is known to the ledger before its answer can be.
    const codes = await Promise.all(answers);
    ledger.sync();
    if (codes.includes("closed")) return;
  }
}

async function send(
  flow: Flow<Work>,
  op: string,
  key: string,
  open: Map<string, string>,
): Promise<string> {
  ledger.write({ kind: "send", op, key });
  try {
    const { id } = await flow.send({ op }, { key, idempotencyKey: op });
    ledger.write({ kind: "receipt", op, id });
    open.delete(op);
    return "accepted";
  } catch (error) {
    if (!(error instanceof SpillwayError)) throw error;
    ledger.write({ kind: "refused", op, code: error.code });
    return error.code;
  }
}

async function closeSoon(): Promise<void> {
  if (options.closeAfterMs === 0) return;
  await sleep(options.closeAfterMs);
  process.stdout.write("closing\n");
  await spillway.close();
}

async function end(flow: Flow<Work>): Promise<void> {
  const ids = new Set<string>();
  while (flow.state().depth > 0) await sleep(20);
  for (const line of readLedger(path)) {
    if (line.kind === "receipt" || line.kind === "start") ids.add(line.id);
  }
  for (const id of ids) {
    ledger.write({ kind: "end", id, reason: (await flow.why(id)).reason });
  }
  await spillway.close();
}

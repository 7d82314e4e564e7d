/**
 * The whole life of a message (durable append, deliver, ack) against plain `node:sqlite` in one thread
 * on the same tables, doing the row writes of the same life.
 *
 * The subject is what a user would run who wants throughput: the default contract with a payload of
 * bytes and a window of 4,096 (the handler returns at once, so the default of 1,000 would be spent
 * twice in one commit), four callers of `sendBatch` with 1,024 messages each, one handler. What it
 * took is counted until the last ack is durable. The floor commits 1,024 messages at a time, the most
 * that the queue puts into one write of a partition. Both run in turn, each time in a fresh process, for
 * some seconds: what V8 spends on compiling in the first half second is then a small part.
 */
import { figure, median } from "./bench.ts";
import type { Bench, Figure } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { rawSqlite } from "./raw-sqlite.ts";
import { drained, withStore } from "./store.ts";
import type { Flow, MessageOptions } from "../src/spillway.ts";

interface Load {
  readonly subject: "spillway" | "raw";
  readonly messages: number;
  /** With a key and an idempotency key each. */
  readonly keyed: boolean;
}

interface Cycles {
  readonly messagesPerS: number;
  /** User and system time of the process, all threads. */
  readonly cpuUs: number;
}

const payloadBytes = 256;
const rounds = 5;
const warmUps = 40_000;
const senders = 4;
const batchSize = 1024;

export const cycle: Bench = {
  name: "cycle",
  describe: "durable append, deliver and ack of 256 B messages, against raw node:sqlite",
  run: async () => [
    ...(await compare("plain", { messages: 1_000_000, keyed: false }, 80_000)),
    ...(await compare("keyed", { messages: 300_000, keyed: true }, 35_000)),
  ],
};

async function compare(
  name: string,
  load: Omit<Load, "subject">,
  atLeastPerS: number,
): Promise<Figure[]> {
  const pairs: { spillway: Cycles; raw: Cycles }[] = [];
  for (let round = 0; round < rounds; round++) {
    pairs.push({
      spillway: await inFreshProcess<Cycles>("cycle", { ...load, subject: "spillway" }),
      raw: await inFreshProcess<Cycles>("cycle", { ...load, subject: "raw" }),
    });
  }
  const of = (pick: (pair: (typeof pairs)[number]) => number): number => median(pairs.map(pick));
  const perS = {
    name,
    value: of(({ spillway }) => spillway.messagesPerS),
    unit: "messages/s",
    floor: of(({ raw }) => raw.messagesPerS),
    ratio: of(({ spillway, raw }) => spillway.messagesPerS / raw.messagesPerS),
  };
  const best = {
    name: `${name}, best round`,
    value: Math.max(...pairs.map(({ spillway }) => spillway.messagesPerS)),
    unit: "messages/s",
    floor: Math.max(...pairs.map(({ raw }) => raw.messagesPerS)),
  };
  const cpu = {
    name: `${name}, CPU of all threads`,
    value: of(({ spillway }) => spillway.cpuUs),
    unit: "us/message",
    floor: of(({ raw }) => raw.cpuUs),
  };
  return [
    figure(perS, { of: "ratio", atLeast: 0.7 }, { of: "value", atLeast: atLeastPerS }),
    figure(best),
    figure(cpu),
  ];
}

/** One measurement, in the process that was made for it. */
export async function task({ subject, messages, keyed }: Load): Promise<Cycles> {
  if (subject === "spillway") return spillwayCycles(messages, keyed);
  const load = { groupSize: 1024, payloadBytes, keyed, work: "cycle", deletes: "runs" } as const;
  rawSqlite({ ...load, messages: warmUps });
  const before = process.cpuUsage();
  const { messagesPerS } = rawSqlite({ ...load, messages });
  return { messagesPerS, cpuUs: cpuUsSince(before) / messages };
}

function spillwayCycles(messages: number, keyed: boolean): Promise<Cycles> {
  return withStore(async (spillway) => {
    const flow = spillway.flow<Uint8Array>("cycle", {
      payload: "bytes",
      window: { fixed: 4096, max: 4096 },
    });
    flow.consume(() => undefined);
    await flow.opened();
    await send(flow, warmUps, keyed, "warm");
    const before = process.cpuUsage();
    const beganMs = performance.now();
    await send(flow, messages, keyed, "run");
    const tookMs = performance.now() - beganMs;
    return { messagesPerS: (messages / tookMs) * 1000, cpuUs: cpuUsSince(before) / messages };
  });
}

async function send(
  flow: Flow<Uint8Array>,
  messages: number,
  keyed: boolean,
  name: string,
): Promise<void> {
  const payload = new Uint8Array(payloadBytes).fill(7);
  let sent = 0;
  const sender = async (): Promise<void> => {
    while (sent < messages) {
      const from = sent;
      sent = Math.min(messages, from + batchSize);
      const batch = Array.from({ length: sent - from }, () => payload);
      const options = (_: unknown, at: number): MessageOptions => ({
        key: `key-${(from + at) * 2_654_435_761}`,
        idempotencyKey: `${name}-${from + at}`,
      });
      const results = await flow.sendBatch(batch, keyed ? options : undefined);
      for (const result of results) if (!result.accepted) throw result.error;
    }
  };
  await Promise.all(Array.from({ length: senders }, sender));
  await drained(flow);
}

function cpuUsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

/**
 * Latency from `send` to the first line of the handler, at 1,000 messages/s that leave when they are
 * due. Two commits lie on that way: the message is durable before it is taken, its attempt before it
 * is handed out. The floor is one bare commit of the same row, alone on the machine, before and after.
 */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { prepareStore } from "../src/engines/sqlite/schema.ts";
import { figure, median, percentile } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { paced, steady } from "./pace.ts";
import { drained, inTempFolder, withStore } from "./store.ts";

const rounds = 3;
const ratePerS = 1000;
const warmUpMs = 2000;
const durationMs = 6000;

interface Latencies {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly commitMs: number;
}

export const latency: Bench = {
  name: "latency",
  describe: "send to handler at 1,000/s, against one bare durable commit",
  run: async () => {
    const found: Latencies[] = [];
    for (let i = 0; i < rounds; i++) found.push(await inFreshProcess<Latencies>("latency", {}));
    const of = (pick: (round: Latencies) => number): number => median(found.map(pick));
    const floor = of(({ commitMs }) => commitMs);
    const ratio = of(({ p50Ms, commitMs }) => p50Ms / commitMs);
    const p50 = { name: "p50", value: of(({ p50Ms }) => p50Ms), unit: "ms", floor, ratio };
    return [
      figure(p50, { of: "value", atMost: 1.5 }, { of: "ratio", atMost: 4 }),
      figure(
        { name: "p99", value: of(({ p99Ms }) => p99Ms), unit: "ms" },
        { of: "value", atMost: 6 },
      ),
    ];
  },
};

export async function task(): Promise<Latencies> {
  const before = await bareCommits(300);
  const latencies = await sendAndHandle();
  const after = await bareCommits(300);
  return {
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    commitMs: median([...before, ...after]),
  };
}

function sendAndHandle(): Promise<number[]> {
  return withStore(async (spillway) => {
    const flow = spillway.flow<Uint8Array>("latency", { payload: "bytes" });
    const latencies: number[] = [];
    let measuring = false;
    flow.consume((payload) => {
      const sentMs = new DataView(payload.buffer, payload.byteOffset).getFloat64(0);
      if (measuring) latencies.push(performance.now() - sentMs);
    });
    await flow.opened();
    const send = (): void => {
      const payload = new Uint8Array(256);
      new DataView(payload.buffer).setFloat64(0, performance.now());
      void flow.send(payload);
    };
    await paced(warmUpMs, steady(ratePerS), send);
    measuring = true;
    await paced(durationMs, steady(ratePerS), send);
    await drained(flow);
    return latencies;
  });
}

/** How long each of so many commits of one row took, with the store's own tables and settings. */
function bareCommits(count: number): Promise<number[]> {
  return inTempFolder(async (dir) => {
    const db = new DatabaseSync(join(dir, "bare.db"));
    prepareStore(db);
    const insert = db.prepare("INSERT INTO msg VALUES(1, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    const payload = new Uint8Array(256);
    const tookMs: number[] = [];
    for (let seq = 1; seq <= count; seq++) {
      const beganMs = performance.now();
      db.exec("BEGIN IMMEDIATE");
      insert.run(seq, null, null, null, null, 1.7e12, seq, 256, 0, null, payload);
      db.exec("COMMIT");
      tookMs.push(performance.now() - beganMs);
    }
    db.close();
    return tookMs;
  });
}

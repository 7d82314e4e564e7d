/**
 * The kill loop of a server: `spillway serve` is killed with SIGKILL at random instants while producers
 * and workers in another process go on, reconnect and resume; in the end everything is judged. By
 * itself: `node --conditions=source test/durability/server-kill.ts --cycles 100 [--seed N]`.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { sequence } from "../../src/base/index.ts";
import { connect, SpillwayError } from "../../src/client/index.ts";
import type { Client, Delivery } from "../../src/client/index.ts";
import { auditStore } from "../../src/engines/sqlite/index.ts";
import { openSpillway } from "../../src/spillway.ts";
import type { FlowOptions } from "../../src/spillway.ts";
import { freePort, Serve } from "../support/serve.ts";
import { TempDir } from "../support/temp-dir.ts";
import { judge } from "./judge.ts";
import type { Loop } from "./kill.ts";
import { Ledger, readLedger } from "./ledger.ts";

interface Work {
  readonly op: string;
}

const orders: FlowOptions = {
  partitions: 4,
  buffer: { messages: 400 },
  retry: { attempts: 1000, delay: ["5ms", "50ms"], budget: 1 },
};
const keys = 12;
const underWay = 24;
const handlerMsMax = 4;
const settleMsMax = 60_000;

export async function killServerLoop(cycles: number, seed: number): Promise<Loop> {
  using dir = new TempDir();
  mkdirSync(join(dir.path, "ledgers"));
  const path = join(dir.path, "ledgers", "ledger");
  await using server = new Serve(dir.path, await freePort(), { flows: { orders }, drain: "500ms" });
  const draw = sequence(seed);
  const killed = { opening: 0, working: 0, closing: 0 };
  {
    using ledger = new Ledger(path);
    const work = new Traffic(server.url, ledger, draw);
    for (let life = 0; life < cycles; life++) {
      if (draw() < 0.15) {
        await server.startAndKill(draw() * 400);
        killed.opening++;
      } else {
        await server.start();
        await sleep(200 + draw() * 1300);
        await server.end("SIGKILL");
        killed.working++;
      }
      ledger.write({ kind: "life", life });
    }
    await server.start();
    await work.end();
    const code = await server.end("SIGTERM");
    if (code !== 0) throw new Error(`the server ended with ${code}`);
  }
  await told(path, join(dir.path, "store"));
  return { cycles, killed, lines: readLedger(path), audits: auditStore(join(dir.path, "store")) };
}

/** Producers and workers, each with a connection of its own. */
class Traffic {
  readonly #ledger: Ledger;
  readonly #draw: () => number;
  readonly #clients: Client[] = [];
  readonly #producing: Promise<void>[];
  #isLast = false;
  #next = 0;

  constructor(url: string, ledger: Ledger, draw: () => number) {
    this.#ledger = ledger;
    this.#draw = draw;
    for (const name of ["worker-1", "worker-2"]) {
      this.#open(url, name)
        .flow<Work>("orders")
        .consume((work, delivery) => this.#handle(work, delivery));
    }
    this.#producing = ["producer-1", "producer-2"].map((name) =>
      this.#produce(this.#open(url, name)),
    );
  }

  #open(url: string, name: string): Client {
    const client = connect({ url, name, drain: "30s" });
    this.#clients.push(client);
    return client;
  }

  async #handle({ op }: Work, delivery: Delivery<Work>): Promise<void> {
    const { id, attempt, key, signal } = delivery;
    this.#ledger.write({ kind: "start", id, op, key: key!, attempt });
    if (this.#draw() < 0.7) await sleep(this.#draw() * handlerMsMax);
    if (signal.aborted) return; // The server that gave it is gone: another attempt follows.
    const isBad = this.#draw() < 0.1;
    this.#ledger.write({ kind: isBad ? "nack" : "ack", id });
    try {
      if (isBad) return await delivery.nack({ error: "by lot" });
      await delivery.ack();
      this.#ledger.write({ kind: "acked", id });
    } catch (error) {
      if (!(error instanceof SpillwayError)) throw error;
    }
  }

  async #produce(client: Client): Promise<void> {
    const flow = client.flow<Work>("orders");
    const send = async (op: string, key: string): Promise<void> => {
      for (;;) {
        this.#ledger.write({ kind: "send", op, key });
        try {
          const { id } = await flow.send({ op }, { key, idempotencyKey: op });
          this.#ledger.write({ kind: "receipt", op, id });
          return;
        } catch (error) {
          if (!(error instanceof SpillwayError)) throw error;
          this.#ledger.write({ kind: "refused", op, code: error.code });
          await sleep(20);
        }
      }
    };
    const one = async (): Promise<void> => {
      while (!this.#isLast) {
        await send(String(this.#next++), `k${Math.floor(this.#draw() * keys)}`);
        if (this.#draw() < 0.2) await sleep(this.#draw() * 10);
      }
    };
    await Promise.all(Array.from({ length: underWay / 2 }, one));
  }

  /** Everything that was sent is answered; what the workers leave is handled by the last life. */
  async end(): Promise<void> {
    this.#isLast = true;
    await Promise.all(this.#producing);
    await Promise.all(this.#clients.slice(2).map((client) => client.close()));
    await Promise.all(this.#clients.map((client) => client.close()));
  }
}

/** Over the library, when the server is gone: handles what is left, and asks how each message ended. */
async function told(path: string, dir: string): Promise<void> {
  const before = readLedger(path);
  using ledger = new Ledger(path);
  ledger.write({ kind: "life", life: -1 });
  await using spillway = await openSpillway({ dir });
  const flow = spillway.flow<Work>("orders", orders);
  flow.consume(async ({ op }, delivery) => {
    const { id, attempt, key } = delivery;
    ledger.write({ kind: "start", id, op, key: key!, attempt });
    ledger.write({ kind: "ack", id });
    await delivery.ack();
    ledger.write({ kind: "acked", id });
  });
  await flow.opened();
  for (let waitedMs = 0; flow.state().depth > 0; waitedMs += 20) {
    if (waitedMs > settleMsMax) throw new Error(`${flow.state().depth} messages are stuck`);
    await sleep(20);
  }
  const ids = new Set<string>();
  for (const line of [...before, ...readLedger(path)]) {
    if (line.kind === "receipt" || line.kind === "start") ids.add(line.id);
  }
  for (const id of ids) ledger.write({ kind: "end", id, reason: (await flow.why(id)).reason });
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { cycles: { type: "string", default: "100" }, seed: { type: "string", default: "1" } },
  });
  const { lines, audits, ...loop } = await killServerLoop(
    Number(values.cycles),
    Number(values.seed),
  );
  const { problems, ...figures } = judge(lines, audits);
  for (const problem of problems.slice(0, 20)) process.stdout.write(`${problem}\n`);
  process.stdout.write(`${JSON.stringify({ ...loop, ...figures })}\n${problems.length} problems\n`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

/**
 * The kill loop: a process over the library is killed with SIGKILL at a random instant, again and again
 * on one store; in the end everything is judged. By itself: `node --conditions=source
 * test/durability/kill.ts --cycles 200 [--seed N]`.
 */
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { sequence } from "../../src/base/index.ts";
import { auditStore } from "../../src/engines/sqlite/index.ts";
import type { PartitionAudit } from "../../src/engines/sqlite/index.ts";
import { TempDir } from "../support/temp-dir.ts";
import { judge } from "./judge.ts";
import { readLedger } from "./ledger.ts";
import type { Line } from "./ledger.ts";
import type { LifeOptions } from "./life.ts";

const script = fileURLToPath(new URL("life.ts", import.meta.url));
/** The last life ends by itself; if it does not, messages are stuck. */
const lastLifeMsMax = 60_000;
const openMsMax = 20_000;

export interface Loop {
  readonly lines: readonly Line[];
  readonly audits: readonly PartitionAudit[];
  readonly cycles: number;
  /** Lives that were killed before the store was open, while it worked, and while it closed. */
  readonly killed: { readonly opening: number; readonly working: number; readonly closing: number };
}

export async function killLoop(cycles: number, seed: number): Promise<Loop> {
  using dir = new TempDir();
  const [store, ledgers] = [join(dir.path, "store"), join(dir.path, "ledgers")];
  mkdirSync(ledgers);
  const draw = sequence(seed);
  const killed = { opening: 0, working: 0, closing: 0 };
  for (let life = 0; life < cycles; life++) {
    const closeAfterMs = draw() < 0.15 ? 50 + draw() * 200 : 0;
    const options = { store, ledgers, life, seed: seed + life, closeAfterMs, isLast: false };
    killed[await killOne(options, draw)]++;
  }
  await runLast({ store, ledgers, life: cycles, seed, closeAfterMs: 0, isLast: true });
  return { cycles, killed, lines: readLedger(join(ledgers, "ledger")), audits: auditStore(store) };
}

async function killOne(options: LifeOptions, draw: () => number): Promise<keyof Loop["killed"]> {
  const life = new Life(options);
  if (draw() < 0.2) {
    await sleep(draw() * 400);
    return life.kill();
  }
  await life.said("open", openMsMax);
  if (options.closeAfterMs > 0) {
    await life.said("closing", openMsMax);
    await sleep(draw() * 60);
  } else await sleep(draw() * 350);
  return life.kill();
}

async function runLast(options: LifeOptions): Promise<void> {
  const life = new Life(options);
  const code = await Promise.race([
    life.exited,
    sleep(lastLifeMsMax, "time" as const, { ref: false }),
  ]);
  if (code === 0) return;
  await life.kill();
  throw new Error(`the last life did not end by itself: ${code}\n${life.output}`);
}

class Life {
  readonly #process;
  readonly exited: Promise<number | null>;
  output = "";

  constructor(options: LifeOptions) {
    const args = ["--conditions=source", script, JSON.stringify(options)];
    this.#process = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    const { promise, resolve } = Promise.withResolvers<number | null>();
    this.exited = promise;
    this.#process.on("exit", resolve);
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.on("data", (chunk: Buffer) => (this.output += chunk.toString()));
    }
  }

  async said(word: string, withinMs: number): Promise<void> {
    for (let waitedMs = 0; !this.output.includes(word); waitedMs += 5) {
      if (waitedMs > withinMs || this.#process.exitCode !== null) {
        throw new Error(`a life did not say "${word}": ${this.#process.exitCode}\n${this.output}`);
      }
      await sleep(5);
    }
  }

  /** @returns What it was doing. @throws When it had ended with an error before. */
  async kill(): Promise<keyof Loop["killed"]> {
    this.#process.kill("SIGKILL");
    const code = await this.exited;
    if (code !== null && code !== 0) throw new Error(`a life failed: ${code}\n${this.output}`);
    if (this.output.includes("closing")) return "closing";
    return this.output.includes("open") ? "working" : "opening";
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { cycles: { type: "string", default: "200" }, seed: { type: "string", default: "1" } },
  });
  const { lines, audits, ...loop } = await killLoop(Number(values.cycles), Number(values.seed));
  const { problems, ...figures } = judge(lines, audits);
  for (const problem of problems.slice(0, 20)) process.stdout.write(`${problem}\n`);
  process.stdout.write(`${JSON.stringify({ ...loop, ...figures })}\n${problems.length} problems\n`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

/** `spillway serve` as a process of its own on a fixed port, to be killed and started again. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { ConfigOptions } from "../../src/config/index.ts";

const bin = join(import.meta.dirname, "../../bin/spillway.js");

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

export class Serve implements AsyncDisposable {
  readonly url: string;
  readonly #configFile: string;
  #child: ChildProcess | undefined;
  #output = "";

  constructor(dir: string, port: number, config: ConfigOptions) {
    this.url = `http://127.0.0.1:${port}`;
    this.#configFile = join(dir, "spillway.config.json");
    const engine = { kind: "sqlite", dir: join(dir, "store") } as const;
    const options = { log: "warn", engine, ...config, listen: { ...config.listen, port } };
    writeFileSync(this.#configFile, JSON.stringify(options));
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when it listens. */
  async start(): Promise<void> {
    const args = ["--conditions=source", bin, "serve", "--config", this.#configFile];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    this.#output = "";
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (part: Buffer) => {
        this.#output += part.toString();
        if (this.#output.includes("listens on")) resolve();
      });
    }
    child.once("exit", (code) => reject(new Error(`serve ended with ${code}\n${this.#output}`)));
    await promise;
  }

  /** Starts it, and kills it after a while, whether it listens by then or not. */
  async startAndKill(afterMs: number): Promise<void> {
    const started = this.start().catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    await this.end("SIGKILL");
    await started;
  }

  /** @returns Its exit code; null after a signal. */
  async end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return null;
    if (child.exitCode !== null) throw new Error(`serve had ended before\n${this.#output}`);
    child.kill(signal);
    const [code] = (await once(child, "exit")) as [number | null];
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }
}

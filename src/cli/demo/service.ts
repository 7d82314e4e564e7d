/**
 * The service that the consumer calls: the knee server in a process of its own, over HTTP. It ends with
 * its parent, however that ends: the IPC channel closes. When it dies first it is started again after a
 * second, as a supervisor would: calls fail meanwhile, and the breaker is there to be seen.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { Agent, request } from "node:http";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";

export interface ServiceStats {
  readonly parallel: number;
  /** The most calls that it had in progress at once. */
  readonly parallelMax: number;
  readonly served: number;
}

const restartMs = 1000;
const warmUpRounds = 100;
const warmUpCalls = 4;

export class Service implements AsyncDisposable {
  readonly #agent = new Agent({ keepAlive: true });
  #child: ChildProcess | undefined;
  #port = 0;
  #restart: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** @throws {Error} The process ends before it listens. */
  static async start(): Promise<Service> {
    const service = new Service();
    await service.#spawn();
    await service.#warmUp();
    return service;
  }

  /**
   * Both ends have compiled their code before the clock runs: the first of several runs in one process
   * would be compared with warm ones otherwise.
   */
  async #warmUp(): Promise<void> {
    for (let round = 0; round < warmUpRounds; round++) {
      await Promise.all(Array.from({ length: warmUpCalls }, () => this.stats()));
    }
  }

  async #spawn(): Promise<void> {
    // The port stays the same over restarts: others may have been told of it.
    const child = fork(fileURLToPath(import.meta.resolve("#knee-server")), [String(this.#port)], {
      stdio: ["ignore", "pipe", "inherit", "ipc"],
    });
    this.#child = child;
    child.once("exit", () => {
      this.#child = undefined;
      if (!this.#isClosed) this.#restart = setTimeout(() => this.#respawn(), restartMs);
    });
    this.#port = await portOf(child);
  }

  get port(): number {
    return this.#port;
  }

  /** A process that ends again before it listens is started again, too. */
  #respawn(): void {
    this.#spawn().catch(noop);
  }

  /** Resolves when the service has done its work. Rejects when it cannot be reached or says no. */
  call(body: Uint8Array): Promise<void> {
    return this.#request("POST", "/", body).then(noop);
  }

  /** @returns undefined while the service is down. */
  async stats(): Promise<ServiceStats | undefined> {
    try {
      return JSON.parse(await this.#request("GET", "/stats", new Uint8Array())) as ServiceStats;
    } catch {
      return undefined;
    }
  }

  #request(method: string, path: string, body: Uint8Array): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const outgoing = request({
      agent: this.#agent,
      host: "127.0.0.1",
      port: this.#port,
      method,
      path,
      headers: { "content-length": body.length },
    });
    outgoing.once("error", reject);
    outgoing.once("response", (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => (text += part));
      response.once("error", reject);
      response.once("end", () => {
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`the service answered ${response.statusCode}`));
      });
    });
    outgoing.end(body);
    return promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#restart);
    this.#agent.destroy();
    const child = this.#child;
    if (child === undefined) return;
    const ended = once(child, "exit");
    child.kill();
    await ended;
  }
}

async function portOf(child: ChildProcess): Promise<number> {
  const output = child.stdout as Readable;
  output.setEncoding("utf8");
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let text = "";
  output.on("data", (part: string) => {
    text += part;
    if (text.includes("\n")) resolve((JSON.parse(text) as { port: number }).port);
  });
  child.once("exit", (code) => {
    reject(new Error(`the consumer process ended with ${code} before it listened`));
  });
  return promise;
}

function noop(): void {}

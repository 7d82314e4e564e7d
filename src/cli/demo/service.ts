/**
 * The consumer's other half: the knee server in a process of its own, and calls to it over HTTP. It
 * ends with its parent, however that ends: the IPC channel closes.
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

export class Service implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #port: number;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.#port = port;
  }

  /** @throws {Error} The process ends before it listens. */
  static async start(): Promise<Service> {
    const child = fork(fileURLToPath(import.meta.resolve("#knee-server")), {
      stdio: ["ignore", "pipe", "inherit", "ipc"],
    });
    return new Service(child, await portOf(child));
  }

  /** Resolves when the service has done its work. Rejects when it cannot be reached or says no. */
  call(body: Uint8Array): Promise<void> {
    return this.#request("POST", "/", body).then(noop);
  }

  async stats(): Promise<ServiceStats> {
    return JSON.parse(await this.#request("GET", "/stats", new Uint8Array())) as ServiceStats;
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
    this.#agent.destroy();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill();
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

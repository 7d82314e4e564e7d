/**
 * Requests per second of one durable message each, 64 connections kept alive, by wrk: against a bare
 * Fastify route that takes the same body and answers as much. And batches of 500 lines against the
 * library's rate in the same run.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fastify } from "fastify";
import { figure, median } from "./bench.ts";
import type { Bench, Figure } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { freePort, Serve } from "../test/support/serve.ts";
import { TempDir } from "../test/support/temp-dir.ts";

interface Load {
  readonly part: "bare" | "batches";
  readonly url: string;
}

const rounds = 3;
const seconds = 8;
const payloadBytes = 256;
const batchLines = 500;
const batches = 300;
const atOnce = 4;
const flows = { orders: { payload: "bytes", buffer: { messages: 100_000_000 } } } as const;

export const http: Bench = {
  name: "http",
  describe: "durable messages of 256 B over HTTP, one a request and 500 a batch (needs wrk)",
  run: async () => [...(await single()), await batch()],
};

async function single(): Promise<Figure[]> {
  const pairs: { spillway: number; bare: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    using dir = new TempDir();
    const spillway = await withServer(dir.path, (url) =>
      requestsPerS(dir.path, `${url}/v1/flows/orders/messages`),
    );
    pairs.push({ spillway, bare: await bareRate(dir.path) });
  }
  const of = (pick: (pair: (typeof pairs)[number]) => number): number => median(pairs.map(pick));
  const name = "POST of one message";
  const [value, floor] = [of(({ spillway }) => spillway), of(({ bare }) => bare)];
  const ratio = of(({ spillway, bare }) => spillway / bare);
  return [figure({ name, value, unit: "requests/s", floor, ratio }, { of: "ratio", atLeast: 0.5 })];
}

async function withServer<T>(dir: string, run: (url: string) => Promise<T>): Promise<T> {
  await using server = new Serve(dir, await freePort(), { flows });
  await server.start();
  return await run(server.url);
}

async function bareRate(dir: string): Promise<number> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const running = inFreshProcess<null>("http", { part: "bare", url });
  await until(async () => (await fetch(url, { method: "POST", body: "x" })).status === 202);
  const perS = await requestsPerS(dir, `${url}/`);
  await fetch(`${url}/end`);
  await running;
  return perS;
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds().catch(() => false))) await new Promise((wake) => setTimeout(wake, 50));
}

async function requestsPerS(dir: string, url: string): Promise<number> {
  const script = join(dir, "post.lua");
  writeFileSync(
    script,
    `wrk.method = "POST"\nwrk.body = string.rep("x", ${payloadBytes})\nwrk.headers["Content-Type"] = "text/plain"\n`,
  );
  const args = ["-t1", "-c64", `-d${seconds}s`, "-s", script, url];
  const wrk = spawn("wrk", args, { stdio: ["ignore", "pipe", "inherit"] });
  const [said] = await Promise.all([text(wrk.stdout), once(wrk, "exit")]);
  const wrong = /Non-2xx or 3xx responses: (\d+)/.exec(said);
  if (wrong !== null) throw new Error(`${wrong[1]} requests of ${url} were refused\n${said}`);
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(said)![1]);
}

async function batch(): Promise<Figure> {
  const rates: number[] = [];
  for (let round = 0; round < rounds; round++) {
    using dir = new TempDir();
    const part = "batches";
    rates.push(await withServer(dir.path, (url) => inFreshProcess<number>("http", { part, url })));
  }
  const value = median(rates);
  const name = `NDJSON batches of ${batchLines}`;
  return figure({ name, value, unit: "messages/s" }, { of: "value", atLeast: 40_000 });
}

export async function task({ part, url }: Load): Promise<number | null> {
  return part === "bare" ? serveBare(url) : sendBatches(url);
}

async function serveBare(url: string): Promise<null> {
  const app = fastify();
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  const answer = { id: "orders/3/123456", duplicate: false, durability: "fsync" };
  app.post("/", (_request, reply) => reply.code(202).send(answer));
  app.get("/end", () => {
    end();
    return "";
  });
  await app.listen({ host: "127.0.0.1", port: Number(new URL(url).port) });
  await ended;
  await app.close();
  return null;
}

async function sendBatches(url: string): Promise<number> {
  const line = `${JSON.stringify({ payload: "x".repeat(payloadBytes - 2) })}\n`;
  const body = Buffer.from(line.repeat(batchLines));
  const agent = new Agent({ keepAlive: true });
  await send(url, body, agent, batches / 5);
  const beganMs = performance.now();
  await send(url, body, agent, batches);
  const perS = (batches * batchLines * 1000) / (performance.now() - beganMs);
  agent.destroy();
  return perS;
}

async function send(url: string, body: Buffer, agent: Agent, count: number): Promise<void> {
  let left = count;
  const sender = async (): Promise<void> => {
    while (left-- > 0) {
      const answer = await post(`${url}/v1/flows/orders/messages:batch`, body, agent);
      if (answer.includes('"accepted":false')) throw new Error(answer.slice(0, 500));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, sender));
}

async function post(url: string, body: Buffer, agent: Agent): Promise<string> {
  const headers = { "content-type": "application/x-ndjson", prefer: "wait=20" };
  const outgoing = request(url, { method: "POST", agent, headers });
  outgoing.end(body);
  const [response] = (await once(outgoing, "response")) as [NodeJS.ReadableStream];
  return text(response);
}

/**
 * A process that serves the knee consumer over HTTP: the service that `spillway demo` protects, and
 * overdrives for comparison.
 *
 *   POST /       the message as body; 200 when the call ends; never a 503, never a 429
 *   GET /stats   {"parallel": n, "parallelMax": n, "served": n}
 *
 * It listens on 127.0.0.1, on the port that is its argument (0 or none: a free one), and prints one
 * line, {"port": n}. It ends on SIGTERM, and by
 * itself when its parent does: that is, when the IPC channel closes, or standard input where that is a
 * pipe or a terminal. SIGINT is left to the parent, which gets the same Ctrl-C and may want to drain.
 * A caller that hangs up takes its call along, so nothing outlives its connection.
 */
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { performance } from "node:perf_hooks";
import { KneeModel } from "./knee.ts";

const model = new KneeModel();
let timer: NodeJS.Timeout | undefined;

function arm(): void {
  clearTimeout(timer);
  const dueInMs = model.dueInMs();
  if (dueInMs !== undefined) timer = setTimeout(fire, Math.max(1, Math.round(dueInMs)));
}

function fire(): void {
  model.run(performance.now());
  arm();
}

function serve(request: IncomingMessage, response: ServerResponse): void {
  response.sendDate = false;
  request.resume();
  if (request.method === "POST" && request.url === "/") {
    request.once("end", () => work(response));
  } else if (request.method === "GET" && request.url === "/stats") {
    const { parallel, parallelMax, served } = model;
    answer(response, 200, JSON.stringify({ parallel, parallelMax, served }));
  } else {
    answer(response, 404, JSON.stringify({ allowed: ["POST /", "GET /stats"] }));
  }
}

function work(response: ServerResponse): void {
  const call = model.begin(performance.now(), () => answer(response, 200, ""));
  response.once("close", () => {
    if (model.drop(performance.now(), call)) arm();
  });
  arm();
}

function answer(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { "content-length": Buffer.byteLength(body) });
  response.end(body);
}

function leave(): void {
  process.exit(0);
}

const server = createServer(
  // Longer than any pool of connections keeps an idle one, so that the client is who closes it.
  { keepAliveTimeout: 120_000, requestTimeout: 30_000, headersTimeout: 10_000 },
  serve,
);
server.maxConnections = 4096;
process.on("SIGTERM", leave);
process.on("SIGINT", () => {});
process.stdout.on("error", leave);
if (process.channel != null) process.on("disconnect", leave);
else process.stdin.on("close", leave).resume(); // A file, such as /dev/null, never closes.
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ port })}\n`);
});

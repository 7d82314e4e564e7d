import { spawn } from "node:child_process";
import type { ChildProcess, StdioOptions } from "node:child_process";
import { once } from "node:events";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, expect, test } from "vitest";

const script = join(import.meta.dirname, "knee-server.ts");
const started: ChildProcess[] = [];
const patient = { interval: 10, timeout: 10_000 };
const agent = new Agent({ keepAlive: true });

afterEach(() => {
  for (const child of started.splice(0)) child.kill("SIGKILL");
});

async function start(
  stdio: StdioOptions = ["pipe", "pipe", "inherit"],
): Promise<{ child: ChildProcess; port: number }> {
  const child = spawn(process.execPath, ["--conditions=source", script], { stdio });
  started.push(child);
  return { child, port: await portOf(child) };
}

async function portOf(child: ChildProcess): Promise<number> {
  const line = once(createInterface({ input: child.stdout! }), "line") as Promise<[string]>;
  const exit = once(child, "exit").then(([code]) => {
    throw new Error(`The server ended with ${String(code)} before it listened.`);
  });
  const [text] = await Promise.race([line, exit]);
  exit.catch(() => {});
  return (JSON.parse(text) as { port: number }).port;
}

function call(port: number, method: string, path: string, body = ""): Promise<[number, string]> {
  const { promise, resolve, reject } = Promise.withResolvers<[number, string]>();
  request({ port, host: "127.0.0.1", method, path, agent }, (response) => {
    let text = "";
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => (text += chunk));
    response.on("end", () => resolve([response.statusCode!, text]));
  })
    .on("error", reject)
    .end(body);
  return promise;
}

async function stats(port: number): Promise<{ parallel: number; parallelMax: number }> {
  const [, text] = await call(port, "GET", "/stats");
  return JSON.parse(text) as { parallel: number; parallelMax: number };
}

async function ended(child: ChildProcess): Promise<[number | null, string | null]> {
  if (child.exitCode !== null || child.signalCode !== null) {
    return [child.exitCode, child.signalCode];
  }
  return (await once(child, "exit")) as [number | null, string | null];
}

test("it answers each message with 200, counts them, and is never faster than its curve", async () => {
  const { port } = await start();
  const beganMs = performance.now();
  const statuses = new Set<number>();
  const caller = async (): Promise<void> => {
    for (let i = 0; i < 25; i++) statuses.add((await call(port, "POST", "/", "a message"))[0]);
  };
  await Promise.all(Array.from({ length: 8 }, caller));
  // 25 calls in a row of 5 ms, of which up to 2 ms may be credit.
  expect(performance.now() - beganMs).toBeGreaterThan(25 * 3);
  expect(statuses).toEqual(new Set([200]));
  expect(await stats(port)).toEqual({ parallel: 0, parallelMax: 8, served: 200 });
});

test("overdriven it collapses and still answers 200", async () => {
  const { port } = await start();
  const beganMs = performance.now();
  const statuses = new Set<number>();
  const caller = async (): Promise<void> => {
    for (let i = 0; i < 3; i++) statuses.add((await call(port, "POST", "/"))[0]);
  };
  await Promise.all(Array.from({ length: 64 }, caller));
  expect(statuses).toEqual(new Set([200]));
  // 192 calls: 116 ms at the best rate, 1,920 ms at that of 64.
  expect(performance.now() - beganMs).toBeGreaterThan(600);
});

test("other paths and methods get 404 with what is allowed", async () => {
  const { port } = await start();
  for (const [method, path] of [
    ["GET", "/"],
    ["POST", "/other"],
    ["DELETE", "/stats"],
  ] as const) {
    const [status, text] = await call(port, method, path);
    expect([status, text]).toEqual([404, '{"allowed":["POST /","GET /stats"]}']);
  }
});

test("a caller that hangs up takes its call along", async () => {
  const { port } = await start();
  const load = overdrive(port);
  await expect.poll(async () => (await stats(port)).parallel, patient).toBeGreaterThan(32);
  const socket = connect(port, "127.0.0.1");
  socket.write("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
  await expect.poll(async () => (await stats(port)).parallel, patient).toBe(65);
  socket.destroy();
  const answered = await load.stop();
  expect(await stats(port)).toEqual({ parallel: 0, parallelMax: 65, served: answered });
});

test("SIGTERM ends it at once, also with calls in progress; SIGINT does not", async () => {
  const { child, port } = await start();
  child.kill("SIGINT");
  const load = overdrive(port);
  await expect.poll(async () => (await stats(port)).parallel, patient).toBeGreaterThan(32);
  child.kill("SIGTERM");
  expect(await ended(child)).toEqual([0, null]);
  await load.stop();
});

test("it ends by itself when standard input or the channel to its parent closes", async () => {
  const piped = await start();
  piped.child.stdin!.end();
  expect(await ended(piped.child)).toEqual([0, null]);
  const channelled = await start(["ignore", "pipe", "inherit", "ipc"]);
  channelled.child.disconnect();
  expect(await ended(channelled.child)).toEqual([0, null]);
});

test("it ends by itself when its parent is killed", async () => {
  const source = `require("node:child_process").spawn(process.execPath,
    ["--conditions=source", ${JSON.stringify(script)}], { stdio: ["pipe", "inherit", "inherit"] });`;
  const parent = spawn(process.execPath, ["-e", source], { stdio: ["ignore", "pipe", "inherit"] });
  started.push(parent);
  const port = await portOf(parent);
  expect(await isOpen(port)).toBe(true);
  parent.kill("SIGKILL");
  await expect.poll(() => isOpen(port), patient).toBe(false);
});

test("without another end of standard input it lives on", async () => {
  const { port } = await start(["ignore", "pipe", "inherit"]);
  expect((await call(port, "POST", "/"))[0]).toBe(200);
});

/** 64 callers in a closed loop, until they are stopped or the server has gone. */
function overdrive(port: number): { stop(): Promise<number> } {
  const load = { running: true, answered: 0 };
  const caller = async (): Promise<void> => {
    while (load.running) {
      await call(port, "POST", "/").then(
        () => load.answered++,
        () => (load.running = false),
      );
    }
  };
  const callers = Promise.all(Array.from({ length: 64 }, caller));
  return {
    async stop() {
      load.running = false;
      await callers;
      return load.answered;
    },
  };
}

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

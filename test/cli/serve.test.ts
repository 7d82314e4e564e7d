/** `spillway serve` as operators meet it: processes of its own, real signals, a real data directory. */
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { auditStore } from "../../src/engines/sqlite/index.ts";
import { openSpillway } from "../../src/spillway.ts";
import { emptyDir, startIn } from "./spillway.ts";
import type { Running } from "./spillway.ts";

const run = promisify(execFile);

interface Listening extends Running {
  readonly url: string;
  readonly dir: string;
}

/** A server with `--json`, once it listens. */
async function serve(cwd: string, ...args: readonly string[]): Promise<Listening> {
  const running = startIn(cwd, "serve", "--json", ...args);
  const { url, dir } = JSON.parse(await running.said("\n")) as { url: string; dir: string };
  return { ...running, url, dir };
}

/** A folder with a configuration. */
async function home(config: object): Promise<string> {
  const folder = await emptyDir();
  write(folder, config);
  return folder;
}

function write(folder: string, config: object): void {
  const whole = { log: "silent", listen: { port: 0 }, ...config };
  writeFileSync(join(folder, "spillway.config.json"), JSON.stringify(whole));
}

async function send(url: string, body: string, flow = "orders"): Promise<Response> {
  return fetch(`${url}/v1/flows/${flow}/messages`, { method: "POST", body });
}

interface Load {
  /** Payload of each message that was answered with a receipt, by its id. */
  readonly receipts: Map<string, string>;
  readonly ended: Promise<unknown>;
}

/** Sixteen clients that send without a pause until the server is gone. */
function load(url: string, name: string): Load {
  const receipts = new Map<string, string>();
  const client = async (_: unknown, at: number): Promise<void> => {
    try {
      for (let n = 0; ; n++) {
        const payload = `${name} ${at} ${n}`;
        const response = await send(url, payload);
        if (response.status !== 202) return;
        receipts.set(((await response.json()) as { id: string }).id, payload);
      }
    } catch {
      // The server is gone.
    }
  };
  return { receipts, ended: Promise.all(Array.from({ length: 16 }, client)) };
}

async function until(reached: () => boolean): Promise<void> {
  while (!reached()) await new Promise((resolve) => setTimeout(resolve, 5));
}

function accepted(dir: string): number {
  return auditStore(dir).reduce((sum, { report }) => {
    expect(report.firstDifference).toBeUndefined();
    return sum + report.counters.accepted;
  }, 0);
}

/** Payloads of everything that is stored, by id. */
async function stored(dir: string): Promise<Map<string, string>> {
  await using instance = await openSpillway({ dir });
  const flow = instance.flow<Uint8Array>("orders", { payload: "bytes", window: { fixed: 1000 } });
  await flow.opened();
  const found = new Map<string, string>();
  const { pending } = flow.state().counters;
  while (found.size < pending) {
    for (const each of await flow.pull({ max: 1000, waitMs: 5000 })) {
      found.set(each.id, Buffer.from(each.bytes).toString());
      await each.ack();
    }
  }
  return found;
}

const orders = { flows: { orders: {} }, drain: "2s" };

test("the demonstration's curl line works word for word, and what it stored is there after a restart", async () => {
  const folder = await emptyDir();
  const first = startIn(folder, "serve", "--demo", "--port", "0");
  const page = await first.said("Ctrl-C stops it");
  const dir = join(folder, ".spillway");
  expect(page).toContain(dir);
  expect(page).toContain("on disk, synced, before it is accepted");
  const [line] = /^ +curl -i .*$/m.exec(page)!;
  const { stdout } = await run("sh", ["-c", line.trim()]);
  expect(stdout).toMatch(/^HTTP\/1\.1 202 /);
  first.child.kill("SIGINT");
  expect(await first.ended).toMatchObject({ code: 0 });
  expect(accepted(dir)).toBe(1);
  const second = await serve(folder, "--demo", "--port", "0");
  expect((await send(second.url, "x", "demo")).status).toBe(202);
  second.child.kill("SIGINT");
  await second.ended;
  expect(accepted(dir)).toBe(2);
}, 60_000);

test("without a configuration it says what there is to do, and the exit code is 2", async () => {
  const { code, stderr, stdout } = await startIn(await emptyDir(), "serve").ended;
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  for (const way of ["--config", "spillway init", "spillway serve --demo"]) {
    expect(stderr).toContain(way);
  }
});

test("G12 every mistake in a configuration has a line with its path, and the exit code is 2", async () => {
  const folder = await home({
    flows: { orders: { lease: "soon", partitions: 0 } },
    listen: { port: 99_999 },
    limit: {},
  });
  const { code, stderr, stdout } = await startIn(folder, "serve").ended;
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  const lines = stderr.split("\n");
  expect(lines[0]).toContain(join(folder, "spillway.config.json"));
  for (const path of ["flows.orders.lease", "flows.orders.partitions", "listen.port", "limit"]) {
    expect(lines.filter((line) => line.trim().startsWith(`${path} `))).toHaveLength(1);
  }
});

test("a configuration that cannot be loaded is named, with what was met", async () => {
  const folder = await emptyDir();
  const file = join(folder, "spillway.config.ts");
  const meets: readonly (readonly [string, string])[] = [
    ["export default {", "SyntaxError"],
    ["export const config = {};", "no default export"],
    ['import "not-installed"; export default { flows: {} };', "not-installed"],
    ['throw new Error("no database"); export default { flows: {} };', "no database"],
  ];
  for (const [text, met] of meets) {
    writeFileSync(file, text);
    const { code, stderr } = await startIn(folder, "serve").ended;
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringContaining(met) });
    expect(stderr).toContain(file);
  }
}, 60_000);

const typed = `import { defineConfig, flow, sqlite } from "spillway/config";
const partitions: number = 3;
export default defineConfig({
  engine: sqlite({ dir: "kept" }),
  listen: { port: 0 },
  log: "silent",
  flows: { orders: flow({ partitions }) },
});
`;

test("a configuration in TypeScript may import spillway/config, installed beside it or not", async () => {
  const folder = await emptyDir();
  writeFileSync(join(folder, "spillway.config.ts"), typed);
  const alone = await serve(folder);
  expect(alone.dir).toBe(join(folder, "kept"));
  expect((await send(alone.url, "x")).status).toBe(202);
  alone.child.kill("SIGTERM");
  expect(await alone.ended).toMatchObject({ code: 0, stderr: "" });
  // Installed: the package that lies beside it, here one that says where it is.
  const installed = join(folder, "node_modules/spillway");
  mkdirSync(installed, { recursive: true });
  writeFileSync(
    join(installed, "package.json"),
    JSON.stringify({ name: "spillway", type: "module", exports: { "./config": "./config.js" } }),
  );
  writeFileSync(
    join(installed, "config.js"),
    'export const defineConfig = (c) => ({ ...c, flows: { ...c.flows, beside: {} } }), flow = (f) => f, sqlite = (s) => ({ kind: "sqlite", ...s });',
  );
  const beside = startIn(folder, "serve", "--json");
  expect(JSON.parse(await beside.said("\n"))).toMatchObject({ flows: ["orders", "beside"] });
  beside.child.kill("SIGTERM");
  await beside.ended;
}, 60_000);

test("--port, --host and --dir come before the configuration, and what they cannot mean is refused", async () => {
  const folder = await home({
    ...orders,
    listen: { port: 1 },
    engine: { kind: "sqlite", dir: "a" },
  });
  const server = await serve(folder, "--port", "0", "--host", "localhost", "--dir", "b");
  expect(server.dir).toBe(join(folder, "b"));
  expect((await send(server.url, "x")).status).toBe(202);
  server.child.kill("SIGTERM");
  await server.ended;
  for (const port of ["x", "-1", "70000", "1.5"]) {
    const { code, stderr } = await startIn(folder, "serve", `--port=${port}`).ended;
    expect({ port, code }).toEqual({ port, code: 2 });
    expect(stderr).toContain("--port");
  }
}, 60_000);

test("G1 SIGTERM in the middle of sends: every receipt that was given is kept, and the exit code is 0", async () => {
  const folder = await home(orders);
  const server = await serve(folder);
  const { receipts, ended } = load(server.url, "a");
  await until(() => receipts.size > 300);
  server.child.kill("SIGTERM");
  await ended;
  expect(await server.ended).toMatchObject({ code: 0, stderr: "" });
  // What was taken was answered, too: nothing is left in doubt.
  expect(accepted(server.dir)).toBe(receipts.size);
  const again = await serve(folder);
  const more = load(again.url, "b");
  await until(() => more.receipts.size > 100);
  again.child.kill("SIGTERM");
  await more.ended;
  expect(await again.ended).toMatchObject({ code: 0 });
  expect(await stored(server.dir)).toEqual(new Map([...receipts, ...more.receipts]));
}, 60_000);

test("G1 kill -9 in the middle of sends: every receipt that was given is kept", async () => {
  const folder = await home(orders);
  const receipts = new Map<string, string>();
  for (const life of ["a", "b"]) {
    const server = await serve(folder);
    const under = load(server.url, life);
    await until(() => under.receipts.size > 300);
    server.child.kill("SIGKILL");
    await under.ended;
    await server.ended;
    for (const [id, payload] of under.receipts) receipts.set(id, payload);
  }
  const dir = join(folder, ".spillway");
  expect(accepted(dir)).toBeGreaterThanOrEqual(receipts.size);
  const found = await stored(dir);
  const lost = [...receipts].filter(([id, payload]) => found.get(id) !== payload);
  expect(lost).toEqual([]);
}, 60_000);

test("a second start on the same data is refused, and says who has it and what to do", async () => {
  const folder = await home(orders);
  const server = await serve(folder);
  const second = await startIn(folder, "serve").ended;
  expect(second).toMatchObject({ code: 1, stdout: "" });
  expect(second.stderr).toContain(join(folder, ".spillway"));
  expect(second.stderr).toContain(`kill ${server.child.pid}`);
  expect((await send(server.url, "x")).status).toBe(202);
  server.child.kill("SIGTERM");
  await server.ended;
});

test("a port that is taken is named, with the way out", async () => {
  const folder = await home(orders);
  const server = await serve(folder);
  const { port } = new URL(server.url);
  const second = await startIn(folder, "serve", "--port", port, "--dir", "other").ended;
  expect(second).toMatchObject({ code: 1, stdout: "" });
  expect(second.stderr).toMatch(new RegExp(`port: ${port}\\)\n.*--port`));
  server.child.kill("SIGTERM");
  await server.ended;
});

test("a Ctrl-C that npm passes on once more does not end it in the middle", async () => {
  const folder = await home(orders);
  const server = await serve(folder);
  const { receipts, ended } = load(server.url, "a");
  await until(() => receipts.size > 50);
  server.child.kill("SIGINT");
  server.child.kill("SIGTERM");
  await ended;
  expect(await server.ended).toMatchObject({ code: 0 });
  expect(accepted(server.dir)).toBe(receipts.size);
});

test("a second signal ends it at once, with 130", async () => {
  const folder = await home(orders);
  let code: number | null;
  // A request that does not end holds the stop up for a second; was the second signal later, once more.
  do {
    const server = await serve(folder);
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    socket.on("error", () => undefined);
    socket.write(
      "POST /v1/flows/orders/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf",
    );
    await send(server.url, "x");
    const signals = setInterval(() => server.child.kill("SIGTERM"), 50);
    ({ code } = await server.ended);
    clearInterval(signals);
    socket.destroy();
  } while (code === 0);
  expect(code).toBe(130);
}, 60_000);

test("SIGHUP reads the configuration again: policies change, flows are added, the rest is named", async () => {
  const folder = await home(orders);
  const server = await serve(folder);
  write(folder, {
    drain: "2s",
    limits: { connections: 10 },
    flows: { orders: { retry: { attempts: 2 }, partitions: 4 }, bills: {} },
  });
  server.child.kill("SIGHUP");
  const said = await server.complained("flows.orders.partitions");
  expect(said).toMatch(/changed +orders \(retry\)/);
  expect(said).toMatch(/opened +bills/);
  expect(said).toMatch(/as before +limits\.connections: read at start/);
  expect(said).toMatch(/as before +flows\.orders\.partitions: cannot change/);
  expect((await send(server.url, "x", "bills")).status).toBe(202);
  server.child.kill("SIGTERM");
  expect(await server.ended).toMatchObject({ code: 0 });
});

test("SIGHUP with a wrong file leaves everything as it was, says why, and goes on", async () => {
  const folder = await home(orders);
  const server = await serve(folder);
  writeFileSync(join(folder, "spillway.config.json"), "{");
  server.child.kill("SIGHUP");
  expect(await server.complained("nothing was changed")).toContain("SyntaxError");
  write(folder, { flows: { orders: { lease: "soon" }, bills: {} } });
  server.child.kill("SIGHUP");
  await server.complained("flows.orders.lease");
  expect((await send(server.url, "x", "bills")).status).toBe(404);
  expect((await send(server.url, "x")).status).toBe(202);
  write(folder, orders);
  server.child.kill("SIGHUP");
  await server.complained("nothing is different");
  server.child.kill("SIGTERM");
  expect(await server.ended).toMatchObject({ code: 0 });
});

test("npm start is the demonstration", () => {
  const root = join(import.meta.dirname, "../..");
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  expect(scripts["start"]).toMatch(/ bin\/spillway\.js serve --demo$/);
});

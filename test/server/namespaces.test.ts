/** Client and server in network namespaces of their own, with the link between them cut. Needs root, on Linux. */
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { auditStore } from "../../src/engines/sqlite/index.ts";
import { TempDir } from "../support/temp-dir.ts";

const bin = join(import.meta.dirname, "../../bin/spillway.js");
const clientScript = join(import.meta.dirname, "namespaces-client.ts");
const [serverAddress, clientAddress] = ["10.77.61.1", "10.77.61.2"];
const leaseMs = 2000;
const cutMs = 10_000;

interface Told {
  readonly sent: number;
  readonly answered: number;
  readonly ids: number;
  readonly handled: number;
  readonly twice: number;
  readonly credits: number;
}

function ip(...args: readonly string[]): void {
  execFileSync("ip", args, { stdio: "pipe" });
}

/** Two namespaces and a cable between them. @returns Why there are none, where that is not permitted. */
function layCable(): { readonly server: string; readonly client: string } | string {
  const name = `spw${process.pid}`;
  const [server, client] = [`${name}s`, `${name}c`];
  try {
    ip("netns", "add", server);
  } catch {
    return "network namespaces are not permitted here (they need root, on Linux)";
  }
  onTestFinished(() => ip("netns", "del", server));
  ip("netns", "add", client);
  onTestFinished(() => ip("netns", "del", client));
  ip("link", "add", server, "netns", server, "type", "veth", "peer", client, "netns", client);
  for (const [space, address] of [
    [server, serverAddress],
    [client, clientAddress],
  ] as const) {
    ip("-n", space, "addr", "add", `${address}/30`, "dev", space);
    ip("-n", space, "link", "set", space, "up");
    ip("-n", space, "link", "set", "lo", "up");
  }
  return { server, client };
}

function start(space: string, ...args: readonly string[]): ChildProcess {
  const command = ["netns", "exec", space, process.execPath, "--conditions=source", ...args];
  const child = spawn("ip", command, { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  return child;
}

test("G1, G3, G5, G9 a link that is cut for ten seconds stops producers within a lease, and costs nothing", async ({
  skip,
}) => {
  const cable = layCable();
  if (typeof cable === "string") return skip(cable);
  using dir = new TempDir();
  const [store, config] = [join(dir.path, "store"), join(dir.path, "spillway.config.json")];
  const flows = { orders: { partitions: 4, credit: { leaseMs } } };
  const listen = { host: serverAddress, port: 7411, behindProxy: true };
  const engine = { kind: "sqlite", dir: store };
  writeFileSync(config, JSON.stringify({ engine, listen, flows, log: "warn", drain: "1s" }));
  const scope = ["--verb", "produce", "--verb", "consume", "--flow", "*"];
  const create = [bin, "token", "create", "--data", store, "--json", ...scope];
  const made = execFileSync(process.execPath, ["--conditions=source", ...create]);
  const { token } = JSON.parse(made.toString()) as { token: string };
  const server = start(cable.server, bin, "serve", "--config", config);
  await once(server.stdout!, "data");
  const client = start(cable.client, clientScript, `http://${serverAddress}:7411`, token);
  const told: Told[] = []; // The latest.
  createInterface({ input: client.stdout! }).on("line", (line) => {
    told[0] = JSON.parse(line) as Told;
  });
  const until = async (holds: (now: Told) => boolean): Promise<Told> => {
    while (told[0] === undefined || !holds(told[0])) await sleep(20);
    return told[0];
  };
  await until(({ handled }) => handled > 200);
  ip("-n", cable.server, "link", "set", cable.server, "down");
  await sleep(leaseMs + 500); // The lease, and until the client says what it has.
  expect(told[0]!.credits).toBe(0);
  await sleep(cutMs - leaseMs - 500);
  ip("-n", cable.server, "link", "set", cable.server, "up");
  const { answered } = told[0]!;
  await until((now) => now.answered > answered + 500);
  client.kill("SIGTERM");
  await once(client, "exit");
  const end = told[0]!;
  expect(end.answered).toBe(end.sent);
  expect(end.ids).toBe(end.sent); // Each accepted once.
  expect(end.handled).toBe(end.sent);
  server.kill("SIGTERM");
  await once(server, "exit");
  let accepted = 0;
  let acked = 0;
  for (const { report } of auditStore(store)) {
    expect(report.firstDifference).toBeUndefined();
    accepted += report.counters.accepted;
    acked += report.counters.acked;
  }
  expect([accepted, acked]).toEqual([end.sent, end.sent]);
}, 90_000);

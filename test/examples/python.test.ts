/** docs/protocol.md is enough: a client that was written from it, in another language, does its work. */
import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import { hash53 } from "../../src/base/index.ts";
import { steering } from "../../src/control/index.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { openServer } from "../support/server.ts";

const folder = resolve(import.meta.dirname, "../../examples/python");
const client = join(folder, "spillway_client.py");
const run = promisify(execFile);
const hasPython = spawnSync("python3", ["--version"]).status === 0;

function python(args: readonly string[], stdin?: string): Promise<string> {
  const child = run("python3", ["-B", ...args], { cwd: folder, timeout: 60_000 });
  child.child.stdin?.end(stdin);
  return child.then(({ stdout }) => stdout);
}

describe.skipIf(!hasPython)("the client in Python (skipped where there is no python3)", () => {
  test("it steers every text as the server does", async () => {
    const texts = fc.sample(fc.string({ unit: "binary", maxLength: 40 }), 200);
    const groups = fc.sample(
      fc.record({ group: fc.string(), partitions: fc.integer({ min: 1, max: 200 }), k: fc.nat(8) }),
      50,
    );
    const program = [
      "import json, sys",
      "import spillway_client as c",
      "given = json.load(sys.stdin)",
      "hashes = [str(c.hash53(t)) for t in given['texts']]",
      "shards = [c.shards_of(g['group'], g['partitions'], g['k'] + 1) for g in given['groups']]",
      "print(json.dumps([hashes, shards]))",
    ].join("\n");
    const stdout = await python(["-c", program], JSON.stringify({ texts, groups }));
    expect(JSON.parse(stdout)).toEqual([
      texts.map((text) => String(hash53(text))),
      groups.map(({ group, partitions, k }) => steering.shardsOf(group, partitions, k + 1)),
    ]);
  });

  test("G1, G5 what it sends is stored once, though connections break, and it takes all of it", async () => {
    const server = await openServer({ flows: { orders: { partitions: 3 } } });
    await using way = await FaultProxy.open(server.url, 1);
    way.breakAfterBytes = [1500, 3000, 6000];
    const lines = Array.from({ length: 200 }, (_, n) => `order ${n} ä`);
    const sent = await python([client, "send", way.url, "orders"], `${lines.join("\n")}\n`);
    expect(way.breakAfterBytes).toEqual([]);
    const ids = sent.trim().split("\n");
    expect(new Set(ids).size).toBe(200);
    const flow = server.spillway.flow("orders");
    expect(flow.state().depth).toBe(200);
    const again = await python([client, "send", server.url, "orders"], `${lines.join("\n")}\n`);
    expect(again.trim().split("\n").toSorted()).toEqual(ids.toSorted());
    expect(flow.state().depth).toBe(200);
    way.breakAfterBytes = [3000, 9000];
    const taken = await python([client, "take", way.url, "orders", "--count", "200"]);
    expect(way.breakAfterBytes).toEqual([]);
    const payloads = taken
      .trim()
      .split("\n")
      .map((line) => line.slice(line.indexOf(" ") + 1));
    expect(new Set(payloads)).toEqual(new Set(lines));
    expect(flow.state().depth).toBe(0);
  }, 60_000);

  test("order per key holds, and a bounded flow makes it wait for a worker", async () => {
    const flows = { orders: { partitions: 2, order: "key", buffer: { messages: 16 } } } as const;
    const server = await openServer({ flows });
    const lines = Array.from({ length: 60 }, (_, n) => `${n}`);
    const worker = spawn("python3", ["-B", client, "take", server.url, "orders", "--count", "60"]);
    onTestFinished(() => void worker.kill());
    let taken = "";
    worker.stdout.on("data", (data) => (taken += String(data)));
    const ended = once(worker, "close");
    await python([client, "send", server.url, "orders", "--key", "k"], `${lines.join("\n")}\n`);
    expect(await ended).toEqual([0, null]);
    const payloads = taken
      .trim()
      .split("\n")
      .map((line) => line.split(" ")[1]);
    expect(payloads).toEqual(lines);
    expect(server.spillway.flow("orders").state().depth).toBe(0);
  }, 60_000);
});

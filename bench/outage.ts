/**
 * A push target that is gone for a minute under 400 messages a second, and then back: what it gets at its
 * return, at most, against the best that it can do; how soon it is served; and whether anything is lost.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { figure } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { paced, steady } from "./pace.ts";
import { sleep } from "./store.ts";
import { connect } from "../src/client/index.ts";
import { freePort, Serve } from "../test/support/serve.ts";
import { TempDir } from "../test/support/temp-dir.ts";

const ratePerS = 400;
const bestPerS = 1659;
const beforeMs = 8000;
const awayMs = 60_000;
const afterMs = 25_000;
const sampleMs = 100;
const drainedMaxMs = 60_000;

export const outage: Bench = {
  name: "outage",
  describe: "a push target that is away for 60 s at 400 messages/s, and what it gets at its return",
  run: async () => {
    using dir = new TempDir();
    const port = await freePort();
    const url = `http://127.0.0.1:${port}/`;
    const deliver = { kind: "push", url, allow: ["http", "loopback"], ports: [port] } as const;
    const flows = { orders: { payload: "bytes", order: "none", deliver } } as const;
    await using server = new Serve(dir.path, await freePort(), { flows });
    let target = await startTarget(port);
    await server.start();
    await using client = connect({ url: server.url, drain: "1s" });
    const flow = client.flow<Uint8Array>("orders");
    await flow.ready();
    let accepted = 0;
    const payload = new Uint8Array(256);
    const load = paced(beforeMs + awayMs + afterMs, steady(ratePerS), () => {
      void flow.send(payload).then(() => accepted++);
    });
    await sleep(beforeMs);
    const before = await served(url);
    await stop(target);
    await sleep(awayMs);
    target = await startTarget(port);
    const backAtMs = performance.now();
    const counts: { readonly atMs: number; readonly count: number }[] = [];
    let firstMs = Infinity;
    while (performance.now() - backAtMs < afterMs) {
      await sleep(sampleMs);
      const count = await served(url);
      const atMs = performance.now() - backAtMs;
      counts.push({ atMs, count });
      if (count > 0 && firstMs === Infinity) firstMs = atMs;
    }
    await load;
    let total = 0;
    for (let waitedMs = 0; waitedMs < drainedMaxMs; waitedMs += sampleMs) {
      total = before + (await served(url));
      if (total >= accepted) break;
      await sleep(sampleMs);
    }
    await stop(target);
    const name = "most in one second at its return";
    return [
      figure(
        { name, value: mostPerS(counts), unit: "/s", floor: bestPerS },
        { of: "ratio", atMost: 1.2 },
      ),
      figure({ name: "served again after", value: firstMs / 1000, unit: "s" }),
      figure(
        { name: "lost", value: Math.max(0, accepted - total), unit: "messages" },
        { of: "value", atMost: 0 },
      ),
    ];
  },
};

/** Over any second. */
function mostPerS(counts: readonly { readonly atMs: number; readonly count: number }[]): number {
  let most = 0;
  for (const { atMs, count } of counts) {
    const from = counts.findLast((each) => each.atMs <= atMs - 1000);
    if (from !== undefined)
      most = Math.max(most, ((count - from.count) * 1000) / (atMs - from.atMs));
  }
  return most;
}

async function startTarget(port: number): Promise<ChildProcess> {
  const script = fileURLToPath(new URL("../src/cli/demo/knee-server.ts", import.meta.url));
  const child = fork(script, [String(port)], { stdio: ["ignore", "pipe", "inherit", "ipc"] });
  await once(child.stdout!, "data");
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  child.kill("SIGKILL");
  await once(child, "exit");
}

async function served(url: string): Promise<number> {
  const response = await fetch(`${url}stats`);
  return ((await response.json()) as { served: number }).served;
}

/** `spillway send` and `spillway consume` as processes of their own, against a server that is one, too. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import type { ConfigOptions } from "../../src/config/index.ts";
import { emptyDir, pressUntilEnded, spillway, start } from "./spillway.ts";
import type { Ended, Running } from "./spillway.ts";

/** A server process. @returns What commands are called with to reach it. */
async function serve(flows: ConfigOptions["flows"]): Promise<{ to: string[]; server: Running }> {
  const dir = await emptyDir();
  const file = join(dir, "spillway.config.json");
  const config: ConfigOptions = {
    engine: { kind: "sqlite", dir: "data" },
    listen: { port: 0 },
    log: "silent",
    flows,
  };
  await writeFile(file, JSON.stringify(config));
  const server = start("serve", "--config", file);
  const url = /listens on (\S+)/.exec(await server.said("data "))![1]!;
  return { to: ["--url", url], server };
}

/** The objects of JSON lines. */
function linesOf<T>({ stdout }: Ended): T[] {
  const lines = stdout.split("\n").filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line) as T);
}

function give(running: Running, input: string): Running {
  running.child.stdin!.end(input);
  return running;
}

test("G1, G5 a message that is sent twice under one idempotency key is accepted once, and taken once", async () => {
  const { to } = await serve({ orders: {} });
  const message = ["send", "orders", "a pear", "--idempotency-key", "i", "--key", "k", ...to];
  const first = await spillway(...message);
  expect(first).toMatchObject({ code: 0, stderr: "" });
  expect(first.stdout).toMatch(/^accepted orders\/\d+\/1 \(durability fsync\)\n$/);
  const again = await spillway(...message, "--json");
  expect(again.code).toBe(0);
  const id = /orders\/\d+\/1/.exec(first.stdout)![0];
  expect(JSON.parse(again.stdout)).toEqual({ id, duplicate: true, durability: "fsync" });

  const other = await spillway(
    "send",
    "orders",
    "a plum",
    "--idempotency-key",
    "i",
    "--key",
    "k",
    ...to,
  );
  expect(other).toMatchObject({ code: 1, stdout: "" });
  expect(other.stderr).toContain("accepted with other content");

  const taken = await spillway("consume", "orders", "--max", "1", "--json", ...to);
  expect(taken).toMatchObject({ code: 0, stderr: "1 acked\n" });
  const [delivery] = linesOf(taken);
  expect(delivery).toMatchObject({ id, attempt: 1, key: "k", payload: "a pear", headers: {} });
});

test("lines become messages, in order per key, and a summary says what became of them", async () => {
  const { to } = await serve({ orders: { partitions: 2 } });
  const input = Array.from({ length: 1000 }, (_, n) => `line ${n + 1}`).join("\n\n");
  const args = ["--lines", "--key", "k", "--idempotency-key", "import-{n}", "-H", "From: a: b"];
  const sent = await give(start("send", "orders", ...args, ...to), input).ended;
  expect(sent.stdout).toMatch(/^1,000 accepted in /);
  expect(sent).toMatchObject({ code: 0, stderr: "" });

  const again = await give(start("send", "orders", ...args, "--json", ...to), input).ended;
  const answers = linesOf<{ summary?: unknown; duplicate?: boolean }>(again);
  expect(answers).toHaveLength(1001);
  expect(answers.filter(({ duplicate }) => duplicate === true)).toHaveLength(1000);
  expect(answers.at(-1)).toMatchObject({
    summary: { accepted: 0, duplicates: 1000, refused: {}, notSent: 0 },
  });

  const taken = await spillway("consume", "orders", "--max", "1000", ...to);
  expect(taken).toMatchObject({ code: 0, stderr: "1,000 acked\n" });
  expect(taken.stdout).toBe(`${input.replaceAll("\n\n", "\n")}\n`);
});

test("bytes arrive as they were: a file that is no text comes in base64", async () => {
  const { to } = await serve({ blobs: {} });
  const file = join(await emptyDir(), "blob");
  const bytes = Buffer.from([0, 255, 10, 13, 128]);
  await writeFile(file, bytes);
  expect((await spillway("send", "blobs", "--file", file, ...to)).code).toBe(0);
  expect((await give(start("send", "blobs", ...to), "piped\n").ended).code).toBe(0);
  const taken = await spillway("consume", "blobs", "--max", "2", "--json", ...to);
  const deliveries = linesOf<Record<string, unknown>>(taken);
  const payloads = deliveries.map(({ payload, payloadBase64 }) => payload ?? payloadBase64);
  expect(new Set(payloads)).toEqual(new Set([bytes.toString("base64"), "piped\n"]));
});

test("what cannot be sent or taken is told with what was found, and ends with 1 or 2", async () => {
  const { to } = await serve({
    orders: {},
    pushed: { deliver: { kind: "push", url: "https://shop.example/" } },
  });
  const web = createServer((_request, response) => void response.end("hello")).listen(
    0,
    "127.0.0.1",
  );
  await once(web, "listening");
  onTestFinished(() => {
    web.closeAllConnections();
    web.close();
  });
  const other = `http://127.0.0.1:${(web.address() as AddressInfo).port}`;
  const closed = createServer().listen(0, "127.0.0.1");
  await once(closed, "listening");
  const nobody = `http://127.0.0.1:${(closed.address() as AddressInfo).port}`;
  await new Promise((resolve) => closed.close(resolve));
  const soon = ["--wait", "300ms"];
  const wrong: [args: string[], code: number, named: string][] = [
    [["send", "nope", "m", ...to], 2, "flow: nope"],
    [["consume", "nope", ...to], 2, "flow: nope"],
    [["consume", "pushed", ...to], 2, "this one is pushed to its target"],
    [["send", "orders", "m", "--url", nobody, ...soon], 1, "nothing listens there"],
    [["send", "orders", "m", "--count", "2", "--url", nobody, ...soon], 1, "nothing listens there"],
    [["consume", "orders", "--url", nobody, ...soon], 1, "nothing listens there"],
    [["send", "orders", "m", "--url", other, ...soon], 1, "no Spillway server: it answers 200"],
    [["send", "orders", "m", "--url", "ftp://x"], 2, "url"],
    [["send", "orders", "m", "--lines", ...to], 2, "TEXT"],
    [["send", "orders", "--file", "/nonexistent", ...to], 2, "/nonexistent"],
    [["send", "orders", "m", "--count", "0", ...to], 2, "--count"],
    [["send", "orders", "m", "--count", "2", "--idempotency-key", "i", ...to], 2, "{n}"],
    [["send", "orders", "m", "--class", "best", ...to], 2, "critical, normal or bulk"],
    [["send", "orders", "m", "--deadline", "soon", ...to], 2, "--deadline"],
    [["send", "orders", "m", "--header", "none", ...to], 2, "--header"],
    [["consume", "orders", "--max", "-1", ...to], 2, "--max"],
    [["consume", "orders", "--concurrency", "all", ...to], 2, "adaptive, or"],
  ];
  await Promise.all(
    wrong.map(async ([args, code, named]) => {
      const ended = await spillway(...args);
      expect({ args, code: ended.code }).toEqual({ args, code });
      expect(ended.stderr).toContain(named);
    }),
  );
}, 40_000);

test("G3 a flow that is full holds a stream back; Ctrl-C ends it and says what was not sent", async () => {
  const { to } = await serve({
    orders: { partitions: 1, buffer: { messages: 20 }, classes: { normal: 1 } },
  });
  const sending = start("send", "orders", "m", "--count", "100", "--json", ...to);
  await sending.until(({ stdout }) => stdout.split("\n").length > 20);
  sending.child.kill("SIGINT");
  const ended = await sending.ended;
  expect(ended.code).toBe(1);
  expect(ended.stderr).toContain("the rest was not sent");
  const { summary } = linesOf<{ summary: Record<string, unknown> }>(ended).at(-1)!;
  expect(summary).toMatchObject({ accepted: 20, notSent: 80, refused: {} });

  const waiting = await spillway("send", "orders", "m", "--wait", "200ms", "--json", ...to);
  expect(waiting.code).toBe(1);
  expect(JSON.parse(waiting.stdout)).toMatchObject({ accepted: false, code: "timed_out" });
});

test("a load of so many a second ends by itself after so many, or is done when it is stopped", async () => {
  const { to } = await serve({ orders: {} });
  const load = await spillway("send", "orders", "m", "--rate", "500", "--count", "50", ...to);
  expect(load).toMatchObject({ code: 0, stderr: "" });
  expect(load.stdout).toMatch(/^50 accepted in .*; never held back\n$/);
  const endless = start("send", "orders", "m", "--rate", "500", "--json", ...to);
  await endless.until(({ stdout }) => stdout.split("\n").length > 20);
  endless.child.kill("SIGINT");
  const ended = await endless.ended;
  expect(ended).toMatchObject({ code: 0, stderr: "" });
});

test("G2 a reader that leaves early ends consume; what it did not see is taken again, untried", async () => {
  const { to } = await serve({ orders: { window: { fixed: 4 } } });
  await spillway("send", "orders", "first", ...to);
  const taking = start("consume", "orders", "--json", ...to);
  await taking.until(({ stdout }) => stdout.includes("\n"));
  taking.child.stdout!.destroy();
  await spillway("send", "orders", "m", "--count", "20", ...to);
  expect((await taking.ended).code).toBe(0);
  const rest = await spillway("consume", "orders", "--max", "20", "--json", ...to);
  const deliveries = linesOf<{ id: string; attempt: number }>(rest);
  expect(new Set(deliveries.map(({ id }) => id)).size).toBe(20);
  expect(deliveries.every(({ attempt }) => attempt === 1)).toBe(true);
});

test("Ctrl-C ends a consumer that waits, and G3 no more are in hand than --concurrency says", async () => {
  const { to } = await serve({ orders: { window: { fixed: 8 } } });
  await spillway("send", "orders", "m", "--count", "12", ...to);
  const dir = await emptyDir();
  // Each command counts itself in, and out: more than two at once would be seen.
  const command = `echo in >> log; sleep 0.05; echo out >> log`;
  const taking = start(
    "consume",
    "orders",
    "--concurrency",
    "2",
    "--exec",
    `cd ${dir}; ${command}`,
    "--json",
    ...to,
  );
  await taking.until(({ stdout }) => stdout.split("\n").length > 12);
  taking.child.kill("SIGINT");
  expect(await taking.ended).toMatchObject({ code: 0, stderr: "12 acked\n" });
  let [now, most] = [0, 0];
  for (const line of (await readFile(join(dir, "log"), "utf8")).trim().split("\n")) {
    now += line === "in" ? 1 : -1;
    most = Math.max(most, now);
  }
  expect(now).toBe(0);
  expect(most).toBeLessThanOrEqual(2);
});

test("--exec: the payload on standard input, the rest in the environment, and the exit status decides", async () => {
  const { to } = await serve({ orders: { retry: { delay: ["5ms", "10ms"], attempts: 2 } } });
  const cases = ["done", "dead", "fails", "later"];
  for (const each of cases) {
    await spillway("send", "orders", each, "--key", `k-${each}`, "-H", "a: 'b'", ...to);
  }
  const command = `
    payload=$(cat)
    echo "$payload $SPILLWAY_KEY $SPILLWAY_ATTEMPT $SPILLWAY_ID $SPILLWAY_HEADERS" >&2
    case $payload in
      done) exit 0 ;;
      dead) echo 'no such order' >&2; exit 65 ;;
      fails) [ "$SPILLWAY_ATTEMPT" = 2 ] || exit 3 ;;
      later) [ -e "$FLAG" ] || { touch "$FLAG"; exit 75; } ;;
    esac`;
  const flag = `FLAG=${join(await emptyDir(), "flag")}`;
  const args = ["--exec", `${flag}; ${command}`, "--max", "6", "--json"];
  const taken = await spillway("consume", "orders", ...args, ...to);
  expect(taken.code).toBe(0);
  const ends = linesOf<{ key: string; attempt: number; settled: string; error?: string }>(taken);
  const of = (name: string): unknown[] =>
    ends
      .filter(({ key }) => key === `k-${name}`)
      .map(({ attempt, settled, error }) => [attempt, settled, error]);
  expect(of("done")).toEqual([[1, "acked", undefined]]);
  expect(of("dead")).toEqual([[1, "dead-lettered", "exits 65: no such order"]]);
  expect(of("fails")).toEqual([
    [1, "failed", expect.stringMatching(/^exits 3: fails k-fails 1 /)],
    [2, "acked", undefined],
  ]);
  expect(of("later")).toEqual([
    [1, "given back", undefined],
    [1, "acked", undefined],
  ]);
  expect(taken.stderr).toMatch(/^done k-done 1 orders\/\d+\/\d+ \{"a":"'b'"\}$/m);
});

test("a command that does not exist costs no message an attempt", async () => {
  const { to } = await serve({ orders: {} });
  await spillway("send", "orders", "m", ...to);
  const wrong = await spillway("consume", "orders", "--exec", "/nonexistent/command", ...to);
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain("exits 127");
  const right = await spillway("consume", "orders", "--max", "1", "--json", ...to);
  expect(linesOf(right)).toMatchObject([{ attempt: 1 }]);
});

test("Ctrl-C lets a command that runs finish", async () => {
  const { to } = await serve({ orders: { window: { fixed: 1 } } });
  const dir = await emptyDir();
  const fifo = join(dir, "go");
  await spillway("send", "orders", "m", ...to);
  const command = `mkfifo ${fifo}; echo ready >&2; cat ${fifo}; echo done`;
  const taking = start("consume", "orders", "--exec", command, ...to);
  await taking.until(({ stderr }) => stderr.includes("ready"));
  taking.child.kill("SIGINT");
  await writeFile(fifo, "on\n");
  expect(await taking.ended).toEqual({ code: 0, stdout: "on\ndone\n", stderr: "ready\n1 acked\n" });
});

test("a second Ctrl-C ends consume at once, with 130 and the command", async () => {
  const { to } = await serve({ orders: {} });
  await spillway("send", "orders", "m", ...to);
  const taking = start("consume", "orders", "--exec", "echo pid $$ >&2; sleep 300", ...to);
  await taking.until(({ stderr }) => /pid \d+\n/.test(stderr));
  const { code, stderr } = await pressUntilEnded(taking);
  expect(code).toBe(130);
  const pid = Number(/pid (\d+)/.exec(stderr)![1]);
  while (isThere(pid)) await sleep(5);
});

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test("G2 a server that stops and comes back: a stream with idempotency keys loses and doubles nothing", async () => {
  const dir = await emptyDir();
  const file = join(dir, "spillway.config.json");
  const write = (port: number): Promise<void> =>
    writeFile(
      file,
      JSON.stringify({
        engine: { kind: "sqlite", dir: "data" },
        listen: { port },
        log: "silent",
        drain: "100ms",
        flows: { orders: { buffer: { messages: 100_000 } } },
      }),
    );
  await write(0);
  const first = start("serve", "--config", file);
  const url = /listens on (\S+)/.exec(await first.said("data "))![1]!;
  await write(Number(new URL(url).port));
  const to = ["--url", url];
  const args = ["--rate", "2000", "--count", "1500", "--idempotency-key", "i-{n}", "--json"];
  const sending = start("send", "orders", "m", ...args, ...to);
  await sending.until(({ stdout }) => stdout.split("\n").length > 200);
  first.child.kill("SIGKILL");
  await first.ended;
  const second = start("serve", "--config", file);
  await second.said("data ");
  const sent = await sending.ended;
  const { summary } = linesOf<{ summary: Record<string, number> }>(sent).at(-1)!;
  expect(summary).toMatchObject({ refused: {}, notSent: 0 });
  expect(summary["accepted"]! + summary["duplicates"]!).toBe(1500);
  expect(sent.code).toBe(0);
  second.child.kill("SIGINT");
  await second.ended;
  const audit = await spillway("audit", join(dir, "data"), "--json");
  const { partitions } = JSON.parse(audit.stdout) as {
    partitions: { report: unknown; counters: { accepted: number } }[];
  };
  expect(partitions.reduce((sum, { counters }) => sum + counters.accepted, 0)).toBe(1500);
}, 30_000);

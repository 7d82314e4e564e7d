/** `spillway doctor` against real trouble: each finding is made, found, and says what to do. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, onTestFinished, test } from "vitest";
import { checkClock } from "../../src/cli/doctor/machine.ts";
import type { Finding } from "../../src/cli/doctor/finding.ts";
import { openSpillway } from "../../src/spillway.ts";
import { emptyDir, startIn } from "./spillway.ts";

interface Diagnosis {
  readonly code: number | null;
  /** "level check: found" */
  readonly lines: readonly string[];
  readonly findings: readonly Finding[];
}

async function diagnose(folder: string, config?: object): Promise<Diagnosis> {
  if (config !== undefined) {
    const whole = { listen: { port: 0 }, limits: { connections: 100 }, flows: {}, ...config };
    writeFileSync(join(folder, "spillway.config.json"), JSON.stringify(whole));
  }
  const { code, stdout, stderr } = await startIn(folder, "doctor", "--json").ended;
  expect(stderr).toBe("");
  const { ok, findings } = JSON.parse(stdout) as { ok: boolean; findings: Finding[] };
  expect(ok).toBe(code === 0);
  for (const { level, advice } of findings) expect(advice === undefined).toBe(level === "ok");
  const lines = findings.map(({ level, check, found }) => `${level} ${check}: ${found}`);
  return { code, lines, findings };
}

function matching(pattern: RegExp): unknown {
  return expect.arrayContaining([expect.stringMatching(pattern)]);
}

/** A server of somebody else. */
async function stranger(): Promise<{ port: number; requests: () => number }> {
  let requests = 0;
  const server = createServer((_request, response) => {
    requests++;
    response.end("hello");
  });
  onTestFinished(() => void server.close());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, requests: () => requests };
}

test("a machine on which all is well gets a line for each check, aligned, and exit code 0", async () => {
  const folder = await emptyDir();
  await diagnose(folder, { flows: { orders: { buffer: { bytes: "1 MiB" } } } });
  const { code, stdout } = await startIn(folder, "doctor").ended;
  expect(code).toBe(0);
  const checks = stdout.split("\n").filter((line) => /^ {2}(ok {2}|warn|FAIL) {2}/.test(line));
  const named = checks.map((line) => /^ {2}.{4} {2}(\w+)/.exec(line)![1]);
  for (const check of ["config", "node", "disk", "data", "port", "clock"]) {
    expect(named).toContain(check);
  }
  const columns = checks.map((line) => /^ {2}.{4} {2}\w+ +/.exec(line)![0].length);
  expect(new Set(columns).size).toBe(1);
});

test("each mistake in a configuration is a finding with its path, and exit code 1", async () => {
  const { code, lines } = await diagnose(await emptyDir(), {
    flows: { orders: { lease: "soon" } },
    listen: { port: -1 },
  });
  expect(code).toBe(1);
  expect(lines).toEqual(matching(/^fail config: flows\.orders\.lease: found "soon", allowed: /));
  expect(lines).toEqual(matching(/^fail config: listen\.port: /));
});

test("without a configuration it says so, and looks at the rest", async () => {
  const { code, lines, findings } = await diagnose(await emptyDir());
  expect(code).toBeLessThanOrEqual(1); // The default port may be taken.
  expect(lines).toEqual(matching(/^warn config: no spillway\.config\.ts/));
  expect(findings[0]!.advice).toContain("spillway init");
});

test("a store that is in use is no fault, and its holder is named", async () => {
  const folder = await emptyDir();
  await using instance = await openSpillway({ dir: join(folder, ".spillway") });
  await instance.flow("orders").send("x");
  const { code, lines } = await diagnose(folder, {});
  expect(code).toBe(0);
  expect(lines).toEqual(matching(new RegExp(`^ok data: .*process ${process.pid} on .* has it`)));
  expect(lines).toEqual(matching(/^ok accounts: they hold; 1 message pending$/));
});

test("G13 damage of a store, of its accounts and of its log is found", async () => {
  const folder = await emptyDir();
  const dir = join(folder, ".spillway");
  await using instance = await openSpillway({ dir });
  await instance.flow("orders", { partitions: 1 }).send("x");
  await instance.close();
  const db = new DatabaseSync(join(dir, "store.db"));
  db.exec("UPDATE part SET accepted = accepted + 1");
  expect((await diagnose(folder, {})).lines).toEqual(
    matching(/^fail accounts: orders\/0: accepted/),
  );
  db.exec("PRAGMA user_version = 99");
  const newer = await diagnose(folder);
  expect(newer.lines).toEqual(matching(/^fail data: .*version 99 is newer/));
  db.close();
  writeFileSync(join(dir, "restoring"), "{}");
  expect((await diagnose(folder)).lines).toEqual(matching(/^fail data: .*restore.*not finished/));
  rmSync(join(dir, "restoring"));
  writeFileSync(join(dir, "store.db"), "x".repeat(8192));
  const broken = await diagnose(folder);
  expect(broken.lines).toEqual(matching(/^fail data: .*/));
  expect(broken.code).toBe(1);
}, 60_000);

test("a folder that others may read is a warning; one that cannot be written is a failure", async () => {
  const folder = await emptyDir();
  const dir = join(folder, ".spillway");
  mkdirSync(dir);
  chmodSync(dir, 0o755);
  expect((await diagnose(folder, {})).lines).toEqual(matching(/^warn data: .*open to others/));
  const engine = { kind: "sqlite", dir: "/proc/1/spillway" };
  const refused = await diagnose(folder, { engine });
  expect(refused.code).toBe(1);
  expect(refused.lines).toEqual(matching(/^fail disk: \/proc/));
});

test("a buffer that the disk cannot hold is a warning", async () => {
  const { lines } = await diagnose(await emptyDir(), {
    flows: { orders: { buffer: { bytes: 2 ** 50, messages: 1e9 } } },
  });
  expect(lines).toEqual(matching(/^warn disk: .* free, 1024 TiB needed/));
});

test("a port that another process has is a failure; our own server on our own data is not", async () => {
  const folder = await emptyDir();
  const { port } = await stranger();
  const taken = await diagnose(folder, { listen: { port } });
  expect(taken.lines).toEqual(matching(/^fail port: .*another process listens/));
  await diagnose(folder, { log: "silent" });
  const server = startIn(folder, "serve", "--json");
  const { url } = JSON.parse(await server.said("\n")) as { url: string };
  const ours = { listen: { port: Number(new URL(url).port) } };
  expect((await diagnose(folder, ours)).lines).toEqual(matching(/^ok port: .*the server runs/));
  const other = await diagnose(folder, { ...ours, engine: { kind: "sqlite", dir: "other" } });
  expect(other.lines).toEqual(matching(/^fail port: .*another Spillway server/));
  server.child.kill("SIGTERM");
  await server.ended;
}, 60_000);

test("an address that is not ours, and one that is open to others, are failures", async () => {
  const folder = await emptyDir();
  const foreign = await diagnose(folder, { listen: { host: "192.0.2.1", port: 7411 } });
  expect(foreign.lines).toEqual(matching(/^fail port: .*EADDRNOTAVAIL/));
  const open = await diagnose(folder, { listen: { host: "0.0.0.0", port: 0 } });
  expect(open.lines).toEqual(matching(/^fail port: 0\.0\.0\.0 is open to others, without TLS/));
});

test("targets are connected to and get no request; those that are away, private or unknown are named", async () => {
  const { port, requests } = await stranger();
  const away = createServer();
  away.listen(0, "127.0.0.1");
  await once(away, "listening");
  const gone = (away.address() as AddressInfo).port;
  away.close();
  await once(away, "close");
  const target = (url: string, more: object = {}): object => ({
    deliver: { kind: "push", url, allow: ["http", "loopback"], ports: [port, gone], ...more },
  });
  const { code, lines } = await diagnose(await emptyDir(), {
    flows: {
      good: target(`http://127.0.0.1:${port}/`),
      away: target(`http://127.0.0.1:${gone}/`),
      inside: target(`http://127.0.0.1:${port}/`, { allow: ["http"] }),
      unknown: target(`http://nowhere.invalid:${port}/`),
    },
  });
  expect(code).toBe(1);
  expect(lines).toEqual(matching(/^ok targets: good to 127\.0\.0\.1: connected/));
  expect(lines).toEqual(matching(/^warn targets: away to .*ECONNREFUSED/));
  expect(lines).toEqual(matching(/^fail targets: inside to .* not public/));
  expect(lines).toEqual(matching(/^fail targets: unknown to nowhere\.invalid/));
  expect(requests()).toBe(0);
});

test("secrets are looked for where they are named, and never shown", async () => {
  const folder = await emptyDir();
  writeFileSync(join(folder, "secret"), "whsec_dGhpcyBpcyBzZWNyZXQ=\n");
  const { port } = await stranger();
  const push = { kind: "push", url: `http://127.0.0.1:${port}/`, ports: [port] };
  const secret = [{ env: "SPILLWAY_TEST_UNSET" }, { file: join(folder, "secret") }];
  const deliver = { ...push, allow: ["http", "loopback"], secret };
  const { code, lines } = await diagnose(folder, { flows: { orders: { deliver } } });
  expect(code).toBe(1);
  expect(lines).toEqual(matching(/^fail secrets: orders: the variable SPILLWAY_TEST_UNSET/));
  expect(lines).toEqual(matching(/^ok secrets: orders: the file /));
  expect(lines.join("\n")).not.toContain("whsec");
});

/** A certificate and its key, made for this test. */
function certificate(folder: string, name: string, days: number): { cert: string; key: string } {
  const [cert, key] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)];
  const subject = ["-subj", "/CN=localhost", "-days", String(days)];
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  execFileSync("openssl", ["req", "-x509", ...newKey, "-keyout", key, "-out", cert, ...subject], {
    stdio: "ignore",
  });
  return { cert, key };
}

test("a certificate that ends soon is a warning; another one's key, and a file that is none, are failures", async () => {
  const folder = await emptyDir();
  const long = certificate(folder, "long", 400);
  const short = certificate(folder, "short", 3);
  const tls = (files: object): object => ({ listen: { port: 0, tls: files } });
  expect((await diagnose(folder, tls(long))).lines).toEqual(matching(/^ok tls: .*valid until/));
  expect((await diagnose(folder, tls(short))).lines).toEqual(matching(/^warn tls: .*valid until/));
  const mixed = await diagnose(folder, tls({ cert: long.cert, key: short.key }));
  expect(mixed.lines).toEqual(matching(/^fail tls: .* is not the key of/));
  const none = await diagnose(folder, tls({ cert: long.key, key: long.key }));
  expect(none.lines).toEqual(matching(/^fail tls: /));
  chmodSync(long.key, 0o644);
  expect((await diagnose(folder, tls(long))).lines).toEqual(
    matching(/^warn tls: .*read by others/),
  );
  expect(readFileSync(long.cert, "utf8")).toContain("BEGIN CERTIFICATE");
}, 60_000);

test("a clock that jumps, or shows an impossible year, is found", () => {
  const at = (calendarMs: number, steadyMs: number) => ({ calendarMs, steadyMs });
  const noon = Date.UTC(2027, 0, 1, 12);
  const level = (...readings: Parameters<typeof checkClock>): string =>
    checkClock(...readings)[0]!.level;
  expect(level(at(noon, 5), at(noon + 1000, 1005))).toBe("ok");
  expect(level(at(noon, 5), at(noon + 3_601_000, 1005))).toBe("warn");
  expect(level(at(noon, 5), at(noon - 1000, 1005))).toBe("warn");
  expect(level(at(0, 5), at(0, 5))).toBe("fail");
});

test("more connections than files may be opened are a warning", async () => {
  const { lines } = await diagnose(await emptyDir(), { limits: { connections: 1_000_000 } });
  expect(lines).toEqual(matching(/^(warn|ok) files: .* open files allowed, 1,001,000 needed/));
});

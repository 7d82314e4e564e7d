/**
 * S5: no address of a contract leads into the network that the server stands in. A canary listens on
 * loopback, on both families, under the very port that the hostile addresses name: it must never be
 * connected to. What is refused says so, and not what would have answered.
 */
import { execFile, spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { Resolver } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import type { FlowOptions, PushOptions } from "../../src/config/index.ts";
import { memory } from "../../src/engines/memory/index.ts";
import { Addresses } from "../../src/server/push/addresses.ts";
import { Pusher } from "../../src/server/push/index.ts";
import type { PoolDeps } from "../../src/server/push/pool.ts";
import { openSpillway, SpillwayError } from "../../src/spillway.ts";
import type { Flow } from "../../src/spillway.ts";
import { PushTarget, until } from "../support/push-target.ts";
import { TempDir } from "../support/temp-dir.ts";

const bytes = new TextEncoder().encode("x");

/** Listens on 127.0.0.1 and, where there is one, on ::1, and counts who comes. */
class Canary {
  connections = 0;
  port = 0;
  readonly #servers = ["127.0.0.1", "::1"].map((host) => ({
    host,
    server: createServer((socket) => {
      this.connections++;
      socket.destroy();
    }),
  }));

  async listen(): Promise<void> {
    for (const { host, server } of this.#servers) {
      await new Promise<void>((resolve) => {
        server.once("error", () => resolve()); // No IPv6 here.
        server.listen(this.port, host, resolve);
      });
      this.port ||= (server.address() as AddressInfo).port;
    }
  }

  close(): void {
    for (const { server } of this.#servers) server.close();
  }
}

const canary = new Canary();
beforeAll(() => canary.listen());
afterAll(() => canary.close());

/** A flow that is pushed by the parts of a server, with a resolver of ours. */
async function pushed(
  deliver: Partial<PushOptions> & { readonly url: string },
  deps: Partial<PoolDeps>,
  options: FlowOptions = {},
): Promise<Flow<Uint8Array>> {
  const spillway = await openSpillway({ engine: memory(), drainMaxMs: 100 });
  const closing = new AsyncDisposableStack();
  onTestFinished(() => closing.disposeAsync());
  closing.defer(() => spillway.close());
  const flow = spillway.flow<Uint8Array>("hooks", {
    partitions: 1,
    payload: "bytes",
    retry: { attempts: 1, budget: 1 },
    ...options,
    deliver: { kind: "push", ...deliver },
  });
  const pusher = new Pusher(deps);
  pusher.add(flow);
  closing.defer(() => pusher[Symbol.dispose]());
  flow.on("error", () => undefined);
  pusher.start();
  await flow.opened();
  return flow;
}

const refusals = new Set(["contract_invalid", "target_refused"]);

/** @returns Where it was refused; anything else fails the test. */
async function refusalOf(
  deliver: Partial<PushOptions> & { readonly url: string },
  deps: Partial<PoolDeps> = {},
): Promise<string> {
  let flow: Flow<Uint8Array>;
  try {
    flow = await pushed({ ports: [canary.port, 80, 443], ...deliver }, deps);
  } catch (error) {
    if (error instanceof SpillwayError && refusals.has(error.code)) return error.code;
    throw error;
  }
  const told: string[] = [];
  flow.on("error", ({ code }) => told.push(code));
  await flow.send(bytes);
  await until(() => flow.state().counters.dead === 1);
  const [letter] = await Array.fromAsync(flow.deadLetters());
  expect(letter!.reason).toBe("attempts_exhausted: no answer: refused");
  expect(told).toEqual(["target_refused"]);
  return "refused at the connection";
}

/** Addresses in every form that a URL may give them; `:port` is the canary's. */
const literals = [
  "http://127.0.0.1:port/",
  "http://127.0.0.1.:port/",
  "http://127.1:port/",
  "http://127.0.1:port/",
  "http://127.255.255.254:port/",
  "http://2130706433:port/",
  "http://0x7f000001:port/",
  "http://0x7f.0.0.1:port/",
  "http://0x7f.1:port/",
  "http://0177.0.0.1:port/",
  "http://017700000001:port/",
  "http://0177.0.0.01:port/",
  "http://127.0.0.0x1:port/",
  "http://%31%32%37.0.0.1:port/",
  "http://1２7.0.0.1:port/",
  "http://①②⑦.⓪.⓪.①:port/",
  "http://127。0。0。1:port/",
  "http://0:port/",
  "http://0.0.0.0:port/",
  "http://0.1.2.3:port/",
  "http://[::1]:port/",
  "http://[::]:port/",
  "http://[0:0:0:0:0:0:0:1]:port/",
  "http://[0000:0000:0000:0000:0000:0000:0000:0001]:port/",
  "http://[::127.0.0.1]:port/",
  "http://[::ffff:127.0.0.1]:port/",
  "http://[::ffff:7f00:1]:port/",
  "http://[0:0:0:0:0:ffff:7f00:0001]:port/",
  "http://[::ffff:0:7f00:1]:port/",
  "http://[64:ff9b::7f00:1]:port/",
  "http://[64:ff9b::127.0.0.1]:port/",
  "http://[64:ff9b:1::7f00:1]:port/",
  "http://[2002:7f00:1::]:port/",
  "http://[2001:0:7f00:1::]:port/",
  "http://[2001:20::1]:port/",
  "http://[2001:db8::1]:port/",
  "http://[3fff::1]:port/",
  "http://[fe80::1]:port/",
  "http://[fc00::1]:port/",
  "http://[fd00:ec2::254]/latest/meta-data/",
  "http://[fec0::1]:port/",
  "http://[ff02::1]:port/",
  "http://[::ffff:169.254.169.254]/latest/meta-data/",
  "http://169.254.169.254/latest/meta-data/",
  "http://0xa9fea9fe/latest/meta-data/",
  "http://2852039166/latest/meta-data/",
  "http://169.254.170.2/v2/credentials",
  "http://100.100.100.200/latest/meta-data/",
  "http://192.0.0.192/opc/v2/instance/",
  "http://10.0.0.1:port/",
  "http://10.255.255.255:port/",
  "http://172.16.0.1:port/",
  "http://172.31.255.255:port/",
  "http://192.168.0.1:port/",
  "http://100.64.0.1:port/",
  "http://100.127.255.255:port/",
  "http://192.0.2.1:port/",
  "http://192.88.99.1:port/",
  "http://198.18.0.1:port/",
  "http://198.19.255.255:port/",
  "http://198.51.100.1:port/",
  "http://203.0.113.1:port/",
  "http://224.0.0.1:port/",
  "http://239.255.255.255:port/",
  "http://240.0.0.1:port/",
  "http://255.255.255.255:port/",
];
const names = [
  "http://localhost:port/",
  "http://LOCALHOST:port/",
  "http://localhost.:port/",
  "http://localhost..:port/",
  "http://a.localhost:port/",
  "http://loc%61lhost:port/",
  "http://ｌｏｃａｌｈｏｓｔ:port/",
];
const forms = [
  "http://user@127.0.0.1:port/",
  "http://user:word@billing.example.test:port/",
  "http://billing.example.test:80@127.0.0.1:port/",
  "http://billing.example.test#@127.0.0.1:port/",
  "http://127.0.0.1:port\\@billing.example.test/",
  "http://127.0.0.1:port\t/",
  "http://billing.example.test:1/",
  "http://billing.example.test:22/",
  "http://billing.example.test:99999/",
  "http:127.0.0.1:port/",
  "http:/127.0.0.1:port/",
  "http:///127.0.0.1:port/",
  "http://./",
  "http://:port/",
  "HTTP://127.0.0.1:port/",
  "file:///etc/passwd",
  "unix:/var/run/docker.sock",
  "ftp://127.0.0.1:port/",
  "gopher://127.0.0.1:port/_x",
  "ws://127.0.0.1:port/",
  "data:,x",
  "//127.0.0.1:port/",
  "",
];

test("sec-5 the suite is as large as was promised", () => {
  expect(new Set([...literals, ...names, ...forms]).size).toBeGreaterThanOrEqual(60);
});

test.each([...literals, ...names, ...forms])(
  "sec-5 %j is refused before anything is sent",
  async (form) => {
    const url = form.replace(":port", `:${canary.port}`);
    // Should a name get past the checks, its resolver leads to the canary.
    const refusal = await refusalOf(
      { url, allow: ["http"] },
      { resolve: async () => ["127.0.0.1"] },
    );
    expect(refusals).toContain(refusal);
    expect(canary.connections).toBe(0);
  },
);

test("sec-5 https is demanded unless the contract says otherwise, and its addresses are judged the same", async () => {
  const plain = `http://billing.example.test:${canary.port}/`;
  expect(await refusalOf({ url: plain })).toBe("contract_invalid");
  const literal = `https://127.0.0.1:${canary.port}/`;
  expect(await refusalOf({ url: literal })).toBe("target_refused");
  const named = `https://billing.example.test:${canary.port}/`;
  expect(await refusalOf({ url: named }, { resolve: async () => ["127.0.0.1"] })).toBe(
    "refused at the connection",
  );
  expect(canary.connections).toBe(0);
});

test.each([
  { found: ["127.0.0.1"] },
  { found: ["::1"] },
  { found: ["::ffff:127.0.0.1"] },
  { found: ["::ffff:7f00:1"] },
  { found: ["64:ff9b::7f00:1"] },
  { found: ["2002:7f00:1::1"] },
  { found: ["fe80::1%lo"] },
  { found: ["10.0.0.8"] },
  { found: ["169.254.169.254"] },
  { found: ["0.0.0.0"] },
  { found: ["not an address"] },
  { found: [""] },
  { found: ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "127.0.0.1"] },
  { found: ["127.0.0.1", "93.184.215.14"] },
])("sec-5 a name that resolves to $found is refused", async ({ found }) => {
  const url = `http://billing.example.test:${canary.port}/`;
  const deps = { resolve: async () => found };
  expect(await refusalOf({ url, allow: ["http"] }, deps)).toBe("refused at the connection");
  expect(canary.connections).toBe(0);
});

/**
 * On Linux all of 127/8 is loopback: 127.0.0.2 stands for the public address that a name has while it is
 * looked at, and 127.0.0.1 for where its owner would have us go.
 */
const publicHost = "127.0.0.2";
const rebinding = { url: "", allow: ["http", `${publicHost}/32`] };

async function publicTarget(): Promise<PushTarget> {
  const target = new PushTarget((_got, response) => {
    response.writeHead(200, { connection: "close" }).end(); // Every call needs a connection of its own.
    return undefined;
  });
  return target.listen(canary.port, publicHost);
}

test("sec-5 a name that flips between calls is judged for every connection, and what was judged is what is used", async () => {
  const target = await publicTarget();
  let lookUps = 0;
  const resolve = async (): Promise<string[]> => [++lookUps % 2 === 1 ? publicHost : "127.0.0.1"];
  const url = `http://rebind.example.test:${canary.port}/`;
  const flow = await pushed(
    { ...rebinding, url, ports: [canary.port] },
    { resolve },
    { window: { fixed: 1 }, retry: { attempts: 1, budget: 1 } },
  );
  for (let n = 1; n <= 8; n++) {
    await flow.send(bytes);
    await until(() => flow.state().depth === 0);
  }
  expect(flow.state().counters).toMatchObject({ acked: 4, dead: 4 });
  expect({ lookUps, got: target.got.length }).toEqual({ lookUps: 8, got: 4 });
  expect(target.got[0]!.headers.host).toBe(`rebind.example.test:${canary.port}`);
  expect(canary.connections).toBe(0);
});

test("sec-5 the same with a DNS server that flips its answers", async () => {
  const target = await publicTarget();
  const queries: number[] = [];
  const dns = createSocket("udp4", (query, { port, address }) => {
    queries.push(query.length);
    dns.send(dnsAnswer(query, queries.length === 1 ? publicHost : "127.0.0.1"), port, address);
  });
  onTestFinished(() => void dns.close());
  await new Promise<void>((resolve) => dns.bind(0, "127.0.0.1", resolve));
  const resolver = new Resolver({ timeout: 2000, tries: 2 });
  resolver.setServers([`127.0.0.1:${dns.address().port}`]);
  const url = `http://rebind.example.test:${canary.port}/`;
  const flow = await pushed(
    { ...rebinding, url, ports: [canary.port] },
    { resolve: (host) => resolver.resolve4(host) },
    { window: { fixed: 1 } },
  );
  for (let n = 1; n <= 3; n++) {
    await flow.send(bytes);
    await until(() => flow.state().depth === 0);
  }
  expect(flow.state().counters).toMatchObject({ acked: 1, dead: 2 });
  expect(target.got).toHaveLength(1);
  expect(queries.length).toBeGreaterThanOrEqual(3);
  expect(canary.connections).toBe(0);
});

/** The question back, with one A record that may not be kept. */
function dnsAnswer(query: Buffer, address: string): Buffer {
  const end = query.indexOf(0, 12) + 5; // Name, type, class.
  const header = Buffer.from([query[0]!, query[1]!, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
  const record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ...address.split(".").map(Number)];
  return Buffer.concat([header, query.subarray(12, end), Buffer.from(record)]);
}

test.each([301, 302, 303, 307, 308])(
  "sec-5 a redirect (%i) to loopback or to a metadata service is not followed",
  async (status) => {
    const target = new PushTarget((_got, response) => {
      response.writeHead(status, { location: `http://127.0.0.1:${canary.port}/latest` }).end();
      return undefined;
    });
    await target.listen(0, publicHost);
    const ports = [target.port];
    const url = `http://redirect.example.test:${target.port}/`;
    const deps = { resolve: async () => [publicHost] };
    const flow = await pushed({ ...rebinding, url, ports }, deps);
    await flow.send(bytes);
    await until(() => flow.state().counters.dead === 1);
    const [letter] = await Array.fromAsync(flow.deadLetters());
    expect(letter!.reason).toContain(`answered ${status}: redirects are not followed`);
    expect(canary.connections).toBe(0);
  },
);

test("sec-5 a refusal is told once while it lasts, and burns no attempts once the breaker is open", async () => {
  const url = `http://billing.example.test:${canary.port}/`;
  const flow = await pushed(
    { url, allow: ["http"], ports: [canary.port] },
    { resolve: async () => ["127.0.0.1"] },
    { retry: { attempts: 12, delay: ["1ms", "2ms"], budget: 1 } },
  );
  const told: SpillwayError[] = [];
  flow.on("error", (error) => told.push(error));
  await flow.send(bytes);
  await until(() => flow.state().target.breaker.state === "open");
  expect(told.map(({ code }) => code)).toEqual(["target_refused"]);
  expect(JSON.stringify(told[0]!.details)).not.toContain("127.0.0.1");
  expect(flow.state().counters).toMatchObject({ acked: 0, dead: 0 });
});

test("sec-5 a proxy that the environment names is not used", async () => {
  const target = await new PushTarget().listen();
  const { deliver } = target.deliver();
  const source = (path: string): string => new URL(`../../src/${path}`, import.meta.url).href;
  const program = `
    import { memory } from ${JSON.stringify(source("engines/memory/index.ts"))};
    import { Pusher } from ${JSON.stringify(source("server/push/index.ts"))};
    import { openSpillway } from ${JSON.stringify(source("spillway.ts"))};
    await using spillway = await openSpillway({ engine: memory() });
    const flow = spillway.flow("hooks", { payload: "bytes", deliver: ${JSON.stringify(deliver)} });
    using pusher = new Pusher();
    pusher.add(flow);
    pusher.start();
    await flow.send(new Uint8Array(1));
    await flow.drain();`;
  const proxy = `http://127.0.0.1:${canary.port}`;
  const env = { ...process.env, NODE_USE_ENV_PROXY: "1", HTTP_PROXY: proxy, http_proxy: proxy };
  const args = ["--conditions=source", "--input-type=module", "--eval", program];
  await promisify(execFile)(process.execPath, args, { env, timeout: 15_000 });
  expect(target.got).toHaveLength(1);
  expect(canary.connections).toBe(0);
});

test("sec-5 what the contract allows is let through, and nothing beside it", () => {
  const allows = (allow: string[], address: string): boolean =>
    new Addresses(allow).allows(address);
  for (const address of ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"]) {
    expect({ address, allowed: allows([], address) }).toEqual({ address, allowed: true });
  }
  expect(allows(["loopback"], "127.0.0.1")).toBe(true);
  expect(allows(["loopback"], "::1")).toBe(true);
  expect(allows(["loopback"], "::ffff:127.0.0.1")).toBe(true);
  expect(allows(["loopback"], "10.0.0.1")).toBe(false);
  expect(allows(["loopback"], "0.0.0.0")).toBe(false);
  expect(allows(["private"], "192.168.1.1")).toBe(true);
  expect(allows(["private"], "fd12::1")).toBe(true);
  expect(allows(["private"], "169.254.169.254")).toBe(false);
  expect(allows(["private"], "100.64.0.1")).toBe(false);
  expect(allows(["link-local"], "fe80::1%eth0")).toBe(true);
  expect(allows(["10.1.0.0/16"], "10.1.2.3")).toBe(true);
  expect(allows(["10.1.0.0/16"], "::ffff:10.1.2.3")).toBe(true);
  expect(allows(["10.1.0.0/16"], "10.2.0.1")).toBe(false);
  expect(allows(["64:ff9b::/96"], "64:ff9b::a00:1")).toBe(true);
  expect(allows(["http"], "127.0.0.1")).toBe(false);
});

test.each(["10.0.0.0/33", "300.0.0.0/8", "::1/129", ":::/8"])(
  "sec-5 %s in deliver.allow is no range, and is not taken for one",
  (range) => {
    expect(() => new Addresses([range])).toThrow(
      expect.objectContaining({ code: "contract_invalid" }) as Error,
    );
  },
);

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;

test.skipIf(!hasOpenssl)(
  "sec-5 over TLS the certificate must be of the name in the contract, whatever the address (no openssl: skipped)",
  async () => {
    using dir = new TempDir();
    const file = (name: string): string => join(dir.path, name);
    const wanted =
      "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=hooks" +
      " -addext subjectAltName=DNS:hooks.example.test";
    const files = ["-keyout", file("key.pem"), "-out", file("cert.pem")];
    const made = spawnSync("openssl", ["req", ...wanted.split(" "), ...files]);
    expect(made.status).toBe(0);
    const cert = readFileSync(file("cert.pem"), "utf8");
    const key = readFileSync(file("key.pem"), "utf8");
    const target = await new PushTarget(() => 200, { cert, key }).listen();
    const to = async (host: string, ca?: string): Promise<string> => {
      const flow = await pushed(
        { url: target.url(host), allow: ["loopback"], ports: [target.port] },
        { resolve: async () => ["127.0.0.1"], ...(ca === undefined ? {} : { ca }) },
      );
      await flow.send(bytes);
      await until(() => flow.state().depth === 0);
      const [letter] = await Array.fromAsync(flow.deadLetters());
      return letter?.reason ?? "acked";
    };
    expect(await to("hooks.example.test", cert)).toBe("acked");
    expect(await to("hooks.example.test.", cert)).toBe("acked");
    expect(await to("other.example.test", cert)).toContain("ERR_TLS_CERT_ALTNAME_INVALID");
    expect(await to("hooks.example.test")).toContain("DEPTH_ZERO_SELF_SIGNED_CERT");
    expect(target.got).toHaveLength(2);
    expect(target.got[0]!.headers.host).toBe(`hooks.example.test:${target.port}`);
  },
);

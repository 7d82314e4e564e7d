/** S4 TLS: 1.2 and later, client certificates, reload without a restart. And who may listen where. */
import { once } from "node:events";
import { copyFile, readFile, rename } from "node:fs/promises";
import { Agent, request } from "node:https";
import type { RequestOptions } from "node:https";
import { connect } from "node:tls";
import type { ConnectionOptions } from "node:tls";
import { join } from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { parseConfig } from "../../src/config/index.ts";
import { alternativeNames } from "../../src/server/certificate.ts";
import { checkListen } from "../../src/server/guard.ts";
import { Server } from "../../src/server/index.ts";
import { makeAuthority, makeCertificate } from "../support/certificates.ts";
import type { Pair } from "../support/certificates.ts";
import { openServer } from "../support/server.ts";
import { TempDir } from "../support/temp-dir.ts";
import { missingTools } from "../support/tools.ts";

const path = "/v1/flows/orders/messages";
const missing = missingTools().find(({ binaries }) => binaries.includes("openssl"));

describe.skipIf(missing !== undefined)(
  "TLS, where there is openssl (apt-get install openssl)",
  () => {
    let dir: string;
    let authority: Pair;
    let stranger: Pair;
    let own: Pair;
    beforeAll(async () => {
      const temp = new TempDir();
      dir = temp.path;
      authority = await makeAuthority(dir, "authority");
      stranger = await makeAuthority(dir, "stranger");
      own = await makeCertificate(dir, authority, serverName);
      return () => temp[Symbol.dispose]();
    });

    test("S4 attack: versions below TLS 1.2 and plain HTTP get nothing", async () => {
      const server = await openServer({ flows: { orders: {} }, listen: { tls: own } });
      const ca = await readFile(authority.cert);
      expect(server.url).toMatch(/^https:/);
      expect((await call(server, { ca })).status).toBe(202);
      const old = {
        minVersion: "TLSv1",
        maxVersion: "TLSv1.1",
        ciphers: "ALL@SECLEVEL=0",
      } as const;
      await expect(call(server, { ca, ...old })).rejects.toThrow(/protocol|handshake/);
      expect((await call(server, { ca, maxVersion: "TLSv1.2" })).status).toBe(202);
      await expect(fetch(`${server.url.replace("https", "http")}${path}`)).rejects.toThrow(
        "fetch failed",
      );
    });

    test("S4 attack: clients without a certificate, with one of another authority or out of its time, are refused", async () => {
      const tls = { ...own, clientCa: authority.cert };
      const server = await openServer({ flows: { orders: {} }, listen: { tls } });
      const ca = await readFile(authority.cert);
      const good = await makeCertificate(dir, authority, { name: "shop" });
      const foreign = await makeCertificate(dir, stranger, { name: "shop" });
      const expired = await makeCertificate(dir, authority, { name: "shop", isExpired: true });
      expect((await call(server, { ca, ...(await read(good)) })).status).toBe(202);
      await expect(call(server, { ca })).rejects.toThrow(refusals);
      await expect(call(server, { ca, ...(await read(foreign)) })).rejects.toThrow(refusals);
      await expect(call(server, { ca, ...(await read(expired)) })).rejects.toThrow(refusals);
    });

    test("S4 a certificate stands for a token by its name, with that token's scopes, until that is revoked", async () => {
      const tls = { ...own, clientCa: authority.cert };
      const server = await openServer({ flows: { orders: {} }, listen: { tls } });
      const ca = await readFile(authority.cert);
      const spiffe = "URI:spiffe://example.test/shop";
      const wanted = { name: "shop", alternativeNames: `DNS:a.example.test,${spiffe}` };
      const shop = { ca, ...(await read(await makeCertificate(dir, authority, wanted))) };
      const root = { ca, ...(await read(await makeCertificate(dir, authority, { name: "root" }))) };
      const admin = { verbs: ["admin", "produce"], flows: ["*"], certificate: "root" };
      expect((await call(server, root, "POST", "/v1/tokens", admin)).status).toBe(201);
      expect((await call(server, shop)).status).toBe(401);
      const limited = {
        verbs: ["produce"],
        flows: ["orders"],
        certificate: "spiffe://example.test/shop",
      };
      const made = await call(server, root, "POST", "/v1/tokens", limited);
      expect(made.status).toBe(201);
      const { id, token } = JSON.parse(made.body) as { id: string; token?: string };
      expect(token).toBeUndefined();
      expect((await call(server, shop)).status).toBe(202);
      expect((await call(server, shop, "GET", "/v1/tokens")).status).toBe(403);
      // The subject's common name counts only where there are no alternative names.
      const byCommonName = { verbs: ["admin"], flows: ["*"], certificate: "shop" };
      expect((await call(server, root, "POST", "/v1/tokens", byCommonName)).status).toBe(201);
      expect((await call(server, shop, "GET", "/v1/tokens")).status).toBe(403);
      expect((await call(server, root, "DELETE", `/v1/tokens/${id}`)).status).toBe(204);
      expect((await call(server, shop)).status).toBe(401);
    });

    test("S4 a new certificate is taken without a restart, and drops no request of those under way", async () => {
      const files = { cert: join(dir, "live.crt"), key: join(dir, "live.key") };
      await install(own, files);
      const server = await openServer({ flows: { orders: {} }, listen: { tls: files } });
      const ca = await readFile(authority.cert);
      const agent = new Agent({ keepAlive: true, maxSockets: 8, ca });
      onTestFinished(() => agent.destroy());
      const before = await serialOf(server, ca);
      const ending = new AbortController();
      const statuses: number[] = [];
      const load = Array.from({ length: 8 }, async (_, at) => {
        // Half of them on connections that stay, half on new ones.
        while (!ending.signal.aborted) {
          const { status } = await call(server, at % 2 === 0 ? { agent } : { ca });
          statuses.push(status);
        }
      });
      await install(await makeCertificate(dir, authority, serverName), files);
      const after = await untilOther(before, () => serialOf(server, ca));
      for (let count = 0; count < 20; count += 1) await call(server, { ca });
      ending.abort();
      await Promise.all(load);
      expect(after).not.toBe(before);
      expect(new Set(statuses)).toEqual(new Set([202]));
    });

    test("S4 attack: files that do not fit together change nothing, and the log says so", async () => {
      const files = { cert: join(dir, "odd.crt"), key: join(dir, "odd.key") };
      await install(own, files);
      const lines: string[] = [];
      const server = await openServer(
        { flows: {}, log: "warn", listen: { tls: files } },
        { writeLog: (line) => lines.push(line) },
      );
      const ca = await readFile(authority.cert);
      const before = await serialOf(server, ca);
      const other = await makeCertificate(dir, authority, serverName);
      await copyFile(other.cert, files.cert);
      expect(server.reloadCertificates()).toBe(false);
      expect(lines.join("")).toContain("tls.reload_failed");
      expect(await serialOf(server, ca)).toBe(before);
      await copyFile(other.key, files.key);
      expect(server.reloadCertificates()).toBe(true);
      expect(await serialOf(server, ca)).not.toBe(before);
    });

    test("S4 attack: an authority that was taken away is not believed any more, nor is a session of before", async () => {
      const clientCa = join(dir, "clients.crt");
      await copyFile(authority.cert, clientCa);
      const server = await openServer({ flows: {}, listen: { tls: { ...own, clientCa } } });
      const ca = await readFile(authority.cert);
      const shop = { ca, ...(await read(await makeCertificate(dir, authority, { name: "shop" }))) };
      const session = await sessionOf(server, shop);
      await copyFile(stranger.cert, clientCa);
      expect(server.reloadCertificates()).toBe(true);
      await expect(call(server, shop)).rejects.toThrow(refusals);
      await expect(call(server, { ...shop, session })).rejects.toThrow(refusals);
    });

    test("S4 a certificate that cannot be read is a mistake of the configuration", async () => {
      const opening = openServer({
        flows: {},
        listen: { tls: { cert: "/nowhere", key: own.key } },
      });
      await expect(opening).rejects.toMatchObject({ code: "config_invalid" });
    });
  },
);

/** How a handshake ends that the server refuses: with an alert, or with the connection. */
const refusals = /alert|ECONNRESET|EPIPE|socket hang up/;
const serverName = { name: "server", alternativeNames: "DNS:localhost,IP:127.0.0.1" };

test("S4 names in a certificate that could imitate others count for nothing", () => {
  expect(alternativeNames("DNS:a.example, URI:spiffe://b, email:c@example.com")).toEqual([
    "a.example",
    "spiffe://b",
    "c@example.com",
  ]);
  expect(alternativeNames("IP Address:127.0.0.1, othername:<unsupported>")).toEqual([]);
  expect(alternativeNames('DNS:"evil.example, DNS:good.example"')).toEqual([]);
  expect(alternativeNames("DNS:good.example\0.evil.example")).toEqual([]);
});

const tls = { cert: "a", key: "b" };

test.each([
  [{ host: "0.0.0.0" }, true, "TLS"],
  [{ host: "0.0.0.0", tls }, false, "token"],
  [{ host: "::", tls }, false, "token"],
  [{ host: "192.0.2.1" }, false, "token"],
  [{ host: "server.example.test", behindProxy: true }, false, "token"],
  [{ host: "127.0.0.1", behindProxy: true }, false, "token"],
  [{ host: "127.0.0.1.example.test" }, true, "TLS"],
  [{ host: "2130706433" }, true, "TLS"],
])("S4 attack: %j with tokens %s is not listened on: %s is missing", (listen, hasTokens, what) => {
  const config = parseConfig({ flows: {}, listen });
  expect(() => checkListen(config, hasTokens)).toThrow(what);
  expect(() => checkListen(config, hasTokens)).toThrow(
    expect.objectContaining({ code: "listen_unsafe" }),
  );
});

test.each([
  [{}, false],
  [{ host: "localhost" }, false],
  [{ host: "::1" }, false],
  [{ host: "127.8.8.8" }, false],
  [{ host: "0.0.0.0", tls }, true],
  [{ host: "0.0.0.0", behindProxy: true }, true],
])("S4 %j with tokens %s is listened on", (listen, hasTokens) => {
  checkListen(parseConfig({ flows: {}, listen }), hasTokens);
});

test("S4 a server that would be open to others does not start, and lets its store go", async () => {
  using dir = new TempDir();
  const engine = { kind: "sqlite", dir: dir.path } as const;
  const unsafe = parseConfig({ flows: {}, engine, listen: { host: "0.0.0.0", port: 0 } });
  await expect(Server.open(unsafe)).rejects.toMatchObject({ code: "listen_unsafe" });
  await using server = await Server.open(parseConfig({ flows: {}, engine, listen: { port: 0 } }));
  expect(server.url).toContain("127.0.0.1");
});

async function read({ cert, key }: Pair): Promise<{ cert: Buffer; key: Buffer }> {
  return { cert: await readFile(cert), key: await readFile(key) };
}

/** As tools that renew certificates do: beside, then into place. */
async function install(from: Pair, to: Pair): Promise<void> {
  for (const name of ["key", "cert"] as const) {
    await copyFile(from[name], `${to[name]}.new`);
    await rename(`${to[name]}.new`, to[name]);
  }
}

function call(
  server: Server,
  options: RequestOptions & ConnectionOptions,
  method = "POST",
  at = path,
  body?: unknown,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    const asked = request(`${server.url}${at}`, { agent: false, ...options, method, headers });
    asked.on("error", reject).on("response", (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => (text += part));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode!, body: text }));
    });
    asked.end(body === undefined ? (method === "POST" ? "x" : undefined) : JSON.stringify(body));
  });
}

/** Of the certificate that a new connection is shown. */
async function serialOf(server: Server, ca: Buffer): Promise<string> {
  const { hostname, port } = new URL(server.url);
  const socket = connect({ host: hostname, port: Number(port), ca });
  await once(socket, "secureConnect");
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

async function sessionOf(server: Server, options: ConnectionOptions): Promise<Buffer> {
  const { hostname, port } = new URL(server.url);
  const socket = connect({ ...options, host: hostname, port: Number(port) });
  const [session] = (await once(socket, "session")) as [Buffer];
  socket.destroy();
  return session;
}

async function untilOther(before: string, ask: () => Promise<string>): Promise<string> {
  for (;;) {
    const now = await ask();
    if (now !== before) return now;
  }
}

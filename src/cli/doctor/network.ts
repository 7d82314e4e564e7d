/** Where the server listens, its certificates, and what it delivers to. Targets get no request. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { lookup } from "node:dns/promises";
import { readFileSync, statSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { BlockList, connect, createServer, isIP, isIPv4 } from "node:net";
import { textOf } from "../../base/index.ts";
import type { Config, SecretRef } from "../../config/index.ts";
import { fail, ok, warn } from "./finding.ts";
import type { Finding } from "./finding.ts";

type Push = NonNullable<Config["contracts"][string]["deliver"]>;

const answerMaxMs = 2000;
const dayMs = 86_400_000;
const expiresSoonDays = 14;

/** @param isHeld Whether a process has this configuration's data open. */
export async function checkPort({ listen }: Config, isHeld: boolean): Promise<Finding[]> {
  const { host, port, tls, behindProxy } = listen;
  const found: Finding[] = [];
  if (!isLoopback(host) && tls === undefined && !behindProxy) {
    const open = `${host} is open to others, without TLS`;
    found.push(fail("port", open, "set listen.tls, or listen.behindProxy if TLS ends before"));
  }
  if (port === 0) return [...found, ok("port", `any free port on ${host}`)];
  const code = await tryToListen(host, port);
  if (code === undefined) return [...found, ok("port", `${host}:${port} is free`)];
  if (code !== "EADDRINUSE") {
    const advice = "an address of this machine, and a port that this user may use (1024 or more)";
    return [...found, fail("port", `${host}:${port}: ${code}`, advice)];
  }
  const isOurs = await isSpillway(host, port, tls !== undefined);
  if (isOurs && isHeld)
    return [...found, ok("port", `${host}:${port}: the server runs, and answers`)];
  const who = isOurs ? "another Spillway server listens" : "another process listens";
  return [...found, fail("port", `${host}:${port}: ${who}`, "choose another port, or stop it")];
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || host.startsWith("127.");
}

/** @returns The code of what is in the way. */
function tryToListen(host: string, port: number): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const server = createServer();
  server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? textOf(error)));
  server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  return promise;
}

/** Ours say so in every answer: by what /healthz gives, or by the type of a problem. */
function isSpillway(host: string, port: number, isTls: boolean): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const target = { host: reachable(host), port, path: "/healthz", timeout: answerMaxMs };
  const asked = isTls
    ? httpsRequest({ ...target, rejectUnauthorized: false })
    : httpRequest(target);
  const timer = setTimeout(() => asked.destroy(), answerMaxMs);
  asked.once("error", () => resolve(false));
  asked.once("close", () => {
    clearTimeout(timer);
    resolve(false);
  });
  asked.once("response", (response) => {
    let text = "";
    response.setEncoding("utf8").on("data", (part: string) => {
      if (text.length < 4096) text += part;
    });
    response.once("end", () => {
      const isKnown = response.statusCode === 200 || response.statusCode === 503;
      resolve(text.includes("urn:spillway:") || (isKnown && isJson(text)));
    });
  });
  asked.end();
  return promise;
}

/** Where one that listens everywhere can be called. */
function reachable(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  return host === "::" ? "::1" : host;
}

function isJson(text: string): boolean {
  try {
    return typeof JSON.parse(text) === "object";
  } catch {
    return false;
  }
}

export function checkTls({ listen: { tls } }: Config, nowMs: number): Finding[] {
  if (tls === undefined) return [];
  try {
    const certificate = new X509Certificate(readFileSync(tls.cert));
    const key = createPrivateKey(readFileSync(tls.key));
    if (!certificate.checkPrivateKey(key)) {
      return [fail("tls", `${tls.key} is not the key of ${tls.cert}`, "use the pair")];
    }
    const found = [validity(tls.cert, certificate, nowMs)];
    if (tls.clientCa !== undefined) {
      const authority = new X509Certificate(readFileSync(tls.clientCa));
      found.push(validity(tls.clientCa, authority, nowMs));
    }
    if ((statSync(tls.key).mode & 0o077) !== 0) {
      found.push(warn("tls", `${tls.key} can be read by others`, `chmod 600 ${tls.key}`));
    }
    return found;
  } catch (error) {
    return [fail("tls", textOf(error), "files in PEM form that this user may read")];
  }
}

function validity(file: string, { validFrom, validTo }: X509Certificate, nowMs: number): Finding {
  const [fromMs, toMs] = [Date.parse(validFrom), Date.parse(validTo)];
  const found = `${file} is valid until ${new Date(toMs).toISOString()}`;
  if (nowMs > toMs) return fail("tls", `${file} expired on ${validTo}`, "renew it, then SIGHUP");
  if (nowMs < fromMs) return fail("tls", `${file} is valid from ${validFrom}`, "check the clock");
  if (nowMs > toMs - expiresSoonDays * dayMs) return warn("tls", found, "renew it, then SIGHUP");
  return ok("tls", found);
}

export async function checkTargets({ contracts }: Config): Promise<Finding[]> {
  const pushes = Object.entries(contracts).flatMap(([name, { deliver }]) =>
    deliver === undefined ? [] : [{ name, push: deliver }],
  );
  const found = await Promise.all(
    pushes.map(async ({ name, push }) => [
      ...push.secrets.flatMap((secret) => checkSecret(name, secret)),
      await checkTarget(name, push),
    ]),
  );
  return found.flat();
}

function checkSecret(flow: string, secret: SecretRef): Finding[] {
  const place = "env" in secret ? `the variable ${secret.env}` : `the file ${secret.file}`;
  try {
    const text = "env" in secret ? process.env[secret.env] : readFileSync(secret.file, "utf8");
    if ((text ?? "").trim() !== "") return [ok("secrets", `${flow}: ${place} has one`)];
    return [fail("secrets", `${flow}: ${place} holds none`, "set it where the server is started")];
  } catch (error) {
    return [fail("secrets", `${flow}: ${textOf(error)}`, "make it readable for this user")];
  }
}

async function checkTarget(flow: string, push: Push): Promise<Finding> {
  const { protocol, hostname, port } = new URL(push.url);
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  const name = `${flow} to ${hostname}`;
  let addresses: string[];
  try {
    addresses = await addressesOf(host);
  } catch (error) {
    return fail("targets", `${name}: ${textOf(error)}`, "correct deliver.url, or the resolver");
  }
  const refused = addresses.find((address) => !mayReach(address, push.allow));
  if (refused !== undefined) {
    const advice = 'name its range in deliver.allow ("loopback", "private", "link-local", a range)';
    return fail("targets", `${name} is ${refused}, which is not public`, advice);
  }
  const number = port === "" ? (protocol === "https:" ? 443 : 80) : Number(port);
  const beganMs = performance.now();
  const reason = await tryToConnect(addresses[0]!, number, push.connectTimeoutMs);
  const took = `${Math.round(performance.now() - beganMs)} ms`;
  if (reason === undefined) return ok("targets", `${name}: connected in ${took}; nothing was sent`);
  const advice = "start it, or open the way there: messages are kept and tried again until then";
  return warn("targets", `${name}: ${reason} at port ${number}`, advice);
}

async function addressesOf(host: string): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  const found = await lookup(host, { all: true });
  return found.map(({ address }) => address);
}

const ranges: Readonly<Record<string, readonly string[]>> = {
  loopback: ["127.0.0.0/8", "::1/128"],
  private: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
  "link-local": ["169.254.0.0/16", "fe80::/10"],
};

/** The common cases: what delivers judges every special range. */
function mayReach(address: string, allow: readonly string[]): boolean {
  const kind = isIPv4(address) ? "ipv4" : "ipv6";
  const isPublic = !listOf(Object.values(ranges).flat()).check(address, kind);
  return isPublic || listOf(allow.flatMap((each) => ranges[each] ?? each)).check(address, kind);
}

function listOf(subnets: readonly string[]): BlockList {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [net = "", bits] = subnet.split("/");
    if (bits !== undefined) list.addSubnet(net, Number(bits), isIPv4(net) ? "ipv4" : "ipv6");
  }
  return list;
}

/** @returns Why not; undefined: it connected. */
function tryToConnect(host: string, port: number, maxMs: number): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const socket = connect({ host, port });
  const timer = setTimeout(() => resolve(`no answer within ${maxMs} ms`), maxMs);
  socket.once("connect", () => resolve(undefined));
  socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? textOf(error)));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

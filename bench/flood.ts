/**
 * Floods against one server, over sockets. One group as fast as 64 connections can, beside a group that
 * sends 200/s, half of it over a WebSocket, into a worker with 16 handlers of 16 ms: what does the other
 * lose? And a token far beyond its quota, beside a token that sends 100/s: what does the other wait, and
 * what does refusing cost? The floor is the same without the flood.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect as connectSocket } from "node:net";
import { figure, percentile } from "./bench.ts";
import type { Bench, Figure } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { paced, steady } from "./pace.ts";
import { sleep } from "./store.ts";
import { connect, SpillwayError } from "../src/client/index.ts";
import type { FlowOptions } from "../src/spillway.ts";
import { freePort, Serve } from "../test/support/serve.ts";
import { TempDir } from "../test/support/temp-dir.ts";

interface Part {
  readonly part: "worker" | "steady" | "flood" | "other";
  readonly url: string;
  readonly startAtMs: number;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Counts of the time before the flood, of the flood, and of all. */
type Tally = Record<"alone" | "flooded" | "all", number>;

type By<T> = Readonly<Record<"socket" | "http" | "flood", T>>;

interface Flooded {
  readonly accepted: number;
  readonly refused: number;
}

const connections = 64;
const leadMs = 2000;
/** Until everything is compiled and the drain rate is known. */
const warmMs = 2000;
const aloneMs = 8000;
const floodMs = 10_000;
const endMs = warmMs + aloneMs + floodMs;
const idleMs = 2000;
const handlerMs = 16;
/** Either way, over a WebSocket and over HTTP. */
const steadyPerS = 100;
const otherPerS = 100;
const quotaPerS = 100;
const payloadBytes = 256;
const worked: FlowOptions = {
  payload: "bytes",
  order: "none",
  buffer: { messages: 4000 },
  window: { fixed: 16 },
};

export const flood: Bench = {
  name: "flood",
  describe:
    "one group, and one token beyond its quota, as fast as 64 connections can, beside others",
  run: async () => [...(await ofGroup()), ...(await ofToken())],
};

async function ofGroup(): Promise<Figure[]> {
  using dir = new TempDir();
  await using server = new Serve(dir.path, await freePort(), { flows: { orders: worked } });
  await server.start();
  const { url } = server;
  const startAtMs = Date.now() + leadMs;
  const headers = { "spillway-group": "flood" };
  const [handled, accepted, sent] = await Promise.all([
    inFreshProcess<By<Tally>>("flood", { part: "worker", url, startAtMs }),
    inFreshProcess<By<Tally>>("flood", { part: "steady", url, startAtMs }),
    inFreshProcess<Flooded>("flood", { part: "flood", url, startAtMs, headers }),
  ]);
  const ofSteady = (name: string, { alone, flooded }: Tally): Figure =>
    figure(
      { name, value: perS(flooded, floodMs), unit: "/s", floor: perS(alone, aloneMs) },
      { of: "ratio", atLeast: 0.95 },
    );
  const total = accepted.socket.all + accepted.http.all + sent.accepted;
  const done = handled.socket.all + handled.http.all + handled.flood.all;
  return [
    ofSteady("steady group, WebSocket: accepted", accepted.socket),
    ofSteady("steady group, WebSocket: handled", handled.socket),
    ofSteady("steady group, HTTP: accepted", accepted.http),
    ofSteady("steady group, HTTP: handled", handled.http),
    figure({
      name: "flooding group: handled",
      value: perS(handled.flood.flooded, floodMs),
      unit: "/s",
    }),
    figure({
      name: "flooding group: refused",
      value: perS(sent.refused, floodMs),
      unit: "requests/s",
    }),
    figure(
      { name: "lost", value: Math.max(0, total - done), unit: "messages" },
      { of: "value", atMost: 0 },
    ),
  ];
}

async function ofToken(): Promise<Figure[]> {
  using dir = new TempDir();
  const flows = { orders: { payload: "bytes" } } as const;
  await using server = new Serve(dir.path, await freePort(), { flows });
  await server.start();
  const { url } = server;
  const admin = await tokenOf(url, { verbs: ["admin"], flows: ["*"] });
  const quota = { requests: { perSecond: quotaPerS, burst: quotaPerS } };
  const ample = { requests: { perSecond: 2 * otherPerS, burst: 2 * otherPerS } };
  const produce = { verbs: ["produce"], flows: ["orders"] };
  const headers = bearer(await tokenOf(url, { ...produce, quota }, admin));
  const others = bearer(await tokenOf(url, { ...produce, quota: ample }, admin));
  const startAtMs = Date.now() + leadMs;
  const cpu = async (fromMs: number, spanMs: number): Promise<number> => {
    await sleep(startAtMs + fromMs - Date.now());
    const beforeMs = cpuMs(server.pid!);
    await sleep(spanMs);
    return (cpuMs(server.pid!) - beforeMs) / spanMs;
  };
  const [waits, { accepted, refused }, before, share] = await Promise.all([
    inFreshProcess<Record<"alone" | "flooded", readonly number[]>>("flood", {
      part: "other",
      url,
      startAtMs,
      headers: others,
    }),
    inFreshProcess<Flooded>("flood", { part: "flood", url, startAtMs, headers }),
    cpu(warmMs, aloneMs),
    cpu(warmMs + aloneMs, floodMs),
  ]);
  const ofWait = (name: string, rank: number): Figure => {
    const [value, floor] = [percentile(waits.flooded, rank), percentile(waits.alone, rank)];
    return figure({ name, value, unit: "ms", floor });
  };
  const eachUs = (((share - before) * floodMs) / (accepted + refused)) * 1000;
  return [
    ofWait("token within its quota: p50", 0.5),
    ofWait("token within its quota: p99", 0.99),
    figure({ name: "token beyond: taken", value: perS(accepted, floodMs), unit: "requests/s" }),
    figure({ name: "token beyond: refused", value: perS(refused, floodMs), unit: "requests/s" }),
    figure({
      name: "server's CPU, of one core",
      value: 100 * share,
      unit: "%",
      floor: 100 * before,
    }),
    figure({ name: "CPU of a request beyond", value: eachUs, unit: "us" }),
  ];
}

async function tokenOf(url: string, wanted: object, by?: string): Promise<string> {
  const response = await fetch(`${url}/v1/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json", ...(by === undefined ? {} : bearer(by)) },
    body: JSON.stringify(wanted),
  });
  if (response.status !== 201) throw new Error(await response.text());
  return ((await response.json()) as { token: string }).token;
}

function bearer(token: string): { authorization: string } {
  return { authorization: `Bearer ${token}` };
}

/** Of all its threads: utime and stime, in ticks of 10 ms. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function perS(count: number, spanMs: number): number {
  return (count * 1000) / spanMs;
}

export async function task({ part, url, startAtMs, headers = {} }: Part): Promise<unknown> {
  if (part === "worker") return work(url, startAtMs);
  const path = `${url}/v1/flows/orders/messages`;
  if (part === "steady") return sendSteadily(url, path, startAtMs);
  if (part === "other") return sendWithin(path, startAtMs, headers);
  await sleep(startAtMs + warmMs + aloneMs - Date.now());
  return pour(path, headers);
}

function tally(startAtMs: number): Tally & { add(): void } {
  return {
    alone: 0,
    flooded: 0,
    all: 0,
    add() {
      const phase = phaseOf(Date.now() - startAtMs);
      if (phase !== undefined) this[phase]++;
      this.all++;
    },
  };
}

function phaseOf(atMs: number): "alone" | "flooded" | undefined {
  if (atMs < warmMs || atMs >= endMs) return undefined;
  return atMs < warmMs + aloneMs ? "alone" : "flooded";
}

/** The first byte of a message says who sent it. */
const senders = ["socket", "http", "flood"] as const;

function payloadOf(sender: (typeof senders)[number]): Uint8Array {
  return new Uint8Array(payloadBytes).fill(senders.indexOf(sender));
}

async function work(url: string, startAtMs: number): Promise<By<Tally>> {
  await using client = connect({ url, drain: "1s" });
  const of = {
    socket: tally(startAtMs),
    http: tally(startAtMs),
    flood: tally(startAtMs),
  };
  let handledAtMs = 0;
  client.flow<Uint8Array>("orders").consume(async (payload) => {
    await sleep(handlerMs);
    of[senders[payload[0]!]!].add();
    handledAtMs = Date.now();
  });
  while (Date.now() < Math.max(startAtMs + endMs, handledAtMs + idleMs)) await sleep(20);
  return of;
}

/** What is refused is dropped. */
async function sendSteadily(url: string, path: string, startAtMs: number): Promise<object> {
  await using client = connect({ url, drain: "1s" });
  const flow = client.flow<Uint8Array>("orders");
  await flow.ready();
  const agent = new Agent({ keepAlive: true });
  const socket = tally(startAtMs);
  const http = tally(startAtMs);
  const payload = payloadOf("socket");
  const body = payloadOf("http");
  const answers: Promise<void>[] = [];
  await sleep(startAtMs - Date.now());
  await paced(endMs, steady(steadyPerS), () => {
    const sent = flow.trySend(payload, { group: "steady" });
    if (sent instanceof Promise) answers.push(sent.then(() => socket.add(), isRefusal));
    const posted = post(path, body, agent, { "spillway-group": "steady" });
    answers.push(posted.then((status) => (status === 202 ? http.add() : undefined)));
  });
  await Promise.all(answers);
  agent.destroy();
  return { socket, http };
}

async function sendWithin(
  path: string,
  startAtMs: number,
  headers: Readonly<Record<string, string>>,
): Promise<object> {
  const agent = new Agent({ keepAlive: true });
  const body = payloadOf("http");
  const waitsMs = { alone: [] as number[], flooded: [] as number[] };
  const answers: Promise<void>[] = [];
  await sleep(startAtMs - Date.now());
  await paced(endMs, steady(otherPerS), () => {
    const phase = phaseOf(Date.now() - startAtMs);
    const beganMs = performance.now();
    const posted = post(path, body, agent, headers).then((status) => {
      if (status !== 202) throw new Error(`a token within its quota was answered ${status}`);
      if (phase !== undefined) waitsMs[phase].push(performance.now() - beganMs);
    });
    answers.push(posted);
  });
  await Promise.all(answers);
  agent.destroy();
  return waitsMs;
}

async function post(
  path: string,
  body: Uint8Array,
  agent: Agent,
  headers: Readonly<Record<string, string>>,
): Promise<number> {
  const outgoing = request(path, { method: "POST", agent, headers });
  outgoing.end(body);
  const [response] = (await once(outgoing, "response")) as [
    NodeJS.ReadableStream & { statusCode: number },
  ];
  response.resume();
  await once(response, "end");
  return response.statusCode;
}

function isRefusal(error: unknown): void {
  if (error instanceof SpillwayError && error.retry === "later") return;
  throw error;
}

/** Bare sockets, so that this process is not what limits it; each sends anew when it is answered. */
async function pour(path: string, headers: Readonly<Record<string, string>>): Promise<Flooded> {
  const { hostname, port, host, pathname } = new URL(path);
  const lines = Object.entries({ host, "content-length": payloadBytes, ...headers });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const body = payloadOf("flood");
  const bytes = Buffer.concat([Buffer.from(`POST ${pathname} HTTP/1.1\r\n${head}\r\n`), body]);
  const counts = { accepted: 0, refused: 0 };
  const untilMs = Date.now() + floodMs;
  const pourOne = async (): Promise<void> => {
    const socket = connectSocket(Number(port), hostname);
    socket.setNoDelay(true);
    socket.write(bytes);
    let read = "";
    for await (const part of socket) {
      read += (part as Buffer).toString("latin1");
      if (!isWhole(read)) continue;
      const status = read.slice(9, 12);
      if (status === "202") counts.accepted++;
      else if (status === "429") counts.refused++;
      else throw new Error(read);
      read = "";
      if (Date.now() >= untilMs) return;
      socket.write(bytes);
    }
    throw new Error("the server closed a connection");
  };
  await Promise.all(Array.from({ length: connections }, pourOne));
  return counts;
}

function isWhole(answer: string): boolean {
  const end = answer.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const length = /\r\ncontent-length: (\d+)/i.exec(answer.slice(0, end + 2));
  return answer.length >= end + 4 + Number(length?.[1] ?? 0);
}

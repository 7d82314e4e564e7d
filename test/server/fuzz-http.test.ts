/**
 * S10 Bytes that are almost HTTP, on a real socket. Nothing that a caller sends ends the server, hangs, or is
 * answered by a 5xx that is not in the catalogue. `SPILLWAY_FUZZ=100000` makes it a long run; a failure prints
 * the seed that replays it.
 */
import { once } from "node:events";
import fc from "fast-check";
import { expect, test } from "vitest";
import { catalogue } from "../../src/base/index.ts";
import type { Server } from "../../src/server/index.ts";
import { answersOf, openSocket, readAll } from "../support/raw-http.ts";
import { openServer } from "../support/server.ts";

const cases = Number(process.env["SPILLWAY_FUZZ"] ?? 3000);
/** At once, of one property run. */
const batch = 100;
const hangMs = 5000;

const word = fc.oneof(
  fc.constantFrom("orders", "x", "__proto__", "..", "%2e%2e", "%00", "%", "%zz", ":pause", "*", ""),
  fc.string({ maxLength: 20 }),
  fc.string({ unit: "binary", maxLength: 20 }),
);
const path = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom("/v1/flows/orders/messages", "/v1/tokens", "/v1/audit") },
  fc.array(word, { maxLength: 6 }).map((words) => `/${words.join("/")}`),
  fc.tuple(word, word).map(([flow, last]) => `/v1/flows/${flow}/${last}`),
  fc.tuple(word, word).map(([name, value]) => `/v1/audit?${name}=${value}`),
  fc.constantFrom("*", "http://localhost/v1/tokens", "//localhost/v1", "localhost:1", "/a b"),
);
const method = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("POST", "GET", "DELETE", "OPTIONS", "HEAD", "PUT") },
  fc.constantFrom("CONNECT", "TRACE", "post", "M-SEARCH", "PRI", ""),
  fc.string({ maxLength: 8 }),
);
const fieldName = fc.oneof(
  fc.constantFrom(
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "expect",
    "connection",
    "upgrade",
    "authorization",
    "origin",
    "prefer",
    "te",
    "trailer",
    "idempotency-key",
    "spillway-key",
    "spillway-group",
    "spillway-class",
    "spillway-cost",
    "spillway-deadline",
    "spillway-delay",
    "traceparent",
    "ce-id",
    "sec-websocket-key",
  ),
  fc.string({ maxLength: 12 }),
);
const fieldValue = fc.oneof(
  fc.constantFrom(
    "localhost",
    "0",
    "1",
    "5",
    "-1",
    "1e3",
    "99999999999999999999",
    "chunked",
    "gzip, chunked",
    "application/json",
    "application/cloudevents+json",
    "100-continue",
    "close",
    "keep-alive",
    "websocket",
    "h2c",
    "upgrade",
    "wait=5",
    "bulk",
    "null",
    "text/plain; charset=\u00ff",
  ),
  fc.string({ maxLength: 40 }),
  fc.string({ unit: "binary", maxLength: 20 }),
);
const body = fc.oneof(
  fc.constantFrom(
    "",
    "x",
    "{}",
    "[",
    '{"__proto__":{"polluted":1}}',
    '{"verbs":["produce"],"flows":[]}',
  ),
  fc.constantFrom(
    "5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "0;a=b\r\nx: y\r\n\r\n",
    "-1\r\n",
  ),
  fc.constant("[".repeat(5000)),
  fc.json(),
  fc.string({ unit: "binary", maxLength: 200 }),
);
const ending = fc.oneof(
  { weight: 8, arbitrary: fc.constant("\r\n") },
  fc.constantFrom("\n", "\r", "", "\0"),
);

const wellFormed = fc
  .tuple(method, path, fc.array(fc.tuple(fieldName, fieldValue), { maxLength: 8 }), body, ending)
  .map(([verb, at, fields, content, eol]) => {
    const lines = fields.map(([name, value]) => `${name}: ${value}${eol}`).join("");
    return `${verb} ${at} HTTP/1.1${eol}host: localhost${eol}${lines}${eol}${content}`;
  });
const counted = fc
  .tuple(path, fieldName, fieldValue, body)
  .map(
    ([at, name, value, content]) =>
      `POST ${at} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${content.length}\r\n` +
      `content-type: application/json\r\n${name}: ${value}\r\n\r\n${content}`,
  );
const damaged = fc
  .tuple(fc.oneof(wellFormed, counted), fc.nat(), fc.nat(255))
  .map(([text, at, byte]) => {
    const bytes = Buffer.from(text, "latin1");
    if (bytes.length > 0) bytes[at % bytes.length] = byte;
    return bytes.toString("latin1");
  });
const bytes = fc.oneof(
  { weight: 4, arbitrary: wellFormed },
  { weight: 4, arbitrary: counted },
  { weight: 2, arbitrary: damaged },
  { weight: 2, arbitrary: fc.tuple(counted, wellFormed).map(([a, b]) => a + b) },
  fc.uint8Array({ maxLength: 300 }).map((noise) => Buffer.from(noise).toString("latin1")),
);

const declared: ReadonlySet<number> = new Set(
  Object.values(catalogue).map(({ http }: { http: number }) => http),
);

/** @returns What went wrong, or nothing. @param isCut The client ends; else it waits to be closed. */
async function faultOf(server: Server, text: string, isCut: boolean): Promise<string | undefined> {
  const socket = await openSocket(server.url);
  const read = readAll(socket);
  const late = setTimeout(() => socket.destroy(new Error("hang")), hangMs);
  let isLate = false;
  socket.once("error", ({ message }) => (isLate ||= message === "hang"));
  socket.write(Buffer.from(text, "latin1"));
  if (isCut) socket.end();
  const answer = await read;
  clearTimeout(late);
  if (isLate) return "hang";
  // What follows a HEAD or a 304 has a length and no body, so only first lines count there.
  const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
  return statuses.some((status) => (status >= 500 && !declared.has(status)) || status === 500)
    ? `answered ${statuses.join(", ")}`
    : undefined;
}

test("S10 attack: whatever bytes come, the server answers, closes or waits no longer than it may, and lives", async () => {
  const server = await openServer({
    flows: { orders: {} },
    limits: { headersTimeout: "100ms", requestTimeout: "200ms", idleTimeout: "50ms" },
  });
  const prototype = Object.getOwnPropertyNames(Object.prototype);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(bytes, fc.boolean()), { minLength: batch, maxLength: batch }),
      async (all) => {
        const faults = await Promise.all(all.map(([text, isCut]) => faultOf(server, text, isCut)));
        expect(faults.filter((fault) => fault !== undefined)).toEqual([]);
      },
    ),
    { numRuns: Math.ceil(cases / batch), endOnFailure: true },
  );
  expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(prototype);
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  const socket = await openSocket(server.url);
  socket.write(
    "POST /v1/flows/orders/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx",
  );
  const [part] = (await once(socket, "data")) as [Buffer];
  // A token may have been made by now: the server then asks for one, which is an answer, too.
  expect([202, 401]).toContain(answersOf(part.toString("latin1"))[0]!.status);
}, 600_000);

/**
 * Serves the page, and a Spillway server that lets it in:
 *
 *     node --conditions=source examples/browser-producer/serve.ts
 */
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { build } from "vite";
import { parseConfig } from "../../src/config/index.ts";
import { Server } from "../../src/server/index.ts";

const folder = import.meta.dirname;
const handlerMs = 20;

export interface BrowserExample extends AsyncDisposable {
  readonly url: string;
  readonly server: Server;
}

export async function openBrowserExample(): Promise<BrowserExample> {
  await using opening = new AsyncDisposableStack();
  const pages = createServer().listen(0, "127.0.0.1");
  await once(pages, "listening");
  opening.defer(() => {
    pages.closeAllConnections();
    pages.close();
  });
  const origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  const dir = await mkdtemp(join(tmpdir(), "spillway-browser-"));
  opening.defer(() => rm(dir, { recursive: true, force: true }));
  const server = opening.use(
    await Server.open(
      parseConfig({
        engine: { kind: "sqlite", dir },
        // Pages of other origins are refused: a browser lets any page try.
        listen: { port: 0, origins: [origin] },
        log: "warn",
        drain: "1s",
        flows: { clicks: { partitions: 1, buffer: { messages: 200 }, window: { max: 4 } } },
      }),
    ),
  );
  server.spillway.flow("clicks").consume(() => sleep(handlerMs));
  const files = await filesOf(server.url);
  const policy =
    `default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; ` +
    `connect-src 'self' ${server.url.replace("http", "ws")}`;
  pages.on("request", ({ url }, response) => {
    const file = files.get(url ?? "");
    if (file === undefined) return response.writeHead(404).end();
    const [type, body] = file;
    return response
      .writeHead(200, { "content-type": type, "content-security-policy": policy })
      .end(body);
  });
  const opened = opening.move(); // From here who asked closes them.
  return { url: origin, server, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** By path: content type and body. */
async function filesOf(server: string): Promise<Map<string, readonly [string, string]>> {
  return new Map([
    ["/", ["text/html; charset=utf-8", await readFile(join(folder, "index.html"), "utf8")]],
    ["/style.css", ["text/css", await readFile(join(folder, "style.css"), "utf8")]],
    ["/page.js", ["text/javascript", await bundle()]],
    ["/server.json", ["application/json", JSON.stringify({ url: server })]],
  ]);
}

/** The page and the client as one module; neither needs anything of Node. */
async function bundle(): Promise<string> {
  const built = await build({
    configFile: false,
    logLevel: "warn",
    build: {
      write: false,
      target: "es2024",
      lib: { entry: join(folder, "page.ts"), formats: ["es"], fileName: "page" },
    },
  });
  for (const result of Array.isArray(built) ? built : []) {
    for (const file of result.output) if (file.type === "chunk") return file.code;
  }
  throw new Error("nothing was built");
}

if (import.meta.main) {
  await using example = await openBrowserExample();
  console.log(`Open ${example.url} in a browser; Ctrl-C ends it.`);
  await once(process, "SIGINT");
}

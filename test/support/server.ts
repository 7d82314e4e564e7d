/** A real server on a free port of loopback and a store of its own, gone after the test. */
import { onTestFinished } from "vitest";
import { parseConfig } from "../../src/config/index.ts";
import type { ConfigOptions } from "../../src/config/index.ts";
import { Server } from "../../src/server/index.ts";
import type { ServerDeps } from "../../src/server/index.ts";
import { TempDir } from "./temp-dir.ts";

/** @param options `flows` at least; the rest has the defaults, on a free port and without logs. */
export async function openServer(options: ConfigOptions, deps?: ServerDeps): Promise<Server> {
  const dir = new TempDir();
  onTestFinished(() => dir[Symbol.dispose]());
  const server = await Server.open(
    parseConfig({
      log: "silent",
      drain: "1s",
      engine: { kind: "sqlite", dir: dir.path },
      ...options,
      listen: { port: 0, ...options.listen },
    }),
    deps,
  );
  onTestFinished(() => server.close());
  return server;
}

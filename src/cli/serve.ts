/** `spillway serve`: the server of a configuration, until it is told to stop. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import type { Config } from "../config/index.ts";
import { Server } from "../server/index.ts";
import { configNames, readConfig } from "./config-file.ts";
import { openDemoFlow } from "./demo/flow.ts";
import { SpillwayError } from "../base/index.ts";
import { stopOnSignals } from "./stop.ts";

interface ServeFlags {
  readonly config?: string;
  readonly demo?: true;
}

export function addServe(program: Command): void {
  program
    .command("serve")
    .description("serve the flows of a configuration over HTTP and WebSocket")
    .option("-c, --config <file>", `the configuration (${configNames.join(", ")} if one is there)`)
    .option("--demo", "a demonstration flow, pushed to a service that collapses when overdriven")
    .action(async (flags: ServeFlags) => {
      using stop = stopOnSignals();
      await using serving = new AsyncDisposableStack();
      const { config, about } = await configOf(flags, serving);
      const server = serving.use(await Server.open(config));
      process.stdout.write(`${banner(server, config)}${about(server)}\n`);
      await new Promise<void>((end) => stop.signal.addEventListener("abort", () => end()));
      process.stdout.write("\nspillway: stopping; what is stored stays stored\n");
    });
}

async function configOf(
  { config: file, demo }: ServeFlags,
  serving: AsyncDisposableStack,
): Promise<{ readonly config: Config; readonly about: (server: Server) => string }> {
  if (demo === true) {
    const demoFlow = serving.use(await openDemoFlow());
    return { config: demoFlow.config, about: (server) => demoFlow.about(server.url) };
  }
  const found = file ?? configNames.find((name) => existsSync(name));
  if (found !== undefined) return { config: await readConfig(resolve(found)), about: () => "" };
  throw new SpillwayError("config_invalid", {
    found: `no ${configNames.join(" or ")} here`,
    allowed: "--config FILE, or --demo; `spillway init` writes one",
  });
}

function banner({ url }: Server, { engine, flows }: Config): string {
  const names = Object.keys(flows);
  return `spillway listens on ${url}
  data    ${resolve(engine.dir)} (durable: fsync before a message is accepted)
  flows   ${names.length === 0 ? "none" : names.join(", ")}
`;
}

/** `spillway serve`: the server of a configuration, until it is told to stop. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { isSpillwayError, SpillwayError, textOf } from "../base/index.ts";
import type { Config } from "../config/index.ts";
import { Server } from "../server/index.ts";
import type { Reloaded } from "../server/index.ts";
import { complaintOf } from "./complaint.ts";
import { configNamesText, findConfig, readConfig } from "./config-file.ts";
import { openDemoFlow } from "./demo/flow.ts";
import { table } from "./format.ts";
import { packageVersion } from "./package-root.ts";
import { stopOnSignals } from "./stop.ts";

interface ServeFlags {
  readonly config?: string;
  readonly demo?: true;
  readonly host?: string;
  readonly port?: string;
  readonly dir?: string;
  readonly json?: true;
}

const after = `
Ctrl-C or SIGTERM: takes nothing new, lets what is in flight end within \`drain\`, exits 0; a second one
ends it at once. SIGHUP: reads the configuration again. Nothing that was accepted is lost either way.
Exit codes: 0 stopped, 1 it failed (the data or the port is taken, ...), 2 wrong flags or
configuration, 130 ended at once.`;

export function addServe(program: Command): void {
  program
    .command("serve")
    .description("serve the flows of a configuration over HTTP and WebSocket")
    .option("-c, --config <file>", `the configuration (${configNamesText}, if one is here)`)
    .option("--demo", "a demonstration flow, pushed to a service that collapses when overdriven")
    .option("--port <n>", "listen there instead; 0: any free port")
    .option("--host <address>", "listen there instead")
    .option("--dir <dir>", "keep the data there instead")
    .option("--json", "print one JSON object when it listens, and nothing else")
    .addHelpText("after", after)
    .action(async (flags: ServeFlags) => {
      const again = new Reloading();
      // A demonstration has nothing to read again: it ends with its terminal.
      using stop = stopOnSignals(flags.demo === true ? undefined : () => again.ask());
      await using serving = new AsyncDisposableStack();
      const source = await sourceOf(flags, serving);
      const config = changed(source.config, flags);
      const server = serving.use(await Server.open(config));
      const isJson = flags.json === true;
      process.stdout.write(isJson ? jsonOf(server, config) : pageOf(server, config, source));
      if (source.read !== undefined) {
        again.start(async () => changed(await source.read!(), flags), server);
      }
      await new Promise<void>((end) => {
        if (stop.signal.aborted) end();
        stop.signal.addEventListener("abort", () => end());
      });
      if (!isJson) process.stdout.write("\nspillway: stopping; what is stored stays stored\n");
    });
}

interface Source {
  readonly config: Config;
  /** Gives the configuration as it is now; absent: it does not change. */
  readonly read?: () => Promise<Config>;
  readonly file?: string;
  /** What to try, for people. */
  readonly about: (server: Server) => string;
}

async function sourceOf(flags: ServeFlags, serving: AsyncDisposableStack): Promise<Source> {
  if (flags.demo === true) {
    if (flags.config !== undefined) refuse("--demo", "--config", "one of them, not both");
    const demo = serving.use(await openDemoFlow());
    return { config: demo.config, about: (server) => demo.about(server.url) };
  }
  const file = findConfig(flags.config);
  if (file === undefined) {
    throw new SpillwayError("config_invalid", {
      found: `no ${configNamesText} here`,
      allowed: "--config FILE; `spillway init` writes one, and `spillway serve --demo` needs none",
    });
  }
  const read = (): Promise<Config> => readConfig(file);
  return { config: await read(), read, file, about: aboutFlows };
}

/** The configuration as the flags change it. @throws {SpillwayError} option_invalid */
function changed(config: Config, { host, port, dir }: ServeFlags): Config {
  if (host === "") refuse("--host", "nothing", "an address");
  const listen = {
    ...config.listen,
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port: portOf(port) }),
  };
  const engine = dir === undefined ? config.engine : { ...config.engine, dir: resolve(dir) };
  return { ...config, listen, engine };
}

function portOf(text: string): number {
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port <= 65_535) return port;
  return refuse("--port", text, "a whole number from 0 to 65535");
}

function refuse(option: string, found: string, allowed: string): never {
  throw new SpillwayError("option_invalid", { option, found, allowed });
}

function pageOf(server: Server, config: Config, { file, about }: Source): string {
  const names = Object.keys(config.flows);
  const flows = names.length === 0 ? "none yet: name some in the configuration" : names.join(", ");
  return `spillway ${packageVersion()} listens on ${server.url}

  data     ${resolve(config.engine.dir)} (kept over restarts)
  promise  ${promises[server.spillway.durability]}
  flows    ${flows}
${file === undefined ? "" : `  config   ${file} (kill -HUP ${process.pid} reads it again)\n`}${about(server)}
Ctrl-C stops it: what is in flight ends within ${config.drainMs / 1000} s, and what is stored stays.
`;
}

const promises: Readonly<Record<Server["spillway"]["durability"], string>> = {
  fsync: "a message is on disk, synced, before it is accepted",
  quorum: "a message is on a majority of nodes before it is accepted",
  "page-cache": "a message is with the operating system before it is accepted",
  memory: "none: messages go with the process",
};

function aboutFlows({ url, spillway }: Server): string {
  const [name] = spillway.flowNames;
  if (name === undefined) return "";
  return `
Send a message, and look at the flow:

  curl -i ${url}/v1/flows/${name}/messages -H 'content-type: text/plain' -d 'hello'
  curl ${url}/v1/flows/${name}
`;
}

function jsonOf({ url, spillway }: Server, { engine, flows }: Config): string {
  const { durability } = spillway;
  const dir = resolve(engine.dir);
  return `${JSON.stringify({ url, pid: process.pid, dir, durability, flows: Object.keys(flows) })}\n`;
}

/**
 * Reads the configuration again when asked, one after the other. What fails leaves everything as it is,
 * and says why on standard error.
 */
class Reloading {
  #isAsked = false;
  #isBusy = false;
  #read: (() => Promise<Config>) | undefined;
  #server: Server | undefined;

  /** Before it is called, asking is remembered: the server is not there yet. */
  start(read: () => Promise<Config>, server: Server): void {
    this.#read = read;
    this.#server = server;
    this.#go();
  }

  ask(): void {
    this.#isAsked = true;
    this.#go();
  }

  #go(): void {
    if (!this.#isAsked || this.#isBusy || this.#server === undefined) return;
    this.#isAsked = false;
    this.#isBusy = true;
    void this.#once(this.#read!, this.#server).then((text) => {
      process.stderr.write(text);
      this.#isBusy = false;
      this.#go();
    });
  }

  async #once(read: () => Promise<Config>, server: Server): Promise<string> {
    try {
      return reloadText(await server.reload(await read()));
    } catch (error) {
      const why = isSpillwayError(error) ? complaintOf(error) : `${textOf(error)}\n`;
      return `spillway: the configuration was read again, and nothing was changed: ${why}`;
    }
  }
}

function reloadText({ changed, opened, waiting }: Reloaded): string {
  const policies = Object.entries(changed).map(([flow, names]) => `${flow} (${names.join(", ")})`);
  const rows = [
    ...policies.map((each) => ["changed", each]),
    ...opened.map((each) => ["opened", each]),
    ...waiting.map(({ path, why }) => ["as before", `${path}: ${why}`]),
  ];
  const head = "spillway: the configuration was read again";
  if (rows.length === 0) return `${head}; nothing is different\n`;
  return [`${head}:`, ...table(rows, new Set()), ""].join("\n");
}

/** What a configuration file imports: `defineConfig`, and engines to choose from. */
import { sqlite } from "./engines/sqlite/index.ts";
import type { Engine } from "./engines/index.ts";
import type { FlowOptions } from "./flow/index.ts";

export interface Config {
  readonly engine: Engine;
  readonly flows: Readonly<Record<string, FlowOptions>>;
}

/** Gives the configuration as it is, typed. */
export function defineConfig(config: Config): Config {
  return config;
}

/** Gives a flow's contract as it is, typed; it is checked when the flow is opened. */
export function flow(options: FlowOptions): FlowOptions {
  return options;
}

export { sqlite };

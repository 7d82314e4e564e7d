/** config: what a configuration file imports, and how it is read. */
import type { FlowOptions, PushOptions, SecretRef } from "../flow/index.ts";
import type { ConfigOptions, SqliteOptions } from "./options.ts";

/** Gives the configuration as it is, typed. */
export function defineConfig(config: ConfigOptions): ConfigOptions {
  return config;
}

/** Gives a flow's contract as it is, typed; it is checked when the configuration is read. */
export function flow(options: FlowOptions): FlowOptions {
  return options;
}

/** Delivery to an HTTP endpoint. */
export function push(options: Omit<PushOptions, "kind">): PushOptions {
  return { kind: "push", ...options };
}

/** The embedded store. */
export function sqlite(options: Omit<SqliteOptions, "kind"> = {}): SqliteOptions {
  return { kind: "sqlite", ...options };
}

/** A secret that stands in a variable of the environment. */
export function env(name: string): SecretRef {
  return { env: name };
}

/** A secret that stands in a file. */
export function file(path: string): SecretRef {
  return { file: path };
}

export type {
  ConfigOptions,
  LimitOptions,
  ListenOptions,
  QuotaOptions,
  SqliteOptions,
  TlsOptions,
} from "./options.ts";
export { configSchema, parseConfig } from "./parse.ts";
export type { Config, Limits, Listen, Quota } from "./parse.ts";
export type { FlowOptions, PushOptions, SecretRef } from "../flow/index.ts";

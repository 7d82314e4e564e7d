/** A configuration from a file: TypeScript, JavaScript or JSON. Paths in it count from its folder. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { registerHooks } from "node:module";
import type { ModuleHooks } from "node:module";
import { dirname, extname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { isSpillwayError, SpillwayError, textOf } from "../base/index.ts";
import { parseConfig } from "../config/index.ts";
import type { Config, ConfigOptions } from "../config/index.ts";

/** What is looked for where no file is named. */
export const configNames = [
  "spillway.config.ts",
  "spillway.config.js",
  "spillway.config.json",
] as const;
export const configNamesText: string = configNames.join(", ");

/** Those that are here, as they are looked for. */
export function configsHere(): string[] {
  return configNames.filter((name) => existsSync(name));
}

/** @returns The file that is named, or the one that is here; absolute. Undefined: there is none. */
export function findConfig(named: string | undefined): string | undefined {
  const found = named ?? configsHere()[0];
  return found === undefined ? undefined : resolve(found);
}

/** @throws {SpillwayError} config_invalid, with `details.file` */
export async function readConfig(file: string): Promise<Config> {
  const options = await optionsOf(file);
  try {
    return fromFolder(parseConfig(options), dirname(file));
  } catch (error) {
    if (!isSpillwayError(error, "config_invalid")) throw error;
    throw new SpillwayError("config_invalid", { file, ...error.details }, { cause: error });
  }
}

function fromFolder(config: Config, folder: string): Config {
  const { engine, listen } = config;
  const { tls } = listen;
  return {
    ...config,
    engine: { ...engine, dir: resolve(folder, engine.dir) },
    listen: {
      ...listen,
      ...(tls === undefined
        ? {}
        : {
            tls: {
              cert: resolve(folder, tls.cert),
              key: resolve(folder, tls.key),
              ...(tls.clientCa === undefined ? {} : { clientCa: resolve(folder, tls.clientCa) }),
            },
          }),
    },
  };
}

async function optionsOf(file: string): Promise<ConfigOptions> {
  try {
    if (extname(file) === ".json") return JSON.parse(await readFile(file, "utf8")) as ConfigOptions;
    const loaded = await load(file);
    if (loaded.default !== undefined) return loaded.default;
  } catch (cause) {
    throw new SpillwayError("config_invalid", { file, found: textOf(cause) }, { cause });
  }
  throw new SpillwayError("config_invalid", {
    file,
    found: "no default export",
    allowed: "export default defineConfig({ ... })",
  });
}

async function load(file: string): Promise<{ readonly default?: ConfigOptions }> {
  const url = pathToFileURL(file);
  // A changed file is another module: the query tells them apart when it is read again.
  url.searchParams.set("read", String(process.hrtime.bigint()));
  const hooks = configHooks(url.href);
  try {
    return (await import(url.href)) as { readonly default?: ConfigOptions };
  } finally {
    hooks.deregister();
  }
}

const configModule = new URL(`../config/index${extname(import.meta.filename)}`, import.meta.url);

/**
 * While a configuration is loaded: "spillway/config" is the running package's own where its folder has
 * none installed, and the file is an ECMAScript module whatever package.json lies above it.
 */
function configHooks(file: string): ModuleHooks {
  const format = extname(new URL(file).pathname) === ".ts" ? "module-typescript" : "module";
  return registerHooks({
    resolve(specifier, context, next) {
      try {
        return next(specifier, context);
      } catch (error) {
        if (specifier !== "spillway/config") throw error;
        return next(configModule.href, context);
      }
    },
    load: (module, context, next) =>
      next(module, module === file ? { ...context, format } : context),
  });
}

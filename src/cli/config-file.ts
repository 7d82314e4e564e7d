/** A configuration from a file: TypeScript, JavaScript or JSON. Paths in it count from its folder. */
import { readFile } from "node:fs/promises";
import { dirname, extname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { SpillwayError, textOf } from "../base/index.ts";
import { parseConfig } from "../config/index.ts";
import type { Config, ConfigOptions } from "../config/index.ts";

/** What is looked for where no file is named. */
export const configNames = [
  "spillway.config.ts",
  "spillway.config.js",
  "spillway.config.json",
] as const;

/** @throws {SpillwayError} config_invalid */
export async function readConfig(file: string): Promise<Config> {
  const config = parseConfig(await optionsOf(file));
  const folder = dirname(file);
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
    // A changed file is another module: the query tells them apart when it is read again.
    const url = pathToFileURL(file);
    url.searchParams.set("read", String(process.hrtime.bigint()));
    const loaded = (await import(url.href)) as { readonly default?: ConfigOptions };
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

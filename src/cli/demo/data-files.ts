/** Where the recorded data that come with the package lie, run from `src` or from `dist`. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { SpillwayError } from "../../base/index.ts";

/**
 * @param name Inside the folder `data` of the package: "arrivals/nyc_taxi.csv".
 * @throws {SpillwayError} not_found
 */
export function dataFile(name: string): string {
  const file = join(packageRoot(), "data", name);
  if (!existsSync(file)) {
    throw new SpillwayError("not_found", { file, hint: "the package's data folder is incomplete" });
  }
  return file;
}

/** The nearest folder above this file whose package.json says that it is Spillway. */
function packageRoot(): string {
  for (let folder = import.meta.dirname; folder !== dirname(folder); folder = dirname(folder)) {
    const manifest = join(folder, "package.json");
    if (!existsSync(manifest)) continue;
    const { name } = JSON.parse(readFileSync(manifest, "utf8")) as { name?: unknown };
    if (name === "spillway") return folder;
  }
  throw new SpillwayError("not_found", {
    file: "package.json",
    allowed: `a package named spillway above ${import.meta.dirname}`,
  });
}

/** The folder and the version of the package, run from `src` or from `dist`. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { SpillwayError } from "../base/index.ts";

/**
 * The nearest folder above this file whose package.json says that it is Spillway.
 * @throws {SpillwayError} not_found
 */
export function packageRoot(): string {
  return find().folder;
}

/** @throws {SpillwayError} not_found */
export function packageVersion(): string {
  return find().version;
}

function find(): { folder: string; version: string } {
  for (let folder = import.meta.dirname; folder !== dirname(folder); folder = dirname(folder)) {
    const manifest = join(folder, "package.json");
    if (!existsSync(manifest)) continue;
    const { name, version } = JSON.parse(readFileSync(manifest, "utf8")) as Record<string, unknown>;
    if (name === "spillway") return { folder, version: String(version) };
  }
  throw new SpillwayError("not_found", {
    file: "package.json",
    allowed: `a package named spillway above ${import.meta.dirname}`,
  });
}

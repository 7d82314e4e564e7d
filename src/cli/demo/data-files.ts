/** Where the recorded data that come with the package lie. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { SpillwayError } from "../../base/index.ts";
import { packageRoot } from "../package-root.ts";

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

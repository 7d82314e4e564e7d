/** What the parts of a server work with, without a server around it. */
import { onTestFinished } from "vitest";
import { SpillwayError } from "../../src/base/index.ts";
import { parseConfig } from "../../src/config/index.ts";
import type { ConfigOptions } from "../../src/config/index.ts";
import { openAccess } from "../../src/server/access.ts";
import type { Access } from "../../src/server/access.ts";
import type { Audit, Context } from "../../src/server/app.ts";
import { openSpillway } from "../../src/spillway.ts";
import type { Flow } from "../../src/spillway.ts";
import { TempDir } from "./temp-dir.ts";

export async function openContext(
  options: ConfigOptions,
  { audit, access = openAccess }: { audit?: Audit; access?: Access } = {},
): Promise<Context> {
  const dir = new TempDir();
  onTestFinished(() => dir[Symbol.dispose]());
  const config = parseConfig({ log: "silent", drain: "1s", ...options });
  const spillway = await openSpillway({ dir: dir.path, drainMaxMs: config.drainMs });
  onTestFinished(() => spillway.close());
  const flows = new Map<string, Flow<Uint8Array>>();
  for (const [name, each] of Object.entries(config.flows)) {
    flows.set(name, spillway.flow<Uint8Array>(name, { ...each, payload: "bytes" }));
  }
  return {
    config,
    spillway,
    access,
    flows,
    flow: (name) => {
      const flow = flows.get(name);
      if (flow === undefined) throw new SpillwayError("not_found", { flow: name });
      return flow;
    },
    ...(audit === undefined ? {} : { audit }),
  };
}

/** What the parts of a server work with, without a server around it. */
import { onTestFinished } from "vitest";
import { SpillwayError } from "../../src/base/index.ts";
import { parseConfig } from "../../src/config/index.ts";
import type { ConfigOptions } from "../../src/config/index.ts";
import type { Access } from "../../src/server/access.ts";
import type { Context } from "../../src/server/app.ts";
import { openSecurity } from "../../src/server/security.ts";
import type { Security } from "../../src/server/security.ts";
import { openSpillway } from "../../src/spillway.ts";
import type { Flow } from "../../src/spillway.ts";
import { TempDir } from "./temp-dir.ts";

export async function openContext(
  options: ConfigOptions,
  given: { audit?: Partial<Context["audit"]>; access?: Partial<Access> } = {},
): Promise<{ readonly context: Context; readonly security: Security }> {
  const dir = new TempDir();
  onTestFinished(() => dir[Symbol.dispose]());
  const config = parseConfig({ log: "silent", drain: "1s", ...options });
  const spillway = await openSpillway({ dir: dir.path, drainMaxMs: config.drainMs });
  onTestFinished(() => spillway.close());
  const flows = new Map<string, Flow<Uint8Array>>();
  for (const [name, each] of Object.entries(config.flows)) {
    flows.set(name, spillway.flow<Uint8Array>(name, { ...each, payload: "bytes" }));
  }
  const owner = new AsyncDisposableStack();
  onTestFinished(() => owner.disposeAsync());
  const security = await openSecurity(config, spillway.meta, owner, () => undefined);
  const { access, audit, log } = security;
  const context: Context = {
    config,
    spillway,
    access: { ...access, ...given.access },
    audit: {
      record: (entry) => audit.record(entry),
      list: (page) => audit.list(page),
      head: audit.head,
      ...given.audit,
    },
    log,
    flows,
    flow: (name) => {
      const flow = flows.get(name);
      if (flow === undefined) throw new SpillwayError("not_found", { flow: name });
      return flow;
    },
  };
  return { context, security };
}

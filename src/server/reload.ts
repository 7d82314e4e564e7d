/**
 * A configuration takes the place of the one that runs, as far as it may.
 *
 * L1  All or nothing: everything is checked and prepared before anything changes.
 * L2  What does not change at run time stays as it is, and is named: nothing is skipped in silence.
 */
import { isDeepStrictEqual } from "node:util";
import type { Config } from "../config/index.ts";
import { changePolicy, optionsOf, policyFields } from "../flow/index.ts";
import type { Contract, FlowOptions, PolicyPatch } from "../flow/index.ts";
import type { Flow } from "../spillway.ts";

/**
 * Reads what a part of the server takes from the new configuration, such as certificates, and changes
 * nothing yet. @returns What makes it so; it does not fail.
 */
export type Prepare = (next: Config) => Promise<() => void>;

export interface Reloadable {
  /** What runs. */
  readonly config: Config;
  readonly flows: ReadonlyMap<string, Flow<Uint8Array>>;
  /** @throws {SpillwayError} contract_invalid */
  readonly openFlow: (name: string, options: FlowOptions) => Promise<Flow<Uint8Array>>;
  readonly prepares: readonly Prepare[];
}

export interface Reloaded {
  /** Flows whose policies have changed, with the fields. */
  readonly changed: Readonly<Record<string, readonly string[]>>;
  readonly opened: readonly string[];
  /** Paths of what is different and waits for the next start, with why. */
  readonly waiting: readonly { readonly path: string; readonly why: string }[];
}

/** @throws {SpillwayError} contract_invalid, config_invalid: nothing has changed. */
export async function reload(running: Reloadable, next: Config): Promise<Reloaded> {
  const { flows, openFlow, prepares } = running;
  const waiting = differencesOf(running.config, next);
  const patches = new Map<string, PolicyPatch>();
  for (const [name, flow] of flows) {
    const wanted = next.contracts[name];
    if (wanted === undefined) {
      waiting.push({ path: `flows.${name}`, why: "the flow stays open until the next start" });
      continue;
    }
    waiting.push(...fixedDifferences(flow.contract, wanted));
    patches.set(name, patchOf(flow.contract, wanted));
  }
  for (const [name, patch] of patches) changePolicy(flows.get(name)!.contract, patch);
  const commits = await Promise.all(prepares.map((prepare) => prepare(next)));
  const opened = Object.keys(next.flows).filter((name) => !flows.has(name));
  for (const name of opened) await openFlow(name, next.flows[name]!);
  // From here nothing fails.
  for (const commit of commits) commit();
  const changed: Record<string, readonly string[]> = {};
  for (const [name, patch] of patches) {
    const names = Object.keys(patch);
    if (names.length === 0) continue;
    flows.get(name)!.change(patch);
    changed[name] = names;
  }
  return { changed, opened, waiting };
}

/** Parts of the configuration, and why they are not taken up. */
const atStart = ["engine", "listen", "limits", "quota", "drainMs", "log"] as const;

function differencesOf(running: Config, next: Config): { path: string; why: string }[] {
  const found: { path: string; why: string }[] = [];
  for (const part of atStart) {
    const [before, after] = [running[part], next[part]];
    if (isDeepStrictEqual(before, after)) continue;
    const names = isRecord(before) && isRecord(after) ? differingKeys(before, after) : [];
    const paths = names.length > 0 ? names.map((name) => `${part}.${name}`) : [part];
    // The names of a parsed configuration say their unit; those that are written do not.
    found.push(...paths.map((path) => ({ path: path.replace(/Ms$/, ""), why: "read at start" })));
  }
  return found;
}

/** What of a contract is different and cannot change while its flow is open. */
function fixedDifferences(before: Contract, after: Contract): { path: string; why: string }[] {
  const [old, wanted] = [fixedOf(before), fixedOf(after)];
  return differingKeys(old, wanted).map((field) => ({
    path: `flows.${before.name}.${field}`,
    why:
      field === "partitions"
        ? "cannot change: a key would change its partition; make a flow under a new name"
        : "read at start",
  }));
}

/** Payloads are bytes here, whatever the contract says for other ends. */
const notCompared: ReadonlySet<string> = new Set([...policyFields, "payload"]);

function fixedOf(contract: Contract): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(optionsOf(contract)).filter(([field]) => !notCompared.has(field)),
  );
}

/** What makes the policies of one contract those of another. */
function patchOf(before: Contract, after: Contract): PolicyPatch {
  const [old, wanted] = [optionsOf(before), optionsOf(after)];
  const patch: Record<string, unknown> = {};
  for (const field of policyFields) {
    if (!isDeepStrictEqual(old[field], wanted[field])) {
      patch[field] = mergePatch(old[field], wanted[field]);
    }
  }
  return patch;
}

/** RFC 7396, backwards: what turns `before` into `after`. */
function mergePatch(before: unknown, after: unknown): unknown {
  if (after === undefined) return null;
  if (!isRecord(after)) return after;
  const old = isRecord(before) ? before : {};
  return Object.fromEntries(
    differingKeys(old, after).map((name) => [name, mergePatch(old[name], after[name])]),
  );
}

type Fields = Readonly<Record<string, unknown>>;

function differingKeys(a: Fields, b: Fields): string[] {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].filter((name) => !isDeepStrictEqual(a[name], b[name]));
}

function isRecord(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

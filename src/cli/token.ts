/**
 * `spillway token`: makes, lists and revokes what may call a server. Against a running server over HTTP
 * (--url), else in the store itself, which nobody else may have open then.
 */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { Option } from "commander";
import type { Command } from "commander";
import { isSpillwayError, parseMs, SpillwayError } from "../base/index.ts";
import type { NewToken, TokenView } from "../server/index.ts";
import { openTokenStore, verbs } from "../server/index.ts";
import { openSpillway } from "../spillway.ts";
import { configNames, readConfig } from "./config-file.ts";
import { table } from "./format.ts";

interface PlaceFlags {
  readonly url?: string;
  readonly token?: string;
  readonly data?: string;
  readonly config?: string;
  readonly json?: true;
}

interface CreateFlags extends PlaceFlags {
  readonly flow: readonly string[];
  readonly verb: readonly (typeof verbs)[number][];
  readonly group?: string;
  readonly name?: string;
  readonly expires?: string;
  readonly certificate?: string;
}

type Made = TokenView & { readonly token?: string };

/** Where tokens are: a running server, or a store. */
interface Place {
  create(wanted: NewToken): Promise<Made>;
  list(): Promise<readonly TokenView[]>;
  revoke(id: string): Promise<void>;
}

export function addToken(program: Command): void {
  const token = program.command("token").description("who may call a server, and what for");
  at(token.command("create"))
    .description("make a token, and print it once")
    .requiredOption("--verb <verb...>", `what it allows: ${verbs.join(", ")}`)
    .requiredOption("--flow <pattern...>", "on which flows: a name, with * for any characters")
    .option("--group <group>", "it acts for this group only")
    .option("--name <text>", "for people")
    .option("--expires <span>", 'after this time, as "90d" or "12h"; never by default')
    .option("--certificate <name>", "no secret: a client certificate of this name stands for it")
    .action(async (flags: CreateFlags) => {
      const wanted = wantedOf(flags);
      await inPlace(flags, async (place) => say(flags, madeText, await place.create(wanted)));
    });
  at(token.command("list"))
    .description("list tokens; no secret is kept that could be shown")
    .action(async (flags: PlaceFlags) => {
      await inPlace(flags, async (place) => say(flags, listText, await place.list()));
    });
  at(token.command("revoke"))
    .description("from now on it is refused, and its connections are cut")
    .argument("<id>", "as `token list` shows it")
    .action(async (id: string, flags: PlaceFlags) => {
      await inPlace(flags, async (place) => {
        await place.revoke(id);
        say(flags, () => `${id} is revoked`, { revoked: id });
      });
    });
}

function at(command: Command): Command {
  return command
    .addOption(new Option("--url <url>", "of a running server").env("SPILLWAY_URL"))
    .addOption(new Option("--token <token>", "an admin's, for --url").env("SPILLWAY_TOKEN"))
    .option("--data <dir>", "the data directory, while no server runs on it")
    .option("-c, --config <file>", `names the data directory (${configNames[0]} if it is there)`)
    .option("--json", "print one JSON object");
}

function wantedOf({ flow, verb, group, name, expires, certificate }: CreateFlags): NewToken {
  for (const each of verb) {
    if (!verbs.includes(each)) refuse("--verb", each, verbs.join(", "));
  }
  const spanMs = expires === undefined ? undefined : parseMs(expires);
  if (expires !== undefined && !(spanMs! > 0)) refuse("--expires", expires, 'a span such as "90d"');
  return {
    verbs: [...new Set(verb)],
    flows: [...new Set(flow)],
    ...(group === undefined ? {} : { group }),
    ...(name === undefined ? {} : { name }),
    ...(certificate === undefined ? {} : { certificate }),
    ...(spanMs === undefined ? {} : { expiresAtMs: Math.floor(Date.now() + spanMs) }),
  };
}

function refuse(option: string, found: string, allowed: string): never {
  throw new SpillwayError("option_invalid", { option, found, allowed });
}

async function inPlace(flags: PlaceFlags, act: (place: Place) => Promise<void>): Promise<void> {
  if (flags.url !== undefined) return act(overHttp(flags.url, flags.token));
  const dir = await dirOf(flags);
  await using spillway = await openSpillway({ dir }).catch((error: unknown) => {
    if (!isSpillwayError(error, "store_locked")) throw error;
    throw new SpillwayError("store_locked", {
      dir,
      allowed: "a server runs on it: name it with --url, as http://127.0.0.1:7411",
    });
  });
  using tokens = await openTokenStore(spillway);
  const actor = { principal: "command line", requestId: `pid-${process.pid}` };
  await act({
    create: async (wanted) => {
      const { view, token } = await tokens.create(wanted, actor);
      return token === undefined ? view : { ...view, token };
    },
    list: async () => tokens.list(),
    revoke: async (id) => void (await tokens.revoke(id, actor)),
  });
}

async function dirOf({ data, config }: PlaceFlags): Promise<string> {
  if (data !== undefined) return resolve(data);
  const file = config ?? configNames.find((name) => existsSync(name));
  if (file !== undefined) return (await readConfig(resolve(file))).engine.dir;
  return refuse("--data", "none", "--url URL of a running server, --data DIR or --config FILE");
}

function overHttp(url: string, token: string | undefined): Place {
  const call = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    let response: Response;
    try {
      response = await fetch(new URL(path, url), {
        method,
        redirect: "error",
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (cause) {
      throw new SpillwayError("disconnected", { url, found: causeOf(cause) }, { cause });
    }
    if (response.status === 204) return undefined;
    const answer: unknown = await response.json().catch(() => undefined); // Of another server.
    if (response.ok && answer !== undefined) return answer;
    const other = "an answer that is not Spillway's";
    const { detail = other, code = "" } = (answer ?? {}) as Record<string, string>;
    throw new SpillwayError("option_invalid", {
      url,
      status: response.status,
      code,
      found: detail,
    });
  };
  return {
    create: async (wanted) => (await call("POST", "/v1/tokens", wanted)) as Made,
    list: async () => ((await call("GET", "/v1/tokens")) as { tokens: TokenView[] }).tokens,
    revoke: async (id) => void (await call("DELETE", `/v1/tokens/${encodeURIComponent(id)}`)),
  };
}

/** `fetch` tells why only in the cause. */
function causeOf(error: unknown): string {
  const { cause, message } = error as Error;
  return cause instanceof Error ? cause.message : message;
}

function say<T>({ json }: PlaceFlags, text: (value: T) => string, value: T): void {
  process.stdout.write(`${json === true ? JSON.stringify(value) : text(value)}\n`);
}

function madeText({ token, id, certificate }: Made): string {
  if (token === undefined) return `${id}: whoever shows the certificate of ${certificate} may call`;
  return `${token}\n\nIt is shown this once; the store keeps only its digest. Revoke it by its id, ${id}.`;
}

function listText(tokens: readonly TokenView[]): string {
  if (tokens.length === 0) return "  no tokens";
  const rows = tokens.map((each) => [
    each.id,
    each.verbs.join(","),
    each.flows.join(","),
    each.group ?? "",
    each.expiresAtMs === undefined ? "never" : day(each.expiresAtMs),
    each.lastUsedAtMs === undefined ? "never" : day(each.lastUsedAtMs),
    each.certificate ?? each.name ?? "",
  ]);
  const head = ["id", "verbs", "flows", "group", "expires", "last used", "name"];
  return table([head, ...rows], new Set()).join("\n");
}

/** "2026-05-04 12:00Z" */
function day(atMs: number): string {
  return `${new Date(atMs).toISOString().slice(0, 16).replace("T", " ")}Z`;
}

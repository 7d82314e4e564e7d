/**
 * From what an operator wrote to a configuration: complete, checked, every mistake with its path.
 *
 * F1  Any JSON value becomes a configuration or a `config_invalid` that names every problem.
 */
import { z } from "zod";
import { isSpillwayError, SpillwayError } from "../base/index.ts";
import { fields, parseContract, problemsOf } from "../flow/index.ts";
import type { Contract, FlowOptions, Problem } from "../flow/index.ts";
import type { ConfigOptions } from "./options.ts";

export interface Limits {
  readonly connections: number;
  readonly connectionsPerAddress: number;
  readonly batchBytes: number;
  readonly batchMessages: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly unreadBytes: number;
}

export interface Listen {
  readonly host: string;
  readonly port: number;
  readonly tls?: { readonly cert: string; readonly key: string; readonly clientCa?: string };
  readonly behindProxy: boolean;
  readonly origins: readonly string[];
  readonly hosts: readonly string[];
}

interface QuotaRate {
  readonly perSecond: number;
  readonly burst: number;
}

export interface Quota {
  readonly requests?: QuotaRate;
  readonly bytes?: QuotaRate;
  readonly connections?: number;
}

export interface Config {
  readonly engine: { readonly kind: "sqlite"; readonly dir: string };
  readonly listen: Listen;
  readonly limits: Limits;
  readonly quota: Quota;
  readonly drainMs: number;
  readonly log: "info" | "warn" | "silent";
  /** As they were written: `parseContract` has taken them. */
  readonly flows: Readonly<Record<string, FlowOptions>>;
  readonly contracts: Readonly<Record<string, Contract>>;
}

const flag = (description: string) =>
  fields.field<boolean>({
    allowed: "true or false",
    json: { type: "boolean", description },
    read: (value) => (typeof value === "boolean" ? value : undefined),
  });

const path = (description: string) =>
  fields.text({ form: /^[^\0]{1,4096}$/, allowed: "a path", description });

const rate = (description: string) =>
  fields
    .section({
      perSecond: fields.perSecond({ description }),
      burst: fields
        .quantity({ min: 1, max: 1e12, description: "At once; by default one second's." })
        .optional(),
    })
    .optional();

const hostForm = /^[A-Za-z0-9._:[\]-]{1,255}$/;

const shape = fields.section({
  engine: fields
    .section({
      kind: fields.choice(["sqlite"], { description: "Which store." }),
      dir: path("Where the embedded store lies.").optional(),
    })
    .optional(),
  listen: fields
    .section({
      host: fields
        .text({ form: hostForm, allowed: "an address", description: "Where to listen." })
        .optional(),
      port: fields
        .count({ min: 0, max: 65_535, description: "0: any free one.", default: 7411 })
        .optional(),
      tls: fields
        .section({
          cert: path("Certificate, PEM."),
          key: path("Its key, PEM."),
          clientCa: path("Authority of client certificates, PEM.").optional(),
        })
        .optional(),
      behindProxy: flag("TLS ends at a proxy before this server.").optional(),
      origins: z
        .array(
          fields.text({
            form: /^https?:\/\/[^\s/?#]+$/,
            allowed: 'an origin such as "https://shop.example"',
            description: "Of pages that may connect.",
          }),
          { error: "a list of origins" },
        )
        .optional(),
      hosts: z
        .array(fields.text({ form: hostForm, allowed: "a host name", description: "A name." }), {
          error: "a list of host names",
        })
        .optional(),
    })
    .optional(),
  limits: fields
    .section({
      connections: count("Connections at once.", 1e6, 20_000),
      connectionsPerAddress: count("Connections of one address.", 1e6),
      batchBytes: fields
        .size({ min: 1024, max: 1024 ** 3, description: "Of a batch.", default: "16 MiB" })
        .optional(),
      batchMessages: count("Messages in a batch.", 1e6, 10_000),
      headersTimeout: span("For a request's header.", "10s"),
      requestTimeout: span("For a whole request.", "30s"),
      idleTimeout: span("Until an idle connection is closed.", "60s"),
      unreadBytes: fields
        .size({ min: 1024, max: 1024 ** 3, description: "Of a slow reader.", default: "256 KiB" })
        .optional(),
    })
    .optional(),
  quota: fields
    .section({
      requests: rate("Requests per second."),
      bytes: rate("Bytes per second."),
      connections: count("Connections at once.", 1e6),
    })
    .optional(),
  drain: span("How long stopping may take.", "10s"),
  log: fields
    .choice(["info", "warn", "silent"], { description: "What is logged.", default: "info" })
    .optional(),
  flows: fields.field<Record<string, FlowOptions>>({
    allowed: "an object of contracts by flow name",
    json: { type: "object", description: "Contracts by flow name." },
    read: (value) =>
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? (value as Record<string, FlowOptions>)
        : undefined,
  }),
});

function count(description: string, max: number, standard?: number) {
  const range = { min: 1, max, description };
  return fields.count(standard === undefined ? range : { ...range, default: standard }).optional();
}

function span(description: string, standard: string) {
  return fields.span({ min: "1ms", max: "1d", description, default: standard }).optional();
}

/**
 * @returns The configuration with its defaults.
 * @throws {SpillwayError} config_invalid, with `details.problems` (`Problem[]`), paths as "flows.orders.lease"
 */
export function parseConfig(options: ConfigOptions): Config {
  const result = shape.safeParse(options, { reportInput: true });
  const problems: Problem[] = result.success ? [] : result.error.issues.flatMap(problemsOf);
  const contracts: Record<string, Contract> = Object.create(null);
  const written = (options as Partial<ConfigOptions> | null)?.flows;
  if (typeof written === "object" && written !== null) {
    for (const [name, flow] of Object.entries(written)) {
      try {
        contracts[name] = parseContract(name, flow);
      } catch (error) {
        if (!isSpillwayError(error, "contract_invalid")) throw error;
        const own = error.details["problems"] as readonly Problem[];
        for (const each of own) problems.push({ ...each, path: join(`flows.${name}`, each.path) });
      }
    }
  }
  if (!result.success || problems.length > 0) {
    throw new SpillwayError("config_invalid", { problems });
  }
  return resolve(result.data, contracts);
}

function join(above: string, path: string): string {
  return path === "" || path.startsWith("[") ? `${above}${path}` : `${above}.${path}`;
}

function resolve(given: z.output<typeof shape>, contracts: Config["contracts"]): Config {
  const { engine, listen = {}, limits = {}, quota = {} } = given;
  return {
    engine: { kind: "sqlite", dir: engine?.dir ?? ".spillway" },
    listen: {
      host: listen.host ?? "127.0.0.1",
      port: listen.port ?? 7411,
      ...(listen.tls === undefined ? {} : { tls: tlsOf(listen.tls) }),
      behindProxy: listen.behindProxy ?? false,
      origins: listen.origins ?? [],
      hosts: listen.hosts ?? [],
    },
    limits: {
      connections: limits.connections ?? 20_000,
      connectionsPerAddress: limits.connectionsPerAddress ?? Infinity,
      batchBytes: limits.batchBytes ?? 16 * 1024 ** 2,
      batchMessages: limits.batchMessages ?? 10_000,
      headersTimeoutMs: limits.headersTimeout ?? 10_000,
      requestTimeoutMs: limits.requestTimeout ?? 30_000,
      idleTimeoutMs: limits.idleTimeout ?? 60_000,
      unreadBytes: limits.unreadBytes ?? 256 * 1024,
    },
    quota: {
      ...(quota.requests === undefined ? {} : { requests: rateOf(quota.requests) }),
      ...(quota.bytes === undefined ? {} : { bytes: rateOf(quota.bytes) }),
      ...(quota.connections === undefined ? {} : { connections: quota.connections }),
    },
    drainMs: given.drain ?? 10_000,
    log: given.log ?? "info",
    flows: given.flows,
    contracts,
  };
}

function tlsOf(tls: {
  cert: string;
  key: string;
  clientCa?: string | undefined;
}): NonNullable<Listen["tls"]> {
  const { cert, key, clientCa } = tls;
  return { cert, key, ...(clientCa === undefined ? {} : { clientCa }) };
}

function rateOf({
  perSecond,
  burst = Math.max(1, perSecond),
}: {
  perSecond: number;
  burst?: number | undefined;
}): QuotaRate {
  return { perSecond, burst };
}

/** JSON schema (2020-12) of a configuration file; contracts have their own, `contractSchema`. */
export function configSchema(): Record<string, unknown> {
  return { ...z.toJSONSchema(shape, { io: "input" }), title: "Configuration of a Spillway server" };
}

/**
 * What an operator writes in a configuration: flows, the store, where to listen, limits. It is data:
 * JSON can carry it, and it holds no secret, only where secrets are read from.
 */
import type { Size, Span } from "../base/index.ts";
import type { FlowOptions, RateOptions, SecretRef } from "../flow/index.ts";

/** The embedded store, in one folder, of one process at a time. */
export interface SqliteOptions {
  readonly kind: "sqlite";
  /** By default ".spillway", beside the configuration file. */
  readonly dir?: string;
}

export interface TlsOptions {
  /** Files in PEM form; read again on SIGHUP and when they change. */
  readonly cert: string;
  readonly key: string;
  /** Clients must show a certificate of this authority: it may stand for a token. */
  readonly clientCa?: string;
}

export interface ListenOptions {
  /** By default "127.0.0.1". Elsewhere tokens and TLS are demanded, or `behindProxy`. */
  readonly host?: string;
  /** By default 7411; 0: any free one. */
  readonly port?: number;
  readonly tls?: TlsOptions;
  /** TLS ends before this server, at a proxy that nobody can go around. */
  readonly behindProxy?: boolean;
  /** Pages of these origins ("https://shop.example") may open a WebSocket; others are refused. */
  readonly origins?: readonly string[];
  /** Names under which the server is called, besides loopback and `host`; others are refused. */
  readonly hosts?: readonly string[];
}

export interface LimitOptions {
  /** Connections at once; by default 20,000. */
  readonly connections?: number;
  /** Of one address; by default no limit. */
  readonly connectionsPerAddress?: number;
  /** Largest body of a batch; by default 16 MiB. Of a single message: its flow's `messageBytesMax`. */
  readonly batchBytes?: Size;
  /** Messages in a batch; by default 10,000. */
  readonly batchMessages?: number;
  /** For the header of a request; by default 10s. */
  readonly headersTimeout?: Span;
  /** For the whole request; by default 30s. */
  readonly requestTimeout?: Span;
  /** A connection without a request is closed after this time; by default 60s. */
  readonly idleTimeout?: Span;
  /** What a slow reader of a WebSocket may leave unread before it is cut off; by default 256 KiB. */
  readonly unreadBytes?: Size;
}

/** What one token may use, each; by default no limit. */
export interface QuotaOptions {
  readonly requests?: RateOptions;
  /** `perSecond` in bytes. */
  readonly bytes?: RateOptions;
  readonly connections?: number;
}

export interface ConfigOptions {
  readonly engine?: SqliteOptions;
  readonly listen?: ListenOptions;
  readonly limits?: LimitOptions;
  /** Of each token, unless the token has its own. */
  readonly quota?: QuotaOptions;
  /** How long a stopping server waits for what is in flight; by default 10s. */
  readonly drain?: Span;
  /** "info" (default): requests and what happens to flows; "warn": only what somebody should look at. */
  readonly log?: "info" | "warn" | "silent";
  readonly flows: Readonly<Record<string, FlowOptions>>;
}

export type { SecretRef };

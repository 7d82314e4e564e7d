/**
 * The server that a command talks to: its flags, the connection, and a plain word about why there is none.
 * A command waits for a connection only so long; the client itself would wait for ever.
 */
import { Option } from "commander";
import type { Command } from "commander";
import { parseMs, refuseOption, SpillwayError } from "../base/index.ts";
import { connect } from "../client/index.ts";
import type { Client } from "../client/index.ts";

export interface RemoteFlags {
  readonly url: string;
  readonly token?: string;
  readonly wait?: string;
}

export interface RemoteOptions {
  readonly url: string;
  readonly token: string | undefined;
  /** How long a connection may be missing. */
  readonly waitMs: number;
}

const urlDefault = "http://127.0.0.1:7411";
export const waitDefault = "10s";
/** For the answers to what was sent, when a command ends early. */
const drainMs = 3000;
const probeMs = 2000;

/** Adds `--url` and `--token`. */
export function addRemoteFlags(command: Command): Command {
  return command
    .addOption(new Option("-u, --url <url>", "the server").env("SPILLWAY_URL").default(urlDefault))
    .addOption(
      new Option(
        "--token <token>",
        "spw_...; other users of this machine see a command's arguments: prefer the variable",
      ).env("SPILLWAY_TOKEN"),
    );
}

/** @throws {SpillwayError} option_invalid */
export function remoteOptions({ url, token, wait = waitDefault }: RemoteFlags): RemoteOptions {
  const waitMs = parseMs(wait);
  if (waitMs === undefined) refuseOption("--wait", wait, 'a span such as "10s"');
  return { url, token: token === "" ? undefined : token, waitMs };
}

export class Remote implements AsyncDisposable {
  readonly client: Client;
  /** Rejects when there was no connection for `waitMs`, with what was found instead of a server. */
  readonly gone: Promise<never>;
  readonly #options: RemoteOptions;
  readonly #giveUp: (error: SpillwayError) => void;
  #timer: NodeJS.Timeout | undefined;
  #lastError: SpillwayError | undefined;

  constructor(options: RemoteOptions, name: string) {
    this.#options = options;
    const { url, token } = options;
    const { promise, reject } = Promise.withResolvers<never>();
    this.gone = promise;
    this.gone.catch(() => undefined); // Who needs the connection races against it.
    this.#giveUp = reject;
    this.client = connect({ url, token, name, drain: drainMs });
    this.client.on("connected", () => {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    });
    this.client.on("disconnected", (error) => {
      this.#lastError = error;
      this.#arm();
    });
    this.#arm();
  }

  #arm(): void {
    this.#timer ??= setTimeout(() => void this.#missing(), this.#options.waitMs);
  }

  async #missing(): Promise<void> {
    const { url, waitMs } = this.#options;
    const found = await whatIsAt(url, this.#lastError);
    if (this.client.isConnected) return;
    this.#giveUp(new SpillwayError("disconnected", { url, waitedMs: waitMs, found }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.client.close();
    clearTimeout(this.#timer);
  }
}

/** What answers at the address where no WebSocket came about; a plain request can tell more than it. */
async function whatIsAt(url: string, error: SpillwayError | undefined): Promise<string> {
  try {
    const response = await fetch(new URL("/v1/connect", url.replace(/^ws/, "http")), {
      signal: AbortSignal.timeout(probeMs),
      redirect: "manual",
    });
    await response.body?.cancel();
    const type = response.headers.get("content-type") ?? "";
    return type.startsWith("application/problem+json")
      ? `a server that refuses the connection: ${error?.message ?? "no reason was given"}`
      : `something that is no Spillway server: it answers ${response.status}`;
  } catch (failure) {
    const { cause, name } = failure as Error;
    const code = (cause as NodeJS.ErrnoException | undefined)?.code;
    if (code === "ECONNREFUSED") return "nothing listens there; `spillway serve` starts a server";
    if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "no such host";
    if (name === "TimeoutError") return "no answer";
    return code ?? "no answer";
  }
}

/**
 * Certificates of the listener, read from their files and read again when they change. Connections that
 * are open keep what they have; new ones get the new certificate. Files that do not fit together change
 * nothing: the old certificate stays, and the log says so.
 */
import { readFileSync, watch } from "node:fs";
import type { FSWatcher } from "node:fs";
import { dirname } from "node:path";
import type { RequestListener } from "node:http";
import { createServer } from "node:https";
import type { Server as HttpServer, ServerOptions } from "node:https";
import { createSecureContext } from "node:tls";
import { SpillwayError, textOf } from "../base/index.ts";
import type { Listen } from "../config/index.ts";
import type { Log } from "./log.ts";

type Files = NonNullable<Listen["tls"]>;

interface Loaded {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca?: Buffer;
  readonly minVersion: "TLSv1.2";
}

/** A tool that renews certificates writes several files: they are read when it has been quiet for so long. */
const settleMs = 200;

export class Certificates implements Disposable {
  readonly #files: Files;
  readonly #log: Log;
  #loaded: Loaded;
  readonly #servers: HttpServer[] = [];
  #watchers: FSWatcher[] = [];
  #settling: NodeJS.Timeout | undefined;

  /** @throws {SpillwayError} config_invalid: a file cannot be read, or key and certificate do not fit. */
  constructor(files: Files, log: Log) {
    this.#files = files;
    this.#log = log;
    try {
      this.#loaded = load(files);
    } catch (cause) {
      throw new SpillwayError(
        "config_invalid",
        { path: "listen.tls", found: textOf(cause), allowed: "PEM files that fit together" },
        { cause },
      );
    }
  }

  /** A server that has the newest certificate. With `clientCa` every client must show one of it. */
  serve(options: ServerOptions, handler: RequestListener): HttpServer {
    const asks = this.#files.clientCa !== undefined;
    const server = createServer(
      {
        ...options,
        ...this.#loaded,
        requestCert: asks,
        rejectUnauthorized: asks,
        ...(options.headersTimeout === undefined
          ? {}
          : { handshakeTimeout: options.headersTimeout }),
      },
      handler,
    );
    this.#servers.push(server);
    if (this.#watchers.length === 0) this.#watch();
    return server;
  }

  /** Folders are watched, because a renewed file often is another file under the same name. */
  #watch(): void {
    const { cert, key, clientCa = cert } = this.#files;
    for (const folder of new Set([cert, key, clientCa].map((file) => dirname(file)))) {
      const watcher = watch(folder, { persistent: false }, () => {
        clearTimeout(this.#settling);
        this.#settling = setTimeout(() => this.reload(), settleMs).unref();
      });
      watcher.on("error", () => watcher.close()); // The folder is gone; a signal still reloads.
      this.#watchers.push(watcher);
    }
  }

  /** Reads the files again. @returns Whether what they hold is in use. */
  reload(): boolean {
    let loaded: Loaded;
    try {
      loaded = load(this.#files);
    } catch (error) {
      this.#log.error("tls.reload_failed", { error });
      return false;
    }
    if (isSame(loaded, this.#loaded)) return true;
    this.#loaded = loaded;
    for (const server of this.#servers) server.setSecureContext(loaded);
    this.#log.info("tls.reloaded");
    return true;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#settling);
    for (const watcher of this.#watchers) watcher.close();
    this.#watchers = [];
  }
}

function load({ cert, key, clientCa }: Files): Loaded {
  const loaded: Loaded = {
    cert: readFileSync(cert),
    key: readFileSync(key),
    ...(clientCa === undefined ? {} : { ca: readFileSync(clientCa) }),
    minVersion: "TLSv1.2",
  };
  createSecureContext(loaded); // Throws where key and certificate do not fit.
  return loaded;
}

function isSame(a: Loaded, b: Loaded): boolean {
  const ca = a.ca === undefined || b.ca === undefined ? a.ca === b.ca : a.ca.equals(b.ca);
  return ca && a.cert.equals(b.cert) && a.key.equals(b.key);
}

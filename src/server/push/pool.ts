/**
 * The connections to one target. Each is made to an address that was looked at just before (S5): the name
 * is resolved for every new connection, and the socket gets the very addresses that were judged.
 *
 * C1  No connection to an address that is not allowed, whatever the resolver says and however often it
 *     changes its mind.
 * C2  A connection that does not stand within `connectTimeoutMs`, from the look-up to the end of the TLS
 *     handshake, is given up.
 *
 * How many there are is the window's business (G3): the pool itself sets no bound. Proxies named in the
 * environment are not used.
 */
import { lookup } from "node:dns/promises";
import { Agent as PlainAgent } from "node:http";
import { Agent as TlsAgent } from "node:https";
import { isIP } from "node:net";
import type { LookupFunction, Socket } from "node:net";
import { callbackify } from "node:util";
import type { Addresses, Destination } from "./addresses.ts";

/** A name's addresses, of both families. */
export type Resolve = (host: string) => Promise<readonly string[]>;

/** Of the system: its hosts file and search list count, as for every other program. */
export const systemResolve: Resolve = async (host) =>
  (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address);

/** Its code is a text for people; nothing of what a resolver or a target answered. */
class ConnectError extends Error {
  readonly code: string;

  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

export const refusedCode = "refused";

export interface PoolOptions {
  readonly destination: Destination;
  readonly addresses: Addresses;
  readonly connectTimeoutMs: number;
}

export interface PoolDeps {
  readonly resolve: Resolve;
  /** Authorities that are trusted besides the system's; for targets with certificates of one's own. */
  readonly ca?: string;
}

/** An idle connection is closed by us before most servers and proxies close it under a request. */
const idleMs = 30_000;

export class Pool implements Disposable {
  readonly agent: PlainAgent;

  constructor({ destination, addresses, connectTimeoutMs }: PoolOptions, deps: PoolDeps) {
    const { host, isTls } = destination;
    const options = {
      keepAlive: true,
      timeout: idleMs,
      maxFreeSockets: Infinity,
      autoSelectFamily: true,
      lookup: checkedLookup(addresses, deps.resolve),
    };
    const ca = deps.ca === undefined ? {} : { ca: deps.ca };
    // An address has no name that a server could be told.
    const servername = isIP(host) === 0 ? { servername: host } : {};
    this.agent = isTls
      ? new TlsAgent({ ...options, ...ca, ...servername, minVersion: "TLSv1.2" })
      : new PlainAgent(options);
    const connect = this.agent.createConnection.bind(this.agent);
    this.agent.createConnection = (options, callback) => {
      const socket = connect(options, callback) as Socket;
      limitConnecting(socket, isTls ? "secureConnect" : "connect", connectTimeoutMs);
      return socket;
    };
  }

  /** Closes all, those of calls that still run, too. */
  [Symbol.dispose](): void {
    this.agent.destroy();
  }
}

function limitConnecting(socket: Socket, event: string, timeoutMs: number): void {
  const timer = setTimeout(
    () => socket.destroy(new ConnectError(`not connected within ${timeoutMs} ms`)),
    timeoutMs,
  );
  const stop = (): void => clearTimeout(timer);
  socket.once(event, stop);
  socket.once("close", stop);
}

/** For `net.connect`: it asks for every connection to a name, and connects to what it is given. */
function checkedLookup(addresses: Addresses, resolve: Resolve): LookupFunction {
  return callbackify(async (host: string) => {
    const found = await resolve(host);
    if (found.length === 0) throw new ConnectError("ENOTFOUND");
    if (!found.every((each) => addresses.allows(each))) throw new ConnectError(refusedCode); // C1
    return found.map((address) => ({ address, family: isIP(address) }));
  }) as unknown as LookupFunction; // With `autoSelectFamily` it asks for all of them.
}

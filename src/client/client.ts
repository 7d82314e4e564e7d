/**
 * A server's flows from another process, in Node and in browsers:
 *
 *     await using client = connect({ url: "https://queue.example.com", token });
 *     const orders = client.flow<Order>("orders");
 *     await orders.send(order, { key: order.customerId });
 */
import {
  Emitter,
  parseBytes,
  parseMs,
  refuseOption,
  SpillwayError,
  textOf,
} from "../base/index.ts";
import type { Clock } from "../base/index.ts";
import { validatorOf } from "../flow/index.ts";
import type { InferOutput, StandardSchemaV1 } from "../flow/index.ts";
import { systemClock } from "../system-clock.ts";
import { addressOf, Connection } from "./connection.ts";
import type { ConnectOptions } from "./options.ts";
import { RemoteFlow } from "./remote-flow.ts";

/** Living things, for tests. */
export interface ConnectDeps {
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly openSocket?: (url: string, protocol: string) => WebSocket;
}

export interface ClientEvents {
  connected: [];
  /** It tries again by itself, unless the code says that this is no use. */
  disconnected: [SpillwayError];
}

const outboxDefault = { messages: 10_000, bytes: 16 * 1024 ** 2 };
const drainMsDefault = 10_000;

/**
 * Connects in the background and stays connected; sends wait until it is.
 * @throws {SpillwayError} option_invalid
 */
export function connect(options: ConnectOptions, deps: ConnectDeps = {}): Client {
  return new Client(options, deps);
}

export class Client implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #connection: Connection;
  readonly #outbox: { readonly messages: number; readonly bytes: number };
  readonly #drainMs: number;
  readonly #flows = new Map<string, RemoteFlow<never>>();
  readonly #closed = new AbortController();
  readonly #events = new Emitter<ClientEvents>((event, error) =>
    console.warn(`spillway client: a listener of "${event}" failed: ${textOf(error)}`),
  );
  #closing: Promise<void> | undefined;

  constructor(options: ConnectOptions, deps: ConnectDeps) {
    const { url, token, name = "spillway-client", outbox = {}, drain } = options;
    addressOf(url);
    this.#clock = deps.clock ?? systemClock;
    this.#random = deps.random ?? Math.random;
    const messages = outbox.messages ?? outboxDefault.messages;
    const bytes = outbox.bytes === undefined ? outboxDefault.bytes : parseBytes(outbox.bytes);
    if (!Number.isInteger(messages) || messages < 1) {
      refuseOption("outbox.messages", messages, "a whole number above 0");
    }
    if (bytes === undefined) refuseOption("outbox.bytes", outbox.bytes, 'a size such as "16 MiB"');
    this.#outbox = { messages, bytes };
    const drainMs = drain === undefined ? drainMsDefault : parseMs(drain);
    if (drainMs === undefined) refuseOption("drain", drain, 'a span such as "10s"');
    this.#drainMs = drainMs;
    this.#connection = new Connection(
      { url, token, name: name.slice(0, 128) },
      {
        clock: this.#clock,
        random: this.#random,
        openSocket: deps.openSocket ?? ((address, protocol) => new WebSocket(address, protocol)),
        onState: (state, error) => {
          if (state === "connected") this.#events.emit("connected");
          else this.#events.emit("disconnected", error ?? new SpillwayError("disconnected"));
        },
      },
    );
  }

  get isConnected(): boolean {
    return this.#connection.isConnected;
  }

  on<Name extends keyof ClientEvents>(
    event: Name,
    listener: (...args: ClientEvents[Name]) => void,
  ): this {
    this.#events.on(event, listener);
    return this;
  }

  once<Name extends keyof ClientEvents>(
    event: Name,
    listener: (...args: ClientEvents[Name]) => void,
  ): this {
    this.#events.once(event, listener);
    return this;
  }

  off<Name extends keyof ClientEvents>(
    event: Name,
    listener: (...args: ClientEvents[Name]) => void,
  ): this {
    this.#events.off(event, listener);
    return this;
  }

  /** A flow of the server; the same name gives the same flow. With a schema messages are validated here. */
  flow<T = unknown>(name: string, options?: { readonly schema?: undefined }): RemoteFlow<T>;
  flow<Schema extends StandardSchemaV1>(
    name: string,
    options: { readonly schema: Schema },
  ): RemoteFlow<InferOutput<Schema>>;
  flow<T>(
    name: string,
    { schema }: { readonly schema?: StandardSchemaV1 | undefined } = {},
  ): RemoteFlow<T> {
    if (this.#closing !== undefined) throw new SpillwayError("closed", { flow: name });
    const known = this.#flows.get(name);
    if (known !== undefined) return known as unknown as RemoteFlow<T>;
    const flow = new RemoteFlow<T>({
      name,
      connection: this.#connection,
      clock: this.#clock,
      seed: Math.floor(this.#random() * 2 ** 31),
      outbox: this.#outbox,
      validate: schema === undefined ? undefined : validatorOf(schema),
      closed: this.#closed.signal,
    });
    this.#flows.set(name, flow as unknown as RemoteFlow<never>);
    return flow;
  }

  /** Sends nothing new, waits for answers and handlers for `drain`, gives back the rest, and disconnects. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { promise: timeUp, resolve: onTimeUp } = Promise.withResolvers<void>();
    const timer = this.#clock.after(this.#drainMs, onTimeUp);
    this.#closed.abort();
    await Promise.all([...this.#flows.values()].map((flow) => flow.close(timeUp)));
    // What was settled at the end is to arrive before the connection goes.
    while (this.#connection.isConnected && !this.#connection.isSettled) {
      const { promise: soon, resolve } = Promise.withResolvers<boolean>();
      this.#clock.after(ackPollMs, () => resolve(true));
      if (!(await Promise.race([soon, timeUp.then(() => false)]))) break;
    }
    timer.cancel();
    for (const flow of this.#flows.values()) flow.end();
    this.#connection.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

const ackPollMs = 10;

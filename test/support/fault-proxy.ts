/**
 * A way to a server that misbehaves on demand: delays with jitter, stalls, resets, cut links, and
 * connections of which one end is gone and the other does not know. Seeded: the same seed draws the
 * same delays.
 */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { sequence } from "../../src/base/index.ts";

/** One direction of one connection: bytes leave in order, each piece when its delay is over. */
class Pipe {
  readonly #proxy: FaultProxy;
  readonly #to: Socket;
  readonly #held: { readonly piece: Buffer; readonly atMs: number }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(proxy: FaultProxy, from: Socket, to: Socket) {
    this.#proxy = proxy;
    this.#to = to;
    from.on("data", (piece: Buffer) => this.#carry(piece));
  }

  #carry(piece: Buffer): void {
    const delayMs = this.#proxy.drawDelayMs();
    this.#held.push({ piece, atMs: performance.now() + delayMs });
    this.flush();
  }

  /** What is due goes on, in order; while the link is cut it waits, as what TCP sends again. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#proxy.isCut) return;
    for (let first = this.#held[0]; first !== undefined; first = this.#held[0]) {
      const inMs = first.atMs - performance.now();
      if (inMs > 0) {
        this.#timer = setTimeout(() => this.flush(), inMs);
        return;
      }
      this.#held.shift();
      if (!this.#to.destroyed) this.#to.write(first.piece);
    }
  }
}

export class FaultProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #draw: () => number;
  readonly #pairs = new Set<{ readonly near: Socket; readonly far: Socket }>();
  readonly #pipes = new Set<Pipe>();
  /** Each piece is late by 0 to this much. */
  jitterMs = 0;
  /** Each of the next connections breaks after so many bytes from the client. */
  breakAfterBytes: number[] = [];
  /** Nothing goes through, in either direction, and nobody is told. */
  isCut = false;

  static async open(url: string, seed: number): Promise<FaultProxy> {
    const proxy = new FaultProxy(url, seed);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  private constructor(url: string, seed: number) {
    const { hostname: host, port } = new URL(url);
    this.#target = { host, port: Number(port) };
    this.#draw = sequence(seed);
    this.#server = createServer((near) => this.#join(near));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  drawDelayMs(): number {
    return this.jitterMs === 0 ? 0 : this.#draw() * this.jitterMs;
  }

  #join(near: Socket): void {
    const far = connect(this.#target);
    const pair = { near, far };
    const breakAt = this.breakAfterBytes.shift() ?? Infinity;
    near.on("data", () => {
      if (near.bytesRead > breakAt) near.destroy();
    });
    this.#pairs.add(pair);
    const pipes = [new Pipe(this, near, far), new Pipe(this, far, near)];
    for (const pipe of pipes) this.#pipes.add(pipe);
    const leave = (): void => {
      for (const pipe of pipes) this.#pipes.delete(pipe);
      this.#pairs.delete(pair);
    };
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      socket.on("error", () => undefined);
      socket.on("close", () => {
        // While the link is cut the other end does not hear of it.
        if (this.isCut) return;
        other.destroy();
        leave();
      });
    }
  }

  cut(): void {
    this.isCut = true;
  }

  /** What was sent meanwhile arrives; an end whose other end has gone hears of it. */
  mend(): void {
    this.isCut = false;
    for (const { near, far } of this.#pairs) {
      if (near.destroyed) far.destroy();
      if (far.destroyed) near.destroy();
    }
    for (const pipe of this.#pipes) pipe.flush();
  }

  /** Every connection ends at once, at both ends. */
  reset(): void {
    for (const { near, far } of this.#pairs) {
      near.resetAndDestroy();
      far.resetAndDestroy();
    }
  }

  /** The server's ends are gone, and the clients' ends stay open and silent. */
  halfOpen(): void {
    for (const { near, far } of this.#pairs) {
      far.removeAllListeners("close");
      far.destroy();
      near.removeAllListeners("data");
      near.resume();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
    this.#server.close();
    await once(this.#server, "close");
  }
}

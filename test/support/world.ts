/** An open instance on virtual time, over any engine. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Engine } from "../../src/engines/index.ts";
import { memory } from "../../src/engines/memory/index.ts";
import { sqlite } from "../../src/engines/sqlite/index.ts";
import { openSpillway } from "../../src/spillway.ts";
import type { OpenDeps, Spillway } from "../../src/spillway.ts";
import { VirtualClock } from "./virtual-clock.ts";

export type EngineName = "memory" | "sqlite";
export const engineNames: readonly EngineName[] = ["memory", "sqlite"];

/** Counts the calls that are on their way, so that virtual time waits for them. */
class Calls {
  pending = 0;

  watch<T extends object>(of: T, around: Around = (_method, _args, call) => call()): T {
    return new Proxy(of, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target);
        if (name === "meta") return this.watch(value as object);
        if (typeof value !== "function") return value;
        return (...args: unknown[]): unknown => {
          const call = (): unknown => Reflect.apply(value, target, args);
          const result = typeof name === "string" ? around(name, args, call) : call();
          if (result instanceof Promise) {
            this.pending++;
            const end = (): void => {
              this.pending--;
            };
            result.then(end, end);
          }
          return result;
        };
      },
    });
  }
}

/** Runs around each call of the engine: to look at it, hold it, or fail it. */
type Around = (method: string, args: readonly unknown[], call: () => unknown) => unknown;

export interface WorldOptions {
  readonly seed?: number;
  readonly drainMaxMs?: number;
  readonly around?: Around;
  readonly engine?: Engine;
  readonly links?: OpenDeps["links"];
}

export class World implements AsyncDisposable {
  readonly clock: VirtualClock;
  readonly engine: Engine;
  /** Of the embedded store. */
  readonly dir: string | undefined;
  spillway!: Spillway;
  readonly #calls = new Calls();
  readonly #options: WorldOptions;

  private constructor(name: EngineName, options: WorldOptions) {
    this.dir = name === "sqlite" ? mkdtempSync(join(tmpdir(), "spillway-test-")) : undefined;
    const own = this.dir === undefined ? memory() : sqlite({ dir: this.dir, reserveBytes: 65_536 });
    this.engine = this.#calls.watch(options.engine ?? own, options.around);
    this.clock = new VirtualClock(() => this.#calls.pending > 0);
    this.#options = options;
  }

  static async open(name: EngineName, options: WorldOptions = {}): Promise<World> {
    const world = new World(name, options);
    await world.open();
    return world;
  }

  async open(): Promise<void> {
    const { seed = 1, drainMaxMs = 1000, links } = this.#options;
    this.spillway = await openSpillway(
      { engine: this.engine, drainMaxMs },
      { clock: this.clock, seed, ...(links === undefined ? {} : { links }) },
    );
  }

  close(): Promise<void> {
    return this.clock.run(this.spillway.close());
  }

  async reopen(): Promise<void> {
    await this.close();
    await this.open();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    if (this.dir !== undefined) rmSync(this.dir, { recursive: true, force: true });
  }
}

/** A handler that is held until the test says how it ends. */
export function gate(): { promise: Promise<void>; open: () => void; fail: (error: Error) => void } {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  return { promise, open: resolve, fail: reject };
}

/** What a promise rejects with; fails when it does not. */
export async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  const outcome = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  if ("error" in outcome) return outcome.error;
  throw new Error(`it resolved: ${JSON.stringify(outcome.value)}`);
}

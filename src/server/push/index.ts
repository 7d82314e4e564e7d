/** push: flows whose contract has `deliver`, delivered to HTTP endpoints. `docs/push.md` says what is sent. */
import type { Flow } from "../../spillway.ts";
import { Addresses, destinationOf } from "./addresses.ts";
import { FlowPush } from "./flow-push.ts";
import { Pool, systemResolve } from "./pool.ts";
import type { PoolDeps } from "./pool.ts";

/**
 * All pushes of a server. Close the flows first: what is on its way then ends within their limit, and is
 * cut here.
 */
export class Pusher implements Disposable {
  readonly #pushes: FlowPush[] = [];
  /** Flows of one target share the connections to an origin, if they allow the same addresses. */
  readonly #pools = new Map<string, Pool>();

  /**
   * Checks contracts and reads secrets; nothing is sent before `start`.
   * @param flows Those without `deliver` are passed over.
   * @throws {SpillwayError} target_refused, contract_invalid, config_invalid: a secret
   */
  constructor(flows: Iterable<Flow<Uint8Array>>, deps: Partial<PoolDeps> = {}) {
    for (const flow of flows) {
      const { deliver: push, target } = flow.contract;
      if (push === undefined) continue;
      const { allow, connectTimeoutMs } = push;
      const addresses = new Addresses(allow);
      const destination = destinationOf(flow.name, push, addresses);
      const { isTls, host, port } = destination;
      const name = JSON.stringify([target, isTls, host, port, allow, connectTimeoutMs]);
      const options = { destination, addresses, connectTimeoutMs };
      const pool = this.#pools.get(name) ?? new Pool(options, { resolve: systemResolve, ...deps });
      this.#pools.set(name, pool);
      this.#pushes.push(new FlowPush({ flow, push, destination, pool }));
    }
  }

  start(): void {
    for (const push of this.#pushes) push.start();
  }

  /**
   * Reads all secrets again, for a rotation without a restart.
   * @throws {SpillwayError} config_invalid: one cannot be read; all stay as they were.
   */
  reload(): void {
    const keys = this.#pushes.map((push) => push.readKeys());
    for (const [at, push] of this.#pushes.entries()) push.useKeys(keys[at]!);
  }

  [Symbol.dispose](): void {
    for (const push of this.#pushes) push[Symbol.dispose]();
    for (const pool of this.#pools.values()) pool[Symbol.dispose]();
  }
}

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

  readonly #deps: Partial<PoolDeps>;
  #isStarted = false;

  constructor(deps: Partial<PoolDeps> = {}) {
    this.#deps = deps;
  }

  /**
   * Checks the flow's contract and reads its secrets; one without `deliver` is passed over. Nothing is
   * sent before `start`.
   * @throws {SpillwayError} target_refused, contract_invalid, config_invalid: a secret
   */
  add(flow: Flow<Uint8Array>): void {
    const { deliver: push, target } = flow.contract;
    if (push === undefined) return;
    const { allow, connectTimeoutMs } = push;
    const addresses = new Addresses(allow);
    const destination = destinationOf(flow.name, push, addresses);
    const { isTls, host, port } = destination;
    const name = JSON.stringify([target, isTls, host, port, allow, connectTimeoutMs]);
    const options = { destination, addresses, connectTimeoutMs };
    const deps = { resolve: systemResolve, ...this.#deps };
    const pool = this.#pools.get(name) ?? new Pool(options, deps);
    this.#pools.set(name, pool);
    const flowPush = new FlowPush({ flow, push, destination, pool });
    this.#pushes.push(flowPush);
    if (this.#isStarted) flowPush.start();
  }

  start(): void {
    this.#isStarted = true;
    for (const push of this.#pushes) push.start();
  }

  /**
   * Reads all secrets again, for a rotation without a restart.
   * @returns What puts them into use.
   * @throws {SpillwayError} config_invalid: one cannot be read; all stay as they were.
   */
  prepare(): () => void {
    const keys = this.#pushes.map((push) => [push, push.readKeys()] as const);
    return () => {
      for (const [push, own] of keys) push.useKeys(own);
    };
  }

  [Symbol.dispose](): void {
    for (const push of this.#pushes) push[Symbol.dispose]();
    for (const pool of this.#pools.values()) pool[Symbol.dispose]();
  }
}

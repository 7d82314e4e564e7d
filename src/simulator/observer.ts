/** Who watches: counters and windows as snapshots, invariants as they go, and what is left at the end. */
import type { Cluster } from "./cluster.ts";
import { mainName, nextContract, nextName } from "./process.ts";
import type { Process } from "./process.ts";
import type { Store } from "./store.ts";
import type { World } from "./world.ts";

const everyMs = 250;

export class Observer {
  readonly #world: World;
  readonly #store: Store;
  readonly #cluster: Cluster;
  /** A limit that was lowered counts once what was taken in under the one before is stored. */
  #limitMessages: number;

  constructor(world: World, store: Store, cluster: Cluster) {
    this.#world = world;
    this.#store = store;
    this.#cluster = cluster;
    this.#limitMessages = cluster.limit.messages;
    store.onChanged = (flow) => this.#changed(flow);
  }

  start(): void {
    this.snapshot(mainName, false);
    this.snapshot(nextName, false);
    this.#world.time.after(everyMs, () => this.start());
  }

  #changed(flow: string): void {
    const { pending, bytes } = this.#store.countersOf(flow);
    const limit = this.#limitOf(flow);
    if (pending > limit.messages || bytes > limit.bytes) this.snapshot(flow, false);
    if (pending === limit.messages)
      this.#world.sometimes("the buffer was full to the last message");
  }

  #limitOf(flow: string): { messages: number; bytes: number } {
    if (flow === nextName) return { messages: nextContract.buffer.messages, bytes: 2 * 1024 ** 3 };
    const limits = [...this.#cluster.processes].map(({ main }) => main.contract.buffer.messages);
    const messages = limits.length === 0 ? this.#cluster.limit.messages : Math.max(...limits);
    if (messages > this.#limitMessages) this.#limitMessages = messages;
    else if (messages < this.#limitMessages && this.#isWritten()) {
      this.#tell(flow, { ...this.#cluster.limit, messages: this.#limitMessages }, false);
      this.#limitMessages = messages;
    }
    return { messages: this.#limitMessages, bytes: this.#cluster.limit.bytes };
  }

  #isWritten(): boolean {
    if (this.#store.writesOut > 0) return false;
    for (const { main } of this.#cluster.processes) {
      const { depth, counters } = main.state();
      if (depth !== counters.pending) return false;
    }
    return true;
  }

  snapshot(flow: string, quiescent: boolean): void {
    this.#tell(flow, this.#limitOf(flow), quiescent);
  }

  #tell(flow: string, limit: { messages: number; bytes: number }, quiescent: boolean): void {
    this.#world.record({
      kind: "snapshot",
      flow,
      ...this.#store.countersOf(flow),
      limitMessages: limit.messages,
      limitBytes: limit.bytes,
      ...(quiescent ? { quiescent } : {}),
    });
  }

  /** All that is to end has ended. */
  isDone(): boolean {
    const process = this.#cluster.active;
    if (process?.isOpen !== true || process.life.isHung) return false;
    if (this.#cluster.processes.size > 1) return false;
    if (process.sends.open.length > 0 || process.openAsks > 0) return false;
    if (this.#store.writesOut > 0) return false;
    return [mainName, nextName].every((flow) => this.#store.countersOf(flow).pending === 0);
  }

  /** What the machines believe of the store is what it holds, and nothing is held back. */
  atRest(process: Process): void {
    for (const flow of [process.main, process.next]) {
      const { counters, depth, bytes, inFlight, prepared, producer } = flow.state();
      const stored = this.#store.countersOf(flow.name);
      const differs = JSON.stringify(counters) !== JSON.stringify(stored);
      if (differs || depth !== stored.pending || bytes !== stored.bytes) {
        this.#world.broke(
          "M1.rest",
          `${flow.name} believes ${JSON.stringify({ ...counters, depth, bytes })}, ` +
            `the store has ${JSON.stringify(stored)}`,
        );
      }
      if (stored.pending === 0 && inFlight + prepared + producer.waiting > 0) {
        this.#world.broke(
          "M2.rest",
          `${flow.name}: ${inFlight} in flight, ${prepared} prepared, ${producer.waiting} wait`,
        );
      }
    }
  }

  /** Each message that did not end is told with the reason for which it waits (G11). */
  async waiting(process: Process): Promise<void> {
    for (const flow of [process.main, process.next]) {
      for (const id of this.#store.pendingOf(flow.name)) {
        const reason = await flow.why(id).catch(() => undefined);
        const untilMs = reason?.untilMs;
        this.#world.record({
          kind: "waiting",
          id,
          reason: reason === undefined ? "" : `${reason.reason}: ${reason.text}`,
          nextEventAt: untilMs === undefined ? null : process.clock.virtualMs(untilMs),
        });
      }
    }
  }

  /** An ack and the message that it led to are one write: neither is there without the other. */
  forwards(): void {
    const stored = this.#store.opsOf(nextName);
    const acked = new Set<string>();
    for (const event of this.#world.history) {
      if (event.kind === "terminal" && event.end === "acked") acked.add(event.id);
    }
    const byForward = new Set<string>();
    for (const [op, id] of this.#world.forwards) {
      if (!stored.has(op)) continue;
      byForward.add(id);
      if (acked.has(id)) continue;
      this.#world.broke("G1.joint", `${op} is stored, yet ${id}, of which it came, is not acked`);
    }
    for (const id of this.#world.forwards.values()) {
      if (!acked.has(id) || byForward.has(id) || this.#world.plainAcks.has(id)) continue;
      this.#world.broke("G1.joint", `${id} is acked by its forward, which is not stored`);
    }
  }
}

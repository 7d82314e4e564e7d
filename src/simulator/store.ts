/**
 * The simulated store: the memory engine behind a disk that takes time and has faults. Each process has
 * a connection of its own; what was asked for by a process that died may still happen, once.
 *
 * S1  A call does its work at one instant between its request and its answer; what it read may be old
 *     when the answer comes.
 * S2  The ledger knows of each message what the store made of it, by the writes that were done (E10):
 *     it tells the history of every end, redrive and claim at its own time.
 */
import { SpillwayError } from "../base/index.ts";
import type {
  ClaimResult,
  Counters,
  Engine,
  MetaStore,
  OwnerInfo,
  PartitionRef,
  PartitionWrite,
  WriteResult,
} from "../engines/index.ts";
import { memory } from "../engines/memory/index.ts";
import type { Draw } from "./draw.ts";
import type { Life } from "./time.ts";
import type { World } from "./world.ts";

const decoder = new TextDecoder();
const noCounters: Counters = {
  accepted: 0,
  acked: 0,
  dead: 0,
  discarded: 0,
  pending: 0,
  bytes: 0,
};

export class Store {
  readonly #world: World;
  readonly #inner: Engine;
  readonly #draw: Draw;
  readonly #states = new Map<string, "pending" | "dead" | "ended">();
  /** By flow: the sends of the messages that were stored. */
  readonly #ops = new Map<string, Set<string>>();
  readonly #lastWrites = new Map<string, string>();
  readonly #deadlines = new Map<string, number>();
  readonly #fences = new Map<string, number>();
  readonly #counters = new Map<string, Counters>();
  readonly #leases = new Map<string, { readonly life: Life; readonly untilMs: number }>();
  /** Calls that are to hang, and those that are to fail for good. */
  hangs = 0;
  fails = 0;
  /** Writes asked for and not done or given up yet. */
  writesOut = 0;
  #writes = 0;
  /** Called as a write is about to be done, and when it was: a process may die there. */
  onWrite: (life: Life, count: number, isDone: boolean) => void = () => {};
  onChanged: (flow: string) => void = () => {};
  /** A write of this process hangs: it will never be answered. */
  onHung: (life: Life) => void = () => {};

  constructor(world: World) {
    this.#world = world;
    const random = world.draw("claims");
    this.#inner = memory({ random: () => random.share() });
    this.#draw = world.draw("store");
  }

  async open(): Promise<void> {
    await this.#inner.open();
  }

  /** What the store holds of a flow, by its own counters. */
  countersOf(flow: string): Counters {
    const sum: { -readonly [Field in keyof Counters]: number } = { ...noCounters };
    for (const [name, counters] of this.#counters) {
      if (name.slice(0, name.lastIndexOf("/")) !== flow) continue;
      for (const field of Object.keys(sum) as (keyof Counters)[]) sum[field] += counters[field];
    }
    return sum;
  }

  pendingOf(flow: string): string[] {
    return [...this.#states]
      .filter(([id, state]) => state === "pending" && id.startsWith(`${flow}/`))
      .map(([id]) => id);
  }

  deadlineOf(id: string): number {
    return this.#deadlines.get(id) ?? Infinity;
  }

  /** The sends of a flow that were stored. */
  opsOf(flow: string): ReadonlySet<string> {
    return this.#ops.get(flow) ?? new Set();
  }

  /** @throws {SpillwayError} invariant_broken */
  async audit(): Promise<void> {
    for (const name of this.#counters.keys()) {
      const cut = name.lastIndexOf("/");
      await this.#inner.audit({ flow: name.slice(0, cut), partition: Number(name.slice(cut + 1)) });
    }
  }

  /** A process connects. */
  connect(life: Life): Engine {
    const inner = this.#inner;
    const read = <T>(work: () => Promise<T>): Promise<T> => this.#call(life, "read", work);
    const meta: MetaStore = {
      get: (key) => read(() => inner.meta.get(key)),
      list: (prefix) => read(() => inner.meta.list(prefix)),
      set: (key, value, revision) => read(() => inner.meta.set(key, value, revision)),
      watch: (prefix, signal) => inner.meta.watch(prefix, signal),
    };
    const { nodes } = this.#world.plan;
    return {
      profile: { ...inner.profile, name: "simulated", nodes },
      meta,
      signals: inner.signals,
      open: () => read(async () => {}),
      claim: (ref, owner, leaseMs) =>
        this.#call(life, "claim", () => this.#claim(life, ref, owner, leaseMs)),
      renew: (claim, leaseMs) =>
        this.#call(life, "claim", async () => {
          await inner.renew(claim, leaseMs);
          this.#hold(life, claim.ref, leaseMs);
        }),
      release: (claim) =>
        this.#call(life, "claim", async () => {
          await inner.release(claim);
          if (this.#leases.get(nameOf(claim.ref))?.life === life) {
            this.#leases.delete(nameOf(claim.ref));
          }
        }),
      write: (batch) => this.#call(life, "write", () => this.#write(batch), batch),
      scan: (ref, query) => read(() => inner.scan(ref, query)),
      groups: (ref, lane, after, limit) => read(() => inner.groups(ref, lane, after, limit)),
      due: (ref, untilMs, after, limit) => read(() => inner.due(ref, untilMs, after, limit)),
      keyHeads: (ref, hashes) => read(() => inner.keyHeads(ref, hashes)),
      readKey: (ref, hash, after, limit) => read(() => inner.readKey(ref, hash, after, limit)),
      payloads: (ref, seqs) => read(() => inner.payloads(ref, seqs)),
      list: (ref, shelf, after, limit) => read(() => inner.list(ref, shelf, after, limit)),
      audit: (ref) => read(() => inner.audit(ref)),
      maintain: (claim, nowMs, budgetMs) =>
        this.#call(life, "claim", () => inner.maintain(claim, nowMs, budgetMs)),
      [Symbol.asyncDispose]: async () => {},
    };
  }

  #call<T>(
    life: Life,
    kind: "read" | "write" | "claim",
    work: () => Promise<T>,
    batch: readonly PartitionWrite[] = [],
  ): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const { time } = this.#world;
    const isWrite = kind === "write";
    if (isWrite) this.writesOut++;
    time.after(this.#delayMs(), () => {
      if (isWrite) this.writesOut--;
      const count = isWrite ? ++this.#writes : 0;
      if (isWrite) this.onWrite(life, count, false);
      // The request of a process that died meanwhile may be done all the same.
      if (!life.isAlive && (!isWrite || this.#draw.chance(0.5))) return;
      const fate = this.#fate(kind, batch);
      const done = fate === undefined || fate.isDone ? work() : undefined;
      if (isWrite && done !== undefined) this.onWrite(life, count, true);
      const answer = (give: () => void): void => {
        if (fate?.hangs === true) return this.onHung(life);
        time.after(this.#delayMs(kind === "read"), () => life.pass(give));
      };
      if (fate !== undefined) {
        const { code } = fate;
        done?.catch(() => {});
        answer(() => reject(new SpillwayError(code, { store: "simulated" })));
      } else {
        done!.then(
          (value) => answer(() => resolve(value)),
          (error: unknown) => answer(() => reject(error)),
        );
      }
    });
    return promise;
  }

  #delayMs(isRead = false): number {
    const { plan } = this.#world;
    const slow = this.#world.suffers("slowDisk");
    const stale = isRead ? this.#world.suffers("staleReads") : undefined;
    if (stale !== undefined && this.#draw.chance(0.5)) {
      this.#world.sometimes("a read came back late");
      return this.#draw.log(1, 1 + 1000 * stale.degree);
    }
    const ms = plan.commitMs * (0.3 + this.#draw.share()) * 0.5;
    if (slow === undefined) return ms;
    this.#world.sometimes("the disk was slow");
    return ms * (5 + 200 * slow.degree);
  }

  /** What goes wrong with a call, if something does. */
  #fate(
    kind: "read" | "write" | "claim",
    batch: readonly PartitionWrite[],
  ):
    | {
        code: "outcome_unknown" | "store_unavailable" | "store_full" | "store_failed";
        isDone: boolean;
        hangs?: true;
      }
    | undefined {
    const world = this.#world;
    if (world.isHealing) return undefined;
    if (world.suffers("noDisk") !== undefined) {
      world.sometimes("the store was away");
      return { code: "store_unavailable", isDone: false };
    }
    if (kind !== "write") return undefined;
    if (this.hangs > 0) {
      this.hangs--;
      world.sometimes("a write hung");
      return { code: "outcome_unknown", isDone: this.#draw.chance(0.5), hangs: true };
    }
    if (this.fails > 0) {
      this.fails--;
      world.sometimes("the store failed for good");
      return { code: "store_failed", isDone: this.#draw.chance(0.3) };
    }
    if (
      world.suffers("fullDisk") !== undefined &&
      batch.some((write) => write.appends.length > 0 && !this.#isDone(write)) &&
      batch.every(({ claim }) => this.#fences.get(nameOf(claim.ref)) === claim.fence)
    ) {
      world.sometimes("the store was full");
      return { code: "store_full", isDone: false };
    }
    const unknown = world.suffers("unknownWrites");
    if (unknown !== undefined && this.#draw.chance(0.2 + 0.7 * unknown.degree)) {
      const isDone = this.#draw.chance(0.5);
      world.sometimes(isDone ? "unknown, and done" : "unknown, and not done");
      return { code: "outcome_unknown", isDone };
    }
    return undefined;
  }

  async #claim(
    life: Life,
    ref: PartitionRef,
    owner: OwnerInfo,
    leaseMs: number,
  ): Promise<ClaimResult> {
    const name = nameOf(ref);
    const lease = this.#leases.get(name);
    const nowMs = this.#world.time.nowMs;
    if (lease !== undefined && lease.life !== life && nowMs < lease.untilMs) {
      this.#world.sometimes("a claim was held by another");
      return { kind: "held", by: owner, retryAfterMs: Math.ceil(lease.untilMs - nowMs) };
    }
    const claiming = this.#inner.claim(ref, owner, leaseMs);
    this.#hold(life, ref, leaseMs);
    const result = await claiming;
    if (result.kind !== "claimed") return result;
    const { fence, counters, interrupted } = result.claim;
    life.fences.set(name, fence);
    this.#fences.set(name, fence);
    this.#counters.set(name, counters);
    if (interrupted.length > 0) this.#world.sometimes("a claim found interrupted attempts");
    this.#world.record({
      kind: "claimed",
      flow: ref.flow,
      partition: ref.partition,
      fence,
      node: life.name,
    });
    return result;
  }

  #hold(life: Life, ref: PartitionRef, leaseMs: number): void {
    if (this.#world.plan.nodes !== "many") return;
    this.#leases.set(nameOf(ref), { life, untilMs: this.#world.time.nowMs + leaseMs });
  }

  async #write(batch: readonly PartitionWrite[]): Promise<WriteResult[]> {
    let results: WriteResult[];
    try {
      results = await this.#inner.write(batch);
    } catch (error) {
      if (error instanceof SpillwayError) this.#world.sometimes(`a write ended in ${error.code}`);
      throw error;
    }
    for (const [at, write] of batch.entries()) this.#note(write, results[at]!);
    return results;
  }

  /** S2. */
  #note(write: PartitionWrite, result: WriteResult): void {
    const name = nameOf(write.claim.ref);
    if (this.#isDone(write)) {
      this.#world.sometimes("a write was sent again after it was done");
      return;
    }
    this.#lastWrites.set(name, write.writeId);
    this.#counters.set(name, result.counters);
    for (const change of write.changes) this.#change(`${name}/${change.seq}`, change);
    for (const [at, { kind, seq }] of result.appended.entries()) {
      if (kind === "stored") {
        this.#states.set(`${name}/${seq}`, "pending");
        const { headers, deadlineAtMs } = write.appends[at]!;
        this.#noteOp(write.claim.ref.flow, headers);
        if (deadlineAtMs !== undefined) this.#deadlines.set(`${name}/${seq}`, deadlineAtMs);
      } else
        this.#world.sometimes(kind === "duplicate" ? "a duplicate" : "an idempotency conflict");
    }
    this.onChanged(write.claim.ref.flow);
  }

  /** It is a repeat, which changes nothing more (E17). */
  #isDone({ claim, writeId }: PartitionWrite): boolean {
    return this.#lastWrites.get(nameOf(claim.ref)) === writeId;
  }

  #noteOp(flow: string, headers: Uint8Array): void {
    const { op } = JSON.parse(decoder.decode(headers)) as { op: string };
    const ops = this.#ops.get(flow) ?? new Set();
    this.#ops.set(flow, ops.add(op));
  }

  #change(id: string, change: PartitionWrite["changes"][number]): void {
    const state = this.#states.get(id);
    const record = (end: "acked" | "dead" | "discarded", reason: string): void => {
      this.#states.set(id, end === "dead" ? "dead" : "ended");
      this.#world.record({ kind: "terminal", id, end, reason });
    };
    if (state === "pending") {
      if (change.kind === "ack") record("acked", "acked");
      else if (change.kind === "dead") record("dead", change.reason);
      else if (change.kind === "discard") record("discarded", change.reason);
    } else if (state === "dead") {
      if (change.kind === "discard") record("discarded", change.reason);
      else if (change.kind === "redrive") {
        this.#states.set(id, "pending");
        this.#world.record({ kind: "redriven", id });
        this.#world.sometimes("a dead letter was redriven");
      }
    } else this.#world.sometimes("a change found nothing");
  }
}

function nameOf({ flow, partition }: PartitionRef): string {
  return `${flow}/${partition}`;
}

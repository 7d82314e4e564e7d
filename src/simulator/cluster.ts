/** The processes of a run: started, stalled, killed, taken over and healed as the plan says. */
import type { Operation } from "./plan.ts";
import type { Fault } from "./plan.ts";
import { Process } from "./process.ts";
import type { Store } from "./store.ts";
import { Life } from "./time.ts";
import type { World } from "./world.ts";

/** After this long somebody ends a process whose write hangs. */
const hungMs = 2_000;
const writesExpected = 400;

export class Cluster {
  readonly #world: World;
  readonly #store: Store;
  readonly #processes = new Set<Process>();
  readonly #limit: { messages: number; bytes: number };
  #active: Process | undefined;
  #started = 0;
  #isStarting = false;
  #offsetMaxMs = 0;

  constructor(world: World, store: Store) {
    this.#world = world;
    this.#store = store;
    const { messages, bytes } = world.plan.contract.buffer as { messages: number; bytes: number };
    this.#limit = { messages, bytes };
  }

  /** Where clients go. */
  get active(): Process | undefined {
    const process = this.#active;
    return process === undefined || process.isClosing || process.life.isStalled
      ? undefined
      : process;
  }

  /** Alive, whether it is where clients go or was replaced. */
  get processes(): ReadonlySet<Process> {
    return this.#processes;
  }

  /** The buffer's limit in force. */
  get limit(): { readonly messages: number; readonly bytes: number } {
    return this.#limit;
  }

  start(): void {
    const { faults, operations } = this.#world.plan;
    this.#store.onHung = (life) => {
      life.isHung = true;
      this.#world.time.after(hungMs, () => this.#kill(this.#of(life), 0, 50));
    };
    void this.#open(0);
    for (const fault of faults) this.#plan(fault);
    for (const operation of operations) {
      this.#world.at(operation.atMs, () => void this.#operate(operation));
    }
  }

  async #open(wantedMs: number): Promise<void> {
    if (this.#isStarting) return;
    this.#isStarting = true;
    const world = this.#world;
    // In the end no clock is behind: due times that one ahead has set are not waited for.
    const offsetMs = world.isHealing ? Math.max(wantedMs, this.#offsetMaxMs) : wantedMs;
    const life = new Life(`p${++this.#started}`, world.time);
    if (this.#started > 1) world.record({ kind: "restart", node: life.name });
    if (offsetMs !== 0) world.sometimes("a wall was off");
    this.#offsetMaxMs = Math.max(this.#offsetMaxMs, offsetMs);
    try {
      const process = await Process.start(world, this.#store, life, offsetMs, (stopped) =>
        this.#replace(stopped),
      );
      this.#processes.add(process);
      this.#active = process;
    } catch {
      world.sometimes("a process could not open its store");
      life.end();
      world.time.after(200, () => {
        if (this.#active === undefined) void this.#open(offsetMs);
      });
    } finally {
      this.#isStarting = false;
    }
  }

  /** A partition of it has stopped: it is closed, and another takes its place. */
  #replace(stopped: Process): void {
    if (stopped.isClosing || !stopped.life.isAlive) return;
    this.#world.time.after(50, () => void this.#restart(stopped, stopped.offsetMs));
  }

  async #restart(process: Process, offsetMs: number): Promise<void> {
    if (process.isClosing || !process.life.isAlive) return;
    await process.close();
    this.#gone(process, offsetMs, 20);
  }

  #kill(process: Process | undefined, offsetMs: number, downMs: number): void {
    if (process === undefined || !process.life.isAlive) return;
    process.crash();
    this.#gone(process, offsetMs, downMs);
  }

  #gone(process: Process, offsetMs: number, downMs: number): void {
    this.#processes.delete(process);
    if (this.#active !== process) return;
    this.#active = undefined;
    this.#world.time.after(downMs, () => {
      if (this.#active === undefined) void this.#open(offsetMs);
    });
  }

  #of(life: Life): Process | undefined {
    return [...this.#processes].find((process) => process.life === life);
  }

  // Faults.

  #plan(fault: Fault): void {
    if (fault.kind === "crashBeforeWrite" || fault.kind === "crashAfterWrite") {
      const isAfter = fault.kind === "crashAfterWrite";
      const which = Math.ceil(fault.degree * writesExpected);
      const before = this.#store.onWrite;
      this.#store.onWrite = (life, count, isDone) => {
        before(life, count, isDone);
        if (count !== which || isDone !== isAfter || this.#world.isHealing) return;
        const process = this.#of(life);
        if (process === undefined) return;
        this.#world.sometimes(isAfter ? "a crash right after a write" : "a crash before a write");
        this.#kill(process, fault.jumpMs, fault.forMs);
      };
      return;
    }
    this.#world.at(fault.atMs, () => this.#begin(fault));
  }

  #begin(fault: Fault): void {
    const world = this.#world;
    if (world.isHealing) return;
    const process = this.#active;
    switch (fault.kind) {
      case "crash":
        world.sometimes("a crash");
        return this.#kill(process, fault.jumpMs, fault.forMs);
      case "restart":
        if (process === undefined) return;
        world.sometimes("a restart");
        void this.#restart(process, fault.jumpMs);
        return;
      case "stall":
        return this.#stall(process, fault.forMs);
      case "takeover":
        if (process === undefined || process.isClosing) return;
        world.sometimes("a takeover");
        this.#stall(process, fault.forMs);
        world.time.after(fault.forMs * fault.degree, () => {
          if (!world.isHealing) void this.#open(fault.jumpMs);
        });
        return;
      case "hungDisk":
        this.#store.hangs++;
        return;
      case "failedDisk":
        this.#store.fails++;
        return;
      default:
        world.begin(fault);
    }
  }

  #stall(process: Process | undefined, forMs: number): void {
    if (process === undefined || process.life.isStalled) return;
    this.#world.sometimes("a stall");
    process.life.stall();
    this.#world.time.after(forMs, () => process.life.wake());
  }

  // Operators.

  async #operate({ kind, forMs }: Operation): Promise<void> {
    const process = this.active;
    if (process === undefined || this.#world.isHealing) return;
    const { main } = process;
    const draw = this.#world.draw(`operator ${kind}`);
    const partition = draw.whole(0, main.contract.partitions - 1);
    const later = (undo: (process: Process) => unknown): void => {
      this.#world.time.after(forMs, () => {
        const now = this.active;
        if (now !== undefined && !this.#world.isHealing) void this.#call(async () => undo(now));
      });
    };
    this.#world.sometimes(`operator: ${kind}`);
    switch (kind) {
      case "pause":
        later((now) => now.resume());
        return this.#call(() => process.pause());
      case "pausePartition":
        later((now) => now.resume(partition));
        return this.#call(() => process.pause(partition));
      case "closeIntake":
        later(({ main }) => main.openIntake());
        return this.#call(() => main.closeIntake());
      case "lower": {
        const { messages } = this.#limit;
        const lowered = Math.max(main.contract.partitions, Math.ceil(messages * draw.share()));
        main.change({ buffer: { messages: lowered } });
        later(({ main }) => main.change({ buffer: { messages } }));
        return;
      }
      case "window":
        main.change({ window: { fixed: draw.whole(1, 4), min: 1, max: 32 } });
        return;
      case "redrive":
        later(({ main }) => main.redrive({ max: draw.whole(1, 20) }));
        return this.#call(() => main.redrive());
      case "purge":
        return this.#call(async () => {
          const ids: string[] = [];
          for await (const { id } of main.deadLetters()) if (draw.chance(0.5)) ids.push(id);
          if (ids.length > 0) await main.purge(ids, "not needed");
        });
    }
  }

  /** A call that may fail with its process or its store. */
  async #call(call: () => Promise<unknown>): Promise<void> {
    await call().catch(() => this.#world.sometimes("an operator's call failed"));
  }

  // The end of faults.

  /** Stalls end, one healthy process runs, and what operators did is undone. */
  async heal(): Promise<void> {
    for (const process of this.#processes) if (process.life.isStalled) process.life.wake();
    await this.#world.time.sleep(100);
    for (const process of this.#processes) {
      if (process !== this.#active) await this.#restart(process, 0);
    }
    while (this.#isStarting) await this.#world.time.sleep(50);
    const process = this.#active;
    if (process === undefined) await this.#open(this.#offsetMaxMs);
    else if (process.offsetMs < this.#offsetMaxMs) {
      await this.#restart(process, this.#offsetMaxMs);
    }
    for (;;) {
      while (this.active === undefined) await this.#world.time.sleep(50);
      const healed = this.active;
      await Promise.race([this.#undo(healed), healed.life.ended]);
      if (healed === this.active) return;
    }
  }

  async #undo(process: Process): Promise<void> {
    const { main } = process;
    main.change({ buffer: this.#limit });
    await this.#call(() => process.resume());
    for (let at = 0; at < main.contract.partitions; at++) {
      await this.#call(() => process.resume(at));
    }
    await this.#call(() => main.openIntake());
  }
}

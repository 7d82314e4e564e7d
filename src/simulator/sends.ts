/** The sends of one process that have no answer yet, and how their answers are told. */
import { SpillwayError } from "../base/index.ts";
import type { Receipt } from "../spillway.ts";
import type { Life } from "./time.ts";
import type { World } from "./world.ts";

export class Sends {
  readonly #world: World;
  readonly #life: Life;
  readonly #open = new Map<string, () => void>();

  constructor(world: World, life: Life) {
    this.#world = world;
    this.#life = life;
  }

  get open(): readonly string[] {
    return [...this.#open.keys()];
  }

  /** @param ended Called with its answer, or the end of its process. */
  begin(op: string, ended: () => void): void {
    this.#open.set(op, ended);
  }

  accepted(op: string, { id, duplicate }: Receipt): void {
    if (!this.#end(op)) return;
    const fence = this.#life.fences.get(id.slice(0, id.lastIndexOf("/")));
    this.#world.record({
      kind: "sendResult",
      op,
      outcome: duplicate ? "duplicate" : "accepted",
      id,
      ...(fence === undefined ? {} : { fence }),
    });
  }

  refused(op: string, code: string, retryAfterMs: number | undefined): void {
    if (!this.#end(op)) return;
    this.#world.sometimes(`refused: ${code}`);
    this.#world.record({
      kind: "sendResult",
      op,
      outcome: "refused",
      code,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }

  /** @returns False when its process has ended before. */
  failed(op: string, error: unknown): boolean {
    if (!this.#open.has(op)) return false;
    if (!(error instanceof SpillwayError)) {
      this.#world.broke("G12.refusal", `send ${op} failed with ${String(error)}`);
      this.#unknown(op);
    } else if (error.code === "outcome_unknown") this.#unknown(op);
    else this.refused(op, error.code, error.retryAfterMs);
    return true;
  }

  /** Nobody will hear of it. */
  lose(op: string): void {
    this.#unknown(op);
  }

  /** The process has ended. */
  loseAll(): void {
    for (const op of this.open) this.#unknown(op);
  }

  #unknown(op: string): void {
    if (this.#end(op)) this.#world.record({ kind: "sendResult", op, outcome: "unknown" });
  }

  #end(op: string): boolean {
    const ended = this.#open.get(op);
    if (ended === undefined) return false;
    this.#open.delete(op);
    ended();
    return true;
  }
}

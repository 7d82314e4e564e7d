/** What all who take part in a run share: time, chance, the history, and what was found broken. */
import type { Timer } from "../base/index.ts";
import type { HistoryEvent } from "./history-events.ts";
import { Draw } from "./draw.ts";
import type { Fault, FaultKind, Plan } from "./plan.ts";
import { VirtualTime } from "./time.ts";

type Untimed<E> = E extends unknown ? Omit<E, "t"> : never;

/** What was found broken by those who take part; the judge of histories finds the rest. */
export interface Finding {
  readonly code: string;
  readonly text: string;
  readonly atMs: number;
}

export class World {
  readonly plan: Plan;
  readonly time: VirtualTime = new VirtualTime();
  readonly history: HistoryEvent[] = [];
  readonly findings: Finding[] = [];
  /** How often each rare thing happened. */
  readonly marks: Map<string, number> = new Map();
  /** Faults that last, and when they end. */
  readonly #lasting = new Map<FaultKind, { readonly untilMs: number; readonly fault: Fault }>();
  /** Forwards by their send, and of which delivery. */
  readonly forwards: Map<string, string> = new Map();
  /** Messages for which an ack was asked that belongs to no forward. */
  readonly plainAcks: Set<string> = new Set();
  /** No fault begins or lasts any more. */
  isHealing: boolean = false;

  constructor(plan: Plan) {
    this.plan = plan;
  }

  draw(concern: string): Draw {
    return new Draw(this.plan.seed, concern);
  }

  record(event: Untimed<HistoryEvent>): void {
    this.history.push({ ...event, t: this.time.nowMs });
  }

  /** Something rare, which the runs of many seeds must reach. */
  sometimes(name: string): void {
    this.marks.set(name, (this.marks.get(name) ?? 0) + 1);
  }

  broke(code: string, text: string): void {
    if (this.findings.length < 20) this.findings.push({ code, text, atMs: this.time.nowMs });
  }

  at(atMs: number, call: () => void): Timer {
    return this.time.after(Math.max(0, atMs - this.time.nowMs), call);
  }

  /** A fault lasts from now on. */
  begin(fault: Fault): void {
    this.#lasting.set(fault.kind, { untilMs: this.time.nowMs + fault.forMs, fault });
  }

  /** The fault of this kind that lasts now. */
  suffers(kind: FaultKind): Fault | undefined {
    const lasting = this.#lasting.get(kind);
    if (lasting === undefined || this.isHealing || this.time.nowMs >= lasting.untilMs) return;
    return lasting.fault;
  }
}

/**
 * Which message is next: classes by 16 / 4 / 1, then groups by their weights, then the partitions in
 * turn; inside a source, first ready, first out. After an outage a source is split, and fresh messages
 * get a share of their own (control/recovery).
 *
 * D1  Work-conserving: while any source that may be dispatched has a ready entry, `pick` finds one.
 * D2  A paused partition is passed over and costs the others nothing (G7).
 * D3  Every class and group with work is served within the bound of control/fair (F1, G11).
 *
 * It must not know consumers, credit or time.
 */
import { fair, recovery } from "../control/index.ts";
import type { Recovery, Ring, Side } from "../control/index.ts";
import type { Entry } from "./entry.ts";
import type { Source } from "./sources.ts";
import { Deque } from "../base/index.ts";

const classWeights = [16, 4, 1] as const;
const costBytes = 64 * 1024;

interface Node {
  readonly group: string;
  readonly fresh: Deque<Source>;
  readonly backlog: Deque<Source>;
  /** Chosen and not picked yet: the price asked for must be the price paid. */
  chosen: Side | undefined;
}

interface Lane {
  readonly groups: Ring<Node>;
  readonly nodes: Map<string, Node>;
}

export interface DispatchHost {
  mayDispatch(partition: number): boolean;
  weightOf(group: string): number;
}

export interface Rates {
  readonly arrivalsPerS: number;
  readonly drainPerS: number;
}

export class Dispatch {
  readonly #host: DispatchHost;
  readonly #classes = new fair.Ring<number>();
  readonly #lanes: readonly Lane[] = classWeights.map(() => ({
    groups: new fair.Ring<Node>(),
    nodes: new Map<string, Node>(),
  }));
  readonly recovery: Recovery = recovery.init();
  #rates: Rates = { arrivalsPerS: 0, drainPerS: 0 };
  readonly #priceOfNode = (node: Node): number => {
    const entry = this.#head(node);
    return entry === undefined ? 0 : Math.max(1, entry.cost, entry.bytes / costBytes);
  };
  readonly #priceOfClass = (rank: number): number =>
    this.#lanes[rank]!.groups.peek(this.#priceOfNode) === undefined ? 0 : 1;

  constructor(host: DispatchHost) {
    this.#host = host;
  }

  get hasReady(): boolean {
    return this.#classes.size > 0;
  }

  /** The source has a ready entry. */
  offer(source: Source): void {
    if (source.rotates || source.ready.size === 0 || !this.#host.mayDispatch(source.partition)) {
      return;
    }
    const lane = this.#lanes[source.rank]!;
    let node = lane.nodes.get(source.group);
    if (node === undefined) {
      node = {
        group: source.group,
        fresh: new Deque<Source>(),
        backlog: new Deque<Source>(),
        chosen: undefined,
      };
      lane.nodes.set(source.group, node);
    }
    source.rotates = true;
    (source.isBacklog ? node.backlog : node.fresh).pushBack(source);
    lane.groups.activate(node, this.#host.weightOf(source.group));
    this.#classes.activate(source.rank, classWeights[source.rank]);
  }

  /** Takes the next entry out of its source. */
  pick(rates: Rates): { entry: Entry; source: Source } | undefined {
    this.#rates = rates;
    const rank = this.#classes.next(this.#priceOfClass);
    if (rank === undefined) return undefined;
    const lane = this.#lanes[rank]!;
    const node = lane.groups.next(this.#priceOfNode)!;
    const rotation = node.chosen === "backlog" ? node.backlog : node.fresh;
    node.chosen = undefined;
    const source = rotation.popFront()!;
    const entry = source.ready.popFront()!;
    if (source.ready.size > 0) rotation.pushBack(source);
    else source.rotates = false;
    if (node.fresh.size === 0 && node.backlog.size === 0) {
      lane.groups.deactivate(node);
      lane.nodes.delete(node.group);
    }
    return { entry, source };
  }

  /** The entry that the node would send next; sources that have nothing leave their rotation. */
  #head(node: Node): Entry | undefined {
    if (node.chosen === undefined) {
      this.#clean(node.fresh, false);
      this.#clean(node.backlog, true);
      const { arrivalsPerS, drainPerS } = this.#rates;
      node.chosen = recovery.pick(
        this.recovery,
        node.fresh.size > 0,
        node.backlog.size > 0,
        arrivalsPerS,
        drainPerS,
      );
    } else {
      const ofBacklog = node.chosen === "backlog";
      this.#clean(ofBacklog ? node.backlog : node.fresh, ofBacklog);
    }
    const rotation = node.chosen === "backlog" ? node.backlog : node.fresh;
    const head = rotation.front()?.ready.front();
    if (head !== undefined || node.chosen === undefined) return head;
    node.chosen = undefined; // What was chosen was paused or taken: choose again.
    return this.#head(node);
  }

  #clean(rotation: Deque<Source>, ofBacklog: boolean): void {
    for (let source = rotation.front(); source !== undefined; source = rotation.front()) {
      const isHere = source.isBacklog === ofBacklog; // Else it was split, and rotates with its like.
      if (isHere && source.ready.size > 0 && this.#host.mayDispatch(source.partition)) return;
      if (isHere) source.rotates = false;
      rotation.popFront();
    }
  }
}

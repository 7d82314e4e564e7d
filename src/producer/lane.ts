/**
 * What waits for credit in one class at one stream: a queue for each group, served in turn. So the
 * thousands that one group has waiting stand before its own messages only.
 *
 * It must not know credit, or why a group has to wait.
 */
import { Deque, Line } from "../base/index.ts";
import type { Member } from "../base/index.ts";

export interface Queue<T> extends Member<Queue<T>> {
  /** "" for what has no group. */
  readonly group: string;
  readonly ops: Deque<T>;
}

export class Lane<T extends { readonly draft: { readonly group?: string } }> {
  readonly #queues = new Map<string, Queue<T>>();
  /** In turn. */
  readonly #ring = new Line<Queue<T>>();
  #size = 0;

  /** All that stand in it, those that gave up included. */
  get size(): number {
    return this.#size;
  }

  /** The queue whose turn it is; none is empty. The others follow by `after`. */
  get first(): Queue<T> | undefined {
    return this.#ring.first;
  }

  sizeOf(group: string): number {
    return this.#queues.get(group)?.ops.size ?? 0;
  }

  /** @param first Before the others of its group: it had its place before them. */
  push(op: T, first: boolean): void {
    const { group = "" } = op.draft;
    let queue = this.#queues.get(group);
    if (queue === undefined) {
      queue = { group, ops: new Deque(), before: undefined, after: undefined };
      this.#queues.set(group, queue);
      this.#ring.join(queue);
    }
    if (first) queue.ops.pushFront(op);
    else queue.ops.pushBack(op);
    this.#size++;
  }

  /** Takes the first of a queue away; the queue's next turn comes after the others'. */
  pop(queue: Queue<T>): T {
    const op = queue.ops.popFront()!;
    this.#size--;
    if (queue.ops.size === 0) {
      this.#ring.leave(queue);
      this.#queues.delete(queue.group);
    } else if (this.#ring.size > 1) {
      this.#ring.leave(queue);
      this.#ring.join(queue);
    }
    return op;
  }

  /** Keeps only those that the test passes, each in its place. */
  keep(test: (op: T) => boolean): void {
    for (const queue of this.#ring) {
      for (let left = queue.ops.size; left > 0; left--) {
        const op = queue.ops.popFront()!;
        if (test(op)) queue.ops.pushBack(op);
        else this.#size--;
      }
      if (queue.ops.size > 0) continue;
      this.#ring.leave(queue);
      this.#queues.delete(queue.group);
    }
  }
}

/**
 * The clock of a server: what one turn of the event loop brings from all its connections becomes one
 * batch. With the library's own clock each request would be a batch of one, for Node ends every callback
 * of a socket with its microtasks.
 */
import type { Clock } from "../base/index.ts";
import { systemClock } from "../system-clock.ts";

export interface TurnClock extends Clock {
  /**
   * To be called as requests come: a long turn is more than one batch, so that the store works on the
   * first while the next is read.
   */
  hurry(): void;
}

const batchMs = 0.2;

export function turnClock(): TurnClock {
  let calls: (() => void)[] = [];
  let sinceMs = 0;
  const run = (): void => {
    let at = 0;
    try {
      // What these calls defer belongs to the same turn.
      while (at < calls.length) calls[at++]!();
    } finally {
      calls = calls.slice(at); // None, unless one has thrown.
      if (calls.length > 0) setImmediate(run);
    }
  };
  return {
    ...systemClock,
    defer(call) {
      if (calls.push(call) > 1) return;
      sinceMs = performance.now();
      setImmediate(run);
    },
    hurry() {
      if (calls.length > 0 && performance.now() - sinceMs > batchMs) run();
    },
  };
}

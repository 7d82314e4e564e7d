/**
 * The clock of a server: what one turn of the event loop brings from all its connections becomes one
 * batch. With the library's own clock each request would be a batch of one, for Node ends every callback
 * of a socket with its microtasks. The store's link has to gather by the same clock: an immediate that is
 * set within another waits until all sockets have been read once more.
 */
import type { Clock } from "../base/index.ts";
import { systemClock } from "../system-clock.ts";

export function turnClock(): Clock {
  let calls: (() => void)[] = [];
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
      if (calls.push(call) === 1) setImmediate(run);
    },
  };
}

/**
 * Time as a port. One reading serves all: milliseconds since the epoch, taken from the wall once when
 * the process began and monotonic from there, so that a jump of the wall clock moves no lease, no
 * retry and no rate. Machines never see it: their drivers pass `nowMs` in every event.
 */
export interface Clock {
  /** Milliseconds since the epoch; never falls; may have a fraction. */
  now(): number;
  /** Calls once, `delayMs` from now at the earliest. A cancelled timer never calls. */
  after(delayMs: number, call: () => void): Timer;
  /** Calls when the work at hand is done and before any timer: what one turn brings becomes one batch. */
  defer(call: () => void): void;
}

export interface Timer {
  cancel(): void;
}

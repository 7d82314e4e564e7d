import type { Clock } from "./base/index.ts";

const originMs = performance.timeOrigin;

/** The process's clock: the wall as it was when the process began, monotonic from there. */
export const systemClock: Clock = {
  now: () => originMs + performance.now(),
  after(delayMs, call) {
    const timer = setTimeout(call, Math.min(delayMs, timeoutMaxMs));
    return { cancel: () => clearTimeout(timer) };
  },
  // Browsers refuse to run it as a method.
  defer: (call) => queueMicrotask(call),
};

/** What `setTimeout` can count; a timer that fires early finds nothing due and is set again. */
const timeoutMaxMs = 2 ** 31 - 1;

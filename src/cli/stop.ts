/**
 * Ctrl-C, and what supervisors send: the first asks for a clean end, a second ends at once.
 * `npm run` passes a Ctrl-C on that the terminal has delivered already, so what follows within
 * `echoMs` is the same key press.
 */
import { exitCodes } from "./exit-codes.ts";

const echoMs = 400;
const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface Stop extends Disposable {
  /** Aborts when the command is to end. */
  readonly signal: AbortSignal;
}

export function stopOnSignals(): Stop {
  const controller = new AbortController();
  let askedAtMs = 0;
  const onSignal = (): void => {
    if (!controller.signal.aborted) {
      askedAtMs = performance.now();
      controller.abort();
    } else if (performance.now() - askedAtMs > echoMs) {
      process.exit(exitCodes.interrupted);
    }
  };
  for (const signal of signals) process.on(signal, onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const signal of signals) process.off(signal, onSignal);
    },
  };
}

/**
 * Ctrl-C, and what supervisors send: the first asks for a clean end, a second ends at once.
 * `npm run` passes a Ctrl-C on that the terminal has delivered already, so what follows within
 * `echoMs` is the same key press.
 */
import { exitCodes } from "./exit-codes.ts";

const echoMs = 400;

export interface Stop extends Disposable {
  /** Aborts when the command is to end. */
  readonly signal: AbortSignal;
}

/** @param hangUp What SIGHUP does instead of asking for an end, such as reading a file again. */
export function stopOnSignals(hangUp?: () => void): Stop {
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
  const listeners = [
    ["SIGINT", onSignal],
    ["SIGTERM", onSignal],
    ["SIGHUP", hangUp ?? onSignal],
  ] as const;
  for (const [signal, listener] of listeners) process.on(signal, listener);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const [signal, listener] of listeners) process.off(signal, listener);
    },
  };
}

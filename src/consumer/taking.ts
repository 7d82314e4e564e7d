/** What a user takes messages with: handlers, an iterator, some at a time. One target, one of its flows. */
import type { Clock } from "../base/index.ts";
import type { Delivery } from "./delivery.ts";
import type { Handler, HandlerOptions, TargetDriver } from "./driver.ts";

export interface Consumer extends Disposable {
  /** Takes nothing more; what it has goes on. */
  stop(): void;
}

/** See `Flow.consume`. */
export function consume<T>(
  target: TargetDriver,
  flow: string,
  handler: Handler<T>,
  options: HandlerOptions & { signal?: AbortSignal },
): Consumer {
  const remove = target.handle(flow, handler, options);
  if (isAborted(options.signal)) remove();
  else options.signal?.addEventListener("abort", remove, { once: true });
  return { [Symbol.dispose]: remove, stop: remove };
}

/**
 * See `Flow.deliveries`.
 * @param signals Each ends it. Not one of `AbortSignal.any`: Node holds on to such a signal for ever if
 *   nobody ends the iteration.
 */
export async function* deliveries<T>(
  target: TargetDriver,
  flow: string,
  signals: readonly AbortSignal[],
): AsyncGenerator<Delivery<T>, void> {
  const hasEnded = (): boolean => signals.some(isAborted);
  const come: Delivery<T>[] = [];
  let wake: (() => void) | undefined;
  const puller = target.pull<T>(flow, (delivery) => {
    come.push(delivery);
    wake?.();
  });
  const onAbort = (): void => wake?.();
  for (const signal of signals) signal.addEventListener("abort", onAbort);
  try {
    while (!hasEnded()) {
      puller.ask();
      while (come.length === 0 && !hasEnded()) {
        await new Promise<void>((resolve) => (wake = resolve));
      }
      const delivery = come.shift();
      if (delivery !== undefined) yield delivery;
    }
  } finally {
    for (const signal of signals) signal.removeEventListener("abort", onAbort);
    puller.remove();
    // One that cannot be given back any more, because its lease or the instance ended, is back anyway.
    for (const delivery of come) delivery.release().catch(() => undefined);
  }
}

/** See `Flow.pull`. */
export async function pull<T>(
  target: TargetDriver,
  flow: string,
  clock: Clock,
  options: {
    readonly max: number;
    readonly waitMs: number;
    readonly signals: readonly AbortSignal[];
  },
): Promise<Delivery<T>[]> {
  const { max, waitMs, signals } = options;
  const come: Delivery<T>[] = [];
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  let isOver = false;
  const puller = target.pull<T>(flow, (delivery) => {
    // What comes with the first one, in the same turn, goes along. Too late, it goes back; if its lease has
    // ended by then it is back anyway.
    if (isOver) delivery.release().catch(() => undefined);
    else if (come.push(delivery) === 1) clock.defer(end);
  });
  const timer = clock.after(waitMs, end);
  const onAbort = (): void => end();
  for (const signal of signals) signal.addEventListener("abort", onAbort);
  if (signals.some(isAborted)) end();
  for (let asked = 0; asked < max; asked++) puller.ask();
  await ended;
  isOver = true;
  timer.cancel();
  puller.remove();
  for (const signal of signals) signal.removeEventListener("abort", onAbort);
  return come;
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

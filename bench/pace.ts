/** Open-loop load: messages leave when they are due, whatever happens to those before them. */
import { sleep } from "./store.ts";

/**
 * @param due How many are to have been sent after so many ms.
 * @param send Called once for each, in order.
 */
export async function paced(
  durationMs: number,
  due: (elapsedMs: number) => number,
  send: (at: number) => void,
): Promise<void> {
  const beganMs = performance.now();
  let sent = 0;
  for (;;) {
    const elapsedMs = Math.min(durationMs, performance.now() - beganMs);
    for (const until = due(elapsedMs); sent < until; sent++) send(sent);
    if (elapsedMs >= durationMs) return;
    await sleep(1);
  }
}

export function steady(ratePerS: number): (elapsedMs: number) => number {
  return (elapsedMs) => Math.floor((elapsedMs * ratePerS) / 1000);
}

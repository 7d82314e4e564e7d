/**
 * The reference spike: 800 messages/s for 5 s, 5,000/s for 20 s, then 800/s again for 10 s, into the
 * knee consumer of the demo, which does 1,659/s with 12 calls in progress and 100/s with 64. The
 * buffer is 5 s of work. Producers call `trySend` when a message is due and drop what is refused. The
 * floor is the best that the consumer can do; for comparison, the same with 64 calls at all times.
 */
import { figure } from "./bench.ts";
import type { Bench } from "./bench.ts";
import { inFreshProcess } from "./fresh.ts";
import { Knee } from "./knee.ts";
import { paced } from "./pace.ts";
import { drained, withStore } from "./store.ts";
import { SpillwayError } from "../src/spillway.ts";

const calmPerS = 800;
const spikePerS = 5000;
const calmMs = 5000;
const spikeMs = 20_000;
const afterMs = 10_000;
/** From here to the end of the spike things are to have settled. */
const settledMs = 5000;
const bufferSeconds = 5;
const bestPerS = 1659;

interface Outcome {
  /** Handled and taken per second, from 5 s after the spike began to its end. */
  readonly handledPerS: number;
  readonly acceptedPerS: number;
  readonly depthMax: number;
  readonly lost: number;
  readonly window: number;
}

export const overload: Bench = {
  name: "overload",
  describe: "5,000/s for 20 s into a consumer that does 1,659/s at its best and collapses beyond",
  run: async () => {
    const regulated = await inFreshProcess<Outcome>("overload", { fixed: 0 });
    const fixed = await inFreshProcess<Outcome>("overload", { fixed: 64 });
    const { handledPerS, acceptedPerS, depthMax, lost, window } = regulated;
    return [
      figure(
        { name: "goodput in the spike", value: handledPerS, unit: "/s", floor: bestPerS },
        { of: "ratio", atLeast: 0.95 },
      ),
      figure({
        name: "goodput, 64 at once",
        value: fixed.handledPerS,
        unit: "/s",
        floor: bestPerS,
      }),
      figure(
        { name: "taken in the spike", value: acceptedPerS, unit: "/s", floor: handledPerS },
        { of: "ratio", atLeast: 0.9 },
        { of: "ratio", atMost: 1.1 },
      ),
      figure(
        {
          name: "largest backlog",
          value: depthMax,
          unit: "messages",
          floor: bufferSeconds * bestPerS,
        },
        { of: "ratio", atMost: 1 },
      ),
      figure({ name: "window found", value: window, unit: "calls" }),
      figure({ name: "lost", value: lost, unit: "messages" }, { of: "value", atMost: 0 }),
    ];
  },
};

/** @param options `fixed`: calls in progress at all times; 0: the window is found. */
export function task({ fixed }: { readonly fixed: number }): Promise<Outcome> {
  return withStore(async (spillway) => {
    const flow = spillway.flow<Uint8Array>("overload", {
      payload: "bytes",
      buffer: { seconds: bufferSeconds },
      ...(fixed === 0 ? {} : { window: { fixed } }),
    });
    const knee = new Knee();
    let handled = 0;
    flow.consume(async () => {
      await knee.call();
      handled++;
    });
    await flow.opened();
    const payload = new Uint8Array(256);
    let accepted = 0;
    let depthMax = 0;
    const answers: Promise<void>[] = [];
    const offer = (): void => {
      const sent = flow.trySend(payload);
      if (!(sent instanceof Promise)) return;
      // What had credit may still be refused: the consumer may have become slower meanwhile.
      answers.push(sent.then(() => void accepted++, isRefusal));
    };
    const watch = setInterval(() => {
      depthMax = Math.max(depthMax, flow.state().depth);
    }, 100);
    await paced(calmMs, (ms) => (ms * calmPerS) / 1000, offer);
    await paced(settledMs, (ms) => (ms * spikePerS) / 1000, offer);
    const from = { accepted, handled };
    const measuredMs = spikeMs - settledMs;
    await paced(measuredMs, (ms) => (ms * spikePerS) / 1000, offer);
    const acceptedPerS = ((accepted - from.accepted) * 1000) / measuredMs;
    const handledPerS = ((handled - from.handled) * 1000) / measuredMs;
    const { window } = flow.state().target.window;
    // A collapsed consumer would need minutes for what is left, and that tells nothing new.
    if (fixed === 0) {
      await paced(afterMs, (ms) => (ms * calmPerS) / 1000, offer);
    } else {
      knee.close();
    }
    await Promise.all(answers);
    if (fixed === 0) await drained(flow);
    clearInterval(watch);
    const lost = fixed === 0 ? accepted - handled : 0;
    return { handledPerS, acceptedPerS, depthMax, lost, window };
  });
}

function isRefusal(error: unknown): void {
  if (error instanceof SpillwayError && error.retry === "later") return;
  throw error;
}

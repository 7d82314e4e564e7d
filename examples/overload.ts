/** A producer that is faster than its consumer is held back, and is told why and for how long. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openSpillway } from "../src/spillway.ts";

const dir = await mkdtemp(join(tmpdir(), "spillway-overload-"));
try {
  await using spillway = await openSpillway({ dir });
  const jobs = spillway.flow<number>("jobs", { buffer: { messages: 200 }, window: { max: 8 } });
  jobs.once("blocked", ({ code }) => console.log(`held back: ${code}`));
  let handled = 0;
  jobs.consume(async () => {
    await sleep(2);
    handled++;
  });
  await jobs.opened();
  let refused = 0;
  let code = "";
  const accepted: Promise<unknown>[] = [];
  for (let n = 0; n < 1000; n++) {
    const outcome = jobs.trySend(n);
    if (outcome instanceof Promise) accepted.push(outcome);
    else {
      refused++;
      ({ code } = outcome);
      await jobs.send(n); // Waits for the place that the consumer frees.
    }
    if (jobs.state().depth > 200) throw new Error("the buffer grew past its limit");
  }
  await Promise.all(accepted);
  await jobs.drain();
  console.log(
    `handled ${handled}, told to wait ${refused} times${code === "" ? "" : ` (${code})`}`,
  );
} finally {
  await rm(dir, { recursive: true, force: true });
}

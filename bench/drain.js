/**
 * `drain.js JSON`: opens a filled store with the built package, as those do who installed it, and hands
 * out all that is in it. Plain JavaScript, for what strips types at run time holds memory of its own.
 */
import { openSpillway } from "spillway";

const { dir, messages, contract } = JSON.parse(process.argv[2] ?? "{}");
const beganMs = performance.now();
const spillway = await openSpillway({ dir });
const flow = spillway.flow("backlog", contract);
await flow.opened();
const openMs = performance.now() - beganMs;

let handled = 0;
let firstMs = 0;
let rss = 0;
const watch = setInterval(() => {
  rss = Math.max(rss, process.memoryUsage.rss());
}, 50);
const drainMs = performance.now();
flow.consume(() => {
  if (handled++ === 0) firstMs = performance.now() - beganMs;
});
while (flow.state().depth > 0) {
  await new Promise((resolve) => {
    setTimeout(resolve, 5);
  });
}
const tookMs = performance.now() - drainMs;
clearInterval(watch);
await spillway.close();
if (handled < messages) throw new Error(`${handled} of ${messages} were handled`);
const perS = (messages / tookMs) * 1000;
process.stdout.write(`${JSON.stringify({ openMs, firstMs, rssMb: rss / 1e6, perS })}\n`);

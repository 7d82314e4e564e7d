/**
 * A process that sends and acks without a pause on a store of its own, until it is killed. Prints a line
 * with the ids of each batch once they are accepted. Arguments: the data directory.
 */
import { openSpillway } from "../../src/spillway.ts";

const [dir = ""] = process.argv.slice(2);
const spillway = await openSpillway({ dir });
const flow = spillway.flow<string>("orders", { partitions: 2 });
flow.consume(() => undefined);
const payload = "x".repeat(2000);
for (let sent = 0; ; sent += 20) {
  const values = Array.from({ length: 20 }, (_, at) => `${sent + at} ${payload}`);
  const results = await flow.sendBatch(values, (value) => ({ key: value.slice(0, 1) }));
  const ids = results.flatMap((result) => (result.accepted ? [result.id] : []));
  process.stdout.write(`${ids.join(" ")}\n`);
}

/** A web stream into a flow: the stream is held back with the flow, and a schema checks each value. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { openSpillway } from "../src/spillway.ts";

const Reading = z.object({ sensor: z.string(), celsius: z.number() });

const dir = await mkdtemp(join(tmpdir(), "spillway-stream-"));
try {
  await using spillway = await openSpillway({ dir });
  const readings = spillway.flow("readings", { schema: Reading, buffer: { messages: 500 } });
  let warmest = -Infinity;
  readings.consume(({ celsius }) => {
    warmest = Math.max(warmest, celsius); // Typed by the schema.
  });
  const source = ReadableStream.from(
    Array.from({ length: 2000 }, (_, n) => ({ sensor: `s${n % 7}`, celsius: (n * 37) % 41 })),
  );
  await source.pipeTo(readings.writable(({ sensor }) => ({ key: sensor })));
  await readings.drain();
  console.log(`warmest: ${warmest} degrees`);
} finally {
  await rm(dir, { recursive: true, force: true });
}

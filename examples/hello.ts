/** Send, handle, acknowledge. What is not handled yet is kept over a restart. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSpillway } from "../src/spillway.ts";

const dir = await mkdtemp(join(tmpdir(), "spillway-hello-"));
try {
  {
    await using spillway = await openSpillway({ dir });
    const greetings = spillway.flow<{ name: string }>("greetings");
    const receipt = await greetings.send({ name: "Ada" }, { idempotencyKey: "greet-ada" });
    console.log(`accepted as ${receipt.id}, durability ${receipt.durability}`);
    const again = await greetings.send({ name: "Ada" }, { idempotencyKey: "greet-ada" });
    console.log(`sent again: ${again.id}, duplicate ${again.duplicate}`);
  }
  // The process could have ended here.
  await using spillway = await openSpillway({ dir });
  const greetings = spillway.flow<{ name: string }>("greetings");
  const handled = Promise.withResolvers<void>();
  greetings.on("acked", () => handled.resolve());
  greetings.consume(({ name }, { attempt }) => console.log(`hello ${name}, attempt ${attempt}`));
  await handled.promise;
} finally {
  await rm(dir, { recursive: true, force: true });
}

/** What fails for good ends on the shelf with its reason; once mended, it is brought back. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSpillway } from "../src/spillway.ts";

const dir = await mkdtemp(join(tmpdir(), "spillway-dead-"));
try {
  await using spillway = await openSpillway({ dir });
  const mails = spillway.flow<{ to: string }>("mails", {
    retry: { attempts: 2, delay: ["10ms", "1s"] },
  });
  let mended = false;
  mails.consume(({ to }, delivery) => {
    if (to === "nobody") return delivery.term("there is no such address");
    if (!mended) throw new Error("the relay rejects us");
    return undefined;
  });
  const bothDead = Promise.withResolvers<void>();
  let dead = 0;
  mails.on("dead", () => {
    if (++dead === 2) bothDead.resolve();
  });
  await mails.sendBatch([{ to: "ada" }, { to: "nobody" }]);
  await bothDead.promise;
  const relay: string[] = [];
  for await (const letter of mails.deadLetters()) {
    console.log(`${letter.id}: ${letter.reason}`);
    if (!letter.reason.startsWith("terminated")) relay.push(letter.id);
  }
  mended = true;
  console.log(`brought back: ${await mails.redrive({ ids: relay })}`);
  await mails.drain();
  console.log(JSON.stringify(mails.state().counters));
} finally {
  await rm(dir, { recursive: true, force: true });
}

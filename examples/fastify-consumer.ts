/** A Fastify service that also takes messages: as many at once as it can do, found by its own window. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fastify } from "fastify";
import { connect } from "../src/client/index.ts";
import { parseConfig } from "../src/config/index.ts";
import { Server } from "../src/server/index.ts";

const windowMax = 6;
const dir = await mkdtemp(join(tmpdir(), "spillway-fastify-"));
// Elsewhere: `spillway serve` with a flow in its configuration.
const server = await Server.open(
  parseConfig({
    engine: { kind: "sqlite", dir },
    listen: { port: 0 },
    log: "warn",
    flows: { mails: { window: { max: windowMax } } },
  }),
);

// The service: one process, one connection to the queue, and HTTP for everybody else.
const queue = connect({ url: server.url, name: "mail-service" });
const mails = queue.flow<{ to: string }>("mails");
const app = fastify();
const mailsSent = 300;
let handled = 0;
let inHand = 0;
let inHandPeak = 0;
const halfWay = Promise.withResolvers<void>();
const all = Promise.withResolvers<void>();
app.get("/health", (_request, reply) => {
  const { inFlight, window } = mails.target() ?? { inFlight: 0, window: { limit: 0 } };
  return reply
    .code(queue.isConnected ? 200 : 503)
    .send({ connected: queue.isConnected, handled, inFlight, window: window.limit });
});
app.addHook("onReady", (done) => {
  mails.consume(async ({ to }, { id }) => {
    inHandPeak = Math.max(inHandPeak, ++inHand);
    await deliverMail(to, id);
    inHand--;
    if (++handled === mailsSent / 2) halfWay.resolve();
    if (handled === mailsSent) all.resolve();
  });
  done();
});
app.addHook("onClose", () => queue.close()); // Takes nothing new, lets handlers end, gives back the rest.

async function deliverMail(_to: string, _id: string): Promise<void> {
  await sleep(5); // Idempotent by the message's id, for a message may come twice.
}

try {
  const health = `${await app.listen({ port: 0, host: "127.0.0.1" })}/health`;
  await using producer = connect({ url: server.url });
  const to = Array.from({ length: mailsSent }, (_, n) => ({ to: `customer-${n}@example.com` }));
  const sent = producer.flow<{ to: string }>("mails").sendBatch(to);
  await halfWay.promise;
  console.log("half way:", JSON.stringify(await (await fetch(health)).json()));
  const accepted = (await sent).filter((result) => result.accepted).length;
  await all.promise;
  console.log(`${accepted} accepted at once, ${handled} handled, at most ${inHandPeak} at a time`);
  if (inHandPeak > windowMax) throw new Error("the service was driven over its window");
} finally {
  await app.close();
  await server.close();
  await rm(dir, { recursive: true, force: true });
}

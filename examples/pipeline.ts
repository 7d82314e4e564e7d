/** Two stages: the ack of the first and the message of the second become durable together. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSpillway } from "../src/spillway.ts";

interface Order {
  readonly id: number;
  readonly cents: number;
}

const dir = await mkdtemp(join(tmpdir(), "spillway-pipeline-"));
try {
  await using spillway = await openSpillway({ dir });
  const orders = spillway.flow<Order>("orders");
  const invoices = spillway.flow<{ order: number; total: string }>("invoices");
  orders.consume(async (order, delivery) => {
    const total = `${(order.cents / 100).toFixed(2)} EUR`;
    await orders.forward(delivery, invoices, { order: order.id, total });
  });
  const billed: string[] = [];
  invoices.consume(({ order, total }) => {
    billed.push(`#${order} ${total}`);
  });
  await orders.sendBatch(Array.from({ length: 20 }, (_, id) => ({ id, cents: 995 * (id + 1) })));
  await orders.drain();
  await invoices.drain();
  console.log(`${billed.length} invoices, e.g. ${billed[0]}`);
  const { counters } = invoices.state();
  if (counters.accepted !== 20) throw new Error(`expected 20 invoices, found ${counters.accepted}`);
} finally {
  await rm(dir, { recursive: true, force: true });
}

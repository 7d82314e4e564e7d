/**
 * A transactional outbox: an order and its message are written in one transaction of the application's own
 * database, and a relay sends the rows. It dies at the worst moments, and nothing is lost or doubled.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { connect } from "../src/client/index.ts";
import { parseConfig } from "../src/config/index.ts";
import { Server } from "../src/server/index.ts";

interface Row {
  readonly id: number;
  readonly customer: string;
  readonly payload: string;
}

const orders = 500;
const dir = await mkdtemp(join(tmpdir(), "spillway-outbox-"));
const db = new DatabaseSync(join(dir, "shop.db"));
db.exec(`
  CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, cents INTEGER NOT NULL);
  CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, payload TEXT NOT NULL);
`);

/** Both or none: there is no order without its message, and no message without its order. */
function placeOrder(customer: string, cents: number): void {
  db.exec("BEGIN");
  const { lastInsertRowid: order } = db
    .prepare("INSERT INTO orders (customer, cents) VALUES (?, ?)")
    .run(customer, cents);
  db.prepare("INSERT INTO outbox (customer, payload) VALUES (?, ?)").run(
    customer,
    JSON.stringify({ order: Number(order), cents }),
  );
  db.exec("COMMIT");
}

/** Rows that had been accepted before. */
let sentAgain = 0;

/**
 * Sends what is in the outbox, in order, until it is empty. A row leaves once its message is durable; its id
 * is the idempotency key, so that a row which is sent again, because the relay died between the two, is
 * accepted once.
 * @param diesAfter Rows that are sent before it dies: the last of them are still in the outbox.
 */
async function relay(url: string, diesAfter = Infinity): Promise<void> {
  await using client = connect({ url, name: "outbox-relay" });
  const flow = client.flow("orders");
  const gone = db.prepare("DELETE FROM outbox WHERE id = ?");
  let sent = 0;
  for (;;) {
    const rows = db.prepare("SELECT * FROM outbox ORDER BY id LIMIT 100").all() as unknown as Row[];
    if (rows.length === 0) return;
    const results = await flow.sendBatch(
      rows.map(({ payload }) => JSON.parse(payload) as unknown),
      (_value, at) => ({ key: rows[at]!.customer, idempotencyKey: `outbox-${rows[at]!.id}` }),
    );
    for (const result of results) if (result.accepted && result.duplicate) sentAgain++;
    sent += rows.length;
    if (sent >= diesAfter) throw new Error("the relay dies: sent, and not yet deleted");
    // A row that was refused stays, and is sent again with the next ones.
    results.forEach(({ accepted }, at) => accepted && gone.run(rows[at]!.id));
  }
}

try {
  await using server = await Server.open(
    parseConfig({
      engine: { kind: "sqlite", dir: join(dir, "queue") },
      listen: { port: 0 },
      log: "warn",
      flows: { orders: { partitions: 4 } },
    }),
  );
  for (let n = 0; n < orders; n++) placeOrder(`customer-${n % 20}`, 100 + n);

  let deaths = 0;
  for (const diesAfter of [100, 200, 300]) {
    await relay(server.url, diesAfter).catch(() => deaths++);
  }
  await relay(server.url);

  await using client = connect({ url: server.url });
  const taken: number[] = [];
  for await (const delivery of client.flow<{ order: number }>("orders").deliveries()) {
    taken.push(delivery.value.order);
    await delivery.ack();
    if (taken.length === orders) break;
  }
  const { counters, depth } = server.spillway.flow("orders").state();
  console.log(
    `${orders} orders, the relay died ${deaths} times, ${sentAgain} rows were sent again: ` +
      `${counters.accepted} accepted, ${new Set(taken).size} different ones taken, ${depth} left`,
  );
  const isRight = counters.accepted === orders && new Set(taken).size === orders && depth === 0;
  if (!isRight || sentAgain === 0) throw new Error("lost or doubled");
} finally {
  db.close();
  await rm(dir, { recursive: true, force: true });
}

/** Messages of one customer stay in order, through a retry; other customers do not wait for it. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSpillway } from "../src/spillway.ts";

interface Payment {
  readonly customer: string;
  readonly step: number;
}

const dir = await mkdtemp(join(tmpdir(), "spillway-order-"));
try {
  await using spillway = await openSpillway({ dir });
  const payments = spillway.flow<Payment>("payments", { retry: { delay: ["50ms", "1s"] } });
  const log: string[] = [];
  const done = Promise.withResolvers<void>();
  payments.consume(({ customer, step }, { attempt }) => {
    if (customer === "ada" && step === 1 && attempt === 1) throw new Error("card reader is busy");
    log.push(`${customer}:${step}`);
    if (log.length === 6) done.resolve();
  });
  for (const step of [1, 2, 3]) {
    for (const customer of ["ada", "bob"]) {
      await payments.send({ customer, step }, { key: customer });
    }
  }
  await done.promise;
  console.log(log.join(" "));
  const ofAda = log.filter((entry) => entry.startsWith("ada")).join(" ");
  if (ofAda !== "ada:1 ada:2 ada:3") throw new Error(`out of order: ${ofAda}`);
} finally {
  await rm(dir, { recursive: true, force: true });
}

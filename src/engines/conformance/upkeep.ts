/** Cases of space: E16 giving back, E20 a full store. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Change } from "../engine.ts";
import { contentOf, idempotency, mail, mails, refusal, seqsOf, without } from "./bench.ts";
import type { Bench, Case } from "./bench.ts";

const windowMs = 60_000;
const large = new Uint8Array(64 * 1024);

/** Slices of maintenance until there is no more to do. */
async function maintainAll(bench: Bench): Promise<number> {
  for (let slices = 1; slices <= 2000; slices++) {
    const { more, reclaimedBytes } = await bench.engine.maintain(bench.claim, bench.nowMs, 5);
    ok(reclaimedBytes >= 0);
    if (!more) return slices;
  }
  return Infinity;
}

async function spike(bench: Bench, messages: number): Promise<void> {
  const payload = new Uint8Array(2048).fill(1);
  const untilMs = bench.nowMs + windowMs;
  for (let first = 0; first < messages; first += 250) {
    const appends = Array.from({ length: 250 }, (_, i) =>
      mail({ payload, keyHash: i + 1, idempotency: idempotency(`${first + i}`, untilMs) }),
    );
    await bench.append(...appends);
  }
}

async function settleAll(bench: Bench): Promise<void> {
  const seqs = await bench.ready();
  for (let i = 0; i < seqs.length; i += 500) {
    await bench.change(...seqs.slice(i, i + 500).map((seq): Change => ({ seq, kind: "ack" })));
  }
}

const givingBack: readonly Case[] = [
  {
    name: "E16 after a spike maintenance comes to an end, while writes go on between its slices",
    run: async (bench) => {
      await spike(bench, 2000);
      await settleAll(bench);
      bench.nowMs += windowMs + 1;
      let more = true;
      for (let slices = 0; more && slices < 2000; slices++) {
        ({ more } = await bench.engine.maintain(bench.claim, bench.nowMs, 2));
        if (slices < 5) await bench.append(mail());
      }
      strictEqual(more, false);
      const pending = await bench.ready();
      strictEqual(pending[0], 2001);
      strictEqual((await bench.audit()).pending, pending.length);
      strictEqual(await maintainAll(bench), 1);
    },
  },
  {
    name: "E16 maintenance changes nothing that can be read",
    run: async (bench) => {
      await spike(bench, 250);
      const kinds = ["ack", "started", "ack", "dead", "discard", "ack", "ack"] as const;
      const changes = kinds.map((kind, i) => ({ seq: 3 * i + 1, kind, reason: "r" }));
      await bench.change(...changes);
      const before = await contentOf(bench);
      ok((await maintainAll(bench)) < 2000);
      bench.nowMs += windowMs + 1;
      ok((await maintainAll(bench)) < 2000);
      deepStrictEqual(await contentOf(bench), before);
    },
  },
  {
    name: "E16 the space of a drained spike is given back",
    unless: without("usedBytes", "the harness cannot tell how much space the store takes"),
    run: async (bench) => {
      const usedBytes = bench.harness.usedBytes!.bind(bench.harness);
      await spike(bench, 4000);
      await maintainAll(bench);
      const full = await usedBytes();
      await settleAll(bench);
      bench.nowMs += windowMs + 1;
      ok((await maintainAll(bench)) < 2000, "in a bounded number of slices");
      const empty = await usedBytes();
      ok(empty < full / 4, `${full} bytes when full, ${empty} when drained`);
    },
  },
];

const full: readonly Case[] = [
  {
    name: "E20 a full store refuses appends, takes every settle, and appends again once there is room",
    unless: without("fill", "the harness cannot make the store full"),
    run: async (bench) => {
      const { harness } = bench;
      await bench.append(...mails(6));
      await harness.fill!();
      const appends = [mail({ payload: large })];
      const refused = bench.draft({ appends, changes: [{ seq: 1, kind: "ack" }] });
      await refusal("store_full", bench.engine.write([refused]));
      strictEqual((await bench.audit()).acked, 0);
      await bench.change(...[1, 2, 3, 4, 5, 6].map((seq): Change => ({ seq, kind: "started" })));
      const counters = await bench.change(
        { seq: 1, kind: "ack" },
        { seq: 2, kind: "retry", dueAtMs: bench.nowMs, error: "e" },
        { seq: 3, kind: "dead", reason: "r" },
        { seq: 4, kind: "discard", reason: "r" },
        { seq: 5, kind: "released" },
      );
      deepStrictEqual(
        [counters.acked, counters.dead, counters.discarded, counters.pending],
        [1, 1, 1, 3],
      );
      deepStrictEqual(seqsOf((await bench.takeOver()).interrupted), [6]);
      await bench.change({ seq: 3, kind: "redrive" }, { seq: 6, kind: "ack" });
      deepStrictEqual(await bench.ready(), [2, 3, 5]);
      await refusal("store_full", bench.engine.write([bench.draft({ appends })]));
      await harness.makeRoom!();
      deepStrictEqual(seqsOf(await bench.append(...appends)), [7]);
    },
  },
];

export const upkeep: readonly Case[] = [...givingBack, ...full];

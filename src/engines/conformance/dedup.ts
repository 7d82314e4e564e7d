/** Cases of idempotency ids (E8). */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { Append, AppendResult } from "../engine.ts";
import { idempotency, mail, seqsOf } from "./bench.ts";
import type { Bench, Case } from "./bench.ts";

const windowMs = 1000;
const stored = (seq: number): AppendResult => ({ kind: "stored", seq });
const duplicate = (seq: number): AppendResult => ({ kind: "duplicate", seq });
const conflict = (seq: number): AppendResult => ({ kind: "conflict", seq });

function once(bench: Bench, id: string, content?: string): Append {
  return mail({ idempotency: idempotency(id, bench.nowMs + windowMs, content) });
}

export const deduplication: readonly Case[] = [
  {
    name: "E8 a repeat is a duplicate of the first, or a conflict where the content differs",
    run: async (bench) => {
      deepStrictEqual(await bench.append(mail(), once(bench, "a")), [stored(1), stored(2)]);
      deepStrictEqual(await bench.append(once(bench, "a")), [duplicate(2)]);
      deepStrictEqual(await bench.append(once(bench, "a", "other")), [conflict(2)]);
      deepStrictEqual(await bench.append(once(bench, "b", "other")), [stored(3)]);
      strictEqual((await bench.audit()).pending, 3);
    },
  },
  {
    name: "E8 twice in one batch, too",
    run: async (bench) => {
      const [a, b, other] = [once(bench, "a"), once(bench, "b"), once(bench, "a", "other")];
      const appended = await bench.append(a, b, a, other, mail(), b);
      deepStrictEqual(appended, [
        stored(1),
        stored(2),
        duplicate(1),
        conflict(1),
        stored(3),
        duplicate(2),
      ]);
      deepStrictEqual(await bench.ready(), [1, 2, 3]);
    },
  },
  {
    name: "E8 in two writes sent at once, too",
    run: async (bench) => {
      const drafts = Array.from({ length: 8 }, () => bench.draft({ appends: [once(bench, "a")] }));
      const results = await Promise.all(drafts.map((draft) => bench.engine.write([draft])));
      const appended = results.flat().flatMap((result) => result.appended);
      deepStrictEqual(seqsOf(appended), Array(8).fill(1));
      strictEqual(appended.filter(({ kind }) => kind === "stored").length, 1);
    },
  },
  {
    name: "E8 also after the first one was acked, dead-lettered, discarded, purged or redriven",
    run: async (bench) => {
      const ids = ["ack", "dead", "discard", "purge", "redrive"];
      const appends = ids.map((id) => once(bench, id));
      await bench.append(...appends);
      await bench.change(
        { seq: 1, kind: "ack" },
        { seq: 2, kind: "dead", reason: "r" },
        { seq: 3, kind: "discard", reason: "r" },
        { seq: 4, kind: "dead", reason: "r" },
        { seq: 4, kind: "discard", reason: "r" },
        { seq: 5, kind: "dead", reason: "r" },
        { seq: 5, kind: "redrive" },
      );
      deepStrictEqual(await bench.append(...appends), [1, 2, 3, 4, 5].map(duplicate));
    },
  },
  {
    name: "E8 also after takeover, restart and maintenance",
    run: async (bench) => {
      await bench.append(once(bench, "a"));
      await bench.change({ seq: 1, kind: "ack" });
      await bench.takeOver();
      deepStrictEqual(await bench.append(once(bench, "a")), [duplicate(1)]);
      await bench.reopen();
      await bench.engine.maintain(bench.claim, bench.nowMs, 50);
      deepStrictEqual(await bench.append(once(bench, "a")), [duplicate(1)]);
      deepStrictEqual(await bench.append(once(bench, "a", "other")), [conflict(1)]);
    },
  },
  {
    name: "E8 the window ends after untilMs, with or without maintenance, and a repeat does not prolong it",
    run: async (bench) => {
      await bench.append(once(bench, "a"), once(bench, "b"));
      bench.nowMs += windowMs;
      await bench.engine.maintain(bench.claim, bench.nowMs, 50);
      deepStrictEqual(await bench.append(once(bench, "a")), [duplicate(1)]);
      bench.nowMs += 1;
      deepStrictEqual(await bench.append(once(bench, "a", "other")), [stored(3)]);
      await bench.engine.maintain(bench.claim, bench.nowMs, 50);
      deepStrictEqual(await bench.append(once(bench, "b", "other")), [stored(4)]);
      deepStrictEqual(await bench.append(once(bench, "a", "other")), [duplicate(3)]);
      deepStrictEqual(await bench.append(once(bench, "b")), [conflict(4)]);
    },
  },
  {
    name: "E8 a new window is not ended by the maintenance of the old one",
    run: async (bench) => {
      await bench.append(once(bench, "a"));
      bench.nowMs += windowMs + 1;
      await bench.append(once(bench, "a"));
      bench.nowMs += windowMs;
      await bench.engine.maintain(bench.claim, bench.nowMs, 50);
      deepStrictEqual(await bench.append(once(bench, "a")), [duplicate(2)]);
    },
  },
  {
    name: "E8 ids that differ in one bit are two ids, zero bytes included",
    run: async (bench) => {
      const ids = [0x01, 0x80, 0xfe, 0xff].flatMap((byte) =>
        Array.from({ length: 16 }, (_, i) => new Uint8Array(16).fill(byte, i, i + 1)),
      );
      const appends = [new Uint8Array(16), ...ids].map((id) =>
        mail({
          idempotency: { id, content: new Uint8Array(8), untilMs: bench.nowMs + windowMs },
        }),
      );
      deepStrictEqual(
        seqsOf(await bench.append(...appends)),
        appends.map((_, i) => i + 1),
      );
      const repeated = await bench.append(...appends);
      deepStrictEqual(
        repeated,
        appends.map((_, i) => duplicate(i + 1)),
      );
    },
  },
  {
    name: "E8 ids of one partition mean nothing in another",
    run: async (bench) => {
      const other = await bench.another({ flow: bench.ref.flow, partition: 1 });
      await bench.append(mail(), once(bench, "a"));
      deepStrictEqual(await other.append(once(bench, "a")), [stored(1)]);
      deepStrictEqual(await bench.append(once(bench, "a")), [duplicate(2)]);
    },
  },
];

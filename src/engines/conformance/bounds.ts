/** Cases of what a write may do: E7 bounds, E10 changes that find nothing, the order of changes. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { Change } from "../engine.ts";
import { contentOf, idempotency, mail, mails, refusal, seqsOf } from "./bench.ts";
import type { Case } from "./bench.ts";

const ack = (seq: number): Change => ({ seq, kind: "ack" });

const limits: readonly Case[] = [
  {
    name: "E7 the bound in messages holds to the last one, and the refused write may come again",
    run: async (bench) => {
      const limits = { messages: 5, bytes: 1e9 };
      await bench.write({ appends: mails(5), limits });
      const sixth = bench.draft({ appends: [mail()], limits });
      await refusal("bound_reached", bench.engine.write([sixth]));
      await bench.change(ack(2));
      await bench.engine.write([sixth]);
      deepStrictEqual(await bench.ready(), [1, 3, 4, 5, 6]);
    },
  },
  {
    name: "E7 the bound in bytes counts payload, headers, key and group",
    run: async (bench) => {
      const appends = [
        mail({
          payload: new Uint8Array(100),
          headers: new Uint8Array(10),
          keyHash: 1,
          key: "four",
          group: "six-66",
        }),
      ];
      const { counters } = await bench.write({ appends, limits: { messages: 9, bytes: 120 } });
      strictEqual(counters.bytes, 120);
      const limits = { messages: 9, bytes: 239 };
      await bench.refused("bound_reached", { appends, limits });
      await bench.write({ appends, limits: { messages: 9, bytes: 240 } });
      strictEqual((await bench.change(ack(1))).bytes, 120);
      strictEqual((await bench.audit()).bytes, 120);
    },
  },
  {
    name: "E7 what a write settles makes room for what it appends",
    run: async (bench) => {
      const limits = { messages: 3, bytes: 1e9 };
      await bench.append(...mails(3));
      const changes: Change[] = [
        ack(1),
        { seq: 2, kind: "dead", reason: "r" },
        { seq: 3, kind: "discard", reason: "r" },
        ack(1), // Counts once (E10).
        { seq: 9, kind: "discard", reason: "r" },
      ];
      await bench.refused("bound_reached", { changes, appends: mails(4), limits });
      await bench.write({ changes, appends: mails(3), limits });
      deepStrictEqual(await bench.ready(), [4, 5, 6]);
    },
  },
  {
    name: "E7 what a write redrives is weighed with its appends",
    run: async (bench) => {
      const limits = { messages: 3, bytes: 1e9 };
      await bench.append(...mails(3));
      await bench.change({ seq: 1, kind: "dead", reason: "r" });
      const changes: Change[] = [{ seq: 1, kind: "redrive" }];
      await bench.refused("bound_reached", { changes, appends: [mail()], limits });
      strictEqual((await bench.audit()).dead, 1);
      await bench.write({ changes: [...changes, ack(2)], appends: [mail()], limits });
      deepStrictEqual(await bench.ready(), [1, 3, 4]);
    },
  },
  {
    name: "E7 duplicates are not counted: they pass a full buffer",
    run: async (bench) => {
      const limits = { messages: 2, bytes: 1e9 };
      const known = mail({ idempotency: idempotency("a", bench.nowMs + 1000) });
      await bench.write({ appends: [known, mail()], limits });
      const { appended } = await bench.write({ appends: [known, known], limits });
      const duplicate = { kind: "duplicate", seq: 1 };
      deepStrictEqual(appended, [duplicate, duplicate]);
      await bench.write({ appends: [known], limits: { messages: 0, bytes: 0 } });
      await bench.refused("bound_reached", { appends: [known, mail()], limits });
    },
  },
  {
    name: "E7 settles and redrives alone are never refused",
    run: async (bench) => {
      await bench.append(...mails(4));
      const limits = { messages: 0, bytes: 0 };
      await bench.write({ changes: [{ seq: 1, kind: "started" }], limits });
      await bench.write({ changes: [{ seq: 1, kind: "dead", reason: "r" }, ack(2)], limits });
      const { counters } = await bench.write({ changes: [{ seq: 1, kind: "redrive" }], limits });
      strictEqual(counters.pending, 3);
    },
  },
  {
    name: "a message above the profile's limit is refused with its whole write",
    run: async (bench) => {
      const { maxMessageBytes } = bench.engine.profile;
      if (maxMessageBytes > 64 * 1024 ** 2) return;
      const appends = [mail(), mail({ payload: new Uint8Array(maxMessageBytes + 1) })];
      await bench.refused("message_too_large", { appends });
      strictEqual((await bench.audit()).accepted, 0);
      deepStrictEqual(seqsOf(await bench.append(mail())), [1]);
    },
  },
];

const kinds: readonly Change[] = [
  { seq: 0, kind: "started" },
  { seq: 0, kind: "released", dueAtMs: 1 },
  { seq: 0, kind: "retry", dueAtMs: 1, error: "e" },
  { seq: 0, kind: "ack" },
  { seq: 0, kind: "dead", reason: "r" },
  { seq: 0, kind: "discard", reason: "r" },
  { seq: 0, kind: "redrive" },
];

const idleChanges: readonly Case[] = [
  {
    name: "E10 a change of a seq that never was, or was acked or discarded, does nothing",
    run: async (bench) => {
      await bench.append(...mails(3));
      await bench.change(ack(1), { seq: 2, kind: "discard", reason: "first" });
      const before = await contentOf(bench);
      for (const seq of [1, 2, 4, 77]) {
        for (const change of kinds) await bench.change({ ...change, seq });
      }
      deepStrictEqual(await contentOf(bench), before);
      deepStrictEqual((await bench.takeOver()).interrupted, []);
    },
  },
  {
    name: "E10 a dead letter takes no change but redrive and discard",
    run: async (bench) => {
      await bench.append(mail());
      await bench.change({ seq: 1, kind: "dead", reason: "first" });
      const before = await contentOf(bench);
      for (const change of kinds) {
        if (change.kind === "redrive" || change.kind === "discard") continue;
        await bench.change({ ...change, seq: 1 });
      }
      deepStrictEqual(await contentOf(bench), before);
    },
  },
  {
    name: "E10 settling twice counts once, in one write or in two, and the first one decides",
    run: async (bench) => {
      await bench.append(...mails(2));
      const changes: Change[] = [
        ack(1),
        ack(1),
        { seq: 1, kind: "dead", reason: "late" },
        { seq: 1, kind: "started" },
      ];
      await bench.change(...changes);
      const counters = await bench.change(ack(1));
      strictEqual(counters.acked, 1);
      strictEqual(counters.dead, 0);
      strictEqual(counters.pending, 1);
    },
  },
  {
    name: "E10 a redrive of a pending message does nothing",
    run: async (bench) => {
      await bench.append(mail());
      await bench.change({ seq: 1, kind: "started" });
      const before = await bench.pending(1);
      await bench.change({ seq: 1, kind: "redrive" });
      deepStrictEqual(await bench.pending(1), before);
    },
  },
  {
    name: "changes happen before appends: none meets a message of its own write",
    run: async (bench) => {
      await bench.write({ appends: mails(2), changes: [ack(1), { seq: 2, kind: "started" }] });
      deepStrictEqual(await bench.ready(), [1, 2]);
      strictEqual((await bench.pending(2)).attempts, 0);
    },
  },
  {
    name: "changes of one message happen in their order",
    run: async (bench) => {
      await bench.append(mail());
      const counters = await bench.change(
        { seq: 1, kind: "started" },
        { seq: 1, kind: "dead", reason: "a" },
        { seq: 1, kind: "redrive" },
        { seq: 1, kind: "started" },
        { seq: 1, kind: "retry", dueAtMs: bench.nowMs + 5, error: "b" },
        { seq: 1, kind: "started" },
      );
      strictEqual(counters.pending, 1);
      const { attempts, error, dueAtMs } = await bench.pending(1);
      deepStrictEqual([attempts, error, dueAtMs], [2, "b", bench.nowMs + 5]);
    },
  },
];

export const bounds: readonly Case[] = [...limits, ...idleChanges];

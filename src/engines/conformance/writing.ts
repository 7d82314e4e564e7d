/** Cases of writes: E2 atomicity, E6 numbering, E17 repeats. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { Change } from "../engine.ts";
import {
  contentOf,
  idempotency,
  mail,
  mails,
  noLimits,
  perPartition,
  refusal,
  seqsOf,
} from "./bench.ts";
import type { Case } from "./bench.ts";

const ack = (seq: number): Change => ({ seq, kind: "ack" });
const elsewhere = { flow: "elsewhere", partition: 3 };

const atomicity: readonly Case[] = [
  {
    name: "E2 the changes and the appends of a write happen together",
    run: async (bench) => {
      await bench.append(...mails(3));
      const { appended, counters } = await bench.write({ appends: mails(2), changes: [ack(1)] });
      deepStrictEqual(seqsOf(appended), [4, 5]);
      strictEqual(counters.acked, 1);
      strictEqual(counters.pending, 4);
      deepStrictEqual(await bench.ready(), [2, 3, 4, 5]);
    },
  },
  {
    name: "E2 of a refused write nothing happens, neither its changes nor some of its appends",
    run: async (bench) => {
      await bench.append(...mails(3));
      const before = await contentOf(bench);
      const changes: Change[] = [
        ack(1),
        { seq: 2, kind: "started" },
        { seq: 3, kind: "dead", reason: "r" },
      ];
      const limits = { messages: 3, bytes: 1e9 };
      const repeatable = mail({ idempotency: idempotency("a", bench.nowMs + 1000) });
      await bench.refused("bound_reached", {
        changes,
        appends: [repeatable, ...mails(5)],
        limits,
      });
      deepStrictEqual(await contentOf(bench), before);
      deepStrictEqual((await bench.takeOver()).interrupted, []);
      deepStrictEqual(await bench.append(repeatable), [{ kind: "stored", seq: 4 }]);
    },
  },
  {
    name: "E2 a forward moves a message to another partition in one write",
    unless: perPartition,
    run: async (bench) => {
      const target = await bench.another(elsewhere);
      await bench.append(...mails(2));
      const results = await bench.engine.write([
        bench.draft({ changes: [ack(1)] }),
        target.draft({ appends: [mail()] }),
      ]);
      strictEqual(results[0]?.counters.acked, 1);
      deepStrictEqual(results[1]?.appended, [{ kind: "stored", seq: 1 }]);
      deepStrictEqual(await bench.ready(), [2]);
      deepStrictEqual(await target.ready(), [1]);
      await target.audit();
    },
  },
  {
    name: "E2 a write across partitions fails as a whole when one of them is fenced or full",
    unless: perPartition,
    run: async (bench) => {
      const target = await bench.another(elsewhere);
      await bench.append(...mails(2));
      const limits = { ...noLimits, messages: 0 };
      const here = bench.draft({ changes: [ack(1)], appends: [mail()] });
      const full = target.draft({ appends: [mail()], limits });
      for (const batch of [
        [here, full],
        [full, here],
      ]) {
        await refusal("bound_reached", bench.engine.write(batch));
      }
      const stale = target.draft({ appends: [mail()] });
      await target.takeOver();
      for (const batch of [
        [here, stale],
        [stale, here],
      ]) {
        await refusal("fenced", bench.engine.write(batch));
      }
      deepStrictEqual(await bench.ready(), [1, 2]);
      deepStrictEqual(await target.ready(), []);
      await bench.engine.write([here]);
      deepStrictEqual(await bench.ready(), [2, 3]);
    },
  },
];

const numbering: readonly Case[] = [
  {
    name: "E6 seqs are dense and ascend in the order of the appends, whatever their lanes",
    run: async (bench) => {
      const lanes = ["bulk", "critical", "normal", "critical", "bulk"] as const;
      const appends = lanes.map((lane) => mail({ class: lane }));
      deepStrictEqual(seqsOf(await bench.append(...appends)), [1, 2, 3, 4, 5]);
      await bench.change(ack(5), ack(4));
      deepStrictEqual(seqsOf(await bench.append(...mails(2))), [6, 7]);
      strictEqual((await bench.takeOver()).nextSeq, 8);
      deepStrictEqual(seqsOf(await bench.append(mail())), [8]);
    },
  },
  {
    name: "E6 a duplicate, a conflict and a refused append take no seq",
    run: async (bench) => {
      const known = mail({ idempotency: idempotency("a", bench.nowMs + 1000) });
      const other = mail({ idempotency: idempotency("a", bench.nowMs + 1000, "other") });
      await bench.append(known);
      await bench.refused("bound_reached", {
        appends: mails(2),
        limits: { messages: 1, bytes: 1e9 },
      });
      const appended = await bench.append(mail(), known, other, mail());
      deepStrictEqual(appended, [
        { kind: "stored", seq: 2 },
        { kind: "duplicate", seq: 1 },
        { kind: "conflict", seq: 1 },
        { kind: "stored", seq: 3 },
      ]);
      strictEqual((await bench.audit()).accepted, 3);
    },
  },
  {
    name: "E6 writes sent at once are numbered in the order in which they were sent",
    run: async (bench) => {
      const drafts = Array.from({ length: 20 }, () => bench.draft({ appends: mails(2) }));
      const results = await Promise.all(drafts.map((draft) => bench.engine.write([draft])));
      const seqs = results.flat().flatMap((result) => seqsOf(result.appended));
      deepStrictEqual(
        seqs,
        Array.from({ length: 40 }, (_, i) => i + 1),
      );
    },
  },
];

const repeats: readonly Case[] = [
  {
    name: "E17 a write sent again is applied once and gets the same result",
    run: async (bench) => {
      await bench.append(...mails(2));
      const draft = bench.draft({ appends: mails(2), changes: [ack(1)] });
      const first = await bench.engine.write([draft]);
      deepStrictEqual(await bench.engine.write([draft]), first);
      deepStrictEqual(await bench.engine.write([draft]), first);
      strictEqual((await bench.audit()).accepted, 4);
      deepStrictEqual(seqsOf(await bench.append(mail())), [5]);
    },
  },
  {
    name: "E17 sent twice at once, too",
    run: async (bench) => {
      const draft = bench.draft({ appends: mails(2) });
      const [first, second] = await Promise.all([
        bench.engine.write([draft]),
        bench.engine.write([draft]),
      ]);
      deepStrictEqual(second, first);
      strictEqual((await bench.audit()).accepted, 2);
    },
  },
  {
    name: "E17 sent again by the owner after a restart, too",
    run: async (bench) => {
      const draft = bench.draft({ appends: mails(2) });
      const first = await bench.engine.write([draft]);
      const claim = await bench.reopen();
      deepStrictEqual(await bench.engine.write([{ ...draft, claim }]), first);
      strictEqual((await bench.audit()).accepted, 2);
    },
  },
  {
    name: "E17 another write with the same content is another write",
    run: async (bench) => {
      const draft = bench.draft({ appends: [mail()] });
      await bench.engine.write([draft]);
      await bench.engine.write([{ ...draft, writeId: `${draft.writeId}'` }]);
      strictEqual((await bench.audit()).accepted, 2);
    },
  },
  {
    name: "E17 a repeat is judged by its fence first",
    run: async (bench) => {
      const draft = bench.draft({ appends: [mail()] });
      await bench.engine.write([draft]);
      await bench.takeOver();
      await refusal("fenced", bench.engine.write([draft]));
    },
  },
  {
    name: "E17 across partitions each part is applied once",
    unless: perPartition,
    run: async (bench) => {
      const target = await bench.another(elsewhere);
      const batch = [bench.draft({ appends: [mail()] }), target.draft({ appends: mails(2) })];
      const first = await bench.engine.write(batch);
      deepStrictEqual(await bench.engine.write(batch), first);
      strictEqual((await target.audit()).accepted, 2);
    },
  },
];

export const writing: readonly Case[] = [...atomicity, ...numbering, ...repeats];

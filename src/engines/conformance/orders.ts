/** Cases of the other orders of reading: due times, E13 keys, and what reads cost (E11). */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Seq } from "../../flow/index.ts";
import type { Descriptor, DueCursor } from "../engine.ts";
import { mail, mails, seqsOf, without } from "./bench.ts";
import type { Bench, Case } from "./bench.ts";

const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);

async function walkDue(bench: Bench, untilMs: number, limit: number): Promise<Descriptor[]> {
  const found: Descriptor[] = [];
  let after: DueCursor | null = null;
  for (;;) {
    const page: Descriptor[] = await bench.engine.due(bench.ref, untilMs, after, limit);
    ok(after === null || page[0]?.seq !== after.seq, "a page begins after its cursor");
    found.push(...page);
    const last = page.at(-1);
    if (page.length < limit || last === undefined) return found;
    after = { dueAtMs: last.dueAtMs!, seq: last.seq };
  }
}

const dueTimes: readonly Case[] = [
  {
    name: "due goes by time, then by seq, up to and with its end, in pages of any size",
    run: async (bench) => {
      const { nowMs } = bench;
      const delays = [30, 10, 20, 10, undefined, 30, 0, 10];
      const lanes = ["bulk", "critical", "normal"] as const;
      const appends = delays.map((delayMs, i) => {
        const lane = { class: lanes[i % 3]! };
        return mail(delayMs === undefined ? lane : { ...lane, dueAtMs: nowMs + delayMs });
      });
      await bench.append(...appends);
      for (const limit of [1, 2, 3, 50]) {
        deepStrictEqual(seqsOf(await walkDue(bench, nowMs + 30, limit)), [7, 2, 4, 8, 3, 1, 6]);
        deepStrictEqual(seqsOf(await walkDue(bench, nowMs + 10, limit)), [7, 2, 4, 8]);
        deepStrictEqual(seqsOf(await walkDue(bench, nowMs + 9, limit)), [7]);
        deepStrictEqual(seqsOf(await walkDue(bench, nowMs - 1, limit)), []);
      }
    },
  },
  {
    name: "retry, released and settling move a message in the due order; started leaves it",
    run: async (bench) => {
      const { nowMs } = bench;
      const due = async (): Promise<[Seq, number | undefined][]> =>
        (await walkDue(bench, nowMs + 99, 2)).map(({ seq, dueAtMs }) => [seq, dueAtMs]);
      await bench.append(...mails(3), mail({ dueAtMs: nowMs }));
      await bench.change(...[1, 2, 3, 4].map((seq) => ({ seq, kind: "started" }) as const));
      deepStrictEqual(await due(), [[4, nowMs]]);
      await bench.change(
        { seq: 1, kind: "retry", dueAtMs: nowMs + 9, error: "e" },
        { seq: 2, kind: "released", dueAtMs: nowMs + 5 },
        { seq: 3, kind: "released" },
        { seq: 4, kind: "released" },
      );
      deepStrictEqual(await due(), [
        [2, nowMs + 5],
        [1, nowMs + 9],
      ]);
      await bench.change(
        { seq: 1, kind: "retry", dueAtMs: nowMs + 3, error: "e" },
        { seq: 2, kind: "dead", reason: "r" },
      );
      deepStrictEqual(await due(), [[1, nowMs + 3]]);
      await bench.change({ seq: 1, kind: "ack" }, { seq: 2, kind: "redrive" });
      deepStrictEqual(await due(), []);
      strictEqual((await bench.takeOver()).nextDueAtMs, null);
    },
  },
];

const keys: readonly Case[] = [
  {
    name: "E13 a key's head is its first pending message: ready, delayed, retrying or in flight, in any lane",
    run: async (bench) => {
      const head = async (): Promise<Seq | undefined> =>
        (await bench.engine.keyHeads(bench.ref, [7]))[0];
      await bench.append(
        mail({ keyHash: 7, class: "bulk", dueAtMs: bench.nowMs + 1e6 }),
        mail({ keyHash: 7, class: "critical" }),
        mail({ keyHash: 7 }),
        mail({ keyHash: 7, class: "bulk" }),
      );
      strictEqual(await head(), 1);
      await bench.change({ seq: 1, kind: "discard", reason: "r" }, { seq: 2, kind: "started" });
      strictEqual(await head(), 2);
      await bench.change({ seq: 2, kind: "retry", dueAtMs: bench.nowMs + 1e6, error: "e" });
      strictEqual(await head(), 2);
      await bench.takeOver();
      strictEqual(await head(), 2);
      await bench.change({ seq: 2, kind: "dead", reason: "r" });
      strictEqual(await head(), 3);
      await bench.change({ seq: 3, kind: "ack" });
      strictEqual(await head(), 4);
      await bench.change({ seq: 2, kind: "redrive" });
      strictEqual(await head(), 2);
      await bench.change({ seq: 2, kind: "ack" }, { seq: 4, kind: "ack" });
      strictEqual(await head(), 0);
    },
  },
  {
    name: "E13 heads are told for many keys at once, in the order asked, 0 where there is none",
    run: async (bench) => {
      const large = Number.MAX_SAFE_INTEGER;
      const hashes = [5, large, 5, large - 1, 1];
      await bench.append(...hashes.map((keyHash) => mail({ keyHash })), mail());
      const asked = [large, 2, 5, 1, large - 1, large - 2, 5];
      deepStrictEqual(await bench.engine.keyHeads(bench.ref, asked), [2, 0, 1, 5, 4, 0, 1]);
      deepStrictEqual(await bench.engine.keyHeads(bench.ref, []), []);
      const many = upTo(2000);
      const heads = await bench.engine.keyHeads(bench.ref, many);
      deepStrictEqual([heads.length, heads[0], heads[4], heads[1999]], [2000, 5, 1, 0]);
    },
  },
  {
    name: "E13 readKey pages through a key over all lanes and states, ascending",
    run: async (bench) => {
      const lanes = ["bulk", "normal", "critical"] as const;
      const appends = upTo(12).map((i) =>
        mail({
          class: lanes[i % 3]!,
          keyHash: i % 2 === 0 ? 8 : 9,
          ...(i % 4 === 0 && { dueAtMs: bench.nowMs + 1e6 }),
        }),
      );
      await bench.append(...appends);
      await bench.change({ seq: 6, kind: "started" }, { seq: 10, kind: "ack" });
      const read = async (afterSeq: Seq, limit: number): Promise<Descriptor[]> =>
        bench.engine.readKey(bench.ref, 8, afterSeq, limit);
      const all = await read(0, 50);
      deepStrictEqual(seqsOf(all), [2, 4, 6, 8, 12]);
      deepStrictEqual(
        all.map(({ attempts, keyHash }) => [attempts, keyHash]),
        [0, 0, 1, 0, 0].map((attempts) => [attempts, 8]),
      );
      deepStrictEqual(seqsOf(await read(0, 2)), [2, 4]);
      deepStrictEqual(seqsOf(await read(4, 2)), [6, 8]);
      deepStrictEqual(seqsOf(await read(5, 2)), [6, 8]);
      deepStrictEqual(seqsOf(await read(12, 2)), []);
      deepStrictEqual(await bench.engine.readKey(bench.ref, 77, 0, 5), []);
    },
  },
];

/** Rows read by a page and by a claim, at a backlog of that many messages. */
async function costs(bench: Bench, backlog: number): Promise<number[]> {
  const { engine, ref, nowMs } = bench;
  const rowsRead = bench.harness.rowsRead!.bind(bench.harness);
  while ((await bench.audit()).accepted < backlog) {
    await bench.append(
      ...mails(250, { keyHash: 3, group: "g" }),
      ...mails(250, { dueAtMs: nowMs - 1 }),
    );
  }
  const page = { lane: "normal", afterSeq: backlog >> 1, limit: 10, nowMs } as const;
  const reads = [
    () => bench.takeOver(),
    () => engine.scan(ref, page),
    () => engine.scan(ref, { ...page, group: "g" }),
    () => engine.groups(ref, "normal", null, 10),
    () => engine.due(ref, nowMs, { dueAtMs: nowMs - 1, seq: backlog >> 1 }, 10),
    () => engine.readKey(ref, 3, backlog >> 1, 10),
    () => engine.keyHeads(ref, [3]),
  ];
  const counts: number[] = [];
  for (const read of reads) {
    const before = rowsRead();
    await read();
    counts.push(rowsRead() - before);
  }
  return counts;
}

const scaling: readonly Case[] = [
  {
    name: "E11 claim and every page read no more rows at ten times the backlog",
    unless: without("rowsRead", "the harness does not count the rows that are read"),
    run: async (bench) => {
      const small = await costs(bench, 1000);
      const large = await costs(bench, 10_000);
      for (const [i, rows] of large.entries()) {
        ok(rows <= small[i]! + 20, `read ${i}: ${small[i]} rows at 1,000, ${rows} at 10,000`);
      }
    },
  },
];

export const orders: readonly Case[] = [...dueTimes, ...keys, ...scaling];

/** Cases of reading: E11 pages, E12 scans, groups and due times, E13 keys. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Seq } from "../../flow/index.ts";
import type { Descriptor, DueCursor } from "../engine.ts";
import { mail, mails, seqsOf, without } from "./bench.ts";
import type { Bench, Case } from "./bench.ts";

const upTo = (last: number, first = 1): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

const scans: readonly Case[] = [
  {
    name: "E12 a lane is read in pages from any cursor, ascending, each message once",
    run: async (bench) => {
      await bench.append(...mails(10), ...mails(10, { class: "bulk" }), ...mails(5));
      const normal = [...upTo(10), ...upTo(25, 21)];
      for (const limit of [1, 2, 5, 15, 100]) {
        deepStrictEqual(seqsOf(await bench.lane("normal", limit)), normal);
      }
      deepStrictEqual(seqsOf(await bench.lane("bulk", 3)), upTo(20, 11));
      deepStrictEqual(await bench.lane("critical"), []);
      for (const afterSeq of [0, 3, 9, 10, 15, 24, 25, 99]) {
        const query = { lane: "normal", afterSeq, limit: 4, nowMs: bench.nowMs } as const;
        const expected = normal.filter((seq) => seq > afterSeq).slice(0, 4);
        deepStrictEqual(seqsOf(await bench.engine.scan(bench.ref, query)), expected);
      }
    },
  },
  {
    name: "E12 while others write and settle, a walk meets all that stayed pending once, ascending",
    run: async (bench) => {
      await bench.append(...mails(60));
      const met: Seq[] = [];
      const settled = new Set<Seq>();
      for (let page = 0; page < 100; page++) {
        const query = { lane: "normal", limit: 7, nowMs: bench.nowMs } as const;
        const afterSeq = met.at(-1) ?? 0;
        // The page is read while a write is under way.
        const seqs = [3, 31, 59].map((seq) => seq + page).filter((seq) => seq <= 60);
        const [found] = await Promise.all([
          bench.engine.scan(bench.ref, { ...query, afterSeq }),
          bench.write({
            appends: page < 5 ? mails(3) : [],
            changes: seqs.map((seq) => ({ seq, kind: "ack" })),
          }),
        ]);
        for (const seq of seqs) settled.add(seq);
        met.push(...seqsOf(found));
        if (found.length === 0) break;
      }
      deepStrictEqual(
        met,
        [...new Set(met)].toSorted((a, b) => a - b),
      );
      const stayed = upTo(75).filter((seq) => !settled.has(seq));
      ok(new Set(stayed).isSubsetOf(new Set(met)), "nothing that stayed was passed over");
      deepStrictEqual(await bench.ready(), stayed);
    },
  },
  {
    name: "E12 a delayed message appears when it is due, not a millisecond sooner",
    run: async (bench) => {
      const { nowMs } = bench;
      const due = [nowMs - 5, nowMs, nowMs + 1, nowMs + 2];
      await bench.append(mail(), ...due.map((dueAtMs) => mail({ dueAtMs })));
      deepStrictEqual(await bench.ready(), [1, 2, 3]);
      bench.nowMs += 1;
      deepStrictEqual(await bench.ready(), [1, 2, 3, 4]);
      bench.nowMs += 1;
      deepStrictEqual(await bench.ready(), [1, 2, 3, 4, 5]);
    },
  },
  {
    name: "E12 messages in flight are pending: a scan shows them with their attempt",
    run: async (bench) => {
      await bench.append(...mails(2));
      await bench.change({ seq: 2, kind: "started" });
      deepStrictEqual(
        (await bench.lane("normal")).map(({ attempts }) => attempts),
        [0, 1],
      );
    },
  },
  {
    name: "E12 a redriven message stands at its old place",
    run: async (bench) => {
      await bench.append(...mails(6));
      await bench.change({ seq: 2, kind: "dead", reason: "r" }, { seq: 4, kind: "ack" });
      deepStrictEqual(await bench.ready(), [1, 3, 5, 6]);
      await bench.change({ seq: 2, kind: "redrive" });
      deepStrictEqual(seqsOf(await bench.lane("normal", 2)), [1, 2, 3, 5, 6]);
    },
  },
  {
    name: "E12 a scan by group shows that group only, null the messages without one",
    run: async (bench) => {
      const groups = ["a", undefined, "b", "a", undefined, "ab", ""];
      await bench.append(
        ...groups.map((group) => (group === undefined ? mail() : mail({ group }))),
      );
      await bench.append(mail({ group: "a", class: "bulk" }));
      await bench.append(mail({ group: "a", dueAtMs: bench.nowMs + 1 }));
      const scan = async (group: string | null, afterSeq = 0, limit = 10): Promise<Seq[]> => {
        const query = { lane: "normal", afterSeq, limit, nowMs: bench.nowMs, group } as const;
        return seqsOf(await bench.engine.scan(bench.ref, query));
      };
      deepStrictEqual(await scan("a"), [1, 4]);
      deepStrictEqual(await scan("a", 1), [4]);
      deepStrictEqual(await scan("a", 0, 1), [1]);
      deepStrictEqual(await scan(null), [2, 5]);
      deepStrictEqual(await scan(""), [7]);
      deepStrictEqual(await scan("A"), []);
      deepStrictEqual(await scan("nobody"), []);
      await bench.change({ seq: 1, kind: "ack" });
      bench.nowMs += 1;
      deepStrictEqual(await scan("a"), [4, 9]);
    },
  },
  {
    name: "groups lists each group of a lane that has pending messages, in order, in pages",
    run: async (bench) => {
      const { engine, ref } = bench;
      const names = ["m", "a", "z", "a", "k", "m"];
      await bench.append(...names.map((group) => mail({ group })), mail());
      await bench.append(mail({ group: "bulky", class: "bulk" }));
      await bench.append(mail({ group: "later", dueAtMs: bench.nowMs + 1e6 }));
      deepStrictEqual(await engine.groups(ref, "normal", null, 10), ["a", "k", "later", "m", "z"]);
      deepStrictEqual(await engine.groups(ref, "normal", null, 2), ["a", "k"]);
      deepStrictEqual(await engine.groups(ref, "normal", "k", 2), ["later", "m"]);
      deepStrictEqual(await engine.groups(ref, "normal", "l", 1), ["later"]);
      deepStrictEqual(await engine.groups(ref, "normal", "z", 2), []);
      deepStrictEqual(await engine.groups(ref, "bulk", null, 2), ["bulky"]);
      deepStrictEqual(await engine.groups(ref, "critical", null, 2), []);
      await bench.change(
        { seq: 2, kind: "ack" },
        { seq: 5, kind: "dead", reason: "r" },
        { seq: 3, kind: "started" },
      );
      deepStrictEqual(await engine.groups(ref, "normal", null, 9), ["a", "later", "m", "z"]);
      await bench.change({ seq: 4, kind: "ack" }, { seq: 5, kind: "redrive" });
      deepStrictEqual(await engine.groups(ref, "normal", null, 9), ["k", "later", "m", "z"]);
    },
  },
  {
    name: "a partition that nobody ever claimed reads as empty",
    run: async ({ engine }) => {
      const ref = { flow: "unheard-of", partition: 9 };
      const query = { lane: "normal", afterSeq: 0, limit: 5, nowMs: 0 } as const;
      deepStrictEqual(await engine.scan(ref, query), []);
      deepStrictEqual(await engine.groups(ref, "normal", null, 5), []);
      deepStrictEqual(await engine.due(ref, 1, null, 5), []);
      deepStrictEqual(await engine.keyHeads(ref, [1, 2]), [0, 0]);
      deepStrictEqual(await engine.readKey(ref, 1, 0, 5), []);
      deepStrictEqual(await engine.payloads(ref, [1]), [null]);
      deepStrictEqual(await engine.list(ref, "dead", 0, 5), []);
      strictEqual((await engine.audit(ref)).counters.accepted, 0);
    },
  },
];

async function walkDue(bench: Bench, untilMs: number, limit: number): Promise<Descriptor[]> {
  const found: Descriptor[] = [];
  let after: DueCursor | null = null;
  for (;;) {
    const page: Descriptor[] = await bench.engine.due(bench.ref, untilMs, after, limit);
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

export const reading: readonly Case[] = [...scans, ...dueTimes, ...keys, ...scaling];

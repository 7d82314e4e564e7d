/** Cases of reading lanes: E12 scans, whole or by group, and groups. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Seq } from "../../flow/index.ts";
import { mail, mails, seqsOf } from "./bench.ts";
import type { Case } from "./bench.ts";

const upTo = (last: number, first = 1): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

export const reading: readonly Case[] = [
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
    name: "E12 a long lane with holes, some of them filled again, reads whole in pages of any size",
    run: async (bench) => {
      const count = 2600;
      for (let i = 0; i < count; i += 650) await bench.append(...mails(650, { keyHash: 5 }));
      const holes = Array.from({ length: count / 2 }, (_, i) => 2 * i + 1);
      await bench.change(...holes.map((seq) => ({ seq, kind: "dead", reason: "r" }) as const));
      const filled = holes.filter((_, i) => i % 3 > 0).toReversed();
      await bench.change(...filled.map((seq) => ({ seq, kind: "redrive" }) as const));
      const refilled = new Set(filled);
      const expected = Array.from({ length: count }, (_, i) => i + 1).filter(
        (seq) => seq % 2 === 0 || refilled.has(seq),
      );
      for (const limit of [300, 1000, 1001, 5000]) {
        deepStrictEqual(seqsOf(await bench.lane("normal", limit)), expected);
      }
      const ofKey = await bench.engine.readKey(bench.ref, 5, 0, 5000);
      deepStrictEqual(seqsOf(ofKey), expected);
      deepStrictEqual(
        (await bench.engine.payloads(bench.ref, expected)).map((message) => message?.seq),
        expected,
      );
      const dead = await bench.engine.list(bench.ref, "dead", 0, 5000);
      strictEqual(dead.length, count - expected.length);
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

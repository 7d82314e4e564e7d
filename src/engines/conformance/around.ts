/** Cases of what stands beside the partitions: E18 meta, E19 signals. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import type { MetaEntry, MetaStore } from "../engine.ts";
import { bytesOf, mail, refusal } from "./bench.ts";
import type { Case } from "./bench.ts";

const textOf = (entry: MetaEntry | null | undefined): string | null | undefined =>
  entry?.value && Buffer.from(entry.value).toString();

async function keysOf(meta: MetaStore, prefix: string): Promise<string[]> {
  return (await meta.list(prefix)).map(({ key }) => key).toSorted();
}

const meta: readonly Case[] = [
  {
    name: "E18 meta.set is compare-and-set",
    run: async ({ engine: { meta } }) => {
      strictEqual(await meta.get("policy/a"), null);
      await refusal("revision_conflict", meta.set("policy/a", bytesOf("x"), 1));
      const first = await meta.set("policy/a", bytesOf("one"), 0);
      ok(first > 0);
      await refusal("revision_conflict", meta.set("policy/a", bytesOf("x"), 0));
      await refusal("revision_conflict", meta.set("policy/a", bytesOf("x"), first + 1));
      const entry = await meta.get("policy/a");
      deepStrictEqual([entry?.key, textOf(entry), entry?.revision], ["policy/a", "one", first]);
      const second = await meta.set("policy/a", bytesOf("two"), first);
      ok(second > first);
      await refusal("revision_conflict", meta.set("policy/a", bytesOf("x"), first));
      strictEqual(textOf(await meta.get("policy/a")), "two");
    },
  },
  {
    name: "E18 of many setters at one revision one wins",
    run: async ({ engine: { meta } }) => {
      for (let round = 0; round < 5; round++) {
        const revision = (await meta.get("k"))?.revision ?? 0;
        const race = Array.from({ length: 10 }, (_, i) => meta.set("k", bytesOf(`${i}`), revision));
        const outcomes = await Promise.allSettled(race);
        const winners = outcomes.flatMap(({ status }, i) => (status === "fulfilled" ? [i] : []));
        strictEqual(winners.length, 1);
        strictEqual(textOf(await meta.get("k")), `${winners[0]}`);
      }
    },
  },
  {
    name: "E18 a removed entry is gone; a new one has a revision that none had before",
    run: async (bench) => {
      const { meta } = bench.engine;
      const first = await meta.set("k", bytesOf("one"), 0);
      await refusal("revision_conflict", meta.set("k", null, first + 1));
      const removed = await meta.set("k", null, first);
      ok(removed > first);
      strictEqual(await meta.get("k"), null);
      deepStrictEqual(await meta.list(""), []);
      await refusal("revision_conflict", meta.set("k", bytesOf("x"), first));
      await bench.reopen();
      const again = await bench.engine.meta.set("k", bytesOf("two"), 0);
      ok(again > removed, "an old compare-and-set cannot hit the new entry");
      strictEqual(textOf(await bench.engine.meta.get("k")), "two");
    },
  },
  {
    name: "E18 entries are listed by prefix, taken literally, and survive a restart",
    run: async (bench) => {
      const keys = ["a", "a/1", "a/2", "a_1", "aX1", "A/1", "a%", "b", "é/1", "a/\u{1F511}"];
      for (const key of keys) await bench.engine.meta.set(key, bytesOf(key), 0);
      for (const restart of [false, true]) {
        if (restart) await bench.reopen();
        const { meta } = bench.engine;
        for (const prefix of ["", "a", "a/", "a_", "a%", "A", "é", "a/1", "none"]) {
          const expected = keys.filter((key) => key.startsWith(prefix)).toSorted();
          deepStrictEqual(await keysOf(meta, prefix), expected, `prefix "${prefix}"`);
        }
        for (const entry of await meta.list("")) strictEqual(textOf(entry), entry.key);
      }
    },
  },
  {
    name: "E18 values are bytes: any byte, none at all, and no bytes is not nothing",
    run: async ({ engine: { meta } }) => {
      const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i);
      await meta.set("every", everyByte, 0);
      const revision = await meta.set("empty", new Uint8Array(0), 0);
      deepStrictEqual(Buffer.from((await meta.get("every"))!.value!), Buffer.from(everyByte));
      const empty = await meta.get("empty");
      deepStrictEqual([empty?.value?.length, empty?.revision], [0, revision]);
    },
  },
  {
    name: "E18 a watch misses no last value, sees removals and minds its prefix",
    run: async ({ engine: { meta } }) => {
      const stop = new AbortController();
      const seen: MetaEntry[] = [];
      const watching = (async (): Promise<void> => {
        for await (const entry of meta.watch("w/", stop.signal)) {
          seen.push(entry);
          if (entry.key === "w/end") return;
        }
      })();
      let revision = 0;
      for (let i = 0; i < 100; i++) revision = await meta.set("w/a", bytesOf(`${i}`), revision);
      await meta.set("w/b", bytesOf("b"), 0);
      await meta.set("w", bytesOf("no"), 0);
      await meta.set("x/a", bytesOf("no"), 0);
      const c = await meta.set("w/c", bytesOf("c"), 0);
      await meta.set("w/c", null, c);
      await meta.set("w/end", bytesOf("end"), 0);
      await watching;
      stop.abort();
      ok(seen.every(({ key }) => key.startsWith("w/")));
      const last = (key: string): MetaEntry | undefined => seen.findLast((e) => e.key === key);
      deepStrictEqual([textOf(last("w/a")), last("w/a")?.revision], ["99", revision]);
      strictEqual(textOf(last("w/b")), "b");
      strictEqual(last("w/c")?.value, null);
      const revisions = seen.filter(({ key }) => key === "w/a").map((entry) => entry.revision);
      deepStrictEqual(
        revisions,
        [...new Set(revisions)].toSorted((a, b) => a - b),
      );
    },
  },
  {
    name: "E18 a watch ends with its signal, also one that had ended before",
    run: async ({ engine: { meta } }) => {
      const stop = new AbortController();
      const watching = meta.watch("w/", stop.signal)[Symbol.asyncIterator]();
      const next = watching.next();
      await setTimeout(1);
      stop.abort();
      strictEqual((await next).done, true);
      const late = meta.watch("w/", stop.signal)[Symbol.asyncIterator]();
      strictEqual((await late.next()).done, true);
    },
  },
];

const signals: readonly Case[] = [
  {
    name: "E19 signals reach those who subscribed to their topic, until they stop",
    run: async (bench) => {
      const { signals } = bench.engine;
      const [first, second]: [string[], string[]] = [[], []];
      const subscription = signals.subscribe("t", (body) =>
        first.push(Buffer.from(body).toString()),
      );
      using _ = signals.subscribe("t", (body) => second.push(Buffer.from(body).toString()));
      // They may be lost: publish until one comes.
      const publishUntilHeard = async (text: string): Promise<void> => {
        for (let i = 0; i < 200 && !second.includes(text); i++) {
          signals.publish("other", bytesOf("no"));
          signals.publish("t", bytesOf(text));
          await setTimeout(5);
        }
      };
      await publishUntilHeard("one");
      ok(first.includes("one"));
      subscription[Symbol.dispose]();
      subscription[Symbol.dispose]();
      await publishUntilHeard("two");
      ok(second.includes("two") && !first.includes("two") && !second.includes("no"));
      signals.publish("nobody", new Uint8Array(0));
      await bench.append(mail());
    },
  },
];

export const around: readonly Case[] = [...meta, ...signals];

/** Cases of messages' lives: E1 durability, E9 attempts, E14 conservation. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Change } from "../engine.ts";
import { bytesOf, contentOf, idempotency, mail, mails, plain, seqsOf, without } from "./bench.ts";
import type { Bench, Case, Harness } from "./bench.ts";

const cannotCrash = without("crash", "the harness cannot kill the store");
const forgets = (harness: Harness): string | undefined =>
  harness.engine.profile.durability === "memory"
    ? 'durability "memory": nothing survives the process'
    : cannotCrash(harness);

/** Messages in every state, with everything that a message can carry. */
async function live(bench: Bench): Promise<void> {
  const { nowMs } = bench;
  const untilMs = nowMs + 1e6;
  await bench.append(
    mail({ class: "critical", keyHash: 11, key: "a key", group: "north", cost: 2.5 }),
    mail({ class: "bulk", dueAtMs: nowMs + 500, headers: bytesOf("h: 1") }),
    mail({ deadlineAtMs: nowMs + 900, idempotency: idempotency("live", untilMs) }),
    ...mails(7, { keyHash: 12, group: "south" }),
  );
  bench.nowMs += 10;
  await bench.change(...[3, 4, 5, 6, 7].map((seq) => ({ seq, kind: "started" }) as const));
  await bench.change(
    { seq: 3, kind: "ack" },
    { seq: 4, kind: "retry", dueAtMs: nowMs + 700, error: "it broke" },
    { seq: 5, kind: "dead", reason: "terminated" },
    { seq: 6, kind: "released", dueAtMs: nowMs + 600 },
    { seq: 8, kind: "discard", reason: "expired" },
    { seq: 9, kind: "dead", reason: "expired" },
    { seq: 9, kind: "discard", reason: "purged" },
  );
}

const durability: readonly Case[] = [
  {
    name: "E1 a closed and opened store shows the same content",
    run: async (bench) => {
      await live(bench);
      await bench.change({ seq: 7, kind: "released" });
      const before = await contentOf(bench);
      await bench.reopen();
      deepStrictEqual(await contentOf(bench), before);
    },
  },
  {
    name: "E1 all that resolved is there after a kill",
    unless: forgets,
    run: async (bench) => {
      await live(bench);
      await bench.change({ seq: 7, kind: "released" });
      const before = await contentOf(bench);
      await bench.crash();
      deepStrictEqual(await contentOf(bench), before);
    },
  },
  {
    name: "E1 writes cut off by a kill are there whole or not at all, and all that resolved are",
    unless: forgets,
    run: async (bench) => {
      const resolved: number[] = [];
      const sent = Array.from({ length: 30 }, async () => {
        const { appended } = await bench.write({ appends: mails(3) });
        resolved.push(...seqsOf(appended));
      });
      const outcomes = Promise.allSettled(sent);
      await sent[2];
      const kept = [...resolved];
      await bench.crash();
      const seqs = await bench.ready();
      await outcomes;
      ok(new Set(kept).isSubsetOf(new Set(seqs)), "nothing that resolved is missing");
      strictEqual(seqs.length % 3, 0, "no part of a write is there");
      deepStrictEqual(
        seqs,
        Array.from(seqs, (_, i) => i + 1),
      );
    },
  },
];

async function interruptedBy(bench: Bench, restart: () => Promise<unknown>): Promise<void> {
  await bench.append(...mails(6, { keyHash: 4 }));
  await bench.change(...[5, 1, 2, 3, 4].map((seq) => ({ seq, kind: "started" }) as const));
  await bench.change(
    { seq: 2, kind: "ack" },
    { seq: 3, kind: "released" },
    { seq: 4, kind: "retry", dueAtMs: bench.nowMs, error: "e" },
  );
  await restart();
  const numbers = bench.claim.interrupted.map(({ seq, attempts, crashes }) => [
    seq,
    attempts,
    crashes,
  ]);
  deepStrictEqual(numbers, [
    [1, 1, 1],
    [5, 1, 1],
  ]);
  const lane = await bench.lane("normal");
  const shown = lane.filter(({ crashes }) => crashes > 0);
  deepStrictEqual(bench.claim.interrupted.map(plain), shown.map(plain));
  const numbersAfter = lane.map(({ seq, attempts, crashes }) => [seq, attempts, crashes]);
  deepStrictEqual(numbersAfter, [
    [1, 1, 1],
    [3, 0, 0],
    [4, 1, 0],
    [5, 1, 1],
    [6, 0, 0],
  ]);
}

const attempts: readonly Case[] = [
  {
    name: "E9 what a takeover interrupts counts as an attempt and a crash, once",
    run: async (bench) => {
      await interruptedBy(bench, () => bench.takeOver());
      deepStrictEqual((await bench.takeOver()).interrupted, []);
      await bench.change({ seq: 1, kind: "started" });
      strictEqual((await bench.pending(1)).attempts, 2);
      const [again] = (await bench.takeOver()).interrupted;
      deepStrictEqual([again?.seq, again?.attempts, again?.crashes], [1, 2, 2]);
    },
  },
  {
    name: "E9 also after a restart",
    run: async (bench) => interruptedBy(bench, () => bench.reopen()),
  },
  {
    name: "E9 also after a kill",
    unless: forgets,
    run: async (bench) => interruptedBy(bench, () => bench.crash()),
  },
  {
    name: "E9 an append that is started counts as one attempt, a duplicate of it starts nothing",
    run: async (bench) => {
      const once = mail({ started: true, idempotency: idempotency("a", bench.nowMs + 1000) });
      await bench.append(mail({ started: true }), mail(), once);
      deepStrictEqual(
        [(await bench.pending(1)).attempts, (await bench.pending(2)).attempts],
        [1, 0],
      );
      await bench.change({ seq: 3, kind: "released" });
      await bench.append(once);
      strictEqual((await bench.pending(3)).attempts, 0);
      deepStrictEqual(seqsOf((await bench.takeOver()).interrupted), [1]);
      await bench.change({ seq: 1, kind: "ack" });
      strictEqual(await bench.message(1), null);
    },
  },
  {
    name: "E9 letting go of a partition does not settle what is in flight",
    run: async (bench) => {
      await bench.append(mail());
      await bench.change({ seq: 1, kind: "started" });
      await bench.engine.release(bench.claim);
      deepStrictEqual(seqsOf((await bench.takeOver()).interrupted), [1]);
    },
  },
  {
    name: "attempts: started adds one, released takes it back, retry keeps it",
    run: async (bench) => {
      await bench.append(mail());
      const after = async (...changes: Change[]): Promise<unknown[]> => {
        await bench.change(...changes);
        const { attempts, crashes, error, dueAtMs } = await bench.pending(1);
        return [attempts, crashes, error, dueAtMs];
      };
      const retryAtMs = bench.nowMs + 50;
      deepStrictEqual(await after({ seq: 1, kind: "started" }), [1, 0, undefined, undefined]);
      deepStrictEqual(await after({ seq: 1, kind: "started" }), [1, 0, undefined, undefined]);
      deepStrictEqual(await after({ seq: 1, kind: "released" }), [0, 0, undefined, undefined]);
      await bench.change({ seq: 1, kind: "started" });
      deepStrictEqual(await after({ seq: 1, kind: "retry", dueAtMs: retryAtMs, error: "first" }), [
        1,
        0,
        "first",
        retryAtMs,
      ]);
      deepStrictEqual(await after({ seq: 1, kind: "started" }), [2, 0, "first", retryAtMs]);
      deepStrictEqual(await after({ seq: 1, kind: "released", dueAtMs: retryAtMs + 1 }), [
        1,
        0,
        "first",
        retryAtMs + 1,
      ]);
      await bench.change({ seq: 1, kind: "started" });
      deepStrictEqual(await after({ seq: 1, kind: "retry", dueAtMs: retryAtMs, error: "second" }), [
        2,
        0,
        "second",
        retryAtMs,
      ]);
    },
  },
  {
    name: "attempts: what is not in flight has none to take back or to keep, but can be put off",
    run: async (bench) => {
      await bench.append(...mails(2));
      const dueAtMs = bench.nowMs + 50;
      await bench.change(
        { seq: 1, kind: "released", dueAtMs },
        { seq: 2, kind: "retry", dueAtMs, error: "e" },
      );
      for (const seq of [1, 2]) {
        const message = await bench.pending(seq);
        deepStrictEqual([message.attempts, message.dueAtMs], [0, dueAtMs]);
      }
      await bench.change({ seq: 1, kind: "released" });
      strictEqual((await bench.pending(1)).dueAtMs, undefined);
    },
  },
];

const conservation: readonly Case[] = [
  {
    name: "E14 the counters hold through a mixed life, and the rows agree",
    run: async (bench) => {
      await live(bench);
      const bytes = (await bench.lane("normal")).concat(await bench.lane("critical"));
      const { bytes: held, ...counters } = await bench.audit();
      deepStrictEqual(counters, { accepted: 10, acked: 1, dead: 1, discarded: 2, pending: 6 });
      ok(held > bytes.reduce((sum, row) => sum + row.bytes, 0), "delayed ones count, too");
    },
  },
];

export const lives: readonly Case[] = [...durability, ...attempts, ...conservation];

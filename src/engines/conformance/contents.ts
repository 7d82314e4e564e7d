/** Cases of content: E15 shelves, and messages that come back as they were given. */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { sequence } from "../../base/index.ts";
import type { Append } from "../engine.ts";
import { bytesOf, mail, mails, plain, refusal, seqsOf, without } from "./bench.ts";
import type { Case } from "./bench.ts";

const shelves: readonly Case[] = [
  {
    name: "E15 a dead letter keeps all of the message, with its attempts, error and reason",
    run: async (bench) => {
      const append = mail({ keyHash: 5, key: "k", group: "g", headers: bytesOf("h"), cost: 3 });
      await bench.append(append);
      await bench.change({ seq: 1, kind: "started" });
      await bench.change({ seq: 1, kind: "retry", dueAtMs: bench.nowMs, error: "it broke" });
      await bench.change({ seq: 1, kind: "started" });
      const before = plain(await bench.pending(1));
      bench.nowMs += 5;
      await bench.change({ seq: 1, kind: "dead", reason: "attempts_exhausted" });
      strictEqual(await bench.message(1), null);
      const [entry] = await bench.shelf("dead");
      deepStrictEqual(plain(entry!), {
        ...before,
        attempts: 2,
        reason: "attempts_exhausted",
        shelvedAtMs: bench.nowMs,
      });
    },
  },
  {
    name: "E15 redrive brings it back under its seq with no attempts, crashes, error or delay",
    run: async (bench) => {
      const dueAtMs = bench.nowMs + 100;
      await bench.append(
        mail({ class: "bulk", key: "k", keyHash: 5, deadlineAtMs: 9e12, dueAtMs }),
        mail(),
      );
      const { dueAtMs: _, ...before } = plain(await bench.pending(1));
      await bench.change({ seq: 1, kind: "started" });
      await bench.takeOver();
      await bench.change({ seq: 1, kind: "started" });
      await bench.change({ seq: 1, kind: "retry", dueAtMs: bench.nowMs + 1e6, error: "e" });
      await bench.change({ seq: 1, kind: "dead", reason: "r" });
      await bench.reopen();
      bench.nowMs += 5;
      const counters = await bench.change({ seq: 1, kind: "redrive" });
      deepStrictEqual([counters.dead, counters.pending], [0, 2]);
      deepStrictEqual(plain(await bench.pending(1)), before);
      deepStrictEqual(await bench.shelf("dead"), []);
      const claim = await bench.takeOver();
      strictEqual(claim.laneHeads.bulk, 1);
      strictEqual(claim.nextDueAtMs, null);
      deepStrictEqual(await bench.ready(), [1, 2]);
      deepStrictEqual(claim.interrupted, []);
      await bench.change({ seq: 1, kind: "dead", reason: "again" });
      deepStrictEqual(
        (await bench.shelf("dead")).map(({ reason }) => reason),
        ["again"],
      );
    },
  },
  {
    name: "E15 purging a dead letter makes it a discarded one, for good; the payload alone is dropped",
    run: async (bench) => {
      await bench.append(mail({ key: "k", keyHash: 3, headers: bytesOf("h"), group: "g" }));
      await bench.change({ seq: 1, kind: "dead", reason: "terminated" });
      const letter = plain((await bench.shelf("dead"))[0]!);
      bench.nowMs += 7;
      const counters = await bench.change({ seq: 1, kind: "discard", reason: "purged" });
      deepStrictEqual([counters.dead, counters.discarded, counters.pending], [0, 1, 0]);
      deepStrictEqual(await bench.shelf("dead"), []);
      const [entry] = await bench.shelf("discarded");
      const changed = { reason: "purged", shelvedAtMs: bench.nowMs, payload: "" };
      deepStrictEqual(plain(entry!), { ...letter, ...changed });
      const after = await bench.change({ seq: 1, kind: "redrive" }, { seq: 1, kind: "ack" });
      deepStrictEqual(after, counters);
    },
  },
  {
    name: "shelves are read in pages, ascending by seq, whatever the order of dying",
    run: async (bench) => {
      await bench.append(...mails(9));
      for (const seq of [7, 2, 9, 4]) await bench.change({ seq, kind: "dead", reason: `d${seq}` });
      for (const seq of [8, 1, 4]) await bench.change({ seq, kind: "discard", reason: `x${seq}` });
      const list = async (
        shelf: "dead" | "discarded",
        afterSeq: number,
        limit: number,
      ): Promise<string[]> =>
        (await bench.engine.list(bench.ref, shelf, afterSeq, limit)).map(({ reason }) => reason);
      deepStrictEqual(await list("dead", 0, 9), ["d2", "d7", "d9"]);
      deepStrictEqual(await list("dead", 0, 2), ["d2", "d7"]);
      deepStrictEqual(await list("dead", 7, 2), ["d9"]);
      deepStrictEqual(await list("discarded", 0, 9), ["x1", "x4", "x8"]);
      deepStrictEqual(await list("discarded", 1, 1), ["x4"]);
      deepStrictEqual(await list("discarded", 8, 1), []);
    },
  },
];

function oddMessages(maxMessageBytes: number): Append[] {
  const random = sequence(7);
  const large = new Uint8Array(Math.min(1024 ** 2, maxMessageBytes - 64));
  for (let i = 0; i < large.length; i++) large[i] = random() * 256;
  const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i);
  const pool = new Uint8Array(4096).fill(7);
  return [
    mail({ payload: new Uint8Array(0) }),
    mail({ payload: everyByte, headers: everyByte.toReversed() }),
    mail({ payload: large }),
    mail({ payload: pool.subarray(100, 1500), headers: pool.subarray(0, 3) }),
    mail({ payload: pool.subarray(0, 1023) }),
    mail({ payload: pool.subarray(0, 1024) }),
    mail({ payload: pool.subarray(0, 1025) }),
    mail({ key: "ключ 🔑 'quoted\" \u0000 \u202e", keyHash: Number.MAX_SAFE_INTEGER }),
    mail({ group: "группа 🏷 %_\u0000", cost: 0.5 }),
    mail({ group: "", key: "", keyHash: 1 }),
    mail({ key: "a key without a hash" }),
    mail({ class: "critical", dueAtMs: 0, deadlineAtMs: Number.MAX_SAFE_INTEGER, cost: 1000 }),
    mail({ class: "bulk", deadlineAtMs: 1_700_000_000_001 }),
  ];
}

const content: readonly Case[] = [
  {
    name: "every message comes back as it was given: empty, large, binary, any text",
    run: async (bench) => {
      const appends = oddMessages(bench.engine.profile.maxMessageBytes);
      const seqs = seqsOf(await bench.append(...appends));
      for (const restart of [false, true]) {
        if (restart) await bench.reopen();
        const messages = await bench.engine.payloads(bench.ref, seqs);
        for (const [i, message] of messages.entries()) {
          const { idempotency: _, ...given } = appends[i]!;
          const { attempts, crashes, bytes, acceptedAtMs, seq, ...rest } = message!;
          deepStrictEqual([attempts, crashes, acceptedAtMs, seq], [0, 0, bench.nowMs, seqs[i]]);
          ok(bytes >= given.payload.length);
          deepStrictEqual(plain(rest), plain(given));
        }
      }
    },
  },
  {
    name: "what was handed over is not taken away: buffers stay as they were",
    run: async (bench) => {
      const pool = Uint8Array.from({ length: 3000 }, (_, i) => i);
      const payload = pool.subarray(500, 2900);
      const id = pool.subarray(0, 16);
      const untilMs = bench.nowMs + 1000;
      await bench.append(
        mail({
          payload,
          headers: pool,
          idempotency: { id, content: pool.subarray(0, 8), untilMs },
        }),
      );
      strictEqual(pool.length, 3000);
      strictEqual(pool[2999], 2999 & 255);
      deepStrictEqual(Buffer.from((await bench.pending(1)).payload), Buffer.from(payload));
    },
  },
  {
    name: "payloads answers in the order asked, with null for what is not pending",
    run: async (bench) => {
      await bench.append(...mails(4));
      await bench.change({ seq: 2, kind: "ack" }, { seq: 3, kind: "dead", reason: "r" });
      const found = await bench.engine.payloads(bench.ref, [4, 2, 99, 1, 3, 4]);
      deepStrictEqual(
        found.map((message) => message?.seq ?? null),
        [4, null, null, 1, null, 4],
      );
      deepStrictEqual(await bench.engine.payloads(bench.ref, []), []);
    },
  },
  {
    name: "a damaged message is not handed out: payloads and audit name it",
    unless: without("damage", "the harness cannot damage what is stored"),
    run: async (bench) => {
      await bench.append(...mails(3), mail({ payload: new Uint8Array(5000).fill(1) }));
      for (const seq of [2, 4]) {
        await bench.harness.damage!(bench.ref, seq);
        await refusal("store_corrupt", bench.engine.payloads(bench.ref, [1, seq]));
      }
      deepStrictEqual((await bench.engine.audit(bench.ref)).damaged, [2, 4]);
      deepStrictEqual(seqsOf([await bench.pending(1), await bench.pending(3)]), [1, 3]);
      await bench.change({ seq: 2, kind: "discard", reason: "r" }, { seq: 4, kind: "ack" });
    },
  },
  {
    name: "a closed engine refuses",
    run: async (bench) => {
      await bench.engine[Symbol.asyncDispose]();
      await rejects(bench.append(mail()), { name: "SpillwayError" });
      await rejects(bench.ready(), { name: "SpillwayError" });
      await bench.reopen();
    },
  },
];

export const contents: readonly Case[] = [...shelves, ...content];

/** Cases of ownership: E3 fences, E4 and E5 leases. */
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { setImmediate, setTimeout } from "node:timers/promises";
import { isSpillwayError } from "../../base/index.ts";
import type { Seq } from "../../flow/index.ts";
import type { Claim } from "../engine.ts";
import { contentOf, mail, mails, refusal, seqsOf } from "./bench.ts";
import type { Bench, Case, Harness } from "./bench.ts";

const manyNodes = ({ engine }: Harness): string | undefined =>
  engine.profile.nodes === "one" ? undefined : "claims of several nodes wait for each other";
const oneNode = ({ engine }: Harness): string | undefined =>
  engine.profile.nodes === "many" ? undefined : "one node: no lease runs out";

/** Every verb of an owner, tried with a claim that is not in force. */
async function allRefused(bench: Bench, claim: Claim): Promise<void> {
  const { engine } = bench;
  await refusal("fenced", engine.write([bench.draft({ claim, appends: [mail()] })]));
  await refusal(
    "fenced",
    engine.write([bench.draft({ claim, changes: [{ seq: 1, kind: "ack" }] })]),
  );
  await refusal("fenced", engine.write([bench.draft({ claim })]));
  await refusal("fenced", engine.renew(claim, 10_000));
  await refusal("fenced", engine.maintain(claim, bench.nowMs, 10));
}

export const fencing: readonly Case[] = [
  {
    name: "E3 a claim shows an empty partition as empty",
    run: async (bench) => {
      const { claimId, fence, ref, ...rest } = bench.claim;
      deepStrictEqual({ ...ref }, { ...bench.ref });
      ok(fence >= 1);
      match(claimId, /^[0-9a-f]{32}$/);
      deepStrictEqual(rest, {
        nextSeq: 1,
        counters: { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0, bytes: 0 },
        laneHeads: { critical: 0, normal: 0, bulk: 0 },
        interrupted: [],
        nextDueAtMs: null,
      });
    },
  },
  {
    name: "E3 a claim says where each lane begins, which seq is next and what is due first",
    run: async (bench) => {
      await bench.append(
        mail({ class: "bulk" }),
        mail({ class: "critical" }),
        mail({ class: "bulk", dueAtMs: bench.nowMs + 500 }),
        mail({ class: "critical", dueAtMs: bench.nowMs + 200 }),
      );
      const first = await bench.takeOver();
      deepStrictEqual(first.laneHeads, { critical: 2, normal: 0, bulk: 1 });
      strictEqual(first.nextDueAtMs, bench.nowMs + 200);
      await bench.change({ seq: 1, kind: "ack" }, { seq: 2, kind: "ack" }, { seq: 4, kind: "ack" });
      const second = await bench.reopen();
      deepStrictEqual(second.laneHeads, { critical: 0, normal: 0, bulk: 3 });
      strictEqual(second.nextDueAtMs, bench.nowMs + 500);
      strictEqual(second.nextSeq, 5);
      deepStrictEqual(second.counters, await bench.audit());
    },
  },
  {
    name: "E3 an older claim can do nothing, and doing nothing changes nothing",
    run: async (bench) => {
      await bench.append(...mails(2));
      const old = bench.claim;
      const claim = await bench.takeOver();
      ok(claim.fence > old.fence, "the fence rises");
      ok(claim.claimId !== old.claimId, "the claim id is new");
      const before = await contentOf(bench);
      await allRefused(bench, old);
      await bench.engine.release(old);
      deepStrictEqual(await contentOf(bench), before);
      await bench.append(mail()); // `release` of the older claim did not let go of this one.
      await bench.engine.renew(claim, 10_000);
    },
  },
  {
    name: "E3 fence and claim id are both compared",
    run: async (bench) => {
      await bench.append(mail());
      const { claim } = bench;
      await allRefused(bench, { ...claim, claimId: "0".repeat(32) });
      await allRefused(bench, { ...claim, fence: claim.fence - 1 });
      await allRefused(bench, { ...claim, fence: claim.fence + 1 });
      deepStrictEqual(await bench.ready(), [1]);
    },
  },
  {
    name: "E3 a released claim can do nothing, and releasing twice does nothing",
    run: async (bench) => {
      await bench.append(mail());
      const old = bench.claim;
      await bench.engine.release(old);
      await bench.engine.release(old);
      await allRefused(bench, old);
      ok((await bench.takeOver()).fence > old.fence);
      deepStrictEqual(await bench.ready(), [1]);
    },
  },
  {
    name: "E3 claims do not survive a restart",
    run: async (bench) => {
      const old = bench.claim;
      await bench.append(mail());
      const claim = await bench.reopen();
      ok(claim.fence > old.fence);
      await allRefused(bench, old);
    },
  },
  {
    name: "E3 a claim concerns its own partition only",
    run: async (bench) => {
      const { flow } = bench.ref;
      const others = [
        await bench.another({ flow, partition: 1 }),
        await bench.another({ flow: `${flow}0`, partition: 0 }),
        await bench.another({ flow: "0", partition: 10 }),
        await bench.another({ flow: "01", partition: 0 }),
      ];
      for (const other of others) {
        await other.append(...mails(2));
        await other.takeOver();
      }
      await bench.append(mail());
      deepStrictEqual(await bench.ready(), [1]);
      for (const other of others) deepStrictEqual(await other.ready(), [1, 2]);
    },
  },
  {
    name: "E3 writes sent together with a takeover are in it or fenced, never lost",
    unless: manyNodes,
    run: async (bench) => {
      const send = (): Promise<Seq | "fenced">[] =>
        mails(10).map(async (append) => {
          try {
            const [result] = await bench.engine.write([bench.draft({ appends: [append] })]);
            return result?.appended[0]?.seq ?? 0;
          } catch (error) {
            if (!isSpillwayError(error, "fenced")) throw error;
            return "fenced";
          }
        });
      const old = send();
      const taking = bench.engine.claim(bench.ref, { node: "b", address: "b" }, 10_000);
      const late = send();
      const taken = await taking;
      const seqs = (await Promise.all([...old, ...late])).filter((seq) => seq !== "fenced");
      strictEqual(taken.kind, "claimed");
      const claim = taken.kind === "claimed" ? taken.claim : bench.claim;
      deepStrictEqual(
        seqs,
        Array.from({ length: claim.nextSeq - 1 }, (_, i) => i + 1),
      );
      bench.claim = claim;
      deepStrictEqual(await bench.ready(), seqs);
      deepStrictEqual(seqsOf(await bench.append(mail())), [claim.nextSeq]);
    },
  },
  {
    name: "E3 takeover from an owner that goes on writing: no seq twice, none lost",
    unless: manyNodes,
    run: async (bench) => {
      const seqs: Seq[] = [];
      const { claim: old } = bench;
      let writes = 0;
      const writing = (async (): Promise<void> => {
        for (;;) {
          const drafts = mails(4).map((append) =>
            bench.draft({ claim: old, writeId: `old-${++writes}`, appends: [append] }),
          );
          const answers = await Promise.allSettled(
            drafts.map((draft) => bench.engine.write([draft])),
          );
          for (const answer of answers) {
            if (answer.status === "fulfilled") seqs.push(...seqsOf(answer.value[0]!.appended));
          }
          const refused = answers.find((answer) => answer.status === "rejected");
          if (refused !== undefined) throw refused.reason as Error;
          await setImmediate();
        }
      })();
      const ended = refusal("fenced", writing);
      while (seqs.length < 40) await setImmediate();
      await bench.takeOver();
      for (let i = 0; i < 10; i++) seqs.push(...seqsOf(await bench.append(...mails(2))));
      await ended;
      strictEqual(new Set(seqs).size, seqs.length);
      deepStrictEqual(
        await bench.ready(),
        seqs.toSorted((a, b) => a - b),
      );
    },
  },
  {
    name: "E4 with one node a claim succeeds at once, however long the lease of the last one",
    unless: manyNodes,
    run: async (bench) => {
      await bench.engine.renew(bench.claim, 1e9);
      const other = { node: "other", address: "elsewhere" };
      const result = await bench.engine.claim(bench.ref, other, 1000);
      strictEqual(result.kind, "claimed");
    },
  },
  {
    name: "E4 and E5 while a lease is renewed others are told who holds it; then they get it",
    unless: oneNode,
    run: async (bench) => {
      const leaseMs = 600;
      const other = { node: "other", address: "elsewhere" };
      await bench.engine.renew(bench.claim, leaseMs);
      for (let i = 0; i < 3; i++) {
        await setTimeout(leaseMs / 2);
        await bench.engine.renew(bench.claim, leaseMs);
        const held = await bench.engine.claim(bench.ref, other, leaseMs);
        ok(held.kind === "held" && held.retryAfterMs <= leaseMs);
        deepStrictEqual({ ...held.by }, { node: "bench", address: "local" });
      }
      await setTimeout(leaseMs + 1000);
      const taken = await bench.engine.claim(bench.ref, other, leaseMs);
      ok(taken.kind === "claimed");
      await rejects(bench.append(mail()), { code: "fenced" });
      bench.claim = taken.claim;
    },
  },
];

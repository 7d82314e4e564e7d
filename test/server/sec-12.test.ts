/** S12 The audit log: every action of an operator, once, and no change of it stays unseen. */
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import type { MetaStore } from "../../src/engines/index.ts";
import { memory } from "../../src/engines/memory/index.ts";
import { Audit, audited } from "../../src/server/audit.ts";
import type { AuditRecord } from "../../src/server/audit.ts";
import { verifyAudit } from "../../src/server/index.ts";
import { makeAdmin, makeToken } from "../support/callers.ts";
import { openServer } from "../support/server.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

interface Page {
  readonly entries: readonly AuditRecord[];
  readonly nextBefore?: number;
}

test("S12 making and revoking a token leaves one entry each, with who, what and the request's id", async () => {
  const server = await openServer({ flows: {} });
  const admin = await makeAdmin(server);
  const other = await makeToken(server, { verbs: ["produce"], flows: ["a"], name: "shop" }, admin);
  const revoked = await admin.call("DELETE", `/v1/tokens/${other.id}`);
  const { entries } = (await (await admin.call("GET", "/v1/audit")).json()) as Page;
  expect(entries).toMatchObject([
    {
      number: 3,
      principal: admin.id,
      action: "token.revoke",
      before: { id: other.id, name: "shop" },
      requestId: revoked.headers.get("spillway-request-id"),
    },
    {
      number: 2,
      principal: admin.id,
      action: "token.create",
      after: { id: other.id, flows: ["a"] },
    },
    { number: 1, principal: "anyone", action: "token.create", after: { id: admin.id } },
  ]);
  // What was refused is no action.
  await other.call("POST", "/v1/tokens", { body: "{}" });
  await admin.call("DELETE", `/v1/tokens/${other.id}`);
  const verdict = await admin.call("GET", "/v1/audit/verification");
  expect(await verdict.json()).toMatchObject({ entries: 3, faults: [] });
});

test("S12 attack: an entry that was changed, exchanged, taken out or put in is found, wherever it is", async () => {
  const random = fc.record({
    count: fc.integer({ min: 1, max: 250 }),
    at: fc.nat(),
    how: fc.nat(4),
  });
  await fc.assert(
    fc.asyncProperty(random, async ({ count, at, how }) => {
      const { audit, meta } = await openAudit();
      for (let number = 1; number <= count; number += 1) await audit.record(entry);
      expect(await verifyAudit(meta)).toEqual({ entries: count, head: audit.head, faults: [] });
      const key = keyOf((at % count) + 1);
      const { value, revision } = (await meta.get(key))!;
      const text = new TextDecoder().decode(value ?? undefined);
      if (how === 0) await meta.set(key, encode(text.replace("a test", "nobody")), revision);
      if (how === 1) await meta.set(key, null, revision);
      if (how === 2) await meta.set(key, encode(`${text} `), revision);
      if (how === 3) await meta.set(keyOf(count + 2), encode(text), 0);
      if (how === 4) await meta.set(key, encode("{"), revision);
      const { faults } = await verifyAudit(meta);
      expect(faults.length).toBeGreaterThan(0);
      // A change of an entry shows at the next one, which holds its hash; of the last, at the head.
      expect(faults[0]!.number).toBe(faultAt(how, (at % count) + 1, count));
    }),
    { numRuns: 60 },
  );
}, 60_000);

/** Where a change is first seen. */
function faultAt(how: number, number: number, count: number): number {
  if (how === 3) return count + 1; // One was put in beyond a gap.
  return how === 1 || how === 4 ? number : Math.min(number + 1, count);
}

test("S12 attack: cutting off the end, or all of it, is found", async () => {
  const { audit, meta } = await openAudit();
  for (let number = 1; number <= 130; number += 1) await audit.record(entry);
  for (let number = 130; number > 120; number -= 1) await drop(meta, keyOf(number));
  expect((await verifyAudit(meta)).faults.map(({ number }) => number)).toEqual([
    121, 122, 123, 124, 125, 126, 127, 128, 129, 130,
  ]);
  for (let number = 120; number > 0; number -= 1) await drop(meta, keyOf(number));
  expect((await verifyAudit(meta)).faults).toHaveLength(20); // Bounded, however much is missing.
});

test("S12 a crash between an entry and the head leaves a log that is whole, and goes on", async () => {
  const { audit, meta } = await openAudit();
  await audit.record(entry);
  const head = (await meta.get("audit-head"))!;
  await audit.record(entry);
  const newer = (await meta.get("audit-head"))!;
  await meta.set("audit-head", head.value, newer.revision);
  expect(await verifyAudit(meta)).toMatchObject({ entries: 2, faults: [] });
  const again = await Audit.open(meta, new VirtualClock());
  await again.record(entry);
  expect(await verifyAudit(meta)).toMatchObject({ entries: 3, faults: [], head: again.head });
});

test("S12 two processes of one store, and many entries at once, make one chain", async () => {
  const { audit, meta } = await openAudit();
  const other = await Audit.open(meta, new VirtualClock());
  const all = Array.from({ length: 60 }, (_, at) => (at % 2 === 0 ? audit : other).record(entry));
  await Promise.all(all);
  expect(await verifyAudit(meta)).toMatchObject({ entries: 60, faults: [] });
});

test("S12 an entry is there before its action begins, and one that failed says so", async () => {
  const { audit } = await openAudit();
  const acting = audited(audit, entry, async () => {
    expect(await audit.list({ limit: 10 })).toHaveLength(1);
    throw new Error("of the action");
  });
  await expect(acting).rejects.toThrow("of the action");
  const entries = await audit.list({ limit: 10 });
  expect(entries.map(({ action }) => action)).toEqual(["flow.pause.failed", "flow.pause"]);
});

test("S12 what cannot be recorded is not done", async () => {
  const { audit, meta } = await openAudit();
  meta.set = () => Promise.reject(new Error("the disk is gone"));
  let isDone = false;
  const acting = audited(audit, entry, async () => void (isDone = true));
  await expect(acting).rejects.toThrow("the disk is gone");
  expect(isDone).toBe(false);
});

test("S12 the log is read in pages, the newest first, and large values do not fill it", async () => {
  const { audit } = await openAudit();
  for (let number = 1; number <= 250; number += 1) await audit.record(entry);
  const seen: number[] = [];
  for (let before = Infinity; before > 1; before = seen.at(-1)!) {
    const page = await audit.list({ before, limit: 60 });
    expect(page.length).toBeLessThanOrEqual(60);
    seen.push(...page.map(({ number }) => number));
  }
  expect(seen).toEqual(Array.from({ length: 250 }, (_, at) => 250 - at));
  await audit.record({ ...entry, before: "x".repeat(1e6), reason: "y".repeat(1e6) });
  const [large] = await audit.list({ limit: 1 });
  expect(JSON.stringify(large).length).toBeLessThan(2000);
});

const entry = {
  principal: "a test",
  action: "flow.pause",
  flow: "orders",
  before: { paused: false },
  after: { paused: true },
  requestId: "1",
} as const;

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const keyOf = (number: number): string => `audit/${String(number).padStart(15, "0")}`;

async function drop(meta: MetaStore, key: string): Promise<void> {
  await meta.set(key, null, (await meta.get(key))!.revision);
}

async function openAudit(): Promise<{ audit: Audit; meta: MetaStore }> {
  const engine = memory();
  await engine.open();
  onTestFinished(() => engine[Symbol.asyncDispose]());
  const { meta } = engine;
  return { audit: await Audit.open(meta, new VirtualClock()), meta };
}

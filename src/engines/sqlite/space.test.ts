/** E20 on a disk that is really full. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { SmallDisk } from "../../../test/support/small-disk.ts";
import type { Append, Change, Claim, Engine } from "../engine.ts";
import { sqlite } from "./index.ts";

const mebibyte = 1024 ** 2;
const limits = { messages: 1e9, bytes: 1e12 };
const append: Append = {
  class: "normal",
  headers: new Uint8Array(0),
  payload: new Uint8Array(60_000),
};

async function claimOf(engine: Engine): Promise<Claim> {
  const result = await engine.claim({ flow: "f", partition: 0 }, { node: "n", address: "a" }, 1000);
  if (result.kind === "held") throw new Error("held");
  return result.claim;
}

test("E20 a full disk refuses appends only, settles commit on the reserve, and space is enough to recover", async (context) => {
  const disk = SmallDisk.mount(32);
  if (typeof disk === "string") return context.skip(disk);
  using _ = disk;
  const dir = join(disk.dir, "data");
  // Without a floor of free space it is SQLite that meets the end of the disk.
  await using engine = sqlite({ dir, reserveBytes: 4 * mebibyte, minFreeBytes: 0 });
  await engine.open();
  const claim = await claimOf(engine);
  let [seq, id] = [0, 0];
  const write = async (appends: Append[], changes: Change[]): Promise<number> => {
    const draft = { claim, writeId: `w${++id}`, nowMs: id, appends, changes, limits };
    return (await engine.write([draft]))[0]!.counters.pending;
  };
  const fill = async (): Promise<void> => {
    for (;;) {
      await write([append], []);
      seq++;
    }
  };
  await expect(fill()).rejects.toMatchObject({ code: "store_full", retryAfterMs: 1000 });
  expect(seq).toBeGreaterThan(100);
  expect(existsSync(join(dir, "reserve"))).toBe(false);
  disk.fill(4 * mebibyte);
  for (let n = 1; n <= seq; n++) {
    await write([], [{ seq: n, kind: "started" }]);
    if (n % 3 === 0) await write([], [{ seq: n, kind: "retry", dueAtMs: 9, error: "e" }]);
    expect(await write([], [{ seq: n, kind: "ack" }])).toBe(seq - n);
  }
  await expect(write([append], [])).rejects.toMatchObject({ code: "store_full" });
  // The drained store gives its own space back.
  for (let more = true; more;) ({ more } = await engine.maintain(claim, 1, 50));
  disk.makeRoom();
  expect(await write([append], [])).toBe(1);
  expect(readFileSync(join(dir, "reserve")).length).toBe(4 * mebibyte);
  expect((await engine.audit(claim.ref)).firstDifference).toBeUndefined();
});

test("E20 where not even the log can be emptied settles are refused, too, and the store lives on", async (context) => {
  const disk = SmallDisk.mount(16);
  if (typeof disk === "string") return context.skip(disk);
  using _ = disk;
  const dir = join(disk.dir, "data");
  await using engine = sqlite({ dir, reserveBytes: 4096, minFreeBytes: 0 });
  await engine.open();
  const claim = await claimOf(engine);
  const draft = { claim, nowMs: 1, appends: [], changes: [], limits };
  disk.fill(100 * 1024);
  await engine.write([{ ...draft, writeId: "1", appends: [append] }]); // Fits into the log, not into the file.
  const error = "e".repeat(mebibyte);
  const changes: Change[] = [{ seq: 1, kind: "retry", dueAtMs: 9, error }];
  const settle = { ...draft, writeId: "2", changes };
  await expect(engine.write([settle])).rejects.toMatchObject({ code: "store_full" });
  disk.makeRoom();
  const [result] = await engine.write([settle]);
  expect(result!.counters.pending).toBe(1);
  expect(await engine.payloads(claim.ref, [1])).toMatchObject([{ attempts: 0, error }]);
});

test("E20 appends stop while free space is below the floor", async (context) => {
  const disk = SmallDisk.mount(32);
  if (typeof disk === "string") return context.skip(disk);
  using _ = disk;
  const dir = join(disk.dir, "data");
  await using engine = sqlite({ dir, reserveBytes: mebibyte, minFreeBytes: 8 * mebibyte });
  await engine.open();
  const claim = await claimOf(engine);
  writeFileSync(join(disk.dir, "ballast"), new Uint8Array(26 * mebibyte));
  await new Promise((resolve) => setTimeout(resolve, 60)); // The file system is looked at every 50 ms.
  const draft = { claim, nowMs: 1, changes: [], limits };
  const refused = engine.write([{ ...draft, writeId: "1", appends: [append] }]);
  await expect(refused).rejects.toMatchObject({ code: "store_full" });
  disk.makeRoom();
  await engine.write([{ ...draft, writeId: "2", appends: [append] }]);
});

import fc from "fast-check";
import { expect, test } from "vitest";
import { Reads } from "./reads.ts";

test("an end is remembered until every read that began before it has come back", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(2), fc.nat(9)), { maxLength: 80 }), (moves) => {
      const reads = new Reads();
      const open: { token: number; saw: Set<number> }[] = [];
      const missed: number[] = [];
      let seq = 0;
      for (const [move, at] of moves) {
        if (move === 0) open.push({ token: reads.begin(), saw: new Set() });
        else if (move === 1) {
          reads.ended(++seq);
          for (const { saw } of open) saw.add(seq);
        } else if (open.length > 0) {
          const [{ token, saw }] = open.splice(at % open.length, 1) as [(typeof open)[number]];
          for (const ended of saw) if (!reads.hasEnded(ended)) missed.push(ended);
          reads.end(token);
        }
      }
      expect(missed).toEqual([]);
    }),
  );
});

test("a read that follows another for ever holds nothing back", () => {
  const reads = new Reads();
  let before = reads.begin();
  for (let seq = 1; seq <= 100; seq++) {
    reads.ended(seq);
    const next = reads.begin();
    reads.end(before);
    before = next;
    expect(reads.hasEnded(seq - 3)).toBe(false);
  }
});

test("what was brought back has not ended", () => {
  const reads = new Reads();
  reads.begin();
  reads.ended(4);
  reads.back(4);
  expect(reads.hasEnded(4)).toBe(false);
});

import { expect, test } from "vitest";
import type { AppendResult } from "../engines/engine.ts";
import { answersTo } from "./answers.ts";
import type { PendingAppend } from "./outgoing.ts";

const none = new Uint8Array(0);

function pending(producer: string, position: number): PendingAppend {
  const append = { class: "normal", headers: none, payload: none } as const;
  return { append, bytes: 0, producer, position, joint: undefined };
}
function stored(seq: number): AppendResult {
  return { kind: "stored", seq };
}

test("messages that stand in a row are answered as one, and each that breaks it by itself", () => {
  const appends = [0, 1, 2, 3, 5, 6].map((position) => pending("a", position));
  const appended: AppendResult[] = [
    stored(7),
    stored(8),
    { kind: "duplicate", seq: 3 },
    { kind: "conflict", seq: 4 },
    stored(9),
    stored(10),
  ];
  expect(answersTo(appends, appended)).toEqual([
    {
      producer: "a",
      results: [
        { kind: "accepted", position: 0, seq: 7, count: 2 },
        { kind: "duplicate", position: 2, seq: 3 },
        { kind: "refused", position: 3, code: "idempotency_conflict", found: 4 },
        { kind: "accepted", position: 5, seq: 9, count: 2 },
      ],
    },
  ]);
});

test("a gap in positions or seqs, or another producer, ends a row", () => {
  const appends = [pending("a", 0), pending("a", 2), pending("b", 3), pending("a", 3)];
  const appended = [1, 2, 3, 4].map(stored);
  expect(answersTo(appends, appended)).toEqual([
    {
      producer: "a",
      results: [
        { kind: "accepted", position: 0, seq: 1, count: 1 },
        { kind: "accepted", position: 2, seq: 2, count: 1 },
      ],
    },
    { producer: "b", results: [{ kind: "accepted", position: 3, seq: 3, count: 1 }] },
    { producer: "a", results: [{ kind: "accepted", position: 3, seq: 4, count: 1 }] },
  ]);
  const [first, second] = [stored(1), stored(3)];
  expect(answersTo([pending("a", 0), pending("a", 1)], [first, second])[0]!.results).toHaveLength(
    2,
  );
  expect(answersTo([], [])).toEqual([]);
});

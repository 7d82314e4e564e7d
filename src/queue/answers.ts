/** What producers are told of their messages once a write is durable. */
import type { AppendResult } from "../engines/engine.ts";
import type { SendResult } from "../protocol/index.ts";
import type { PendingAppend } from "./outgoing.ts";

interface Answers {
  readonly producer: string;
  readonly results: SendResult[];
}

/** The results of a write's appends, for one producer after the other; what stands in a row is one of them. */
export function answersTo(
  appends: readonly PendingAppend[],
  appended: readonly AppendResult[],
): Answers[] {
  const answers: Answers[] = [];
  for (let at = 0; at < appends.length;) {
    const { producer } = appends[at]!;
    if (answers.at(-1)?.producer !== producer) answers.push({ producer, results: [] });
    const count = inARow(appends, appended, at);
    answers.at(-1)!.results.push(resultOf(appends[at]!, appended[at]!, count));
    at += Math.max(1, count);
  }
  return answers;
}

/** How many appends from here on were stored for one producer, with positions and seqs in a row. */
function inARow(
  appends: readonly PendingAppend[],
  appended: readonly AppendResult[],
  from: number,
): number {
  const { producer, position } = appends[from]!;
  const { seq } = appended[from]!;
  let count = 0;
  for (; from + count < appends.length; count++) {
    const pending = appends[from + count]!;
    const result = appended[from + count]!;
    if (result.kind !== "stored" || result.seq !== seq + count) break;
    if (pending.producer !== producer || pending.position !== position + count) break;
  }
  return count;
}

function resultOf({ position }: PendingAppend, result: AppendResult, count: number): SendResult {
  const { kind, seq } = result;
  if (kind === "stored") return { kind: "accepted", position, seq, count };
  if (kind === "duplicate") return { kind, position, seq };
  return { kind: "refused", position, code: "idempotency_conflict", found: seq };
}

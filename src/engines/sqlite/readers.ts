/** From the request of a read to its walk; a partition that the store does not know is empty. */
import type { Part } from "./partition.ts";
import * as reads from "./reads.ts";
import type { Statements } from "./statements.ts";
import { op } from "./wire.ts";
import type { Op, Requests } from "./wire.ts";

/** What a call ends with: JSON, or messages already encoded. */
export type Answer = Uint8Array | { readonly json: unknown };

type Reader = (part: Part | undefined, args: unknown, statements: Statements) => reads.Read<Answer>;

/** A count of no messages. */
const empty = new Uint8Array(4);

export const readers: Readonly<Partial<Record<Op, Reader>>> = {
  *[op.scan](part, args, statements) {
    const [, query] = args as Requests["scan"];
    return part === undefined ? empty : yield* reads.scan(part, query, statements);
  },
  *[op.groups](part, args, statements) {
    const [, lane, after, limit] = args as Requests["groups"];
    const found =
      part === undefined ? [] : yield* reads.groups(part, lane, after, limit, statements);
    return { json: found };
  },
  *[op.due](part, args, statements) {
    const [, untilMs, after, limit] = args as Requests["due"];
    return part === undefined ? empty : yield* reads.due(part, untilMs, after, limit, statements);
  },
  *[op.keyHeads](part, args, statements) {
    const [, hashes] = args as Requests["keyHeads"];
    const heads =
      part === undefined ? hashes.map(() => 0) : yield* reads.keyHeads(part, hashes, statements);
    return { json: heads };
  },
  *[op.readKey](part, args, statements) {
    const [, hash, after, limit] = args as Requests["readKey"];
    return part === undefined ? empty : yield* reads.readKey(part, hash, after, limit, statements);
  },
  *[op.payloads](part, args, statements) {
    const [, seqs] = args as Requests["payloads"];
    return yield* reads.payloads(part, seqs, statements);
  },
  *[op.list](part, args, statements) {
    const [, shelf, after, limit] = args as Requests["list"];
    return part === undefined ? empty : yield* reads.list(part, shelf, after, limit, statements);
  },
};

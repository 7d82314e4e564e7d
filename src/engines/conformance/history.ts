/**
 * Random histories, run against an engine and against the oracle, the memory engine: every result,
 * every refusal and all that can be read must be the same after every step.
 *
 * A step is two numbers that say what happens and draw its details, so that a failing history shrinks
 * and is printed as a short list. Steps refer to what exists by position: any list is a history.
 */
import { deepStrictEqual, ok } from "node:assert/strict";
import { isSpillwayError, sequence } from "../../base/index.ts";
import { messageClasses } from "../../flow/index.ts";
import type { Seq } from "../../flow/index.ts";
import type {
  Append,
  Change,
  Claim,
  Counters,
  Engine,
  PartitionWrite,
  WriteResult,
} from "../engine.ts";
import { memory } from "../memory/index.ts";
import { Bench, bytesOf, contentOf, idempotency, mail, noLimits, plain, seqsOf } from "./bench.ts";
import type { Harness } from "./bench.ts";

/** The part of fast-check that histories need; its module fits. */
export interface FastCheck {
  nat(max: number): unknown;
  tuple(...parts: readonly unknown[]): unknown;
  array(item: unknown, size: { minLength: number; maxLength: number }): unknown;
  asyncProperty(drawn: unknown, run: (steps: readonly HistoryStep[]) => Promise<void>): unknown;
  assert(
    property: unknown,
    options: { numRuns: number; interruptAfterTimeLimit: number; unbiased: boolean },
  ): Promise<void> | void;
}

type HistoryStep = readonly [what: number, seed: number];

type Part = Pick<PartitionWrite, "appends" | "changes" | "limits">;
/** A partition after its last write, and seqs there that are worth a change. */
interface Seen {
  readonly counters: Counters;
  readonly started: readonly Seq[];
  readonly pending: readonly Seq[];
  readonly dead: readonly Seq[];
}

const nothing: Seen = {
  counters: { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0, bytes: 0 },
  started: [],
  pending: [],
  dead: [],
};

type Draw = (below: number) => number;

/** One engine with its owners of two partitions. */
interface Side {
  readonly owners: readonly [Bench, Bench];
  readonly former: [Claim, Claim];
  last: PartitionWrite[];
}

/** @returns What fast-check is to assert: histories in partitions of their own in one store. */
export function histories(fc: FastCheck, harness: Harness, maxLength: number): unknown {
  const oracle = oracleHarness();
  const steps = fc.array(fc.tuple(fc.nat(99), fc.nat(1e6)), { minLength: 1, maxLength });
  let engine = harness.engine;
  let run = 0;
  return fc.asyncProperty(steps, async (drawn) => {
    const flow = `history-${run++}`;
    await oracle.engine.open();
    const history = new History(
      await sideOf(harness, engine, flow),
      await sideOf(oracle, oracle.engine, flow),
    );
    try {
      for (const step of drawn) await history.play(step);
      await history.compareContent([0, 1]);
    } finally {
      engine = history.engine;
    }
  });
}

class History {
  readonly #subject: Side;
  readonly #oracle: Side;
  readonly #seen: [Seen, Seen] = [nothing, nothing];
  #nowMs: number;

  constructor(subject: Side, oracle: Side) {
    this.#subject = subject;
    this.#oracle = oracle;
    this.#nowMs = subject.owners[0].nowMs;
  }

  get engine(): Engine {
    return this.#subject.owners[0].engine;
  }

  async play([what, seed]: HistoryStep): Promise<void> {
    const random = sequence(seed);
    const draw: Draw = (below) => Math.floor(random() * below);
    const at = draw(2) as 0 | 1;
    if (what < 54) await this.#write(at, draw);
    else if (what < 62) await this.#writeBoth(draw);
    else if (what < 68) await this.#same((side) => send(side, renewed(side)));
    else if (what < 71) await this.#same((side) => stale(side, at));
    else if (what < 79) await this.#same((side) => takeOver(side, at));
    else if (what < 81) await this.#same(reopen);
    else if (what < 87) await this.#maintain(at, draw);
    else this.#nowMs += draw(12);
    for (const { owners } of [this.#subject, this.#oracle]) {
      for (const owner of owners) owner.nowMs = this.#nowMs;
    }
    if (what < 87) await this.compareContent(what >= 54 && what < 81 ? [0, 1] : [at]);
    await this.#read(at, draw);
  }

  async compareContent(partitions: readonly (0 | 1)[]): Promise<void> {
    for (const at of partitions) await this.#same(({ owners }) => contentOf(owners[at]));
  }

  async #write(at: 0 | 1, draw: Draw): Promise<void> {
    const part = this.#part(at, draw);
    await this.#same((side) => send(side, [side.owners[at].draft(part)]));
    await this.#look(at, part.changes);
  }

  async #writeBoth(draw: Draw): Promise<void> {
    const atomic = this.engine.profile.atomicAcross === "store";
    const parts: [Part, Part] = [this.#part(0, draw), this.#part(1, draw)];
    const order = draw(2) === 0 ? ([0, 1] as const) : ([1, 0] as const);
    if (atomic) {
      await this.#same((side) =>
        send(
          side,
          order.map((at) => side.owners[at].draft(parts[at])),
        ),
      );
    }
    for (const at of order) await this.#look(at, parts[at].changes);
  }

  async #maintain(at: 0 | 1, draw: Draw): Promise<void> {
    const budgetMs = 1 + draw(5);
    for (const { owners } of [this.#subject, this.#oracle]) {
      await owners[at].engine.maintain(owners[at].claim, this.#nowMs, budgetMs);
    }
  }

  /** Pages from cursors drawn at random. */
  async #read(at: 0 | 1, draw: Draw): Promise<void> {
    const limit = 1 + draw(4);
    const afterSeq = draw(this.#seen[at].counters.accepted + 2);
    const lane = messageClasses[draw(3)]!;
    const group = [null, "north", "south", "", undefined][draw(5)];
    const keyHash = 1 + draw(5);
    const untilMs = this.#nowMs + draw(24) - 8;
    const cursor = draw(2) === 0 ? null : { dueAtMs: untilMs - draw(12), seq: afterSeq };
    const query = { lane, afterSeq, limit, nowMs: this.#nowMs };
    await this.#same(async ({ owners }) => {
      const { engine, ref } = owners[at];
      const [scanned, names, due, heads, ofKey, dead, discarded] = await Promise.all([
        engine.scan(ref, group === undefined ? query : { ...query, group }),
        engine.groups(ref, lane, group ?? null, limit),
        engine.due(ref, untilMs, cursor, limit),
        engine.keyHeads(ref, [1, 2, 3, 4, 5, 1]),
        engine.readKey(ref, keyHash, afterSeq, limit),
        engine.list(ref, "dead", afterSeq, limit),
        engine.list(ref, "discarded", afterSeq, limit),
      ]);
      const rows = [scanned, due, ofKey].map((page) => page.map(plain));
      const shelved = [dead, discarded].map((page) => page.map(({ seq, reason }) => [seq, reason]));
      return { names, heads, rows, shelved };
    });
  }

  #part(at: 0 | 1, draw: Draw): Part {
    const what = draw(4);
    const appends = what === 0 ? [] : Array.from({ length: 1 + draw(4) }, () => this.#append(draw));
    const changes =
      what === 1 ? [] : Array.from({ length: 1 + draw(5) }, () => this.#change(at, draw));
    const { pending, bytes } = this.#seen[at].counters;
    const tight = { messages: pending + draw(5), bytes: draw(2) === 0 ? 1e9 : bytes + draw(120) };
    const limits = draw(3) > 0 ? noLimits : tight;
    return { appends, changes, limits };
  }

  #append(draw: Draw): Append {
    const keyHash = draw(2) === 0 ? {} : { keyHash: 1 + draw(4), key: "k" };
    const group = draw(2) === 0 ? {} : { group: ["north", "south", ""][draw(3)]! };
    const dueAtMs = draw(3) > 0 ? {} : { dueAtMs: this.#nowMs + draw(16) - 4 };
    const content = draw(4) === 0 ? "other" : "same";
    const untilMs = this.#nowMs + draw(16);
    const once = draw(2) === 0 ? {} : { idempotency: idempotency(`${draw(6)}`, untilMs, content) };
    const rest = draw(4) === 0 ? { cost: 1 + draw(3), deadlineAtMs: this.#nowMs + draw(99) } : {};
    const [payload, headers] = [
      new Uint8Array(draw(40)).fill(draw(256)),
      bytesOf("h".repeat(draw(3))),
    ];
    const lane = { class: messageClasses[draw(3)]! };
    return mail({ ...lane, ...keyHash, ...group, ...dueAtMs, ...once, ...rest, payload, headers });
  }

  #change(at: 0 | 1, draw: Draw): Change {
    const { counters, started, pending, dead } = this.#seen[at];
    const anySeq = 1 + draw(counters.accepted + 1);
    const pool = [[], started, pending, dead][draw(4)]!;
    const seq = pool[draw(pool.length)] ?? anySeq;
    const dueAtMs = this.#nowMs + draw(16) - 4;
    const reason = `r${draw(3)}`;
    const changes: readonly Change[] = [
      { seq, kind: "started" },
      { seq, kind: "started" },
      { seq, kind: "released" },
      { seq, kind: "released", dueAtMs },
      { seq, kind: "retry", dueAtMs, error: reason },
      { seq, kind: "ack" },
      { seq, kind: "dead", reason },
      { seq, kind: "discard", reason },
      { seq, kind: "redrive" },
    ];
    return changes[draw(changes.length)]!;
  }

  async #look(at: 0 | 1, changes: readonly Change[]): Promise<void> {
    const owner = this.#oracle.owners[at];
    const started = changes.filter(({ kind }) => kind === "started");
    this.#seen[at] = {
      counters: await owner.audit(),
      started: [...this.#seen[at].started, ...seqsOf(started)].slice(-6),
      pending: await owner.ready(),
      dead: seqsOf(await owner.shelf("dead")),
    };
  }

  async #same(act: (side: Side) => Promise<unknown>): Promise<void> {
    const expected = await act(this.#oracle);
    deepStrictEqual(await act(this.#subject), expected);
  }
}

async function send(side: Side, batch: PartitionWrite[]): Promise<unknown> {
  side.last = batch;
  try {
    const results = await side.owners[0].engine.write(batch);
    return results.map(({ appended, counters }: WriteResult) => ({ appended, counters }));
  } catch (error) {
    if (isSpillwayError(error)) return error.code;
    throw error;
  }
}

/** The last batch as an owner sends it again, under the claims it has now. */
function renewed({ owners, last }: Side): PartitionWrite[] {
  return last.map((write) => {
    const owner = owners.find(({ ref }) => ref.partition === write.claim.ref.partition)!;
    return { ...write, claim: owner.claim };
  });
}

async function stale(side: Side, at: 0 | 1): Promise<unknown> {
  const claim = side.former[at];
  if (claim === side.owners[at].claim) return "no former claim";
  const draft = side.owners[at].draft({ claim, appends: [mail()] });
  const { last } = side;
  const outcome = await send(side, [draft]);
  side.last = last;
  return outcome;
}

async function takeOver(side: Side, at: 0 | 1): Promise<unknown> {
  const owner = side.owners[at];
  const former = owner.claim;
  side.former[at] = former;
  const { fence, claimId: _, interrupted, ref: __, ...rest } = await owner.takeOver();
  ok(fence > former.fence, "the fence rises");
  return { ...rest, interrupted: interrupted.map(plain) };
}

async function reopen(side: Side): Promise<unknown> {
  const [first, second] = side.owners;
  const former = first.claim;
  first.engine = await first.harness.reopen();
  second.engine = first.engine;
  const claims = [await takeOver(side, 0), await takeOver(side, 1)];
  side.former[0] = former;
  return claims;
}

async function sideOf(harness: Harness, engine: Engine, flow: string): Promise<Side> {
  const owners = [
    await Bench.own(harness, { flow, partition: 0 }, engine),
    await Bench.own(harness, { flow, partition: 1 }, engine),
  ] as const;
  return { owners, former: [owners[0].claim, owners[1].claim], last: [] };
}

function oracleHarness(): Harness {
  const engine = memory();
  return {
    engine,
    reopen: async () => engine,
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

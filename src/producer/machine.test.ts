import fc from "fast-check";
import { expect, test } from "vitest";
import { issuer } from "../protocol/index.ts";
import type {
  ClassName,
  Draft,
  ProducerFrame,
  RefusalCode,
  SendResult,
} from "../protocol/index.ts";
import { ProducerMachine } from "./machine.ts";
import type { Op, ProducerEffect } from "./machine.ts";

const classes = ["critical", "normal", "bulk"] as const;
const rankOf = (name: ClassName): number => classes.indexOf(name);
const noBytes = new Uint8Array(0);
const refusals: readonly RefusalCode[] = [
  "no_credit",
  "buffer_full",
  "class_closed",
  "rate_limited",
  "group_limited",
  "deadline_passed",
  "idempotency_conflict",
];
const waitingMax = 6;
const options = { partitions: 2, shards: 2, seed: 1, waitingMax, beatGapMs: 0 };

function draft(more: Partial<Draft> = {}): Draft {
  return { class: "normal", headers: noBytes, payload: noBytes, bytes: 1, ...more };
}

interface Offer {
  readonly op: Op<number>;
  readonly partition: number;
  readonly wait: boolean;
  sends: number;
  answers: number;
}

/** The receiving end of both streams, and the books of everything that was offered. */
class World {
  readonly machine = new ProducerMachine<number>(options);
  readonly issuer = issuer.init({ firstEpoch: 1 }, 0);
  nowMs = 0;
  readonly offers: Offer[] = [];
  readonly isOpen = [false, false];
  lowest: ClassName = "bulk";
  room = 4;
  /** Sent and not answered, by stream. */
  readonly #arrived: { position: number; offer: Offer }[][] = [[], []];
  /** What the last send of each class in each stream was: order of offers. */
  readonly #last = new Map<string, number>();
  /** Lowest class that was open at the last flush or since: what was spent under it may leave. */
  readonly #open = [2, 2];
  readonly #heard = [2, 2];
  /** The next send may be stamped with an epoch that is over: the machine has not heard of it. */
  readonly #isBehind = [false, false];

  open(partition: number): void {
    this.close(partition);
    this.isOpen[partition] = true;
    issuer.join(this.issuer, String(partition), this.nowMs);
    this.#arrived[partition]!.length = 0;
    this.#heard[partition] = 2;
    this.#open[partition] = 2;
    this.#isBehind[partition] = false;
    this.machine.frame({ kind: "opened", partition }, this.nowMs);
  }

  close(partition: number): void {
    if (!this.isOpen[partition]) return;
    this.isOpen[partition] = false;
    issuer.leave(this.issuer, String(partition), this.nowMs, true);
    this.machine.frame({ kind: "closed", partition, code: "fenced" }, this.nowMs);
  }

  offer(partition: number, of: Draft, wait: boolean): void {
    const before = this.machine.waiting;
    const own = this.offers.some(
      (other) => other.op.state === "waiting" && other.op.draft.group === of.group,
    );
    const op = this.machine.offer(partition, of, this.offers.length, this.nowMs, wait);
    if ("code" in op) return;
    this.offers.push({ op, partition, wait, sends: 0, answers: 0 });
    const most = own ? waitingMax : 2 * waitingMax;
    if (this.machine.waiting > before) expect(before, "Q4").toBeLessThan(most);
  }

  cancel(at: number): void {
    const offer = this.offers[at % Math.max(1, this.offers.length)];
    if (offer !== undefined && this.machine.cancel(offer.op)) offer.answers++;
  }

  flush(): void {
    for (const effect of this.machine.flush(this.nowMs)) this.#carryOut(effect);
    for (const partition of [0, 1]) this.#open[partition] = this.#heard[partition]!;
    this.machine.check();
  }

  #carryOut(effect: ProducerEffect<number>): void {
    if (effect.kind === "frame") this.#frame(effect.frame);
    else if (effect.kind === "accepted" || effect.kind === "refused") {
      const ops = effect.kind === "accepted" ? effect.ops : [effect.op];
      for (const { token } of ops) {
        expect(++this.offers[token]!.answers, "Q3 one answer").toBe(1);
      }
      if (effect.kind !== "refused" || !this.offers[effect.op.token]!.wait) return;
      const waited = ["no_credit", "buffer_full", "class_closed", "group_limited"];
      expect(waited, "Q3").not.toContain(effect.refusal.code);
    }
  }

  #frame(frame: ProducerFrame): void {
    const { partition } = frame;
    const id = String(partition);
    expect(this.isOpen[partition], "nothing is sent on a closed stream").toBe(true);
    if (frame.kind === "send") {
      const sizes = frame.drafts.map(({ bytes }) => bytes);
      const { accepted } = issuer.arrived(
        this.issuer,
        id,
        this.nowMs,
        frame.stamp,
        sizes.length,
        sizes,
      );
      if (!this.#isBehind[partition]) expect(accepted, "Q1 on live credit").toBe(sizes.length);
      const late: SendResult[] = [];
      for (const [at, sent] of frame.drafts.entries()) {
        const offer = this.#sent(partition, sent);
        const position = frame.position + at;
        if (at < accepted) this.#arrived[partition]!.push({ position, offer });
        else late.push({ kind: "refused", position, code: "no_credit" });
      }
      if (late.length > 0) {
        this.machine.frame({ kind: "results", partition, results: late }, this.nowMs);
      }
    }
    issuer.heard(this.issuer, id, this.nowMs, frame.beat);
  }

  #sent(partition: number, sent: Draft): Offer {
    const token = (sent.cost ?? 0) - 1;
    const offer = this.offers[token]!;
    const open = this.#open[partition]!;
    expect(rankOf(sent.class), "Q1 its class is taken").toBeLessThanOrEqual(open);
    const { deadlineMs } = offer.op.draft;
    if (deadlineMs !== undefined) {
      const waitedMs = this.nowMs - offer.op.offeredAtMs;
      expect(sent.deadlineMs, "a deadline runs while it waits").toBe(deadlineMs - waitedMs);
    }
    if (offer.sends++ > 0) return offer;
    const stream = `${partition}:${sent.class}:${sent.group ?? ""}`;
    expect(token, "Q2").toBeGreaterThan(this.#last.get(stream) ?? -1);
    this.#last.set(stream, token);
    return offer;
  }

  answer(partition: number, kind: number): void {
    const [first] = this.#arrived[partition]!.splice(0, 1);
    if (first === undefined || !this.isOpen[partition]) return;
    const { position } = first;
    const code = refusals[kind % (2 * refusals.length)];
    const result: SendResult =
      code === undefined
        ? kind % 2 === 0
          ? { kind: "accepted", position, seq: 1, count: 1 }
          : { kind: "duplicate", position, seq: 1 }
        : { kind: "refused", position, code, allowed: 20 };
    this.machine.frame({ kind: "results", partition, results: [result] }, this.nowMs);
  }

  /** Takes credit back: the machine hears of it with the next grant. */
  contract(partition: number, kept: number): void {
    if (!this.isOpen[partition]) return;
    const before = issuer.outstandingOf(this.issuer, String(partition)).messages;
    issuer.contract(this.issuer, String(partition), this.nowMs, kept);
    if (before > kept) this.#isBehind[partition] = true;
  }

  grant(): void {
    const room = { messages: this.room, bytes: 3 * this.room };
    for (const { senderId, ...grant } of issuer.issue(this.issuer, this.nowMs, room, "rise")) {
      const partition = Number(senderId);
      this.#heard[partition] = rankOf(this.lowest);
      this.#open[partition] = Math.max(this.#open[partition]!, rankOf(this.lowest));
      this.#isBehind[partition] = false;
      this.machine.frame(
        {
          kind: "grant",
          partition,
          grant,
          lowestClass: this.lowest,
          limitedBy: "no_credit",
          retryAfterMs: 1,
        },
        this.nowMs,
      );
    }
  }
}

const moves = fc.array(fc.tuple(fc.nat(29), fc.nat(99), fc.nat(99)), {
  minLength: 30,
  maxLength: 150,
  size: "max",
});

function move(world: World, [kind, a, b]: readonly [number, number, number]): void {
  const partition = a % 2;
  if (kind < 10) {
    const of = draft({
      class: classes[b % 3]!,
      bytes: 1 + (b % 5),
      cost: world.offers.length + 1,
      ...(b % 4 === 0 ? { deadlineMs: 1000 } : {}),
      ...(b % 8 < 4 ? { group: b % 8 < 2 ? "a" : "b" } : {}),
      ...(b % 5 === 0 ? { idempotency: { id: noBytes, content: noBytes } } : {}),
    });
    world.offer(partition, of, b % 7 !== 0);
  } else if (kind < 15) world.flush();
  else if (kind < 19) world.grant();
  else if (kind < 23) world.answer(partition, b);
  else if (kind === 23) world.cancel(b);
  else if (kind === 24) world.contract(partition, b % 3);
  else if (kind === 25) {
    world.flush(); // What was spent leaves within its turn.
    world.nowMs += b * 30;
  } else if (kind === 26) world.lowest = classes[b % 3]!;
  else if (kind === 27) world.room = b % 12;
  else if (kind === 28 && b % 3 === 0) world.close(partition);
  else if (kind === 29 && b % 3 === 0) world.open(partition);
}

test("Q1 to Q5 hold whatever is offered, granted, taken back, answered and closed", () => {
  fc.assert(
    fc.property(moves, (history) => {
      const world = new World();
      world.open(0);
      world.open(1);
      for (const each of history) move(world, each);
      world.machine.close();
      world.flush();
      for (const { answers } of world.offers) expect(answers, "Q3").toBe(1);
      expect(world.machine.waiting).toBe(0);
    }),
    { numRuns: 200 },
  );
});

test("G11 with credit and answers, everything that waits is sent and answered", () => {
  fc.assert(
    fc.property(moves, (history) => {
      const world = new World();
      world.open(0);
      world.open(1);
      for (const each of history) move(world, each);
      for (const partition of [0, 1]) if (!world.isOpen[partition]) world.open(partition);
      world.room = 10;
      world.lowest = "bulk";
      for (let round = 0; round < 300; round++) {
        world.flush();
        world.grant();
        world.flush();
        for (const partition of [0, 1]) for (let k = 0; k < 9; k++) world.answer(partition, 11);
        world.flush();
        const wakeMs = world.machine.nextWakeAtMs(world.nowMs);
        if (world.offers.every(({ answers }) => answers === 1)) break;
        expect(wakeMs, "something is to come").toBeLessThan(Infinity);
        world.nowMs = Math.max(world.nowMs + 1, wakeMs);
      }
      for (const { answers } of world.offers) expect(answers).toBe(1);
    }),
    { numRuns: 100 },
  );
});

test("Q1 what was spent in an epoch that is over is not stamped with the new one: it waits again", () => {
  const world = new World();
  world.open(0);
  world.flush();
  world.grant();
  world.offer(0, draft({ cost: 1 }), true);
  expect(world.offers[0]!.op.state).toBe("sent");
  world.contract(0, 0);
  world.room = 0;
  world.grant();
  expect(world.offers[0]!.op.state).toBe("waiting");
  world.flush();
  expect(world.offers[0]!.sends).toBe(0);
});

test("G6 drafts that gave up waiting are forgotten, however long there is no credit", () => {
  const world = new World();
  world.open(0);
  world.offer(0, draft({ cost: 1 }), true);
  const { op } = world.offers[0]!;
  for (let at = 0; at < 2000; at++) {
    const given = world.machine.offer(0, draft(), at, world.nowMs, true);
    if ("code" in given) throw new Error("it is taken");
    expect(world.machine.cancel(given)).toBe(true);
    world.machine.check();
  }
  expect(op.state).toBe("waiting");
});

test("Q5 a group that is held waits at its pace and holds up no other; the hold ends by itself", () => {
  const world = new World();
  world.open(0);
  world.room = 100;
  world.flush();
  world.grant();
  const held = draft({ group: "a", cost: 1 });
  world.offer(0, held, true);
  world.flush();
  world.answer(0, refusals.indexOf("group_limited"));
  expect(world.offers[0]!.op.state, "it waits again").toBe("waiting");
  expect(world.machine.waitsFor(world.offers[0]!.op, 0)).toMatchObject({
    code: "group_limited",
    retryAfterMs: 50,
    allowed: 20,
  });
  // Its followers wait behind it, or are told at once; the others pass.
  expect(world.machine.offer(0, draft({ group: "a" }), 9, 0, false)).toMatchObject({
    code: "group_limited",
  });
  world.offer(0, draft({ group: "b", cost: 2 }), false);
  world.offer(0, draft({ cost: 3 }), false);
  world.flush();
  expect(world.offers.map(({ sends }) => sends)).toEqual([1, 1, 1]);
  // 20 per second: the next one 50 ms later.
  world.nowMs = 49;
  world.flush();
  expect(world.offers[0]!.sends).toBe(1);
  expect(world.machine.nextWakeAtMs(49)).toBeLessThanOrEqual(50);
  world.nowMs = 50;
  world.flush();
  expect(world.offers[0]!.sends).toBe(2);
  world.nowMs = 250;
  world.offer(0, draft({ group: "a", cost: 4 }), false);
  world.offer(0, draft({ group: "a", cost: 5 }), false);
  expect(world.offers.map(({ op }) => op.state).slice(3)).toEqual(["sent", "sent"]);
});

test("Q2 with scarce credit groups take turns, and a full house has a place for a group that has none", () => {
  const world = new World();
  world.open(0);
  for (let at = 0; at < waitingMax; at++) {
    world.offer(0, draft({ group: "a", cost: world.offers.length + 1 }), true);
  }
  expect(world.machine.offer(0, draft({ group: "a" }), 0, 0, true)).toMatchObject({
    found: waitingMax,
    allowed: waitingMax,
  });
  world.offer(0, draft({ group: "b", cost: world.offers.length + 1 }), true);
  expect(world.offers).toHaveLength(waitingMax + 1);
  world.flush();
  world.room = 2;
  world.grant();
  world.flush();
  const sent = world.offers.filter(({ sends }) => sends > 0).map(({ op }) => op.draft.group);
  expect(sent).toEqual(["a", "b"]);
});

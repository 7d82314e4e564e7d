import fc from "fast-check";
import { expect, test } from "vitest";
import { contractOf, draftOf } from "../../test/support/machine-harness.ts";
import { drain } from "../control/index.ts";
import type { FlowOptions } from "../flow/index.ts";
import { spender } from "../protocol/index.ts";
import type { Draft, ToProducerFrame } from "../protocol/index.ts";
import { Intake } from "./intake.ts";
import type { Stored } from "./intake.ts";

/** The intake of a flow, with producers that spend what they are granted. */
class World {
  readonly contract: ReturnType<typeof contractOf>;
  readonly intake: Intake;
  readonly stored: Stored = { messages: 0, bytes: 0, unwritten: 0, unwrittenBytes: 0 };
  nowMs = 0;
  readonly taken: Draft[] = [];
  readonly frames: ToProducerFrame[] = [];
  readonly #streams = new Map<string, { spender: spender.Spender; position: number }>();

  constructor(options: FlowOptions) {
    this.contract = contractOf({ partitions: 2, classes: { critical: 1, normal: 1 }, ...options });
    this.intake = new Intake(
      this.contract,
      drain.init({ expectedRatePerS: this.contract.expectedRate }, 0),
      {
        send: (producer, frame) => this.#hear(producer, frame),
        take: (_producer, _partition, _position, draft) => {
          this.taken.push(draft);
          this.stored.messages++;
          this.stored.bytes += draft.bytes;
          this.stored.unwritten++;
          this.stored.unwrittenBytes += draft.bytes;
        },
        stored: () => ({ ...this.stored }),
        isKnown: () => true,
        waits: () => true,
      },
      0,
    );
    for (const producer of ["a", "b"]) {
      for (const partition of [0, 1]) {
        this.#streams.set(`${producer}${partition}`, { spender: spender.init(), position: 0 });
        this.intake.join(producer, partition, 0);
      }
    }
  }

  #hear(producer: string, frame: ToProducerFrame): void {
    this.frames.push(frame);
    if (frame.kind !== "grant") return;
    const { spender: to } = this.#streams.get(`${producer}${frame.partition}`)!;
    spender.granted(to, this.nowMs, frame.grant);
  }

  ask(producer: string, partition: number, want: number, bytes: number): void {
    const { spender: of } = this.#streams.get(`${producer}${partition}`)!;
    const beat = spender.heartbeat(of, this.nowMs, want, want * bytes);
    this.intake.frame(producer, { kind: "beat", partition, beat }, this.nowMs);
    this.intake.issue(this.nowMs);
  }

  /** Sends as many as credit allows, and beyond it where `extra` says so. */
  send(producer: string, partition: number, drafts: readonly Draft[], extra = 0): number {
    const stream = this.#streams.get(`${producer}${partition}`)!;
    const fits = spender.fits(
      stream.spender,
      this.nowMs,
      drafts.map(({ bytes }) => bytes),
    );
    const sent = drafts.slice(0, fits + extra);
    if (sent.length === 0) return 0;
    for (const { bytes } of sent.slice(0, fits)) spender.spend(stream.spender, this.nowMs, bytes);
    const stamp = spender.stamp(stream.spender, this.nowMs);
    const beat = spender.heartbeat(stream.spender, this.nowMs, 0, 0);
    const { position } = stream;
    stream.position += sent.length;
    const frame = { kind: "send", partition, stamp, position, drafts: sent, beat } as const;
    this.intake.frame(producer, frame, this.nowMs);
    return sent.length;
  }

  written(): void {
    this.stored.unwritten = 0;
    this.stored.unwrittenBytes = 0;
  }

  refused(): number {
    return this.frames.reduce(
      (sum, frame) => sum + (frame.kind === "results" ? frame.results.filter(isRefused).length : 0),
      0,
    );
  }

  check(): void {
    this.intake.check();
    const { messages, bytes } = this.intake.outstanding;
    const { buffer } = this.contract;
    expect(this.stored.messages + messages, "N1").toBeLessThanOrEqual(buffer.messages);
    expect(this.stored.bytes + bytes, "N1 bytes").toBeLessThanOrEqual(buffer.bytes);
  }
}

function isRefused({ kind }: { readonly kind: string }): boolean {
  return kind === "refused";
}

test("N1 and N2 hold for producers that send within and beyond their credit", () => {
  const moves = fc.array(fc.tuple(fc.nat(9), fc.nat(99), fc.nat(99)), {
    minLength: 30,
    maxLength: 150,
    size: "max",
  });
  fc.assert(
    fc.property(moves, (history) => {
      const world = new World({ buffer: { messages: 30, bytes: 4000 } });
      let sent = 0;
      for (const [kind, a, b] of history) {
        const producer = a % 2 === 0 ? "a" : "b";
        const partition = (a >> 1) % 2;
        const bytes = 1 + ((b * 37) % 900);
        const drafts = Array.from({ length: 1 + (b % 4) }, () => draftOf({ bytes }));
        if (kind < 4) world.ask(producer, partition, 1 + (b % 9), bytes);
        else if (kind < 7) sent += world.send(producer, partition, drafts, b % 5 === 0 ? 2 : 0);
        else if (kind === 7) world.written();
        else if (kind === 8) world.nowMs += b * 20;
        else {
          const left = Math.min(world.stored.messages, b % 8);
          world.stored.messages -= left;
          world.stored.bytes = left === 0 || world.stored.messages > 0 ? world.stored.bytes : 0;
          world.intake.issue(world.nowMs);
        }
        world.check();
        expect(world.taken.length + world.refused(), "N2 each is taken or answered").toBe(sent);
      }
    }),
    { numRuns: 150 },
  );
});

test("N3 while much is not durable yet, there is no credit", () => {
  const world = new World({ buffer: { messages: 1_000_000 } });
  world.stored.messages = 8192;
  world.stored.unwritten = 8192;
  world.ask("a", 0, 100, 1);
  expect(world.intake.outstanding.messages).toBe(0);
  world.written();
  world.intake.issue(world.nowMs);
  expect(world.intake.outstanding.messages).toBeGreaterThan(0);
});

test("N2 who asks in vain is told why, and when to come back", () => {
  const world = new World({ buffer: { messages: 10 } });
  world.stored.messages = 10;
  world.ask("a", 1, 4, 1);
  expect(world.frames.at(-1)).toMatchObject({ partition: 1, limitedBy: "buffer_full" });
  world.stored.messages = 0;
  world.intake.setClosed(true, 1);
  world.ask("a", 1, 4, 1);
  expect(world.frames.at(-1)).toMatchObject({ limitedBy: "intake_closed" });
  const { retryAfterMs } = world.frames.at(-1) as { retryAfterMs: number };
  expect(retryAfterMs).toBeGreaterThan(0);
});

test("N2 a message that is too large, or late, is refused with its code and takes no place", () => {
  const world = new World({ buffer: { messages: 10, bytes: 10_000 }, messageBytesMax: 100 });
  world.ask("a", 0, 4, 200);
  world.send("a", 0, [draftOf({ bytes: 200 }), draftOf({ deadlineMs: 0 }), draftOf({})]);
  const results = world.frames.filter(({ kind }) => kind === "results");
  expect(results).toMatchObject([
    { results: [{ code: "message_too_large" }, { code: "deadline_passed" }] },
  ]);
  expect(world.taken).toHaveLength(1);
});

test("N4 once normal has stopped, critical gets credit no faster than the consumers drain", () => {
  const world = new World({
    buffer: { messages: 10_000 },
    classes: { critical: 1, normal: 0.8, bulk: 0.5 },
    expectedRate: 100,
  });
  const critical = (count: number): number => {
    const before = world.taken.length;
    world.ask("a", 0, count, 1);
    world.send(
      "a",
      0,
      Array.from({ length: count }, () => draftOf({ class: "critical" })),
    );
    world.written();
    return world.taken.length - before;
  };
  world.stored.messages = 8000;
  let taken = 0;
  for (; world.nowMs < 10_000; world.nowMs += 50) taken += critical(50);
  expect(taken).toBeGreaterThan(750);
  expect(taken).toBeLessThan(1100);
  expect(world.refused()).toBe(0);
  // Nothing else comes, and credit comes all the same.
  world.intake.issue(world.nowMs);
  while (critical(50) > 0);
  expect(world.intake.dueAtMs).toBeLessThan(world.nowMs + 20);
  // It reopens a little lower than where it closed, and then as fast as there is room.
  world.stored.messages = 7600;
  world.nowMs += 10;
  critical(1);
  expect(critical(25)).toBe(0);
  world.stored.messages = 7400;
  world.nowMs += 10;
  critical(1);
  expect(critical(200)).toBeGreaterThan(25);
});

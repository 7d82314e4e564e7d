import fc from "fast-check";
import { expect, test } from "vitest";
import { Session } from "./session.ts";
import type { Numbered } from "./session.ts";

/** One end: what it has said that must come, and what came. */
interface End {
  readonly session: Session<string>;
  readonly said: string[];
  readonly heard: string[];
  /** On its way to the other end. */
  wire: { readonly frames: readonly Numbered<string>[]; readonly ack: number | undefined }[];
}

interface How {
  /** The answer of the second end does not arrive. */
  readonly isAnswerLost: boolean;
  /** What the first end says was true before the last so many came, on the connection before. */
  readonly behind: number;
}

type Op =
  | { readonly kind: "say"; readonly end: 0 | 1; readonly isNumbered: boolean }
  /** A message leaves. */
  | { readonly kind: "flush"; readonly end: 0 | 1 }
  /** A message comes. */
  | { readonly kind: "deliver"; readonly end: 0 | 1 }
  | { readonly kind: "cut" }
  | { readonly kind: "connect"; readonly how: How };

const end = fc.constantFrom(0 as const, 1 as const);
const how = fc.record({ isAnswerLost: fc.boolean(), behind: fc.nat({ max: 3 }) });
const op: fc.Arbitrary<Op> = fc.oneof(
  { arbitrary: fc.record({ kind: fc.constant("say"), end, isNumbered: fc.boolean() }), weight: 6 },
  { arbitrary: fc.record({ kind: fc.constant("flush"), end }), weight: 4 },
  { arbitrary: fc.record({ kind: fc.constant("deliver"), end }), weight: 4 },
  { arbitrary: fc.record({ kind: fc.constant("cut") }), weight: 1 },
  { arbitrary: fc.record({ kind: fc.constant("connect"), how }), weight: 2 },
);

class Conversation {
  readonly ends: readonly [End, End];
  #isConnected = false;
  #count = 0;

  constructor(make: () => Session<string>) {
    const open = (): End => ({ session: make(), said: [], heard: [], wire: [] });
    this.ends = [open(), open()];
  }

  step(op: Op): void {
    switch (op.kind) {
      case "say":
        this.#say(this.ends[op.end], op.isNumbered);
        break;
      case "flush":
        this.#flush(this.ends[op.end]);
        break;
      case "deliver":
        this.#deliver(op.end);
        break;
      case "cut":
        this.cut();
        break;
      case "connect":
        this.connect(op.how);
        break;
    }
    for (const { session } of this.ends) session.check();
  }

  #say(end: End, isNumbered: boolean): void {
    const text = `${isNumbered ? "must come" : "may come"} ${++this.#count}`;
    if (isNumbered) end.said.push(text);
    end.session.push(text, isNumbered, 10);
  }

  #flush(end: End): void {
    const frames = end.session.take();
    const ack = end.session.takeAck();
    if (frames.length > 0 || ack !== undefined) end.wire.push({ frames, ack });
  }

  #deliver(to: 0 | 1): void {
    const message = this.ends[1 - to]!.wire.shift();
    if (message === undefined) return;
    const { session, heard } = this.ends[to];
    if (message.ack !== undefined) expect(session.acknowledged(message.ack)).toBe(true);
    for (const { n, frame } of message.frames) {
      if (n === undefined) continue;
      const arrival = session.accept(n);
      expect(arrival).not.toBe("gap");
      if (arrival === "new") heard.push(frame);
    }
  }

  cut(): void {
    for (const end of this.ends) {
      end.session.disconnected();
      end.wire = [];
    }
    this.#isConnected = false;
  }

  /** The first end says what it has, the second answers; the answer, or the connection, may be lost. */
  connect({ isAnswerLost, behind }: How): void {
    if (this.#isConnected) this.cut();
    const [client, server] = this.ends;
    expect(server.session.connected(Math.max(0, client.session.received - behind))).toBe(true);
    if (isAnswerLost) return this.cut();
    expect(client.session.connected(server.session.received)).toBe(true);
    this.#isConnected = true;
  }

  finish(): void {
    this.connect({ isAnswerLost: false, behind: 2 });
    for (let round = 0; round < 3; round++) {
      for (const end of this.ends) this.#flush(end);
      for (const to of [0, 1] as const)
        while (this.ends[1 - to]!.wire.length > 0) this.#deliver(to);
    }
  }
}

function everythingComesOnce(make: () => Session<string>): fc.IPropertyWithHooks<[Op[]]> {
  return fc.property(fc.array(op, { maxLength: 120 }), (ops) => {
    const conversation = new Conversation(make);
    for (const each of ops) conversation.step(each);
    conversation.finish();
    const [client, server] = conversation.ends;
    expect(server.heard).toEqual(client.said);
    expect(client.heard).toEqual(server.said);
    for (const { session } of conversation.ends) expect(session.keptBytes).toBe(0);
  });
}

const options = { keptBytesMax: 1e6 };

test("U1 whatever connections break, every numbered frame arrives once, in order", () => {
  fc.assert(
    everythingComesOnce(() => new Session(options)),
    { numRuns: 500 },
  );
});

/** Mistakes that the property must see. */
const broken: Readonly<Record<string, () => Session<string>>> = {
  "repeats are taken for new": () =>
    new (class extends Session<string> {
      override accept(n: number): "new" | "repeat" | "gap" {
        const arrival = super.accept(n);
        return arrival === "repeat" ? "new" : arrival;
      }
    })(options),
  "what did not come does not leave again": () =>
    new (class extends Session<string> {
      override connected(received: number): boolean {
        const can = super.connected(received);
        this.take();
        return can;
      }
    })(options),
  "what left is held for acknowledged": () =>
    new (class extends Session<string> {
      #sent = 0;
      override push(frame: string, isNumbered: boolean, bytes: number): void {
        super.push(frame, isNumbered, bytes);
        if (isNumbered) this.acknowledged(++this.#sent);
      }
    })(options),
};

test.each(Object.entries(broken))("the property of U1 sees it when %s", (_mistake, make) => {
  expect(fc.check(everythingComesOnce(make), { numRuns: 20_000 }).failed).toBe(true);
});

test("U2 what is kept is counted until it is acknowledged, and too much of it is a failure", () => {
  const session = new Session<string>({ keptBytesMax: 25 });
  for (const frame of ["a", "b"]) session.push(frame, true, 10);
  expect([session.keptBytes, session.hasFailed]).toEqual([20, false]);
  session.push("c", true, 10);
  expect([session.keptBytes, session.hasFailed]).toEqual([30, true]);
  session.acknowledged(1);
  expect([session.keptBytes, session.hasFailed]).toEqual([20, false]);
});

test("U2 what need not come is not kept while there is no connection", () => {
  const session = new Session<string>(options);
  for (let n = 0; n < 1000; n++) session.push("a grant", false, 10);
  session.connected(0);
  expect(session.take()).toEqual([]);
  expect(session.keptBytes).toBe(0);
});

test("U3 a number that skips one, and an acknowledgement of what was never sent, are seen", () => {
  const session = new Session<string>(options);
  session.push("a", true, 1);
  expect(session.acknowledged(2)).toBe(false);
  expect(session.connected(2)).toBe(false);
  expect([session.accept(1), session.accept(3), session.accept(1)]).toEqual([
    "new",
    "gap",
    "repeat",
  ]);
  expect(session.received).toBe(1);
});

test("what came is told with what leaves, and soon enough when nothing does", () => {
  const session = new Session<string>(options);
  session.connected(0);
  for (let n = 1; n < 64; n++) session.accept(n);
  expect([session.isAckDue, session.hasUntold]).toEqual([false, true]);
  session.accept(64);
  expect(session.isAckDue).toBe(true);
  expect(session.takeAck()).toBe(64);
  expect([session.takeAck(), session.isAckDue, session.hasUntold]).toEqual([
    undefined,
    false,
    false,
  ]);
});

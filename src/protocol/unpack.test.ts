import fc from "fast-check";
import { expect, test } from "vitest";
import { SpillwayError } from "../base/index.ts";
import { decode } from "./message.ts";
import type { Message } from "./message.ts";
import { unpackClient, unpackServer } from "./unpack.ts";
import type { Take } from "./unpack.ts";
import { wireLimits } from "./wire.ts";

const nowMs = 1.9e12;
const fromServer = (head: unknown, take: Take) => unpackServer(head, take, nowMs);
const readers = { "a client": unpackClient, "a server": fromServer } as const;

/** @returns The code of what was thrown; undefined: frames came. */
function codeOf(message: Message, reader: typeof unpackClient | typeof fromServer): unknown {
  try {
    for (const { frame } of decode<unknown>(message, reader)) expect(frame).toBeTypeOf("object");
    return undefined;
  } catch (error) {
    return error instanceof SpillwayError ? error.code : error;
  }
}

const kinds =
  "hello attach detach ack ping pong beat send credit settle working recovered welcome attached rejected detached bye opened closed grant held results want deliver settled lost".split(
    " ",
  );
const names =
  "n kind channel partition role flow token client resume session secret received id beat stamp position drafts settlements grant extendMs seq attempt verdict durationMs confirm bytes headerBytes class key group idempotencyKey cost delayMs deadlineMs epoch grantId heldMs limitMessages limitBytes echoHeartbeatMs leaseMs heartbeatMs positionBytes want wantBytes headBytes error reason results messages window __proto__ constructor toString length".split(
    " ",
  );
const scalar = fc.oneof(
  fc.constantFrom(...kinds, "normal", "produce", "consume", "ack", "nack"),
  fc.integer({ min: -2, max: 300 }),
  fc.double(),
  fc.string(),
  fc.boolean(),
  fc.constant(null),
);
const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4 },
    scalar,
    fc.array(tie("tree"), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom(...names), tie("tree"), { maxKeys: 12 }),
  ),
}));
const head = fc
  .tuple(fc.constantFrom(...kinds), fc.dictionary(fc.constantFrom(...names), tree, { maxKeys: 14 }))
  .map(([kind, rest]) => ({ ...rest, kind }));

function binary(heads: unknown, body: Uint8Array, headBytes?: number): Uint8Array {
  const text = new TextEncoder().encode(JSON.stringify(heads));
  const message = new Uint8Array(4 + text.length + body.length);
  new DataView(message.buffer).setUint32(0, headBytes ?? text.length);
  message.set(text, 4);
  message.set(body, 4 + text.length);
  return message;
}

const body = fc.uint8Array({ maxLength: 50 });
const message: fc.Arbitrary<Message> = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.uint8Array({ maxLength: 200 }),
  fc.json(),
  fc.array(head, { maxLength: 3 }).map((heads) => JSON.stringify(heads)),
  fc.tuple(fc.array(head, { maxLength: 3 }), body).map(([heads, rest]) => binary(heads, rest)),
  fc
    .tuple(fc.array(head, { maxLength: 3 }), body, fc.nat())
    .map(([heads, rest, headBytes]) => binary(heads, rest, headBytes)),
);

test.each(Object.entries(readers))(
  "S10 whatever comes from %s, it is frames or a violation of the protocol",
  (_who, reader) => {
    fc.assert(
      fc.property(message, (each) => {
        expect([undefined, "protocol_violated"]).toContain(codeOf(each, reader));
      }),
      { numRuns: 3000 },
    );
    expect(Object.keys(Object.prototype)).toEqual([]);
  },
);

test("S10 names of the prototype are names like others: nothing is polluted, nothing inherited", () => {
  const hostile =
    '[{"kind":"ping","id":1,"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}]';
  expect(decode(hostile, unpackClient)).toEqual([{ frame: { kind: "ping", id: 1 } }]);
  expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  // Fields that only a prototype would bring are absent.
  const inherited = '[{"__proto__":{"kind":"ping","id":1}}]';
  expect(codeOf(inherited, unpackClient)).toBe("protocol_violated");
  expect(codeOf('[{"kind":"toString"}]', unpackClient)).toBe("protocol_violated");
});

test("unknown fields are left out, unknown kinds of frames are refused", () => {
  const frames = decode('[{"kind":"detach","channel":1,"n":4,"color":"red"}]', unpackClient);
  expect(frames).toEqual([{ n: 4, frame: { kind: "detach", channel: 1 } }]);
  expect(codeOf('[{"kind":"dance","channel":1}]', unpackClient)).toBe("protocol_violated");
  // What only the other end sends is unknown, too.
  expect(codeOf('[{"kind":"detached","channel":1}]', unpackClient)).toBe("protocol_violated");
  expect(codeOf('[{"kind":"detach","channel":1}]', fromServer)).toBe("protocol_violated");
});

const beat = { heartbeatMs: 1, position: 0, positionBytes: 0, want: 0, wantBytes: 0 };
const stamp = { epoch: 1, grantId: 1, heldMs: 0 };
const send = { kind: "send", channel: 0, partition: 0, stamp, position: 0, beat };

test.each([
  ["a size beyond what came", binary([{ ...send, drafts: [{ bytes: 6 }] }], new Uint8Array(5))],
  [
    "a size beyond all memory",
    binary([{ ...send, drafts: [{ bytes: 2 ** 52 }] }], new Uint8Array(5)),
  ],
  ["a negative size", binary([{ ...send, drafts: [{ bytes: -1 }] }], new Uint8Array(5))],
  [
    "a rest that belongs to nobody",
    binary([{ ...send, drafts: [{ bytes: 4 }] }], new Uint8Array(5)),
  ],
  ["a head beyond the message", binary([], new Uint8Array(5), 2 ** 32 - 1)],
  ["a head that ends in a character", binary(["ä"], new Uint8Array(0), 3)],
  ["no room for a length", new Uint8Array(3)],
  ["too many frames", JSON.stringify(Array.from({ length: 257 }, () => ({ kind: "ping", id: 0 })))],
  [
    "too many items",
    JSON.stringify([{ ...send, drafts: Array.from({ length: 257 }, () => ({ bytes: 0 })) }]),
  ],
  ["a head of too many characters", `[${" ".repeat(wireLimits.headBytes)}]`],
  ["nothing", ""],
  ["no list", '{"kind":"ping","id":0}'],
  ["a list that is deep", "[".repeat(60_000)],
  [
    "a key that is too long",
    JSON.stringify([{ ...send, drafts: [{ bytes: 0, key: "k".repeat(1025) }] }]),
  ],
  ["a number that is none", '[{"kind":"ping","id":1e999}]'],
  ["a fraction", '[{"kind":"ping","id":1.5}]'],
  ["a channel too many", '[{"kind":"detach","channel":256}]'],
])("S10 %s is a violation of the protocol", (_what, each) => {
  expect(codeOf(each, unpackClient)).toBe("protocol_violated");
});

test("sizes are checked before memory is taken for them", () => {
  const asked: number[] = [];
  const take: Take = (size) => {
    asked.push(size);
    return undefined;
  };
  const wanting = { ...send, drafts: [{ bytes: 2 ** 50, headerBytes: 2 ** 51 }] };
  expect(() => unpackClient(wanting, take)).toThrow(SpillwayError);
  expect(asked).toEqual([2 ** 51]); // It was asked whether there are so many, and nothing was made.
});

test("a violation says where, what was found and what is allowed", () => {
  const wrong = { ...send, drafts: [{ bytes: 0 }, { bytes: 0, cost: -1 }] };
  expect(() => decode(JSON.stringify([wrong]), unpackClient)).toThrow(
    /frame\.drafts\[1\]\.cost.*-1.*a number from/,
  );
});

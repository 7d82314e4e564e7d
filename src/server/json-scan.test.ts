/** The scanner against `JSON.parse`, which decides what JSON is. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { isSpillwayError } from "../base/index.ts";
import { scanJson } from "./json-scan.ts";

const bytesOf = (text: string): Uint8Array => Buffer.from(text);

function passes(bytes: Uint8Array): boolean {
  try {
    scanJson(bytes);
    return true;
  } catch (error) {
    if (!isSpillwayError(error, "request_invalid")) throw error;
    return false;
  }
}

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

test("J1 takes what JSON.parse takes, and nothing else", () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 6 }), fc.nat(), fc.string(), (json, where, more) => {
      expect(passes(bytesOf(json))).toBe(true);
      const at = where % (json.length + 1);
      for (const other of [
        json.slice(0, at),
        json.slice(0, at) + more + json.slice(at),
        json.slice(0, at) + json.slice(at + 1),
      ]) {
        // Lone surrogates do not survive the way to bytes.
        const text = Buffer.from(other).toString();
        expect([text, passes(bytesOf(text))]).toEqual([text, parses(text)]);
      }
    }),
    { numRuns: 1000 },
  );
});

test.each([
  "",
  " ",
  "{",
  "[1,]",
  '{"a":1,}',
  '{"a"}',
  "[1 2]",
  "01",
  "1.",
  "-",
  "1e",
  "tru",
  "nulll",
  '"\\x"',
  '"\\u12g4"',
  '"a\nb"',
  "[]]",
  "[}",
  '{"a":1]',
  "{1:2}",
  ",",
  "[,1]",
  '{,"a":1}',
])("J1 refuses %j", (text) => {
  expect(passes(bytesOf(text))).toBe(false);
});

test.each(["[]", "{}", " [ ] ", ' { "a" : [ { } , [ ] ] } ', "-0.5e+10", '"\\u00e9"', '""'])(
  "J1 takes %j",
  (text) => {
    expect(passes(bytesOf(text))).toBe(true);
  },
);

test("J1 S10 refuses depth beyond 32, keys beyond 1,000 and bytes that are not UTF-8", () => {
  expect(passes(bytesOf("[".repeat(32) + "]".repeat(32)))).toBe(true);
  expect(passes(bytesOf("[".repeat(33) + "]".repeat(33)))).toBe(false);
  const keys = (count: number): string =>
    `{${Array.from({ length: count }, (_, at) => `"k${at}":0`).join()}}`;
  expect(passes(bytesOf(keys(1000)))).toBe(true);
  expect(passes(bytesOf(keys(1001)))).toBe(false);
  expect(passes(Uint8Array.of(0x22, 0xff, 0x22))).toBe(false);
});

test("J2 finds the span of an opaque member, whose keys do not count", () => {
  const many = `{${Array.from({ length: 2000 }, (_, at) => `"k${at}":0`).join()}}`;
  for (const value of ["1", "null", '"x"', "[1, {}]", many]) {
    for (const text of [
      `{"key":"a", "payload" : ${value} , "z":{"payload":2}}`,
      `{"payload":${value}}`,
    ]) {
      const bytes = bytesOf(text);
      const span = scanJson(bytes, ["payload"]);
      expect(span?.name).toBe("payload");
      expect(Buffer.from(bytes).subarray(span!.from, span!.to).toString()).toBe(value);
    }
  }
});

test.each(['{"data":1,"data_base64":""}', '{"data":1,"data":2}', '{"d\\u0061ta":1}'])(
  "J2 refuses two opaque members, and a name that an escape hides: %s",
  (text) => {
    expect(() => scanJson(bytesOf(text), ["data", "data_base64"])).toThrow("not valid");
  },
);

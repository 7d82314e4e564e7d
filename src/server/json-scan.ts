/**
 * Looks at JSON before anything builds objects of it: one pass over the bytes, no recursion, no garbage.
 * It checks the grammar, so that what is kept as it came is JSON, and the bounds that make parsing cheap.
 *
 * J1  What passes is JSON in UTF-8, no deeper than 32, with at most 1,000 keys that would be parsed.
 * J2  An opaque member at the top (a payload) is found by its span; its keys are not counted, for it is
 *     never parsed here.
 */
import { isUtf8 } from "node:buffer";
import { SpillwayError } from "../base/index.ts";

const depthMax = 32;
const keysMax = 1000;

/** Where the value of the opaque member stands, in bytes. */
export interface OpaqueSpan {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

const [quote, backslash, comma, colon] = [0x22, 0x5c, 0x2c, 0x3a];
const [openObject, closeObject, openList, closeList] = [0x7b, 0x7d, 0x5b, 0x5d];

/**
 * @param opaque Names of members of the outermost object that are not parsed; at most one may be there.
 * @throws {SpillwayError} request_invalid, with the place in bytes
 */
export function scanJson(
  bytes: Uint8Array,
  opaque: readonly string[] = [],
): OpaqueSpan | undefined {
  if (!isUtf8(bytes)) refuse("bytes that are not UTF-8", "JSON in UTF-8", 0);
  let at = skipSpace(bytes, 0);
  let depth = 0;
  /** One bit for each depth: whether it is an object. */
  let objects = 0;
  let keys = 0;
  let span: OpaqueSpan | undefined;
  let opaqueName: string | undefined;
  let opaqueFrom = 0;
  for (;;) {
    // A value begins here, and perhaps the first key in it.
    const first = bytes[at];
    let isEmpty = false;
    if (first === openObject || first === openList) {
      if (depth === depthMax) refuse("deeper nesting", `a depth of at most ${depthMax}`, at);
      const isObject = first === openObject;
      objects = isObject ? objects | (1 << depth) : objects & ~(1 << depth);
      depth++;
      at = skipSpace(bytes, at + 1);
      isEmpty = bytes[at] === (isObject ? closeObject : closeList);
      if (!isEmpty && !isObject) continue;
    } else at = endOfScalar(bytes, at);
    // What follows: the ends of what is open, then a comma or the end of all.
    let isNext = first === openObject && !isEmpty;
    while (!isNext) {
      if (!isEmpty) at = skipSpace(bytes, at);
      isEmpty = false;
      if (depth === 0) {
        if (at < bytes.length) refuse("more after the value", "one JSON value", at);
        return span;
      }
      if (depth === 1 && opaqueName !== undefined) {
        span = { name: opaqueName, from: opaqueFrom, to: endBefore(bytes, at) };
        opaqueName = undefined;
      }
      const isObject = (objects & (1 << (depth - 1))) !== 0;
      if (bytes[at] === comma) isNext = true;
      else if (bytes[at] !== (isObject ? closeObject : closeList)) unexpected(bytes, at);
      else depth--;
      at++;
    }
    if (bytes[at - 1] === comma) at = skipSpace(bytes, at);
    if ((objects & (1 << (depth - 1))) === 0) continue;
    // A key, and the colon after it.
    if (bytes[at] !== quote) unexpected(bytes, at);
    const keyAt = at;
    at = endOfText(bytes, at);
    if (opaqueName === undefined && ++keys > keysMax) {
      refuse("more keys", `at most ${keysMax} keys`, keyAt);
    }
    const name = depth === 1 && opaque.length > 0 ? nameAt(bytes, keyAt, at, opaque) : undefined;
    at = skipSpace(bytes, at);
    if (bytes[at] !== colon) unexpected(bytes, at);
    at = skipSpace(bytes, at + 1);
    if (name !== undefined) {
      if (span !== undefined) refuse(`"${name}" after "${span.name}"`, "one of them, once", keyAt);
      opaqueName = name;
      opaqueFrom = at;
    }
  }
}

function refuse(found: string, allowed: string, at: number): never {
  throw new SpillwayError("request_invalid", { found, allowed, atByte: at });
}

function unexpected(bytes: Uint8Array, at: number): never {
  const found = at < bytes.length ? JSON.stringify(String.fromCharCode(bytes[at]!)) : "its end";
  return refuse(found, "JSON", at);
}

function skipSpace(bytes: Uint8Array, from: number): number {
  let at = from;
  for (;;) {
    const byte = bytes[at];
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return at;
    at++;
  }
}

/** The end of a value before the white space that follows it. */
function endBefore(bytes: Uint8Array, at: number): number {
  let end = at;
  while (bytes[end - 1]! <= 0x20) end--;
  return end;
}

function endOfScalar(bytes: Uint8Array, at: number): number {
  switch (bytes[at]) {
    case quote:
      return endOfText(bytes, at);
    case 0x74:
      return endOfWord(bytes, at, "true");
    case 0x66:
      return endOfWord(bytes, at, "false");
    case 0x6e:
      return endOfWord(bytes, at, "null");
    default:
      return endOfNumber(bytes, at);
  }
}

function endOfText(bytes: Uint8Array, from: number): number {
  let at = from + 1;
  for (;;) {
    const byte = bytes[at];
    if (byte === quote) return at + 1;
    if (byte === backslash) at = endOfEscape(bytes, at + 1);
    else if (byte === undefined || byte < 0x20) unexpected(bytes, at);
    else at++;
  }
}

function endOfEscape(bytes: Uint8Array, at: number): number {
  const byte = bytes[at];
  if (byte === 0x75) {
    for (let digit = at + 1; digit < at + 5; digit++) {
      if (!isHex(bytes[digit])) unexpected(bytes, digit);
    }
    return at + 5;
  }
  if (byte === undefined || !'"\\/bfnrt'.includes(String.fromCharCode(byte))) unexpected(bytes, at);
  return at + 1;
}

function isHex(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  return isDigit(byte) || (byte >= 0x41 && byte <= 0x46) || (byte >= 0x61 && byte <= 0x66);
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

function endOfWord(bytes: Uint8Array, at: number, word: string): number {
  for (let index = 1; index < word.length; index++) {
    if (bytes[at + index] !== word.charCodeAt(index)) unexpected(bytes, at + index);
  }
  return at + word.length;
}

function endOfNumber(bytes: Uint8Array, from: number): number {
  let at = bytes[from] === 0x2d ? from + 1 : from;
  at = bytes[at] === 0x30 ? at + 1 : endOfDigits(bytes, at);
  if (bytes[at] === 0x2e) at = endOfDigits(bytes, at + 1);
  if (bytes[at] === 0x65 || bytes[at] === 0x45) {
    at++;
    if (bytes[at] === 0x2b || bytes[at] === 0x2d) at++;
    at = endOfDigits(bytes, at);
  }
  return at;
}

/** At least one of them. */
function endOfDigits(bytes: Uint8Array, from: number): number {
  let at = from;
  if (!isDigit(bytes[at])) unexpected(bytes, at);
  while (isDigit(bytes[at])) at++;
  return at;
}

/** The name of a key that is among `names`; an escape in a key could hide one of them. */
function nameAt(
  bytes: Uint8Array,
  from: number,
  to: number,
  names: readonly string[],
): string | undefined {
  const length = to - from - 2;
  for (const name of names) {
    if (name.length === length && isName(bytes, from + 1, name)) return name;
  }
  for (let at = from + 1; at < to - 1; at++) {
    if (bytes[at] === backslash) refuse("a name with an escape", "plain names", at);
  }
  return undefined;
}

function isName(bytes: Uint8Array, from: number, name: string): boolean {
  for (let index = 0; index < name.length; index++) {
    if (bytes[from + index] !== name.charCodeAt(index)) return false;
  }
  return true;
}

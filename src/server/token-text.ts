/**
 * The text of a token: `spw_<id>_<secret><checksum>`. The secret is 32 random bytes, so one SHA-256 of it
 * keeps it safe at rest. The checksum protects nothing: by it a scanner of leaks, and a person who has
 * copied half of it, can tell a token from noise.
 */
import { hash, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";

export interface TokenText {
  readonly id: string;
  readonly secret: string;
}

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const idBytes = 8;
const secretBytes = 32;
/** Digits that hold 8 and 32 bytes and a CRC-32: ceil(bits / log2(62)). */
const idLength = 11;
const secretLength = 43;
const checksumLength = 6;

const form = new RegExp(
  `^spw_([0-9A-Za-z]{${idLength}})_([0-9A-Za-z]{${secretLength}})([0-9A-Za-z]{${checksumLength}})$`,
);

export function newToken(): TokenText & { readonly text: string } {
  const id = randomText(idBytes, idLength);
  const secret = randomText(secretBytes, secretLength);
  return { id, secret, text: formatToken({ id, secret }) };
}

export function formatToken({ id, secret }: TokenText): string {
  const body = `spw_${id}_${secret}`;
  return body + checksumOf(body);
}

/** @returns Undefined: it is no token, or not all of one. */
export function parseToken(text: string): TokenText | undefined {
  const match = form.exec(text);
  if (match === null) return undefined;
  const [, id, secret, checksum] = match as unknown as [string, string, string, string];
  return checksumOf(text.slice(0, -checksumLength)) === checksum ? { id, secret } : undefined;
}

/** SHA-256. */
export function digestOf(secret: string): Buffer {
  return hash("sha256", secret, "buffer");
}

function randomText(bytes: number, length: number): string {
  return textOf(BigInt(`0x${randomBytes(bytes).toString("hex")}`), length);
}

function checksumOf(body: string): string {
  return textOf(BigInt(crc32(body)), checksumLength);
}

function textOf(value: bigint, length: number): string {
  let text = "";
  for (let rest = value; text.length < length; rest /= 62n) {
    text = digits[Number(rest % 62n)]! + text;
  }
  return text;
}

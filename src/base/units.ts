const bytesOf = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
};
const msOf = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A size: bytes as a number, or text such as "2 GiB", "512KiB", "10 MB". */
export type Size = number | string;
/** A span: milliseconds as a number, or text such as "200ms", "10s", "15m", "24h", "7d". */
export type Span = number | string;

/** @returns Bytes, or undefined when it is not a size. */
export function parseBytes(size: Size): number | undefined {
  return parse(size, bytesOf, /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB|kB|MB|GB)$/);
}

/** @returns Milliseconds, or undefined when it is not a span. */
export function parseMs(span: Span): number | undefined {
  return parse(span, msOf, /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/);
}

function parse(
  value: number | string,
  units: Readonly<Record<string, number>>,
  form: RegExp,
): number | undefined {
  if (typeof value === "number") return Number.isFinite(value) && value >= 0 ? value : undefined;
  if (typeof value !== "string") return undefined; // Whatever came from outside.
  const match = form.exec(value.trim());
  return match === null ? undefined : Math.round(Number(match[1]) * units[match[2]!]!);
}

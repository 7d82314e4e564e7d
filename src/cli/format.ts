/** Numbers, bars and tables as people read them, in at most 80 columns. */

/** "12,345" */
export function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** "1 message", "12,345 messages" */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Three digits that matter: "0.42 ms", "7.9 ms", "640 ms". */
export function millis(ms: number): string {
  if (ms >= 100) return `${count(ms)} ms`;
  return `${ms.toFixed(ms >= 10 ? 1 : 2)} ms`;
}

/** "69.4 s", "12 min", "3 h 30 min", "55 d" */
export function span(ms: number): string {
  const minutes = Math.round(ms / 60_000);
  if (ms < 120_000) return `${Number((ms / 1000).toFixed(1))} s`;
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) {
    const rest = minutes % 60;
    return `${Math.floor(minutes / 60)} h${rest === 0 ? "" : ` ${rest} min`}`;
  }
  return `${Math.round(minutes / 1440)} d`;
}

/** "01:07" */
export function clockTime(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  return `${twoDigits(Math.floor(seconds / 60))}:${twoDigits(seconds % 60)}`;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, "0");
}

/** @param share 0 to 1; what lies outside is drawn as the nearer end. */
export function bar(share: number, width: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * width);
  return "█".repeat(filled) + "░".repeat(width - filled);
}

const levels = "▁▂▃▄▅▆▇█";

/** The last `width` values, each against `max`. */
export function sparkline(values: readonly number[], width: number, max: number): string {
  return values
    .slice(-width)
    .map((value) => {
      const share = max > 0 ? Math.min(1, value / max) : 0;
      return levels[Math.min(levels.length - 1, Math.floor(share * levels.length))];
    })
    .join("");
}

/** Columns as wide as their widest cell, two spaces apart. @param right Columns flushed right. */
export function table(
  rows: readonly (readonly string[])[],
  right: ReadonlySet<number>,
  indent = "  ",
): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, at) => (widths[at] = Math.max(widths[at] ?? 0, cell.length)));
  }
  return rows.map((row) => {
    const cells = row.map((cell, at) =>
      right.has(at) ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!),
    );
    return (indent + cells.join("  ")).trimEnd();
  });
}

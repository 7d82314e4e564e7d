/** What a benchmark is: a name, a sentence, and figures, each next to its floor where it has one. */

export interface Bench {
  readonly name: string;
  /** One line: what is measured, under which load. */
  readonly describe: string;
  run(): Promise<readonly Figure[]>;
}

/** What a figure is held against; inclusive. */
export type Target = { readonly of: "value" | "ratio" } & (
  | { readonly atLeast: number }
  | { readonly atMost: number }
);

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** The same work by the simplest means, measured in the same run. */
  readonly floor?: number;
  /** Median over the pairs of value / floor. */
  readonly ratio?: number;
  readonly target?: string;
  /** Whether every target is met; absent for a figure that is only told. */
  readonly met?: boolean;
}

export interface Measured {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly floor?: number;
  readonly ratio?: number;
}

export function figure(measured: Measured, ...targets: readonly Target[]): Figure {
  const { floor, value } = measured;
  const ratio = measured.ratio ?? (floor === undefined ? undefined : value / floor);
  const told = ratio === undefined ? measured : { ...measured, ratio };
  if (targets.length === 0) return told;
  return {
    ...told,
    target: targets.map((target) => textOf(target, measured.unit)).join(", "),
    met: targets.every((target) => isMet(target, target.of === "value" ? value : ratio!)),
  };
}

function textOf(target: Target, unit: string): string {
  const [sign, number] =
    "atLeast" in target ? [">=", target.atLeast] : (["<=", target.atMost] as const);
  return target.of === "ratio"
    ? `${sign} ${number} x floor`
    : `${sign} ${number.toLocaleString("en")} ${unit}`;
}

function isMet(target: Target, found: number): boolean {
  return "atLeast" in target ? found >= target.atLeast : found <= target.atMost;
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** @param share 0 to 1; the value at that rank, without interpolation. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}

/** Checks of what callers give at the edge: types do not hold in JavaScript, and a refusal has a code (G12). */
import { SpillwayError } from "./errors.ts";

/** @throws {SpillwayError} option_invalid */
export function refuseOption(option: string, found: unknown, allowed: string): never {
  throw new SpillwayError("option_invalid", { option, found, allowed });
}

/** @throws {SpillwayError} option_invalid: it is not an object. */
export function checkOptions(options: unknown): void {
  if (typeof options === "object" && options !== null) return;
  refuseOption("options", options, "an object");
}

/** @throws {SpillwayError} option_invalid: it is neither absent nor a signal. */
export function checkSignal(signal: unknown): void {
  if (signal === undefined) return;
  const isSignal =
    typeof signal === "object" &&
    signal !== null &&
    "aborted" in signal &&
    "addEventListener" in signal &&
    typeof signal.addEventListener === "function";
  if (!isSignal) refuseOption("signal", signal, "an AbortSignal");
}

/** @throws {SpillwayError} option_invalid: it is neither absent nor one of `count` places. */
export function checkPlace(option: string, place: unknown, count: number): void {
  if (place === undefined) return;
  if (Number.isInteger(place) && (place as number) >= 0 && (place as number) < count) return;
  refuseOption(option, place, `0 to ${count - 1}`);
}

import { SpillwayError } from "./errors.ts";

/**
 * Holds an invariant. A broken one is a defect of Spillway, never of its user: it stops the
 * partition that broke it and nothing else.
 *
 * @param invariant Its number and name, e.g. "I3 settled <= received".
 * @throws {SpillwayError} invariant_broken
 */
export function assert(condition: boolean, invariant: string): asserts condition {
  if (!condition) throw new SpillwayError("invariant_broken", { invariant });
}

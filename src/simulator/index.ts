/** simulator: virtual time, bad links and disks, model consumers, and the judge of histories. */
export { checkHistory, laws } from "./check-history.ts";
export type { HistoryEvent, Law, Mark, Verdict, Violation } from "./check-history.ts";
export { drawPlan } from "./plan.ts";
export type { Fault, Less, Plan } from "./plan.ts";
export { hashOf, run } from "./run.ts";
export type { RunResult } from "./run.ts";
export { codeOf, commandOf, shrink } from "./shrink.ts";
export type { Shrunk } from "./shrink.ts";

/**
 * control: the regulators. Each is a plain record made by `init` and changed in place by functions of
 * (record, event, time): no clock, no chance but a hash, no I/O; the same calls give the same
 * decisions (G8). `check` holds a regulator's numbered invariants, `view` gives its numbers to
 * people. They know numbers and names, never messages, stores or wires; the machines compose them.
 */
export * as admission from "./admission.ts";
export type {
  Admission,
  AdmissionLimits,
  AdmissionView,
  Bound,
  Candidate,
  ClassName,
  Occupancy,
  Refusal,
} from "./admission.ts";
export * as breaker from "./breaker.ts";
export type { Breaker, SavedBreaker, Transition } from "./breaker.ts";
export * as budget from "./budget.ts";
export type { Budget, BudgetOptions, BudgetView } from "./budget.ts";
export * as drain from "./drain.ts";
export type { Drain, DrainView } from "./drain.ts";
export * as envelope from "./envelope.ts";
export type { Envelope, EnvelopeView, Held } from "./envelope.ts";
export * as fair from "./fair.ts";
export type { Ring } from "./fair.ts";
export type { SavedHistory } from "./history.ts";
export * as limiter from "./limiter.ts";
export type { Limiter, LimiterView, RateLimit, Surge } from "./limiter.ts";
export * as overload from "./overload.ts";
export type { Overload, OverloadOptions, OverloadView } from "./overload.ts";
export * as recovery from "./recovery.ts";
export type { Recovery, Side } from "./recovery.ts";
export * as retry from "./retry.ts";
export type { RetryPolicy } from "./retry.ts";
export * as steering from "./steering.ts";
export * as window from "./window.ts";
export type { Outcome, Tag, Window, WindowOptions, WindowView } from "./window.ts";

/** flow: what users write and what every room knows of a message. */
export type { Contract, Push, Rate, Surge } from "./contract.ts";
export { warningsOf } from "./contradictions.ts";
export type { Warning } from "./contradictions.ts";
export { formatId, Ids, messageClasses, parseId } from "./message.ts";
export type {
  DeadReason,
  Fault,
  KeyHash,
  MessageClass,
  MessageId,
  Seq,
  Verdict,
} from "./message.ts";
export * as fields from "./fields.ts";
export { parseInstant } from "./instant.ts";
export type {
  DiscardReason,
  FlowOptions,
  PushOptions,
  RateOptions,
  SecretRef,
  SurgeOptions,
} from "./options.ts";
export { parseContract } from "./parse.ts";
export { changePolicy, optionsOf, policyFields } from "./policy.ts";
export type { PolicyPatch } from "./policy.ts";
export type { Problem } from "./problems.ts";
export { contractSchema, problemsOf } from "./schema.ts";
export { validatorOf } from "./validator.ts";
export type { InferInput, InferOutput, StandardSchemaV1, Validator } from "./validator.ts";

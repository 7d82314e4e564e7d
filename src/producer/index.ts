/** producer: the sending end. Steers messages, spends credit, repeats safely. */
export { draftOf, readHeaders } from "./codec.ts";
export type { MessageOptions } from "./codec.ts";
export { ProducerDriver } from "./driver.ts";
export type { ProducerDeps, Sent, Waiting } from "./driver.ts";
export { Sender, timeoutOf } from "./sender.ts";
export type {
  BatchRefusal,
  BatchResult,
  Durability,
  Receipt,
  Refusal,
  SenderParts,
  SendOptions,
} from "./sender.ts";
export type { Op, ProducerEffect, ProducerOptions, Refused, Route } from "./machine.ts";

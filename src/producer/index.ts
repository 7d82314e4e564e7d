/** producer: the sending end. Steers messages, spends credit, repeats safely. */
export { draftOf, encode, readHeaders } from "./codec.ts";
export type { MessageOptions } from "./codec.ts";
export { ProducerDriver } from "./driver.ts";
export type { ProducerDeps, Sent, Waiting } from "./driver.ts";
export type { Op, ProducerEffect, ProducerOptions, Refused, Route } from "./machine.ts";

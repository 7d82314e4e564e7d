/** queue: the middle. Keeps partitions, admits messages on credit and hands them out on credit. */
export { QueueDriver } from "./driver.ts";
export type { QueueDeps, QueueOptions } from "./driver.ts";
export type { QueueEffect, QueueFact, QueueWrite } from "./effects.ts";
export { QueueMachine } from "./machine.ts";
export type { Looked } from "./shelves.ts";
export type { PartitionView, QueueView } from "./view.ts";
export type { Reason } from "./why.ts";
export { Writes } from "./writes.ts";

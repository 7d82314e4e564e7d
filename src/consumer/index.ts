/** consumer: the receiving end. Window and breaker become credit; runs handlers. */
export { Delivery } from "./delivery.ts";
export { TargetDriver } from "./driver.ts";
export type { Handler, HandlerOptions, TargetDeps } from "./driver.ts";
export { consume, deliveries, pull } from "./taking.ts";
export type { Consumer } from "./taking.ts";
export { TargetMachine } from "./machine.ts";
export type { Run, TargetEffect, TargetOptions, TargetView } from "./machine.ts";

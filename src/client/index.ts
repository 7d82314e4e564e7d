/** client: the two ends of a flow in another process, over a link that reconnects and resumes. */
export { SpillwayError } from "../base/index.ts";
export type { ErrorCode } from "../base/index.ts";
export { Delivery } from "../consumer/index.ts";
export type { Consumer, Handler, HandlerOptions } from "../consumer/index.ts";
export type {
  BatchRefusal,
  BatchResult,
  MessageOptions,
  Receipt,
  Refusal,
  SendOptions,
} from "../producer/index.ts";
export { Client, connect } from "./client.ts";
export type { ClientEvents, ConnectDeps } from "./client.ts";
export type { ConnectOptions } from "./options.ts";
export { RemoteFlow } from "./remote-flow.ts";
export type { RemoteFlowEvents } from "./remote-flow.ts";

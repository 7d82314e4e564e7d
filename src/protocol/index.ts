/** protocol: the credit contract of one hop. Issuer and spender, the frames between them, the link. */
export type {
  ClassName,
  ConsumerFrame,
  Delivered,
  Draft,
  FrameVerdict,
  Grant,
  Heartbeat,
  ProducerFrame,
  RefusalCode,
  SendResult,
  Settlement,
  Stamp,
  ToConsumerFrame,
  ToProducerFrame,
} from "./frames.ts";
export * as issuer from "./issuer.ts";
export type { Issuer } from "./issuer.ts";
export { directLink } from "./link.ts";
export type { Link } from "./link.ts";
export * as spender from "./spender.ts";
export type { Spender } from "./spender.ts";
export { decode, encode } from "./message.ts";
export type { Message } from "./message.ts";
export { packClient, packServer } from "./pack.ts";
export { Session } from "./session.ts";
export { unpackClient, unpackServer } from "./unpack.ts";
export { deliveryBytes, isNumbered, sizeOf, split, subprotocol, wireLimits } from "./wire.ts";
export type { Attached, ClientFrame, Resume, Role, ServerFrame } from "./wire.ts";

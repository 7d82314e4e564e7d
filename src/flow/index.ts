/** flow: what users write and what every room knows of a message. */
export { formatId, messageClasses, parseId } from "./message.ts";
export type {
  DeadReason,
  Fault,
  KeyHash,
  MessageClass,
  MessageId,
  Seq,
  Verdict,
} from "./message.ts";

/**
 * What the checker remembers of a history: a record for each flow, partition, send, message, attempt
 * and pair of credit, each marked with the event that it was first seen in. Judges nothing.
 */
import type { End, Of } from "./history-events.ts";

/** An event by its place in the history, from 0, and its time. */
export type Mark = { readonly index: number; readonly t: number };
export class Seen implements Mark {
  readonly index: number;
  readonly t: number;
  constructor(now: Mark) {
    this.index = now.index;
    this.t = now.t;
  }
}
export class Flow {
  config: Of<"config"> | undefined;
  previous: Of<"snapshot"> | undefined;
  messages: number = 0;
  backed: number = 0; // Messages whose send is known.
  possible: number = 0; // Sends without an answer: each may have stored a message.
  maybeAcked: number = 0; // Messages with an ack without an answer.
  readonly ended: Record<End, number> = { acked: 0, dead: 0, discarded: 0 };
  readonly dedup: Map<string, Dedup> = new Map();
}
/** One idempotency key: when it was first sent, and the sends that are known to have been stored. */
export class Dedup {
  first: Mark | undefined;
  readonly stored: Op[] = [];
}
export type Claim = Mark & { readonly fence: number };
export type Partition = {
  readonly flow: Flow;
  readonly claims: Claim[];
  readonly lanes: Map<string, Message[]>;
};
export class Op extends Seen {
  readonly send: Of<"send">;
  readonly flow: Flow;
  id: string | undefined;
  outcome: Of<"sendResult">["outcome"] | undefined;
  answeredAt: number = -Infinity;
  stored: Mark; // The earliest instant at which it can have been stored.
  open: boolean = true;
  constructor(now: Mark, send: Of<"send">, flow: Flow) {
    super(now);
    this.send = send;
    this.flow = flow;
    this.stored = this;
  }
}
export class Message extends Seen {
  readonly id: string;
  readonly seq: number;
  readonly partition: Partition;
  op: Op | undefined;
  key: string | undefined;
  content: string | undefined;
  live: Attempt | undefined; // The latest attempt; each knows the one before it.
  stale: Attempt | undefined; // Deliveries that arrived after their attempt was taken back.
  goneMax: number = 0; // Attempts whose lease ended before a consumer saw them: the highest,
  goneCount: number = 0; // and how many since the latest delivery.
  redriven: Mark | undefined; // The latest redrive: it began the present pass.
  end: Mark | undefined;
  endKind: End | undefined;
  readonly told: Record<"client" | "observer", boolean> = { client: false, observer: false };
  maybeAckedAt: number = Infinity;
  ackedAt: number = Infinity;
  firstEndAt: number = Infinity; // At the earliest; a redrive does not change it.
  firstDelivery: Attempt | undefined;
  waiting: Of<"waiting"> | undefined;
  constructor(now: Mark, id: string, seq: number, partition: Partition) {
    super(now);
    this.id = id;
    this.seq = seq;
    this.partition = partition;
  }
}
export class Attempt extends Seen {
  readonly event: Of<"delivered">;
  readonly fence: number;
  readonly pass: Mark | undefined;
  readonly before: Attempt | undefined;
  unseen: number = 0; // Attempts between this and the one before that no consumer saw.
  doneAt: number = Infinity; // The handler let go.
  backAt: number = Infinity; // The queue may take the message back: nack, release, end of lease.
  released: "no" | "asked" | "confirmed" = "no";
  constructor(now: Mark, event: Of<"delivered">, fence: number, m: Message, stale: boolean) {
    super(now);
    this.event = event;
    this.fence = fence;
    this.pass = m.redriven;
    this.before = stale ? m.stale : m.live;
  }
}
export class Credit {
  readonly limits: Map<number, { limit: number; grantId: number }> = new Map(); // By epoch.
  spentEpoch: number = 0;
  leaseEndAt: number = -Infinity;
}

/** The place in a list, ascending by index, of the first mark after an index. */
export function after(marks: readonly Mark[], index: number): number {
  let [low, high] = [0, marks.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (marks[middle]!.index > index) high = middle;
    else low = middle + 1;
  }
  return low;
}
export function between(marks: readonly Mark[], from: number, to: number): number {
  return after(marks, to) - after(marks, from);
}

export function attemptOf(newest: Attempt | undefined, e: Of<"settled">): Attempt | undefined {
  let a = newest;
  while (a && (a.event.attempt !== e.attempt || a.event.consumer !== e.consumer)) a = a.before;
  return a;
}
export function isAfter(a: Attempt, b: Attempt): boolean {
  return (
    a.event.attempt > b.event.attempt || (a.event.attempt === b.event.attempt && a.index > b.index)
  );
}
/** The value of a key, made where there is none. */
export function at<K, V>(map: Map<K, V>, key: K, Make: new () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = new Make()));
  return value;
}
export function partitionName(id: string): string {
  return id.slice(0, id.lastIndexOf("/"));
}

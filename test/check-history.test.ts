import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { checkHistory, laws } from "../src/simulator/check-history.ts";
import type { HistoryEvent, Law, Verdict } from "../src/simulator/check-history.ts";
import { refusals } from "../src/simulator/history-events.ts";
import { catalogue } from "../src/base/index.ts";

type Of<K extends HistoryEvent["kind"]> = Extract<HistoryEvent, { kind: K }>;
type Some<K extends HistoryEvent["kind"]> = Partial<Omit<Of<K>, "kind">>;

/** Writes a history of the flow "orders": each event comes 1 ms after the one before, or at its `t`. */
class Script {
  readonly events: HistoryEvent[] = [];
  t = 0;

  /** Ten messages of another flow, handled well: so that one unknown send does not make it inconclusive. */
  company(): this {
    for (let seq = 1; seq <= 10; seq++) {
      const op = `company-${seq}`;
      this.add({ kind: "send", t: 0, producer: "p", op, flow: "other", content: "c", bytes: 1 });
      this.add({ kind: "sendResult", t: 0, op, outcome: "accepted", id: `other/0/${seq}` });
      this.add({ kind: "terminal", t: 0, id: `other/0/${seq}`, end: "acked", reason: "" });
    }
    return this;
  }
  add(event: HistoryEvent): this {
    this.t = event.t === 0 ? ++this.t : event.t;
    this.events.push({ ...event, t: this.t });
    return this;
  }
  config(fields: Some<"config">): this {
    return this.add({ kind: "config", t: 0, flow: "orders", ...fields });
  }
  send(op: string, fields: Some<"send"> = {}): this {
    const content = `content of ${op}`;
    return this.add({
      kind: "send",
      t: 0,
      producer: "p",
      op,
      flow: "orders",
      content,
      bytes: 9,
      ...fields,
    });
  }
  result(op: string, outcome: Of<"sendResult">["outcome"], fields: Some<"sendResult"> = {}): this {
    return this.add({ kind: "sendResult", t: 0, op, outcome, ...fields });
  }
  /** Sends and hears that it was accepted as this seq of partition 0. */
  accept(seq: number, fields: Some<"send"> = {}, receipt: Some<"sendResult"> = {}): this {
    return this.send(`s${seq}`, fields).result(`s${seq}`, "accepted", { id: id(seq), ...receipt });
  }
  /** A send without an answer. */
  unknown(op: string, fields: Some<"send"> = {}): this {
    return this.send(op, fields).result(op, "unknown");
  }
  deliver(seq: number, attempt = 1, fields: Some<"delivered"> = {}): this {
    return this.add({ kind: "delivered", t: 0, consumer: "c", id: id(seq), attempt, ...fields });
  }
  settle(
    seq: number,
    verdict: Of<"settled">["verdict"],
    attempt = 1,
    fields: Some<"settled"> = {},
  ): this {
    const settled = { verdict, attempt, effective: true, id: id(seq), consumer: "c" };
    return this.add({ kind: "settled", t: 0, ...settled, ...fields });
  }
  ack(seq: number, attempt = 1, fields: Some<"settled"> = {}): this {
    return this.settle(seq, "ack", attempt, fields);
  }
  /** A settle that was not confirmed. */
  unanswered(seq: number, verdict: Of<"settled">["verdict"], attempt = 1, error?: string): this {
    const refused = error === undefined ? {} : { error };
    return this.settle(seq, verdict, attempt, { effective: false, ...refused });
  }
  handle(seq: number, attempt = 1): this {
    return this.deliver(seq, attempt).ack(seq, attempt);
  }
  leaseEnded(seq: number, attempt = 1, fields: Some<"leaseEnded"> = {}): this {
    return this.add({ kind: "leaseEnded", t: 0, id: id(seq), attempt, ...fields });
  }
  terminal(seq: number, end: Of<"terminal">["end"], fields: Some<"terminal"> = {}): this {
    return this.add({ kind: "terminal", t: 0, id: id(seq), end, reason: "because", ...fields });
  }
  redriven(seq: number): this {
    return this.add({ kind: "redriven", t: 0, id: id(seq) });
  }
  /** Names the counts that are not 0, with limits of 100 messages and 1,000 bytes. */
  snapshot(fields: Some<"snapshot">): this {
    const none = { accepted: 0, acked: 0, dead: 0, discarded: 0, pending: 0, bytes: 0 };
    const limits = { limitMessages: 100, limitBytes: 1000 };
    return this.add({ kind: "snapshot", t: 0, flow: "orders", ...none, ...limits, ...fields });
  }
  grant(limit: number, fields: Some<"grant"> = {}): this {
    const names = { receiver: "orders/0", sender: "p", epoch: 1 };
    return this.add({ kind: "grant", t: 0, ...names, grantId: this.t, limit, ...fields });
  }
  spend(position: number, fields: Some<"spend"> = {}): this {
    const names = { receiver: "orders/0", sender: "p", epoch: 1 };
    return this.add({ kind: "spend", t: 0, ...names, position, ...fields });
  }
  claimed(fence: number, fields: Some<"claimed"> = {}): this {
    return this.add({
      kind: "claimed",
      t: 0,
      flow: "orders",
      partition: 0,
      fence,
      node: "n",
      ...fields,
    });
  }
  crash(node: string): this {
    return this.add({ kind: "crash", t: 0, node });
  }
  waiting(seq: number, fields: Some<"waiting"> = {}): this {
    const why = { reason: "retry at", nextEventAt: this.t + 1000 };
    return this.add({ kind: "waiting", t: 0, id: id(seq), ...why, ...fields });
  }
  faultsEnd(): this {
    return this.add({ kind: "faultsEnd", t: 0 });
  }
  at(t: number): this {
    this.t = t - 1;
    return this;
  }
  end(fields: Some<"end"> = {}): this {
    return this.add({ kind: "end", t: 0, ...fields });
  }
}

type Histories = Readonly<Record<string, (h: Script) => Script>>;

function id(seq: number): string {
  return `orders/0/${seq}`;
}
function judge(write: (h: Script) => Script): Verdict {
  return checkHistory(write(new Script().company()).end().events);
}
function lawsBroken(verdict: Verdict): Law[] {
  return [...new Set(verdict.violations.map(({ code }) => code))].toSorted();
}

const later = { code: "no_credit", retryAfterMs: 5 };
const lease = { heartbeatAt: 100, leaseMs: 50 };
const k = { key: "k" };
const idem = { idempotencyKey: "i", content: "same" };

/** Each history breaks the law it stands under, those that `alsoBroken` names for it, and no other. */
const bad: Readonly<Record<Law, Histories>> = {
  "G1.lost": {
    "an accepted message is never seen again": (h) => h.accept(1),
    "a message vanishes in a crash, while its neighbour is kept": (h) =>
      h.accept(1).accept(2).crash("n").handle(2),
    "a nacked message is not heard of again": (h) => h.accept(1).deliver(1).settle(1, "nack"),
    "a redriven message vanishes": (h) => h.accept(1).terminal(1, "dead").redriven(1),
    "two sends get the receipt of one message": (h) =>
      h
        .accept(1)
        .send("b")
        .result("b", "accepted", { id: id(1) })
        .handle(1),
    "the answer to an ack never came, and neither did the end": (h) =>
      h.accept(1).deliver(1).unanswered(1, "ack"),
  },
  "G2.balance": {
    "the sum does not hold": (h) => h.accept(1).snapshot({ accepted: 1 }).handle(1),
    "fewer are accepted than have receipts": (h) =>
      h.accept(1).accept(2).snapshot({ accepted: 1, pending: 1 }).handle(1).handle(2),
    "one unknown send is counted twice": (h) =>
      h.unknown("a").snapshot({ accepted: 2, pending: 2 }),
    "a refused send is counted": (h) =>
      h.send("a").result("a", "refused", later).snapshot({ accepted: 1, pending: 1 }),
    "a confirmed ack is not counted": (h) =>
      h.accept(1).handle(1).snapshot({ accepted: 1, pending: 1 }),
    "more are acked at rest than asked for it": (h) =>
      h.accept(1).snapshot({ accepted: 1, acked: 1, quiescent: true }).handle(1),
    "a discard is silent": (h) =>
      h.accept(1).snapshot({ accepted: 1, discarded: 1, quiescent: true }).handle(1),
    "a dead letter is counted that nobody saw die": (h) =>
      h.accept(1).snapshot({ accepted: 1, dead: 1, quiescent: true }).handle(1),
    "a duplicate is accepted again": (h) =>
      h
        .accept(1, idem)
        .send("b", idem)
        .result("b", "duplicate", { id: id(1) })
        .snapshot({ accepted: 2, pending: 2 })
        .handle(1),
  },
  "G2.end-once": {
    "an acked message is delivered again": (h) => h.accept(1).handle(1).deliver(1, 2),
    "a termed message is delivered again": (h) =>
      h.accept(1).deliver(1).settle(1, "term").leaseEnded(1).deliver(1, 2),
    "a discarded message is delivered": (h) => h.accept(1).terminal(1, "discarded").deliver(1),
    "an acked message becomes a dead letter": (h) => h.accept(1).handle(1).terminal(1, "dead"),
    "an acked message is redriven": (h) => h.accept(1).handle(1).redriven(1),
    "an attempt from before the redrive is acked": (h) =>
      h.accept(1).deliver(1).leaseEnded(1).terminal(1, "dead").redriven(1).ack(1).handle(1),
    "an ack counts twice": (h) => h.accept(1).handle(1).ack(1),
    "an ended message still waits": (h) => h.accept(1).handle(1).waiting(1),
    "a dead letter is purged twice": (h) =>
      h.accept(1).terminal(1, "dead").terminal(1, "discarded").terminal(1, "discarded"),
  },
  "G2.ghost": {
    "a message is delivered that nobody sent": (h) => h.deliver(7).ack(7),
    "one unknown send becomes two messages": (h) => h.unknown("a").handle(1).handle(2),
    "a message is of a send that was never made": (h) =>
      h.unknown("a").deliver(1, 1, { op: "z" }).ack(1),
    "a refused send is delivered": (h) =>
      h.send("a").result("a", "refused", later).unknown("b").deliver(1, 1, { op: "a" }).ack(1),
    "a send is refused after its message was seen": (h) =>
      h.send("a").deliver(1, 1, { op: "a" }).ack(1).result("a", "refused", later),
    "a settle counts that no delivery preceded": (h) => h.accept(1).ack(1).terminal(1, "acked"),
    "one send is stored under two ids": (h) =>
      h.unknown("a").deliver(1, 1, { op: "a" }).ack(1).deliver(2, 1, { op: "a" }).ack(2),
  },
  "G3.stored": {
    "more messages than the limit": (h) =>
      h
        .accept(1)
        .accept(2)
        .snapshot({ accepted: 2, pending: 2, limitMessages: 1 })
        .handle(1)
        .handle(2),
    "more bytes than the limit": (h) =>
      h.accept(1).snapshot({ accepted: 1, pending: 1, bytes: 1001 }).handle(1),
    "a backlog grows above a lowered limit": (h) =>
      h
        .accept(1)
        .snapshot({ accepted: 1, pending: 1 })
        .accept(2)
        .snapshot({ accepted: 2, pending: 2, limitMessages: 1 })
        .handle(1)
        .handle(2),
  },
  "G3.window": {
    "more in flight than the window": (h) => h.snapshot({ inFlight: 5, window: 4 }),
    "more in flight than the highest window since": (h) =>
      h.snapshot({ inFlight: 9, window: 4, windowHigh: 8 }),
    "in flight grows above a shrunken window": (h) =>
      h.snapshot({ inFlight: 6, window: 8 }).snapshot({ inFlight: 7, window: 4 }),
    "anything in flight while the window is 0": (h) => h.snapshot({ inFlight: 1, window: 0 }),
  },
  "G3.credit": {
    "a sender spends more than was granted": (h) => h.grant(5).spend(5).spend(6),
    "a sender spends before its grant": (h) => h.spend(1).grant(5),
    "credit of an epoch is spent in the next": (h) =>
      h.grant(5).grant(2, { epoch: 2 }).spend(3, { epoch: 2 }),
    "a sender returns to an epoch that is over": (h) =>
      h.grant(5).grant(5, { epoch: 2 }).spend(1, { epoch: 2 }).spend(2),
    "a newer grant takes credit back within its epoch": (h) => h.grant(5).grant(4),
    "a sender spends what was granted to another": (h) => h.grant(5, { sender: "q" }).spend(1),
  },
  "G4.order": {
    "a later message of the key is handled first": (h) =>
      h.accept(1, k).accept(2, k).handle(2).handle(1),
    "a retrying message does not hold its key": (h) =>
      h.accept(1, k).accept(2, k).deliver(1).settle(1, "nack").handle(2).handle(1, 2),
    "a delayed first message is overtaken": (h) =>
      h
        .accept(1, { ...k, dueAt: 500 })
        .accept(2, k)
        .handle(2)
        .at(500)
        .handle(1),
    "an earlier message whose receipt came late is overtaken": (h) =>
      h
        .send("a", k)
        .accept(2, k)
        .handle(2)
        .result("a", "accepted", { id: id(1) })
        .handle(1),
    "classes of a key overtake each other": (h) =>
      h
        .accept(1, { ...k, class: "bulk" })
        .accept(2, { ...k, class: "critical" })
        .handle(2)
        .handle(1),
    "a delivery that came late is confirmed before its turn": (h) =>
      h.accept(1, k).accept(2, k).leaseEnded(2).deliver(2).ack(2).handle(1),
    "an unanswered ack did not happen, and the next was handled meanwhile": (h) =>
      h
        .accept(1, k)
        .accept(2, k)
        .deliver(1)
        .unanswered(1, "ack")
        .handle(2)
        .leaseEnded(1)
        .handle(1, 2),
  },
  "G4.overlap": {
    "two messages of a key are handled at once": (h) =>
      h.accept(1, k).accept(2, k).deliver(1).deliver(2).ack(1).ack(2),
    "a redriven message is handled beside a later one": (h) =>
      h
        .accept(1, k)
        .terminal(1, "dead")
        .accept(2, k)
        .deliver(2)
        .redriven(1)
        .deliver(1)
        .ack(2)
        .ack(1),
    "two attempts of one message at once": (h) =>
      h
        .accept(1, k)
        .deliver(1)
        .deliver(1, 2, { consumer: "d" })
        .unanswered(1, "ack")
        .ack(1, 2, { consumer: "d" }),
    "an attempt whose lease ended settles after its successor began": (h) =>
      h.accept(1).deliver(1).leaseEnded(1).deliver(1, 2).settle(1, "nack", 1).ack(1, 2),
    "an ack of a replaced attempt counts": (h) =>
      h
        .accept(1)
        .deliver(1)
        .leaseEnded(1)
        .deliver(1, 2)
        .ack(1)
        .unanswered(1, "ack", 2, "delivery_settled"),
  },
  "G5.dedup": {
    "one idempotency key is accepted twice": (h) =>
      h.accept(1, idem).accept(2, idem).handle(1).handle(2),
    "a key is accepted again 1 ms before its window ends": (h) =>
      h
        .config({ dedupWindowMs: 100 })
        .at(1000)
        .send("a", idem)
        .result("a", "accepted", { id: id(1) })
        .at(1098)
        .send("b", idem)
        .result("b", "accepted", { id: id(2) })
        .handle(1)
        .handle(2),
    "a repeat is accepted under the first one's id, not called a duplicate": (h) =>
      h
        .accept(1, idem)
        .send("b", idem)
        .result("b", "accepted", { id: id(1) })
        .handle(1),
    "a duplicate gets another id": (h) =>
      h
        .accept(1, idem)
        .accept(2)
        .send("b", idem)
        .result("b", "duplicate", { id: id(2) })
        .handle(1)
        .handle(2),
    "a repeat with other content is accepted": (h) =>
      h
        .accept(1, idem)
        .accept(2, { ...idem, content: "other" })
        .handle(1)
        .handle(2),
    "a repeat with other content is called a duplicate": (h) =>
      h
        .accept(1, idem)
        .send("b", { ...idem, content: "other" })
        .result("b", "duplicate", { id: id(1) })
        .handle(1),
    "an unknown send happened, and its repeat as well": (h) =>
      h.unknown("a", idem).deliver(1, 1, { op: "a" }).ack(1).accept(2, idem).handle(2),
    "a key is accepted twice across a crash": (h) =>
      h.claimed(1).accept(1, idem).handle(1).crash("n").claimed(2).accept(2, idem).handle(2),
  },
  "G5.attempts": {
    "the first attempt is not the first": (h) => h.accept(1).handle(1, 2),
    "a retry does not count": (h) => h.accept(1).deliver(1).settle(1, "nack").handle(1),
    "a crash does not count": (h) => h.accept(1).deliver(1, 1, { node: "n" }).crash("n").handle(1),
    "a release burns an attempt": (h) => h.accept(1).deliver(1).settle(1, "release").handle(1, 2),
    "an attempt is left out": (h) => h.accept(1).deliver(1).settle(1, "nack").handle(1, 3),
    "more attempts than allowed": (h) =>
      h.config({ attemptsMax: 1 }).accept(1).deliver(1).settle(1, "nack").handle(1, 2),
    "an attempt lost before a redrive counts after it": (h) =>
      h.accept(1).leaseEnded(1).terminal(1, "dead").redriven(1).handle(1, 2),
    "attempts go on counting after a redrive": (h) =>
      h.accept(1).deliver(1).settle(1, "term").redriven(1).handle(1, 2),
  },
  "G5.cause": {
    "a message is delivered again while it is handled": (h) =>
      h.accept(1).deliver(1).deliver(1, 2).ack(1, 2),
    "a message is delivered again before its lease ends": (h) =>
      h.accept(1).deliver(1).deliver(1, 2).leaseEnded(1).ack(1, 2),
    "an unanswered ack is taken for a nack": (h) =>
      h.accept(1).deliver(1).unanswered(1, "ack").handle(1, 2),
    "the crash of another node gives a message back": (h) =>
      h.accept(1).deliver(1, 1, { node: "n" }).crash("m").handle(1, 2),
  },
  "G9.lease": {
    "credit is spent after its lease": (h) => h.grant(5, lease).at(151).spend(1),
    "a lease runs from the grant instead of the heartbeat": (h) =>
      h.at(140).grant(5, lease).at(180).spend(1),
    "a late old grant does not renew the lease": (h) =>
      h
        .grant(5, lease)
        .at(149)
        .spend(1)
        .grant(5, { ...lease, heartbeatAt: 90 })
        .at(160)
        .spend(2),
    "the sender's own clock says that the lease is over": (h) =>
      h.grant(5, lease).at(120).spend(1, { clock: 151 }),
  },
  "G10.fence": {
    "a fence is given out twice": (h) => h.claimed(1).claimed(1, { node: "m" }),
    "a fence falls": (h) => h.claimed(5).crash("n").claimed(4),
    "a replaced owner confirms an ack": (h) =>
      h.claimed(1).accept(1).deliver(1, 1, { fence: 1 }).claimed(2).ack(1),
    "a replaced owner confirms a nack": (h) =>
      h.claimed(1).accept(1).deliver(1).claimed(2).settle(1, "nack").handle(1, 2),
    "a replaced owner accepts a message": (h) =>
      h.claimed(1).claimed(2).accept(1, {}, { fence: 1 }).handle(1),
  },
  "G11.stuck": {
    "a message waits for no reason": (h) => h.accept(1).waiting(1, { reason: " " }),
    "what a message waits for is long past": (h) =>
      h.accept(1).at(5000).waiting(1, { nextEventAt: 3000 }),
    "a message is pending after the settle bound": (h) =>
      h.config({ settleBoundMs: 100 }).accept(1).faultsEnd().at(1000).waiting(1),
    "a message ends after the settle bound": (h) =>
      h.config({ settleBoundMs: 100 }).accept(1).faultsEnd().at(1000).handle(1),
  },
  "G12.refusal": {
    "a refusal without a code": (h) => h.send("a").result("a", "refused", { retryAfterMs: 5 }),
    "a refusal with a code that is not documented": (h) =>
      h.send("a").result("a", "refused", { ...later, code: "oops" }),
    "overload without a time to come back": (h) =>
      h.send("a").result("a", "refused", { code: "buffer_full" }),
    "a time to come back that lies in the past": (h) =>
      h.send("a").result("a", "refused", { ...later, retryAfterMs: -1 }),
    "an unknown outcome is called a refusal": (h) =>
      h.send("a").result("a", "refused", { code: "outcome_unknown" }),
  },
  "G13.altered": {
    "other content is delivered than was sent": (h) =>
      h.accept(1).deliver(1, 1, { content: "x" }).ack(1),
    "other content was delivered than the late receipt stands for": (h) =>
      h
        .send("a")
        .deliver(1, 1, { content: "x" })
        .ack(1)
        .result("a", "accepted", { id: id(1) }),
    "a retry brings other content": (h) =>
      h
        .unknown("a")
        .deliver(1, 1, { content: "x" })
        .settle(1, "nack")
        .deliver(1, 2, { content: "y" })
        .ack(1, 2),
    "a message changes its key": (h) => h.accept(1, k).deliver(1, 1, { key: "j" }).ack(1),
  },
  "R3.malformed": {
    "time falls": (h) => h.accept(1).at(1).handle(1),
    "a result without its send": (h) => h.result("a", "unknown"),
    "two results of one send": (h) => h.accept(1).result("s1", "unknown").handle(1),
    "one send twice": (h) => h.accept(1).send("s1").handle(1),
    "a receipt without an id": (h) => h.send("a").result("a", "accepted"),
    "an event after the end": (h) => h.end(),
  },
  "R4.inconclusive": {
    "more than a fifth of the sends are unknown": (h) => h.unknown("a").unknown("b").unknown("c"),
    "two of eleven sends are unknown and one has no result": (h) =>
      h.unknown("a").unknown("b").send("c"),
    "more than a fifth of the sends have no result": (h) => h.send("a").send("b").send("c"),
  },
};
const alsoBroken: Readonly<Record<string, Law[]>> = {
  "an acked message is delivered again": ["G5.cause"],
  "two messages of a key are handled at once": ["G4.order"],
  "two attempts of one message at once": ["G5.cause"],
};

/** Odd, but each has a lawful explanation. */
const odd: Histories = {
  "late acks are refused": (h) =>
    h.accept(1).deliver(1).leaseEnded(1).handle(1, 2).unanswered(1, "ack", 1, "delivery_settled"),
  "an unknown send happened": (h) =>
    h.unknown("a").handle(1).snapshot({ accepted: 1, acked: 1, quiescent: true }),
  "an unknown send did not happen": (h) => h.unknown("a").snapshot({ quiescent: true }),
  "an unknown send happened, and its repeat is the duplicate of a message never seen before": (h) =>
    h
      .unknown("a", idem)
      .send("b", idem)
      .result("b", "duplicate", { id: id(1) })
      .deliver(1, 1, { op: "a" })
      .ack(1),
  "an unknown send did not happen, and its repeat is accepted": (h) =>
    h.unknown("a", idem).accept(1, idem).handle(1),
  "a message is delivered before its receipt arrives": (h) =>
    h
      .send("a", k)
      .deliver(1, 1, { op: "a", ...k })
      .ack(1)
      .result("a", "accepted", { id: id(1) }),
  "a message is delivered again after its consumer crashed": (h) =>
    h.accept(1, k).deliver(1, 1, { node: "n" }).crash("n").handle(1, 2),
  "a new owner delivers again what the old one had in flight, and refuses its ack": (h) =>
    h
      .claimed(1)
      .accept(1, k)
      .deliver(1, 1, { fence: 1 })
      .claimed(2)
      .deliver(1, 2, { fence: 2 })
      .unanswered(1, "ack", 1, "fenced")
      .ack(1, 2),
  "an ack asked before a takeover is confirmed after it": (h) =>
    h
      .claimed(1)
      .accept(1)
      .deliver(1)
      .claimed(2)
      .ack(1, 1, { askedAt: h.t - 1 }),
  "a receipt asked for before a takeover arrives after it": (h) =>
    h
      .claimed(1)
      .send("a")
      .claimed(2)
      .result("a", "accepted", { id: id(1), fence: 1 })
      .handle(1),
  "a dead letter is redriven, counts from 1 and comes after later messages of its key": (h) =>
    h
      .config({ attemptsMax: 1 })
      .accept(1, k)
      .accept(2, k)
      .deliver(1)
      .settle(1, "nack")
      .terminal(1, "dead")
      .handle(2)
      .redriven(1)
      .handle(1),
  "a dead letter is purged": (h) =>
    h
      .accept(1)
      .deliver(1)
      .settle(1, "term")
      .terminal(1, "dead")
      .terminal(1, "discarded")
      .snapshot({ accepted: 1, discarded: 1, quiescent: true }),
  "a retrying message holds its key, and other keys go on": (h) =>
    h
      .accept(1, k)
      .accept(2, { key: "j" })
      .accept(3, k)
      .deliver(1)
      .settle(1, "nack")
      .handle(2)
      .handle(1, 2)
      .handle(3),
  "a delayed first message holds its key": (h) =>
    h
      .accept(1, { ...k, dueAt: 500 })
      .accept(2, k)
      .at(500)
      .handle(1)
      .handle(2),
  "messages without a key overtake each other": (h) =>
    h.accept(1).accept(2).deliver(2).deliver(1).ack(2).ack(1),
  "keys do not matter where the contract says so": (h) =>
    h.config({ order: "none" }).accept(1, k).accept(2, k).deliver(2).deliver(1).ack(2).ack(1),
  "one key in two partitions is two lanes": (h) =>
    h
      .accept(1, k)
      .accept(2, k, { id: "orders/1/1" })
      .deliver(1)
      .deliver(0, 1, { id: "orders/1/1" })
      .ack(1)
      .ack(0, 1, { id: "orders/1/1" }),
  "more in flight than a shrunken window, and falling": (h) =>
    h
      .snapshot({ inFlight: 8, window: 8 })
      .snapshot({ inFlight: 6, window: 4 })
      .snapshot({ inFlight: 5, window: 4 }),
  "the window rose and fell between two snapshots": (h) =>
    h.snapshot({ inFlight: 2, window: 4 }).snapshot({ inFlight: 9, window: 4, windowHigh: 10 }),
  "the window closed while messages were in flight": (h) =>
    h.snapshot({ inFlight: 2, window: 0, windowHigh: 4 }),
  "a backlog above a lowered limit drains": (h) =>
    h
      .accept(1)
      .accept(2)
      .snapshot({ accepted: 2, pending: 2 })
      .handle(1)
      .snapshot({ accepted: 2, acked: 1, pending: 1, limitMessages: 0 })
      .handle(2),
  "a release costs no attempt, and the next failure does": (h) =>
    h.accept(1).deliver(1).settle(1, "release").deliver(1).settle(1, "nack").handle(1, 2),
  "an unanswered release happened": (h) =>
    h.accept(1).deliver(1).unanswered(1, "release").handle(1),
  "an unanswered release did not happen": (h) =>
    h.accept(1).deliver(1).unanswered(1, "release").leaseEnded(1).handle(1, 2),
  "an unanswered nack happened, and a refused one as well as not": (h) =>
    h
      .accept(1)
      .deliver(1)
      .unanswered(1, "nack")
      .deliver(1, 2)
      .leaseEnded(1, 2)
      .deliver(1, 3)
      .unanswered(1, "nack", 2, "delivery_settled")
      .ack(1, 3),
  "an unanswered ack happened, as the observer says in the end": (h) =>
    h
      .accept(1, k)
      .accept(2, k)
      .deliver(1)
      .unanswered(1, "ack")
      .handle(2)
      .snapshot({ accepted: 2, acked: 2, quiescent: true })
      .terminal(1, "acked"),
  "an unanswered ack did not happen": (h) =>
    h.accept(1).deliver(1).unanswered(1, "ack").leaseEnded(1).handle(1, 2),
  "a nack is confirmed after the message was delivered again": (h) =>
    h
      .accept(1, k)
      .deliver(1)
      .deliver(1, 2, { t: h.t + 3 })
      .settle(1, "nack", 1, { askedAt: h.t - 1 })
      .ack(1, 2),
  "an ack is confirmed after the next of its key was delivered": (h) =>
    h
      .accept(1, k)
      .accept(2, k)
      .deliver(1)
      .deliver(2, 1, { t: h.t + 3 })
      .ack(1, 1, { askedAt: h.t - 1 })
      .ack(2),
  "a delivery is lost on the wire, and its attempt counts": (h) =>
    h.accept(1).leaseEnded(1).handle(1, 2),
  "a delivery arrives after its lease, and what it does is refused": (h) =>
    h
      .accept(1, k)
      .leaseEnded(1)
      .deliver(1, 2)
      .deliver(1, 1, { consumer: "d" })
      .unanswered(1, "ack")
      .ack(1, 2),
  "a delivery of an old owner arrives after the end": (h) =>
    h
      .claimed(1)
      .accept(1)
      .claimed(2)
      .deliver(1, 2, { fence: 2 })
      .ack(1, 2)
      .deliver(1, 1, { fence: 1, consumer: "d" }),
  "an attempt is confirmed although its lease had ended, as no other had begun": (h) =>
    h.accept(1).deliver(1).leaseEnded(1).ack(1),
  "attempts that a takeover interrupted unseen count": (h) =>
    h.claimed(1).accept(1).claimed(2).claimed(3).handle(1, 3),
  "an attempt lost in a crash counts, where no claims are told": (h) =>
    h.accept(1).crash("n").handle(1, 2),
  "the next of a key begins in the millisecond in which the last was settled": (h) =>
    h.accept(1, k).accept(2, k).deliver(1).ack(1).deliver(2, 1, { t: h.t }).ack(2),
  "a settle is asked for in the millisecond of a claim": (h) =>
    h.claimed(1).accept(1).deliver(1).claimed(2).ack(1, 1, { askedAt: h.t }),
  "a duplicate's window began with the unknown send that it repeats": (h) =>
    h
      .config({ dedupWindowMs: 100 })
      .at(1000)
      .unknown("a", idem)
      .at(1090)
      .send("b", idem)
      .result("b", "duplicate", { id: id(1) })
      .at(1102)
      .accept(2, idem)
      .handle(1)
      .handle(2),
  "an idempotency key is free again after its window": (h) =>
    h
      .config({ dedupWindowMs: 100 })
      .at(1000)
      .send("a", idem)
      .result("a", "accepted", { id: id(1) })
      .at(1099)
      .send("b", idem)
      .result("b", "accepted", { id: id(2) })
      .handle(1)
      .handle(2),
  "one idempotency key for two keys in two partitions": (h) =>
    h
      .accept(1, { ...idem, key: "j" })
      .accept(2, { ...idem, ...k }, { id: "orders/1/1" })
      .handle(1)
      .deliver(0, 1, { id: "orders/1/1" })
      .ack(0, 1, { id: "orders/1/1" }),
  "a repeat with other content is refused": (h) =>
    h
      .accept(1, idem)
      .send("b", { ...idem, content: "x" })
      .result("b", "refused", { code: "idempotency_conflict" })
      .handle(1),
  "grants are lost, repeated and reordered": (h) =>
    h.grant(9, { grantId: 3 }).grant(5, { grantId: 2 }).spend(9).grant(9, { grantId: 3 }),
  "a grant of an older epoch arrives late and is not used": (h) =>
    h.grant(5, { epoch: 2 }).spend(1, { epoch: 2 }).grant(90).spend(2, { epoch: 2 }),
  "a sender with a slow clock spends by its own time": (h) =>
    h.grant(5, lease).at(160).spend(1, { clock: 140 }),
  "a snapshot that took its time missed the newest receipt": (h) =>
    h
      .accept(1)
      .snapshot({ askedAt: h.t - 1 })
      .handle(1),
  "messages wait at the end with their reasons": (h) =>
    h
      .config({ settleBoundMs: 100 })
      .accept(1, { dueAt: 90_000 })
      .faultsEnd()
      .at(5000)
      .waiting(1, { reason: "delayed", nextEventAt: 90_000 }),
  "a paused partition's message waits for its operator": (h) =>
    h.accept(1).waiting(1, { reason: "paused", nextEventAt: null }),
  "a fifth of the sends are unknown": (h) =>
    h.unknown("a").unknown("b").unknown("c").accept(1).accept(2).handle(1).handle(2),
};

const badOnes = laws.flatMap((law) =>
  Object.entries(bad[law]).map(([why, write]) => ({ law, why, write })),
);

test.each(badOnes)("$law rejects: $why", ({ law, why, write }) => {
  expect(lawsBroken(judge(write))).toEqual([law, ...(alsoBroken[why] ?? [])].toSorted());
});

test.each(Object.entries(odd))("H1 accepts: %s", (_why, write) => {
  expect(judge(write).violations).toEqual([]);
});

test("every law has three bad histories of its own, forty in all, and twenty odd ones are lawful", () => {
  expect(laws.filter((law) => Object.keys(bad[law]).length < 3)).toEqual([]);
  expect(badOnes.length).toBeGreaterThanOrEqual(40);
  expect(Object.keys(odd).length).toBeGreaterThanOrEqual(20);
});

test("R4 a history without its end proves nothing", () => {
  expect(lawsBroken(checkHistory(new Script().company().events))).toEqual(["R4.inconclusive"]);
  expect(lawsBroken(checkHistory([]))).toEqual(["R4.inconclusive"]);
});

test("a violation names the events that show it, in the history's own numbers", () => {
  const { events } = new Script()
    .accept(1, k)
    .accept(2, k)
    .deliver(1)
    .deliver(2)
    .ack(1)
    .ack(2)
    .end();
  const overlap = checkHistory(events).violations.find(({ code }) => code === "G4.overlap");
  expect(overlap?.events).toEqual([
    { index: 4, t: 5 },
    { index: 5, t: 6 },
  ]);
});

test("violations beyond a thousand are counted and not kept", () => {
  const script = new Script();
  for (let n = 0; n < 1500; n++) script.result("never sent", "unknown");
  const verdict = checkHistory(script.end().events);
  expect(verdict.violationCount).toBe(1500);
  expect(verdict.violations.length).toBe(1000);
});

test("G12 the refusals that it knows are the catalogue's, less the unknown outcome", () => {
  const codes = Object.entries(catalogue);
  for (const retry of ["later", "never"] as const) {
    const known = codes.filter(([, entry]) => entry.retry === retry).map(([code]) => code);
    expect([...refusals[retry]].toSorted()).toEqual(known.toSorted());
  }
});

test("R3 the checker imports nothing of what it judges", () => {
  for (const file of ["check-history.ts", "history-events.ts", "history-records.ts"]) {
    const source = readFileSync(join(import.meta.dirname, "../src/simulator", file), "utf8");
    const imported = [...source.matchAll(/\bfrom "([^"]+)"/g)].map(([, name]) => name);
    expect(
      imported.filter((name) => !/^node:|^\.\/history-(events|records)\.ts$/.test(name!)),
    ).toEqual([]);
  }
});

/** A queue in a few lines that does all by the book, on a draw of fates; the history it leaves is clean. */
function lawfulHistory(fates: readonly number[]): HistoryEvent[] {
  const h = new Script().company();
  let seq = 0;
  for (const fate of fates) {
    h.accept(++seq, { key: `k${fate % 3}`, idempotencyKey: `i${seq}` });
    let attempt = 1;
    for (let rest = fate >> 2; rest > 3; rest >>= 2) {
      h.deliver(seq, attempt);
      const giveBack = rest % 4;
      if (giveBack === 0) h.settle(seq, "nack", attempt);
      else if (giveBack === 1) h.settle(seq, "release", attempt);
      else if (giveBack === 2) h.leaseEnded(seq, attempt);
      else h.crash("c");
      if (giveBack !== 1) attempt++;
    }
    if (fate % 5 === 0) h.terminal(seq, "dead").redriven(seq).handle(seq);
    else h.handle(seq, attempt);
  }
  return h.snapshot({ accepted: seq, acked: seq, quiescent: true }).end().events;
}

test("H1 a lawful queue's history is clean, and without any one of its acks it is not", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat({ max: 4095 }), { minLength: 1, maxLength: 20 }),
      fc.nat(),
      (fates, draw) => {
        const events = lawfulHistory(fates);
        expect(checkHistory(events).violations).toEqual([]);
        const acks = events.filter((event) => event.kind === "settled" && event.verdict === "ack");
        const without = acks[draw % acks.length];
        expect(lawsBroken(checkHistory(events.filter((event) => event !== without)))).toContain(
          "G1.lost",
        );
      },
    ),
    { numRuns: 200 },
  );
});

const program = join(import.meta.dirname, "../scripts/check-history.ts");

function run(
  args: readonly string[],
  input = "",
): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [program, ...args], (error, out, err) => {
      resolve({ code: Number(error?.code ?? 0), out, err });
    });
    child.stdin?.end(input);
  });
}
function lines(events: readonly HistoryEvent[]): string {
  return events.map((event) => `${JSON.stringify(event)}\n`).join("");
}

test("the command reads a file or stdin and exits 0 for a clean history", async () => {
  const folder = await mkdtemp(join(tmpdir(), "history-"));
  try {
    const text = lines(new Script().company().accept(1).handle(1).end().events);
    await writeFile(join(folder, "h.jsonl"), text);
    const fromFile = await run([join(folder, "h.jsonl")]);
    expect(fromFile).toEqual(await run([], text));
    expect(fromFile.code).toBe(0);
    expect(fromFile.out).toBe(
      "clean: 0 violations; 35 events, 11 sends (0 unknown), 11 messages\n",
    );
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("the command prints a line per violation or JSON and exits 1 for a broken history", async () => {
  const text = lines(new Script().company().accept(1).end().events);
  const [plain, json] = await Promise.all([run([], text), run(["--json"], text)]);
  expect(plain.code).toBe(1);
  expect(plain.out.split("\n")[0]).toBe(
    "G1.lost: orders/0/1 neither ended nor waits [line 32 t=32, line 33 t=33]",
  );
  expect(json.code).toBe(1);
  expect((JSON.parse(json.out) as Verdict).violations[0]?.code).toBe("G1.lost");
});

test.each([
  ["no JSON", "{", "line 1: not JSON"],
  ["an unknown kind", '{"kind":"other","t":1}', "no event of a known kind"],
  ["no object", "null", "no event of a known kind"],
  ["a field left out", '{"kind":"crash","t":1}', "node: undefined is not text"],
  ["a field of another type", '{"kind":"crash","t":"1","node":"n"}', 't: "1" is not number'],
  ["a wrong id", '{"kind":"redriven","t":1,"id":"orders/1"}', 'id: "orders/1" is not id'],
  [
    "a wrong word",
    '{"kind":"terminal","t":1,"id":"o/0/1","end":"lost","reason":""}',
    "acked or dead or discarded",
  ],
])("the command exits 2 where the input is not a history: %s", async (_what, text, message) => {
  const { code, err } = await run([], text);
  expect(code).toBe(2);
  expect(err).toContain(message);
});

test("the command exits 2 for a file that is not there and for an option that it does not know", async () => {
  expect((await run(["/nowhere/history.jsonl"])).code).toBe(2);
  expect((await run(["--fast"])).code).toBe(2);
});

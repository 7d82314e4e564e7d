/**
 * Judges a history: what clients and an observer saw of Spillway, event after event. It shares no
 * code with what it judges. `docs/history.md` says what each event and each law means.
 *
 *   check-history [--json] [FILE]   JSON lines from FILE or stdin; exits 0 clean, 1 broken, 2 unreadable
 *
 * H1  A violation is certain: what some lawful course of things explains is lawful.
 * H2  Linear: one pass makes a record per send, message and attempt, a second one judges these.
 * H3  An answer that never came stands for the deed or for nothing, once.
 *
 * Must not know: the server's state or code, or which engine stood behind it.
 */
import { createReadStream } from "node:fs";
import { type End, type HistoryEvent, type Kind, type Of, read } from "./history-events.ts";

export type { HistoryEvent } from "./history-events.ts";

const lawNames = `G1.lost G2.balance G2.end-once G2.ghost G3.stored G3.window G3.credit G4.order G4.overlap G5.dedup G5.attempts G5.cause G9.lease G10.fence G11.stuck G12.refusal G13.altered R3.malformed R4.inconclusive`;
type Word<S> = S extends `${infer W} ${infer Rest}` ? W | Word<Rest> : S;
/** The promise or rule, and what of it a history may break. */
export type Law = Word<typeof lawNames>;
export const laws: readonly Law[] = lawNames.split(" ") as Law[];
const words = (text: string): ReadonlySet<string> => new Set(text.split(" "));
/** Refusals that may pass with time, and so tell `retryAfterMs`; and those that do not. */
export const refusals: Readonly<Record<"later" | "never", ReadonlySet<string>>> = {
  later: words(
    `no_credit buffer_full class_closed rate_limited deadline_infeasible intake_closed store_full timed_out bound_reached store_unavailable`,
  ),
  never: words(
    `deadline_passed message_too_large message_invalid message_unencodable idempotency_conflict contract_invalid option_invalid not_found delivery_settled aborted closed fenced store_failed store_unsafe store_corrupt store_locked store_newer revision_conflict invariant_broken`,
  ),
};
const violationsMax = 1000;
const unknownShareMax = 0.2; // R4
const overdueMs = 1000; // The event that a wait names may come this late before the wait is stuck.

/** An event by its place in the history, from 0, and its time. */
export type Mark = { readonly index: number; readonly t: number };
export type Violation = {
  readonly code: Law;
  readonly text: string;
  readonly events: readonly Mark[];
};
export type Verdict = {
  readonly ok: boolean;
  /** The first 1,000 found, in order of their last event; `violationCount` counts all. */
  readonly violations: readonly Violation[];
  readonly violationCount: number;
  readonly counts: Readonly<Record<"events" | "sends" | "unknown" | "messages", number>>;
};

class Seen implements Mark {
  readonly index: number;
  readonly t: number;
  constructor(s: State) {
    this.index = s.index;
    this.t = s.t;
  }
}
class Flow {
  config: Of<"config"> | undefined;
  previous: Of<"snapshot"> | undefined;
  messages = 0;
  backed = 0; // Messages whose send is known.
  possible = 0; // Sends without an answer: each may have stored a message.
  maybeAcked = 0; // Messages with an ack without an answer.
  readonly ended: Record<End, number> = { acked: 0, dead: 0, discarded: 0 };
  readonly dedup: Map<string, { readonly firstAt: number; readonly stored: Op[] }> = new Map();
}
type Claim = Mark & { readonly fence: number };
type Partition = {
  readonly flow: Flow;
  readonly claims: Claim[];
  readonly lanes: Map<string, Message[]>;
};
class Op extends Seen {
  readonly send: Of<"send">;
  readonly flow: Flow;
  id: string | undefined;
  outcome: Of<"sendResult">["outcome"] | undefined;
  answeredAt = -Infinity;
  storedSince: number; // The earliest instant at which it can have been stored.
  open = true;
  constructor(s: State, send: Of<"send">, flow: Flow) {
    super(s);
    this.send = send;
    this.flow = flow;
    this.storedSince = send.t;
  }
}
class Message extends Seen {
  readonly id: string;
  readonly seq: number;
  readonly partition: Partition;
  op: Op | undefined;
  key: string | undefined;
  content: string | undefined;
  live: Attempt | undefined; // The latest attempt; each knows the one before it.
  stale: Attempt | undefined; // Deliveries that arrived after their attempt was taken back.
  goneMax = 0; // Attempts whose lease ended before a consumer saw them: the highest,
  goneCount = 0; // and how many since the latest delivery.
  redriven: Mark | undefined; // The latest redrive: it began the present pass.
  end: Mark | undefined;
  endKind: End | undefined;
  readonly told = { client: false, observer: false };
  maybeAckedAt = Infinity;
  ackedAt = Infinity;
  firstEndAt = Infinity; // Of the first pass, at the earliest.
  firstDelivery: Attempt | undefined;
  waiting: Of<"waiting"> | undefined;
  constructor(s: State, id: string, seq: number, partition: Partition) {
    super(s);
    this.id = id;
    this.seq = seq;
    this.partition = partition;
  }
}
class Attempt extends Seen {
  readonly event: Of<"delivered">;
  readonly fence: number;
  readonly pass: Mark | undefined;
  readonly before: Attempt | undefined;
  unseen = 0; // Attempts between this and the one before that no consumer saw.
  doneAt = Infinity; // The handler let go.
  backAt = Infinity; // The queue may take the message back: nack, release, end of lease.
  released: "no" | "asked" | "confirmed" = "no";
  constructor(s: State, event: Of<"delivered">, fence: number, m: Message, stale: boolean) {
    super(s);
    this.event = event;
    this.fence = fence;
    this.pass = m.redriven;
    this.before = stale ? m.stale : m.live;
  }
}
class Credit {
  readonly limits: Map<number, { limit: number; grantId: number }> = new Map(); // By epoch.
  spentEpoch = 0;
  leaseEndAt = -Infinity;
}
class State {
  index = -1;
  t = -Infinity;
  unknown = 0;
  violationCount = 0;
  faultsEndAt = Infinity;
  end: Mark | undefined;
  readonly violations: Violation[] = [];
  readonly flows: Map<string, Flow> = new Map();
  readonly partitions: Map<string, Partition> = new Map();
  readonly messages: Map<string, Message> = new Map();
  readonly ops: Map<string, Op> = new Map();
  readonly credits: Map<string, Map<string, Credit>> = new Map();
  readonly crashes: Mark[] = [];
  readonly crashesOf: Map<string, Mark[]> = new Map();
  judging = false;
  /** Names the events that show it; while events are read, the present one is the last of them. */
  broke(code: Law, text: string, ...events: Mark[]): void {
    this.violationCount++;
    if (this.violations.length >= violationsMax) return;
    if (!this.judging) events.push(this);
    this.violations.push({ code, text, events: events.map(({ index, t }) => ({ index, t })) });
  }
}

/** Judges a history in order of time. A client's or observer's late word carries the time of the deed. */
export function checkHistory(events: Iterable<HistoryEvent>): Verdict {
  const s = new State();
  for (const event of events) add(s, event);
  return verdict(s);
}

function add(s: State, event: HistoryEvent): void {
  s.index++;
  if (!(event.t >= s.t)) s.broke("R3.malformed", "time falls");
  if (s.end !== undefined) s.broke("R3.malformed", "an event after the end", s.end);
  s.t = event.t;
  (handlers[event.kind] as (s: State, event: HistoryEvent) => void)(s, event);
}

const handlers: { readonly [K in Kind]: (s: State, event: Of<K>) => void } = {
  config(s, e) {
    at(s.flows, e.flow, Flow).config = e;
  },
  send(s, e) {
    if (s.ops.has(e.op)) return s.broke("R3.malformed", `send ${e.op} is there twice`);
    const flow = at(s.flows, e.flow, Flow);
    flow.possible++;
    s.ops.set(e.op, new Op(s, e, flow));
    const key = e.idempotencyKey;
    if (key !== undefined && !flow.dedup.has(key))
      flow.dedup.set(key, { firstAt: e.t, stored: [] });
  },
  sendResult(s, e) {
    const op = s.ops.get(e.op);
    if (op === undefined || op.outcome !== undefined) {
      return s.broke("R3.malformed", `no send ${e.op} waits for a result`);
    }
    op.outcome = e.outcome;
    op.answeredAt = e.t;
    if (e.outcome === "unknown") s.unknown++;
    else if (e.outcome === "refused") refused(s, op, e);
    else if (e.id === undefined) s.broke("R3.malformed", `the receipt of ${e.op} has no id`);
    else {
      store(s, op, e.id, e.outcome);
      if (e.fence !== undefined) fenced(s, messageOf(s, e.id).partition, e.fence, op.t, op);
    }
  },
  delivered(s, e) {
    const m = messageOf(s, e.id);
    const op = e.op === undefined ? undefined : s.ops.get(e.op);
    if (op?.outcome === "refused" || (op === undefined && e.op !== undefined)) {
      s.broke("G2.ghost", `${e.id} is of send ${e.op}, refused or never made`, m);
    } else if (op !== undefined && op.id !== e.id) store(s, op, e.id, "seen");
    learn(s, m, e.key, e.content);
    const newest = m.partition.claims.at(-1)?.fence ?? 0;
    const fence = e.fence ?? newest;
    const stale = fence < newest || e.attempt <= m.goneMax;
    const attempt = new Attempt(s, e, fence, m, stale);
    if (stale) {
      m.stale = attempt;
      return;
    }
    if (m.end !== undefined)
      s.broke("G2.end-once", `${e.id} is delivered after its end`, m.end, attempt);
    attempt.unseen = m.goneCount;
    m.goneCount = 0;
    m.live = attempt;
    if (m.redriven === undefined) m.firstDelivery ??= attempt;
  },
  settled(s, e) {
    const m = s.messages.get(e.id);
    const a = m && (attemptOf(m.live, e) ?? attemptOf(m.stale, e));
    if (m === undefined || a === undefined) {
      if (e.effective) s.broke("G2.ghost", `${e.id} settles without its delivery`);
      return;
    }
    const askedAt = e.askedAt ?? e.t;
    const ends = e.verdict === "ack" || e.verdict === "term";
    a.doneAt = Math.min(a.doneAt, askedAt);
    if (!ends) a.backAt = Math.min(a.backAt, askedAt);
    if (e.verdict === "release" && a.released !== "confirmed") {
      a.released = e.effective ? "confirmed" : "asked";
    }
    if (!e.effective) {
      if (e.verdict !== "ack" || m.end !== undefined) return;
      if (m.maybeAckedAt === Infinity) m.partition.flow.maybeAcked++;
      m.maybeAckedAt = askedAt;
      return;
    }
    fenced(s, m.partition, a.fence, askedAt, a);
    const later = m.live;
    const replaced = later !== undefined && later.pass === a.pass && isAfter(later, a);
    if (replaced && (ends || later.t < askedAt)) {
      s.broke("G4.overlap", `attempt ${e.attempt} of ${e.id} settles, though replaced`, a, later);
    }
    if (e.verdict === "ack") m.ackedAt = Math.min(m.ackedAt, e.t);
    if (e.verdict === "ack" || (ends && a.pass === m.redriven)) {
      finish(s, m, e.verdict === "ack" ? "acked" : "dead", askedAt, "client");
    }
  },
  leaseEnded(s, e) {
    const m = messageOf(s, e.id);
    const a = m.live;
    if (a?.event.attempt === e.attempt && a.pass === m.redriven && a.released === "no") {
      a.backAt = Math.min(a.backAt, e.t);
    } else {
      m.goneMax = Math.max(m.goneMax, e.attempt);
      m.goneCount++;
    }
  },
  terminal(s, e) {
    const m = messageOf(s, e.id);
    finish(s, m, e.end, e.end === "acked" ? Math.min(e.t, m.maybeAckedAt) : e.t, "observer");
  },
  redriven(s, e) {
    const m = messageOf(s, e.id);
    if (m.endKind !== "dead") return s.broke("G2.end-once", `${e.id} is redriven, not dead`, m);
    m.partition.flow.ended.dead--;
    m.redriven = new Seen(s);
    m.end = m.endKind = undefined;
    m.told.client = m.told.observer = false;
    m.maybeAckedAt = Infinity;
    m.goneMax = m.goneCount = 0;
  },
  snapshot(s, e) {
    const flow = at(s.flows, e.flow, Flow);
    const { ended, previous } = flow;
    const most = Math.max(flow.messages, flow.backed + flow.possible);
    const atOnce = e.askedAt === undefined || e.quiescent === true;
    const unbalanced = (text: string): void => s.broke("G2.balance", `${e.flow}: ${text}`);
    if (e.accepted !== e.acked + e.dead + e.discarded + e.pending) unbalanced("the sum is wrong");
    if (e.accepted > most) unbalanced(`${e.accepted} accepted, at most ${most} were sent`);
    if (atOnce && e.accepted < flow.messages) {
      unbalanced(`${e.accepted} accepted, ${flow.messages} were seen`);
    }
    if (atOnce && e.acked < ended.acked) unbalanced(`${e.acked} acked, ${ended.acked} were seen`);
    if (e.quiescent === true) {
      const { acked, dead, discarded } = ended;
      if (e.acked > acked + flow.maybeAcked) unbalanced(`${e.acked} acked, at most ${acked} were`);
      if (e.dead !== dead) unbalanced(`${e.dead} dead, ${dead} were seen`);
      if (e.discarded !== discarded) unbalanced(`${e.discarded} discarded, ${discarded} were seen`);
    }
    const bound = (law: Law, name: string, value = 0, limit = Infinity, before = 0): void => {
      const most = Math.max(limit, before); // Above a lowered limit it may only drain.
      if (value > most) s.broke(law, `${e.flow}: ${name} ${value} above ${most}`);
    };
    bound("G3.stored", "pending", e.pending, e.limitMessages, previous?.pending);
    bound("G3.stored", "bytes", e.bytes, e.limitBytes, previous?.bytes);
    const window = e.window && Math.max(e.window, e.windowHigh ?? 0);
    bound("G3.window", "in flight", e.inFlight, window, previous?.inFlight);
    flow.previous = e;
  },
  grant(s, e) {
    const credit = at(at(s.credits, e.receiver, Map<string, Credit>), e.sender, Credit);
    const known = credit.limits.get(e.epoch);
    if (known !== undefined && e.grantId > known.grantId && e.limit < known.limit) {
      s.broke("G3.credit", `${e.receiver} lowers ${e.sender} to ${e.limit} in epoch ${e.epoch}`);
    }
    const limit = Math.max(e.limit, known?.limit ?? 0);
    credit.limits.set(e.epoch, { limit, grantId: Math.max(e.grantId, known?.grantId ?? 0) });
    const { heartbeatAt = Infinity, leaseMs = Infinity } = e;
    credit.leaseEndAt = Math.max(credit.leaseEndAt, heartbeatAt + leaseMs);
  },
  spend(s, e) {
    const credit = at(at(s.credits, e.receiver, Map<string, Credit>), e.sender, Credit);
    const limit = credit.limits.get(e.epoch)?.limit ?? 0;
    const what = `${e.sender} spends ${e.position} of ${limit} in epoch ${e.epoch} of ${e.receiver}`;
    if (e.position > limit) s.broke("G3.credit", what);
    else if ((e.clock ?? e.t) > credit.leaseEndAt) s.broke("G9.lease", `${what} after its lease`);
    if (e.epoch < credit.spentEpoch) s.broke("G3.credit", `${what}, which is over`);
    credit.spentEpoch = Math.max(credit.spentEpoch, e.epoch);
  },
  claimed(s, e) {
    const { claims } = partitionOf(s, `${e.flow}/${e.partition}`);
    const newest = claims.at(-1);
    if (newest !== undefined && e.fence <= newest.fence) {
      return s.broke("G10.fence", `fence ${e.fence} after ${newest.fence}`, newest);
    }
    claims.push({ index: s.index, t: s.t, fence: e.fence });
  },
  crash(s, e) {
    s.crashes.push(new Seen(s));
    at(s.crashesOf, e.node, Array<Mark>).push(new Seen(s));
  },
  restart() {},
  faultsEnd(s, e) {
    s.faultsEndAt = e.t;
  },
  waiting(s, e) {
    const m = messageOf(s, e.id);
    m.waiting = e;
    if (m.end !== undefined) s.broke("G2.end-once", `${e.id} waits after its end`, m.end);
  },
  end(s) {
    s.end = new Seen(s);
  },
};

/** A send is known to have been stored under an id: by its receipt, or as its message was seen. */
function store(s: State, op: Op, id: string, how: "accepted" | "duplicate" | "seen"): void {
  const m = messageOf(s, id);
  const first = m.op;
  const { idempotencyKey: key, content } = op.send;
  const entry = key === undefined ? undefined : op.flow.dedup.get(key);
  if ((op.id !== undefined && op.id !== id) || m.partition.flow !== op.flow) {
    const law = key === undefined ? "G2.ghost" : "G5.dedup";
    s.broke(law, `send ${op.send.op} is ${op.id ?? "elsewhere"} and ${id}`, op);
  }
  if (first === undefined) {
    m.op = op;
    m.partition.flow.backed++;
    if (how === "duplicate") op.storedSince = entry?.firstAt ?? op.t; // Of an earlier, unknown send.
    learn(s, m, op.send.key, content);
  } else if (first !== op) {
    if (key === undefined || first.send.idempotencyKey !== key) {
      const law = how === "duplicate" ? "G5.dedup" : "G1.lost";
      s.broke(law, `${id} is given to two sends of different keys`, first, op);
    } else if (how === "accepted" && first.outcome === "accepted") {
      s.broke("G5.dedup", `${id} is accepted twice`, first, op);
    }
  }
  op.id = id;
  if (op.open) op.flow.possible--;
  op.open = false;
  if (entry === undefined) return;
  const windowMs = op.flow.config?.dedupWindowMs ?? Infinity;
  let known = false;
  for (const other of entry.stored) {
    if (other === op || s.t - other.storedSince >= windowMs) continue;
    const same = other.id === id;
    known ||= same;
    if (!same && other.send.key !== op.send.key && partitionName(other.id!) !== partitionName(id)) {
      continue; // Deduplication is per partition, and these two were not bound for one.
    }
    if (!same) s.broke("G5.dedup", `one idempotency key, ${other.id} and ${id}`, other, op);
    else if (other.send.content !== content) {
      s.broke("G5.dedup", `${id} answers for other content`, other, op);
    }
  }
  if (!known) entry.stored.push(op);
}

function refused(s: State, op: Op, e: Of<"sendResult">): void {
  if (op.id !== undefined) s.broke("G2.ghost", `send ${e.op} is refused, yet ${op.id}`, op);
  if (op.open) op.flow.possible--;
  op.open = false;
  const { code = "", retryAfterMs = -1 } = e;
  if (!refusals.later.has(code) && !refusals.never.has(code)) {
    s.broke("G12.refusal", `send ${e.op} is refused with the code "${code}"`, op);
  } else if (refusals.later.has(code) && !(retryAfterMs >= 0)) {
    s.broke("G12.refusal", `send ${e.op} is refused with ${code} and no retryAfterMs`, op);
  }
}

/** What is known of a message's key and content; two words of them must agree. */
function learn(s: State, m: Message, key: string | undefined, content: string | undefined): void {
  if (key !== undefined && m.key === undefined) {
    m.key = key;
    at(m.partition.lanes, key, Array<Message>).push(m);
  }
  m.content ??= content;
  if ((key ?? m.key) !== m.key || (content ?? m.content) !== m.content) {
    s.broke("G13.altered", `${m.id} has another key or content than before`, m);
  }
}

/** Nothing asked for under a fence after a newer claim is granted. */
function fenced(s: State, p: Partition, fence: number, askedAt: number, asked: Mark): void {
  const newer = p.claims.findLast((claim) => claim.t < askedAt);
  if (newer === undefined || newer.fence <= fence) return;
  s.broke("G10.fence", `fence ${fence} is honoured under ${newer.fence}`, newer, asked);
}

function finish(s: State, m: Message, end: End, at: number, by: "client" | "observer"): void {
  const { ended } = m.partition.flow;
  if (m.end === undefined) {
    if (m.maybeAckedAt < Infinity) m.partition.flow.maybeAcked--;
    m.end = new Seen(s);
    m.endKind = end;
    ended[end]++;
  } else if (by === "observer" && m.endKind === "dead" && end === "discarded") {
    ended.dead--; // A purge.
    ended.discarded++;
    m.endKind = end;
  } else if (m.told[by] || (m.endKind !== end && !(end === "dead" && m.endKind === "discarded"))) {
    s.broke("G2.end-once", `${m.id} is ${m.endKind}, and again ${end}`, m.end);
  }
  m.told[by] = true;
  if (m.redriven === undefined) m.firstEndAt = Math.min(m.firstEndAt, at);
}

function verdict(s: State): Verdict {
  s.judging = true;
  if (s.end === undefined) s.broke("R4.inconclusive", "the history has no end");
  let { unknown } = s;
  for (const op of s.ops.values()) if (op.outcome === undefined) unknown++;
  if (unknown > unknownShareMax * s.ops.size) {
    s.broke("R4.inconclusive", `${unknown} of ${s.ops.size} sends have no known outcome`);
  }
  for (const m of s.messages.values()) {
    judgeAttempts(s, m);
    if (s.end !== undefined) judgeEnd(s, m, s.end);
  }
  for (const partition of s.partitions.values()) {
    if (partition.flow.config?.order === "none") continue;
    for (const lane of partition.lanes.values()) judgeLane(s, partition, lane);
  }
  for (const [name, flow] of s.flows) {
    const excess = flow.messages - flow.backed - flow.possible;
    if (excess <= 0) continue;
    const unsent = [...s.messages.values()].filter((m) => m.partition.flow === flow && !m.op);
    s.broke(
      "G2.ghost",
      `${name}: ${excess} messages more than were sent`,
      ...unsent.slice(-excess),
    );
  }
  const lastIndex = (v: Violation): number => v.events.at(-1)?.index ?? s.index;
  return {
    ok: s.violationCount === 0,
    violations: s.violations.toSorted((a, b) => lastIndex(a) - lastIndex(b)),
    violationCount: s.violationCount,
    counts: { events: s.index + 1, sends: s.ops.size, unknown, messages: s.messages.size },
  };
}

/** Attempts rise by one, unless the last was released; each follows the end of the one before. */
function judgeAttempts(s: State, m: Message): void {
  const { flow, claims } = m.partition;
  for (let a = m.live; a !== undefined; a = a.before) {
    const { attempt } = a.event;
    const before = a.before?.pass === a.pass ? a.before : undefined;
    const from = (before ?? a.pass ?? m.op)?.index ?? -1;
    const last = before?.event.attempt ?? 0;
    const next = before?.released === "confirmed" ? last : last + 1;
    const least = before?.released === "asked" ? last : next;
    const unseen = a.unseen + between(claims, from, a.index) + between(s.crashes, from, a.index);
    const what = `attempt ${attempt} of ${m.id}`;
    if (attempt < least || attempt > next + unseen) {
      s.broke("G5.attempts", `${what} where ${next} was due`, ...(before ? [before] : []), a);
    }
    if (attempt > (flow.config?.attemptsMax ?? Infinity)) {
      s.broke("G5.attempts", `${what} is above attemptsMax`, a);
    }
    if (before !== undefined && takenBackAt(s, m.partition, before) > a.t) {
      s.broke("G5.cause", `${what} before attempt ${last} was given back`, before, a);
    }
  }
}

function judgeEnd(s: State, m: Message, end: Mark): void {
  const { waiting, op } = m;
  if (m.end === undefined) {
    if (waiting === undefined) s.broke("G1.lost", `${m.id} neither ended nor waits`, m, end);
    else if (waiting.reason.trim() === "")
      s.broke("G11.stuck", `${m.id} waits for no reason`, m, end);
    else if ((waiting.nextEventAt ?? Infinity) + overdueMs < waiting.t) {
      s.broke("G11.stuck", `${m.id} waits for ${waiting.nextEventAt}, which is past`, m, end);
    }
  }
  const from = Math.max(
    s.faultsEndAt,
    m.t,
    op?.answeredAt ?? 0,
    op?.send.dueAt ?? 0,
    m.redriven?.t ?? 0,
  );
  const dueAt = from + (m.partition.flow.config?.settleBoundMs ?? Infinity);
  if ((m.end ?? end).t > dueAt)
    s.broke("G11.stuck", `${m.id} lives on after ${dueAt}`, m, m.end ?? end);
}

/** Messages of one key and partition: none is begun before those accepted earlier ended. */
function judgeLane(s: State, partition: Partition, lane: Message[]): void {
  let held: Message | undefined;
  let busy: Attempt | undefined;
  const attempts: Attempt[] = [];
  for (const m of lane.toSorted((a, b) => a.seq - b.seq)) {
    const begun = Math.min(m.firstDelivery?.t ?? Infinity, m.ackedAt);
    if (held !== undefined && begun < held.firstEndAt) {
      s.broke("G4.order", `${m.id} overtakes ${held.id}`, held, m.firstDelivery ?? m);
    }
    if (held === undefined || m.firstEndAt > held.firstEndAt) held = m;
    for (let a = m.live; a !== undefined; a = a.before) attempts.push(a);
  }
  let busyUntil = -Infinity;
  for (const a of attempts.toSorted((a, b) => a.index - b.index)) {
    if (busy !== undefined && a.t < busyUntil) {
      s.broke("G4.overlap", `${a.event.id} while ${busy.event.id} is handled`, busy, a);
    }
    const until = Math.min(a.doneAt, takenBackAt(s, partition, a));
    if (until >= busyUntil) [busy, busyUntil] = [a, until];
  }
}

/** When an attempt's lease was over: given back, its consumer's node crashed, or a new owner came. */
function takenBackAt(s: State, partition: Partition, a: Attempt): number {
  const crashes = s.crashesOf.get(a.event.node ?? a.event.consumer) ?? [];
  const crashAt = crashes[after(crashes, a.index)]?.t ?? Infinity;
  let next = after(partition.claims, a.index);
  while ((partition.claims[next]?.fence ?? Infinity) <= a.fence) next++;
  return Math.min(a.backAt, crashAt, partition.claims[next]?.t ?? Infinity);
}

/** The place in a list, ascending by index, of the first mark after an index. */
function after(marks: readonly Mark[], index: number): number {
  let [low, high] = [0, marks.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (marks[middle]!.index > index) high = middle;
    else low = middle + 1;
  }
  return low;
}
function between(marks: readonly Mark[], from: number, to: number): number {
  return after(marks, to) - after(marks, from);
}

function attemptOf(newest: Attempt | undefined, e: Of<"settled">): Attempt | undefined {
  let a = newest;
  while (a && (a.event.attempt !== e.attempt || a.event.consumer !== e.consumer)) a = a.before;
  return a;
}
function isAfter(a: Attempt, b: Attempt): boolean {
  return (
    a.event.attempt > b.event.attempt || (a.event.attempt === b.event.attempt && a.index > b.index)
  );
}
/** The value of a key, made where there is none. */
function at<K, V>(map: Map<K, V>, key: K, Make: new () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = new Make()));
  return value;
}
function partitionName(id: string): string {
  return id.slice(0, id.lastIndexOf("/"));
}
function partitionOf(s: State, name: string): Partition {
  let partition = s.partitions.get(name);
  if (partition === undefined) {
    partition = { flow: at(s.flows, partitionName(name), Flow), claims: [], lanes: new Map() };
    s.partitions.set(name, partition);
  }
  return partition;
}
function messageOf(s: State, id: string): Message {
  let m = s.messages.get(id);
  if (m === undefined) {
    const name = partitionName(id);
    m = new Message(s, id, Number(id.slice(name.length + 1)), partitionOf(s, name));
    m.partition.flow.messages++;
    s.messages.set(id, m);
  }
  return m;
}
async function main(args: readonly string[]): Promise<number> {
  const s = new State();
  try {
    const file = args.find((arg) => arg !== "--json");
    const input = file === undefined ? process.stdin : createReadStream(file);
    let rest = "";
    for await (const chunk of input.setEncoding("utf8")) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop()!;
      for (const line of lines) add(s, read(line));
    }
    if (rest !== "") add(s, read(rest));
  } catch (error) {
    process.stderr.write(`check-history: line ${s.index + 2}: ${String(error)}\n`);
    return 2;
  }
  const result = verdict(s);
  const { ok, violations, violationCount, counts } = result;
  const shown = violations.map(({ code, text, events }) => {
    return `${code}: ${text} [${events.map(({ index, t }) => `line ${index + 1} t=${t}`).join(", ")}]`;
  });
  const { events, sends, unknown, messages } = counts;
  shown.push(
    `${ok ? "clean" : "broken"}: ${violationCount} violations; ${events} events, ` +
      `${sends} sends (${unknown} unknown), ${messages} messages`,
  );
  process.stdout.write(`${args.includes("--json") ? JSON.stringify(result) : shown.join("\n")}\n`);
  return ok ? 0 : 1;
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));

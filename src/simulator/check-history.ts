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
import { readAll, refusals } from "./history-events.ts";
import type { End, HistoryEvent, Kind, Of } from "./history-events.ts";
import { after, at, Attempt, attemptOf, between, Credit, Dedup, Flow } from "./history-records.ts";
import { isAfter, Message, Op, partitionName, Seen } from "./history-records.ts";
import type { Mark, Partition } from "./history-records.ts";

export type { HistoryEvent } from "./history-events.ts";
export type { Mark } from "./history-records.ts";

const lawNames = `G1.lost G2.balance G2.end-once G2.ghost G3.stored G3.window G3.credit G4.order G4.overlap G5.dedup G5.attempts G5.cause G9.lease G10.fence G11.stuck G12.refusal G13.altered R3.malformed R4.inconclusive`;
type Word<S> = S extends `${infer W} ${infer Rest}` ? W | Word<Rest> : S;
/** The promise or rule, and what of it a history may break. */
export type Law = Word<typeof lawNames>;
export const laws: readonly Law[] = lawNames.split(" ") as Law[];
const violationsMax = 1000;
const unknownShareMax = 0.2; // R4
const overdueMs = 1000; // The event that a wait names may come this late before the wait is stuck.

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
    if (e.idempotencyKey === undefined) return;
    const entry = at(flow.dedup, e.idempotencyKey, Dedup);
    entry.first ??= new Seen(s);
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
    if (stale) m.stale = attempt;
    else {
      if (m.end !== undefined) s.broke("G2.end-once", `${e.id} is delivered after its end`, m.end);
      attempt.unseen = m.goneCount;
      m.goneCount = 0;
      m.live = attempt;
      if (m.redriven === undefined) m.firstDelivery ??= attempt;
    }
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
      if (e.verdict === "ack" && m.end === undefined) {
        if (m.maybeAckedAt === Infinity) m.partition.flow.maybeAcked++;
        m.maybeAckedAt = askedAt;
      }
      return;
    }
    fenced(s, m.partition, a.fence, askedAt, a);
    const later = m.live;
    const replaced = later !== undefined && later.pass === a.pass && isAfter(later, a);
    if (replaced && (ends || later.t < askedAt)) {
      s.broke("G4.overlap", `attempt ${e.attempt} of ${e.id} settles, though replaced`, a, later);
    }
    if (e.verdict === "ack") m.ackedAt = Math.min(m.ackedAt, e.t);
    if (ends && a.pass === m.redriven) {
      finish(s, m, e.verdict === "ack" ? "acked" : "dead", askedAt, "client");
    } else if (e.verdict === "ack") s.broke("G2.end-once", `${e.id} was dead and is acked`, a);
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
    const most = Math.max(flow.messages, flow.backed + flow.possible);
    const atRest = e.quiescent === true;
    const atOnce = atRest || e.askedAt === undefined; // Nothing happened while it was taken.
    const { acked, dead, discarded } = flow.ended;
    const sum = e.acked + e.dead + e.discarded + e.pending;
    const balance = (name: string, value: number, least: number, most: number): void => {
      if (value >= least && value <= most) return;
      s.broke("G2.balance", `${e.flow}: ${value} ${name}, seen are ${least} to ${most}`);
    };
    balance("accepted by the sum", e.accepted, sum, sum);
    balance("accepted", e.accepted, atOnce ? flow.messages : 0, most);
    balance("acked", e.acked, atOnce ? acked : 0, atRest ? acked + flow.maybeAcked : Infinity);
    balance("dead", e.dead, atRest ? dead : 0, atRest ? dead : Infinity);
    balance("discarded", e.discarded, atRest ? discarded : 0, atRest ? discarded : Infinity);
    const bound = (law: Law, name: string, value = 0, limit: number, before = 0): void => {
      const most = Math.max(limit, before); // Above a lowered limit it may only drain.
      if (value > most) s.broke(law, `${e.flow}: ${name} ${value} above ${most}`);
    };
    bound("G3.stored", "pending", e.pending, e.limitMessages, flow.previous?.pending);
    bound("G3.stored", "bytes", e.bytes, e.limitBytes, flow.previous?.bytes);
    const window = Math.max(e.window ?? Infinity, e.windowHigh ?? 0);
    bound("G3.window", "in flight", e.inFlight, window, flow.previous?.inFlight);
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
    const what = (): string => `${e.sender} spends ${e.position} in epoch ${e.epoch}`;
    if (e.position > limit) s.broke("G3.credit", `${what()}, granted is ${limit}`);
    else if ((e.clock ?? e.t) > credit.leaseEndAt) s.broke("G9.lease", `${what()} after its lease`);
    if (e.epoch < credit.spentEpoch) s.broke("G3.credit", `${what()}, which is over`);
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
    if (how === "duplicate") op.stored = entry?.first ?? op; // Of an earlier, unknown send.
    learn(s, m, op.send.key, content);
  } else if (first !== op) {
    op.stored = first.stored; // A repeat prolongs nothing.
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
  const { stored } = entry;
  while (stored.length > 0 && s.t - stored[0]!.stored.t >= windowMs) stored.shift();
  for (const other of stored) {
    // Deduplication is per partition: sends of two keys to two partitions do not meet.
    const meet = other.send.key === op.send.key || partitionName(other.id!) === partitionName(id);
    if (!meet || other === op || s.t - other.stored.t >= windowMs) continue;
    if (other.id !== id)
      s.broke("G5.dedup", `one idempotency key: ${other.id} and ${id}`, other, op);
    else if (other.send.content !== content) {
      s.broke("G5.dedup", `${id} answers for other content`, other, op);
    }
  }
  if (stored.every((other) => other.id !== id)) stored.push(op);
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
  m.firstEndAt = Math.min(m.firstEndAt, at);
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
    s.broke("G2.ghost", `${name}: ${excess} more than were sent`, ...unsent.slice(-excess));
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
    const from = (before ?? a.pass ?? m.op?.stored)?.index ?? -1;
    const last = before?.event.attempt ?? 0;
    const next = before?.released === "confirmed" ? last : last + 1;
    const least = before?.released === "asked" ? last : next;
    const unseen = a.unseen + between(claims, from, a.index) + between(s.crashes, from, a.index);
    if (attempt < least || attempt > next + unseen) {
      s.broke("G5.attempts", `${m.id}: attempt ${attempt}, ${next} was due`, before ?? m, a);
    }
    if (attempt > (flow.config?.attemptsMax ?? Infinity)) {
      s.broke("G5.attempts", `${m.id}: attempt ${attempt} is above attemptsMax`, a);
    }
    if (before !== undefined && takenBackAt(s, m.partition, before) > a.t) {
      s.broke("G5.cause", `${m.id}: attempt ${attempt} before ${last} was given back`, before, a);
    }
  }
}

function judgeEnd(s: State, m: Message, end: Mark): void {
  const { waiting, op } = m;
  if (m.end === undefined) {
    if (waiting === undefined) s.broke("G1.lost", `${m.id} neither ended nor waits`, m, end);
    else if (waiting.reason.trim() === "") s.broke("G11.stuck", `${m.id} waits, not said why`, m);
    else if ((waiting.nextEventAt ?? Infinity) + overdueMs < waiting.t) {
      s.broke("G11.stuck", `${m.id} waits for ${waiting.nextEventAt}, which is past`, m, end);
    }
  }
  const readyAt = Math.max(m.t, op?.answeredAt ?? 0, op?.send.dueAt ?? 0, m.redriven?.t ?? 0);
  const boundMs = m.partition.flow.config?.settleBoundMs ?? Infinity;
  const until = m.end ?? end;
  if (until.t <= Math.max(s.faultsEndAt, readyAt) + boundMs) return;
  s.broke("G11.stuck", `${m.id} lives on after its settle bound`, m, until);
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

/** The command: FILE or stdin. @returns Its exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const s = new State();
  const file = args.find((arg) => arg !== "--json");
  const input = file === undefined ? process.stdin : createReadStream(file);
  try {
    for await (const events of readAll(input.setEncoding("utf8"))) {
      for (const event of events) add(s, event);
    }
  } catch (error) {
    process.stderr.write(`check-history: ${String(error)}\n`);
    return 2;
  }
  const result = verdict(s);
  const { events, sends, unknown, messages } = result.counts;
  const shown = result.violations.map(({ code, text, events }) => {
    return `${code}: ${text} [${events.map(({ index, t }) => `line ${index + 1} t=${t}`).join(", ")}]`;
  });
  shown.push(
    `${result.ok ? "clean" : "broken"}: ${result.violationCount} violations; ${events} events, ` +
      `${sends} sends (${unknown} unknown), ${messages} messages`,
  );
  process.stdout.write(`${args.includes("--json") ? JSON.stringify(result) : shown.join("\n")}\n`);
  return result.ok ? 0 : 1;
}

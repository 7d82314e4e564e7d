/**
 * The events of a history: what clients and an observer of Spillway write down, one JSON line each.
 * `docs/history.md` says what each means. Like its judge, `check-history.ts`, it imports nothing.
 */

/** Fields of each kind of event beside `kind` and `t`: the types and the reader both follow it. */
const shapes = {
  config: `flow:text order?:key|none dedupWindowMs?:number attemptsMax?:number leaseMs?:number settleBoundMs?:number`,
  send: `producer:text op:text flow:text content:text bytes:number key?:text class?:text group?:text idempotencyKey?:text dueAt?:number`,
  sendResult: `op:text outcome:accepted|duplicate|refused|unknown id?:id fence?:number code?:text retryAfterMs?:number`,
  delivered: `consumer:text id:id attempt:number node?:text fence?:number op?:text key?:text content?:text`,
  settled: `consumer:text id:id attempt:number verdict:ack|nack|release|term effective:flag askedAt?:number error?:text`,
  leaseEnded: `id:id attempt:number`,
  terminal: `id:id end:acked|dead|discarded reason:text`,
  redriven: `id:id`,
  snapshot: `flow:text accepted:number acked:number dead:number discarded:number pending:number bytes:number limitMessages:number limitBytes:number inFlight?:number window?:number windowHigh?:number quiescent?:flag askedAt?:number`,
  grant: `receiver:text sender:text epoch:number grantId:number limit:number heartbeatAt?:number leaseMs?:number`,
  spend: `receiver:text sender:text epoch:number position:number clock?:number`,
  claimed: `flow:text partition:number fence:number node:text`,
  crash: `node:text`,
  restart: `node:text`,
  faultsEnd: ``,
  waiting: `id:id reason:text nextEventAt:number|null`,
  end: ``,
} as const;
const words = (text: string): ReadonlySet<string> => new Set(text.split(" "));
/** Refusals that may pass with time, and so tell `retryAfterMs`; and those that do not. */
export const refusals: Readonly<Record<"later" | "never", ReadonlySet<string>>> = {
  later: words(
    `no_credit buffer_full class_closed rate_limited group_limited deadline_infeasible intake_closed store_full timed_out request_too_slow quota_exceeded too_many_connections disconnected bound_reached store_unavailable`,
  ),
  never: words(
    `deadline_passed message_too_large message_invalid message_unencodable idempotency_conflict contract_invalid option_invalid not_found delivery_settled aborted closed request_invalid unauthenticated forbidden method_not_allowed state_conflict media_type_unsupported headers_too_large protocol_violated target_refused webhook_invalid webhook_repeated config_invalid listen_unsafe port_in_use backup_invalid fenced store_failed store_unsafe store_corrupt store_locked store_newer revision_conflict invariant_broken`,
  ),
};

export type Kind = keyof typeof shapes;
type Values = { text: string; id: string; number: number; flag: boolean; null: null };
type Value<T> = T extends `${infer One}|${infer Rest}`
  ? Value<One> | Value<Rest>
  : T extends keyof Values
    ? Values[T]
    : T;
type Field<F> = F extends `${infer Name}?:${infer T}`
  ? { readonly [N in Name]?: Value<T> }
  : F extends `${infer Name}:${infer T}`
    ? { readonly [N in Name]: Value<T> }
    : unknown;
type Fields<S> = S extends `${infer F} ${infer Rest}` ? Field<F> & Fields<Rest> : Field<S>;
type Flat<T> = { readonly [K in keyof T]: T[K] };
export type Of<K extends Kind> = {
  [P in K]: Flat<{ kind: P; t: number } & Fields<(typeof shapes)[P]>>;
}[K];
export type HistoryEvent = Of<Kind>;
export type End = Of<"terminal">["end"];

const fields = Object.entries(shapes).map(([kind, shape]) => {
  const parts = shape.split(" ").filter((part) => part !== "");
  const named = parts.map((part) => {
    const [name, types] = part.split(":") as [string, string];
    return { name: name.replace("?", ""), optional: name.endsWith("?"), types: types.split("|") };
  });
  return [kind, [{ name: "t", optional: false, types: ["number"] }, ...named]] as const;
});
const fieldsOf = new Map<unknown, (typeof fields)[number][1]>(fields);

/** @throws {Error} The line is not an event: which field, what was found, what is allowed. */
function read(line: string, number: number): HistoryEvent {
  const where = `line ${number}: `;
  let event: Record<string, unknown> | null;
  try {
    event = JSON.parse(line) as typeof event;
  } catch (cause) {
    throw new Error(`${where}not JSON`, { cause });
  }
  const known = fieldsOf.get(event?.["kind"]);
  if (event === null || known === undefined) throw new Error(`${where}no event of a known kind`);
  for (const { name, optional, types } of known) {
    const value = event[name];
    if ((value === undefined && optional) || types.some((type) => fits(value, type))) continue;
    throw new Error(`${where}${name}: ${JSON.stringify(value)} is not ${types.join(" or ")}`);
  }
  return event as HistoryEvent;
}
function fits(value: unknown, type: string): boolean {
  if (type === "number") return typeof value === "number";
  if (type === "text") return typeof value === "string";
  if (type === "id") return typeof value === "string" && /^[^/]+\/\d+\/\d+$/.test(value);
  return type === "flag" ? typeof value === "boolean" : String(value) === type;
}

/** The events of a stream of JSON lines, as they come. @throws {Error} A line is not an event. */
export async function* readAll(chunks: AsyncIterable<string>): AsyncGenerator<HistoryEvent[]> {
  let [rest, number] = ["", 0];
  for await (const chunk of chunks) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    yield lines.map((line) => read(line, ++number));
  }
  if (rest !== "") yield [read(rest, ++number)];
}

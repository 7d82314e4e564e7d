/**
 * What a target says of its own limits in the fields of an answer: `Retry-After` (RFC 9110),
 * `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10), `Spillway-Capacity`.
 * A field that cannot be read counts as absent, as RFC 9651 has it.
 */

/** Nobody is made to wait longer for one answer; a target that is still busy then says so again. */
const waitMaxMs = 300_000;
/**
 * A quota of a longer window says little of a rate: a thousand a day would be one in 86 seconds.
 * Until it is used up it is not felt, and then `RateLimit` or `Retry-After` say when to come back.
 */
const policyWindowMaxS = 3600;
const fieldMax = 4096;

/** @returns Milliseconds from now, at most 5 minutes; undefined: it says nothing that can be read. */
export function retryAfterMs(field: string | undefined, nowMs: number): number | undefined {
  if (field === undefined || field.length > 64) return undefined;
  if (/^\d+$/.test(field)) return Math.min(waitMaxMs, Number(field) * 1000);
  // A date has a name of a day; what else `Date.parse` takes for one is none here.
  const atMs = /^[A-Z][a-z]{2,8},? /.test(field) ? Date.parse(field) : NaN;
  if (Number.isNaN(atMs)) return undefined;
  return Math.max(0, Math.min(waitMaxMs, atMs - nowMs));
}

/** @returns How many messages the target takes at once; undefined: it does not say. */
export function capacityOf(field: string | undefined): number | undefined {
  return field !== undefined && /^[1-9]\d{0,8}$/.test(field) ? Number(field) : undefined;
}

/**
 * @param field `"default";q=100;w=60`, or several of them.
 * @returns The lowest rate among the policies that count requests; undefined: none does.
 */
export function policyRatePerS(field: string | undefined): number | undefined {
  let lowest: number | undefined;
  for (const { q, w, qu } of listOf(field)) {
    const counts = qu === undefined || qu === "requests";
    if (!counts || typeof q !== "number" || typeof w !== "number") continue;
    if (!(w > 0 && w <= policyWindowMaxS)) continue;
    const ratePerS = Math.max(1, q) / w; // Of none at all we would never hear the end.
    lowest = Math.min(lowest ?? Infinity, ratePerS);
  }
  return lowest;
}

/**
 * @param field `"default";r=0;t=30`, or several of them.
 * @returns For how long nothing is left of a quota; undefined: something is, or it does not say.
 */
export function exhaustedForMs(field: string | undefined): number | undefined {
  let longest: number | undefined;
  for (const { r, t } of listOf(field)) {
    if (r !== 0 || typeof t !== "number" || !(t > 0)) continue;
    longest = Math.max(longest ?? 0, Math.min(waitMaxMs, t * 1000));
  }
  return longest;
}

type Parameters = Readonly<Record<string, string | number>>;

const item = /\s*(?:"(?:[^"\\]|\\["\\])*"|[A-Za-z*][\w!#$%&'*+.^`|~:/-]*)/y;
const parameter =
  /;[ ]*([a-z*][a-z0-9_.*-]*)(?:=(?:"((?:[^"\\]|\\["\\])*)"|(-?\d{1,15}(?:\.\d{1,3})?)|([A-Za-z*][\w!#$%&'*+.^`|~:/-]*)|:[A-Za-z0-9+/=]*:|\?[01]))?/y;
const comma = /[ \t]*(,[ \t]*|$)/y;

/** The parameters of each member of a structured list of strings or tokens; none where it is no list. */
function listOf(field: string | undefined): readonly Parameters[] {
  if (field === undefined || field.length > fieldMax) return [];
  const members: Parameters[] = [];
  for (let at = 0; at < field.length;) {
    if (take(item, field, at) === null) return [];
    at = item.lastIndex;
    const parameters: Record<string, string | number> = Object.create(null);
    for (let match; (match = take(parameter, field, at)) !== null; at = parameter.lastIndex) {
      const [, name, text, number, token] = match;
      parameters[name!] = number === undefined ? (text ?? token ?? "") : Number(number);
    }
    members.push(parameters);
    const end = take(comma, field, at);
    at = comma.lastIndex;
    if (end === null || (end[1] !== "" && at === field.length)) return []; // Nothing after a comma.
  }
  return members;
}

function take(form: RegExp, text: string, at: number): RegExpExecArray | null {
  form.lastIndex = at;
  return form.exec(text);
}

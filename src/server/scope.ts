/** What a token allows: verbs, on the flows that a pattern names. Pure; there is no user-given regular expression. */

/** What a token may allow, on which flows. */
export type Verb = (typeof verbs)[number];

export const verbs = ["produce", "consume", "observe", "admin"] as const;

export interface Scope {
  readonly verbs: readonly Verb[];
  /** Names of flows, with `*` for any run of characters: "orders", "orders*", "*". */
  readonly flows: readonly string[];
  /** The only group that it acts for. */
  readonly group?: string;
}

/** A flow's name (see `nameForm` of the contract) in which `*` may stand. */
export const patternForm: RegExp = /^[A-Za-z0-9._*-]{1,128}$/;

export function covers(scope: Scope, verb: Verb, flow: string): boolean {
  return scope.verbs.includes(verb) && scope.flows.some((pattern) => matches(pattern, flow));
}

/** Anchored at both ends; a name is at most 128 characters, and every piece is looked for once. */
export function matches(pattern: string, name: string): boolean {
  if (pattern === "*") return true;
  const pieces = pattern.split("*");
  const first = pieces[0]!;
  if (pieces.length === 1) return name === pattern;
  const last = pieces.at(-1)!;
  if (name.length < first.length + last.length) return false;
  if (!name.startsWith(first) || !name.endsWith(last)) return false;
  let from = first.length;
  const end = name.length - last.length;
  for (const piece of pieces.slice(1, -1)) {
    const at = name.indexOf(piece, from);
    if (at < 0 || at + piece.length > end) return false;
    from = at + piece.length;
  }
  return true;
}

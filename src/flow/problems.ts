/** What is wrong with a contract, said so that it can be put right: where, what, what instead. */
import { SpillwayError } from "../base/index.ts";

export interface Problem {
  /** Place in the contract: "buffer.messages", "retry.delay[0]"; "" is the contract itself. */
  readonly path: string;
  /** What stands there, shortened; of objects and lists only that they are. */
  readonly found: string;
  readonly allowed: string;
  readonly hint?: string;
}

/** An error shows no more problems than this. */
export const shownMax = 100;

/** An error with the first problems, and in `omitted` how many more there are. */
export function contractInvalid(flow: string, problems: readonly Problem[]): SpillwayError {
  const shown = problems.slice(0, shownMax);
  const omitted = problems.length - shown.length;
  return new SpillwayError("contract_invalid", {
    flow,
    problems: shown,
    ...(omitted > 0 && { omitted }),
  });
}

export function problem(path: string, found: unknown, allowed: string, hint?: string): Problem {
  const base = { path, found: show(found), allowed };
  return hint === undefined ? base : { ...base, hint };
}

/** @returns "a.b[0]"; keys that are no plain names are quoted and shortened. */
export function pathText(path: readonly PropertyKey[]): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else if (/^[A-Za-z_$][\w$-]{0,63}$/.test(String(step))) {
      text += text === "" ? String(step) : `.${String(step)}`;
    } else text += `[${quote(String(step))}]`;
  }
  return text;
}

function show(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  return typeof value === "function" ? "a function" : String(value);
}

/** @returns The known name that was most likely meant, if any is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  if (name.length > 64) return undefined;
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance && distance < candidate.length) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}

/** Levenshtein's distance, by rows. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

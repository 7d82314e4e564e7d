/** An error as the command line shows it: what is wrong, where, and what to do about it. */
import { catalogue } from "../base/index.ts";
import type { SpillwayError } from "../base/index.ts";
import type { Problem } from "../flow/index.ts";
import { table } from "./format.ts";

/** Lines for standard error. A configuration's problems have a line each. */
export function complaintOf(error: SpillwayError): string {
  const lines = hasProblems(error)
    ? [headOf(error), ...problemLines(error.details.problems)]
    : [error.message];
  const advice = adviceOf(error);
  return [...lines, ...(advice === undefined ? [] : [advice]), ""].join("\n");
}

interface WithProblems extends SpillwayError {
  readonly details: { readonly problems: readonly Problem[]; readonly omitted?: number };
}

export function hasProblems(error: SpillwayError): error is WithProblems {
  return Array.isArray(error.details["problems"]);
}

/** "flows.orders.lease  found "soon", allowed a span ...", a line each, aligned. */
function problemLines(problems: readonly Problem[]): string[] {
  return table(
    problems.map((each) => [each.path === "" ? "(all of it)" : each.path, problemText(each)]),
    new Set(),
  );
}

export function problemText({ found, allowed, hint }: Problem): string {
  return `found ${found}, allowed: ${allowed}${hint === undefined ? "" : ` (${hint})`}`;
}

function headOf({ code, details }: SpillwayError): string {
  const place = details["file"] ?? details["flow"];
  return `${catalogue[code].text}${typeof place === "string" ? ` (${place})` : ""}`;
}

/** What to do, where the message alone does not say it. */
function adviceOf({ code, details }: SpillwayError): string | undefined {
  switch (code) {
    case "store_locked":
      return `Stop that process first${
        typeof details["pid"] === "number" ? ` (kill ${details["pid"]})` : ""
      }, or use another data directory. One process at a time may have it open.`;
    case "port_in_use":
      return "Choose another port (--port N; 0: any free one), or stop the process that has it.";
    case "store_newer":
      return "Run the version of Spillway that wrote it, or a newer one.";
    case "config_invalid":
      return hasProblems({ code, details } as SpillwayError)
        ? "Correct these; docs/contract.md and `spillway doctor` help."
        : undefined;
    case "aborted":
      return "It was ended before it was done, and nothing of it was kept.";
    default:
      return undefined;
  }
}

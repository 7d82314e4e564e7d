/** Node, the clock, and how many files a process may open. */
import { readFileSync } from "node:fs";
import type { Config } from "../../config/index.ts";
import { sqliteFault } from "../../engines/sqlite/index.ts";
import { count } from "../format.ts";
import { fail, ok, warn } from "./finding.ts";
import type { Finding } from "./finding.ts";

const nodeMin = 24;

export function checkNode(): Finding[] {
  const { node, sqlite } = process.versions;
  const found = `Node ${node}, SQLite ${sqlite ?? "?"}`;
  if (Number(node.split(".")[0]) < nodeMin)
    return [fail("node", found, "install Node 24 or newer")];
  const fault = sqliteFault();
  return [fault === undefined ? ok("node", found) : fail("node", fault, "install a newer Node 24")];
}

/** The year in which this was written, and one that no clock should show yet. */
const yearMin = 2026;
const yearMax = 2100;
const jumpMaxMs = 50;

/** Two clocks at one moment: that of the calendar may be set, the other cannot jump. */
export interface ClockReading {
  readonly calendarMs: number;
  readonly steadyMs: number;
}

export function readClocks(): ClockReading {
  return { calendarMs: Date.now(), steadyMs: performance.now() };
}

/** @param before Taken some time ago. */
export function checkClock(before: ClockReading, now: ClockReading): Finding[] {
  const year = new Date(now.calendarMs).getUTCFullYear();
  const advice = "set it, and keep it with NTP: delays, deadlines and ids' windows go by it";
  if (year < yearMin || year > yearMax) return [fail("clock", `it shows the year ${year}`, advice)];
  const jumpMs = now.calendarMs - before.calendarMs - (now.steadyMs - before.steadyMs);
  if (Math.abs(jumpMs) > jumpMaxMs) {
    return [warn("clock", `it jumped by ${Math.round(jumpMs)} ms while this ran`, advice)];
  }
  return [ok("clock", new Date(now.calendarMs).toISOString())];
}

/** Store, log, targets and what Node itself opens. */
const filesBesides = 1000;

export function checkFiles({ limits }: Config): Finding[] {
  const max = openFilesMax();
  if (max === undefined) return [];
  const needed = limits.connections + filesBesides;
  const found = `${count(max)} open files allowed, ${count(needed)} needed at limits.connections`;
  if (max >= needed) return [ok("files", found)];
  return [
    warn("files", found, `ulimit -n ${needed} (LimitNOFILE= of systemd), or fewer connections`),
  ];
}

/** Node has raised the soft limit to the hard one by now. */
function openFilesMax(): number | undefined {
  try {
    const found = /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
    return found === null ? undefined : Number(found[1]);
  } catch {
    return undefined; // Not Linux.
  }
}

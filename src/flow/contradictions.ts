/** What the fields of a contract demand of each other, and what is allowed but probably not meant. */
import type { Contract } from "./contract.ts";
import { problem } from "./problems.ts";
import type { Problem } from "./problems.ts";

/** `between`: the paths of the fields that contradict each other. */
export interface Contradiction extends Problem {
  readonly between: readonly string[];
}

export function contradictions(contract: Contract): Contradiction[] {
  return [
    ...ofClasses(contract),
    ...ofWindow(contract),
    ...ofBuffer(contract),
    ...ofRetry(contract),
    ...ofSurges(contract),
    ...ofPush(contract),
  ];
}

/** A field that never takes effect, or works against another one; the contract is valid all the same. */
export interface Warning {
  readonly path: string;
  readonly text: string;
}

export function warningsOf(contract: Contract): Warning[] {
  const { buffer, boundary, deadlineMs, retry, expectedRate, rate, budget } = contract;
  const warnings: Warning[] = [];
  const warn = (path: string, text: string): void => void warnings.push({ path, text });
  if (deadlineMs !== undefined) {
    if (buffer.seconds !== undefined && deadlineMs > buffer.seconds * 1000) {
      warn("deadline", "longer than buffer.seconds: the buffer refuses before the deadline does");
    }
    if (retry.delayBaseMs >= deadlineMs) {
      warn("deadline", "not longer than the first retry delay: no message is tried twice");
    }
    if (budget.endToEndMs !== undefined && budget.endToEndMs > deadlineMs) {
      warn("budget.endToEnd", "longer than the deadline, which ends a message first");
    }
  }
  if (rate !== undefined && expectedRate !== undefined && expectedRate > rate.perSecond) {
    warn("expectedRate", "above the target's rate: the backlog drains slower than expected");
  }
  const { rate: flowRate, groupRate } = boundary;
  if (
    flowRate !== undefined &&
    groupRate !== undefined &&
    groupRate.perSecond > flowRate.perSecond
  ) {
    warn("boundary.groupRate", "above boundary.rate, which holds back every group first");
  }
  return warnings;
}

function ofClasses({ classes }: Contract): Contradiction[] {
  const found: Contradiction[] = [];
  const { critical, normal, bulk } = classes;
  const paths = ["classes.critical", "classes.normal", "classes.bulk"] as const;
  if (critical === 0) {
    const allowed = "above 0, or nothing would be accepted";
    found.push({ ...problem(paths[0], critical, allowed), between: [paths[0]] });
  }
  if (normal > critical) {
    const allowed = `at most classes.critical, ${critical}`;
    found.push({ ...problem(paths[1], normal, allowed), between: paths.slice(0, 2) });
  }
  if (bulk > normal) {
    found.push({ ...problem(paths[2], bulk, `at most classes.normal, ${normal}`), between: paths });
  }
  return found;
}

function ofWindow({ window }: Contract): Contradiction[] {
  const { min, max, start, fixed } = window;
  const ends = ["window.min", "window.max"];
  if (min > max) {
    return [{ ...problem("window.min", min, `at most window.max, ${max}`), between: ends }];
  }
  const inside = (path: string, value: number | undefined): Contradiction[] =>
    value === undefined || (value >= min && value <= max)
      ? []
      : [
          {
            ...problem(path, value, `from window.min to window.max, ${min} to ${max}`),
            between: [...ends, path],
          },
        ];
  return [...inside("window.start", start), ...inside("window.fixed", fixed)];
}

function ofBuffer({ partitions, buffer, messageBytesMax, groups }: Contract): Contradiction[] {
  const found: Contradiction[] = [];
  if (messageBytesMax > buffer.bytes) {
    const allowed = `at most buffer.bytes, ${buffer.bytes}`;
    const hint = "lower it, or raise buffer.bytes";
    const between = ["messageBytesMax", "buffer", "buffer.bytes"];
    found.push({ ...problem("messageBytesMax", messageBytesMax, allowed, hint), between });
  }
  if (groups.shards !== "off" && groups.shards > partitions) {
    const allowed = `at most partitions, ${partitions}, or "off"`;
    const between = ["groups.shards", "partitions"];
    found.push({ ...problem("groups.shards", groups.shards, allowed), between });
  }
  return found;
}

function ofRetry({ retry }: Contract): Contradiction[] {
  if (retry.delayBaseMs <= retry.delayMaxMs) return [];
  const allowed = `at most the longest delay, ${retry.delayMaxMs} ms`;
  const between = ["retry.delay"];
  return [{ ...problem("retry.delay[0]", retry.delayBaseMs, allowed), between }];
}

function ofPush({ deliver, leaseMs }: Contract): Contradiction[] {
  if (deliver === undefined) return [];
  const { url, allow, ports, timeoutMs, connectTimeoutMs } = deliver;
  const found: Contradiction[] = [];
  const isPlain = url.startsWith("http:");
  if (isPlain && !allow.includes("http")) {
    const allowed = 'an https address, or "http" in deliver.allow';
    found.push({ ...problem("deliver.url", url, allowed), between: ["deliver.url"] });
  }
  const port = Number(
    /:(\d+)$/.exec(/^https?:\/\/([^/?]+)/.exec(url)![1]!)?.[1] ?? (isPlain ? 80 : 443),
  );
  if (!ports.includes(port)) {
    const allowed = `a port of deliver.ports, ${ports.join(", ")}`;
    found.push({ ...problem("deliver.url", url, allowed), between: ["deliver.url"] });
  }
  if (connectTimeoutMs > timeoutMs) {
    const allowed = `at most deliver.timeout, ${timeoutMs} ms`;
    const between = ["deliver.connectTimeout", "deliver.timeout"];
    found.push({ ...problem("deliver.connectTimeout", connectTimeoutMs, allowed), between });
  }
  if (timeoutMs > leaseMs) {
    const allowed = `at most lease, ${leaseMs} ms: the message would be pushed again meanwhile`;
    found.push({
      ...problem("deliver.timeout", timeoutMs, allowed),
      between: ["deliver.timeout", "lease"],
    });
  }
  return found;
}

/** Surges stand in the order of time here: the path cannot tell their place in what was written. */
function ofSurges({ boundary: { surges } }: Contract): Contradiction[] {
  const found: Contradiction[] = [];
  const clash = (atMs: number, allowed: string): void =>
    void found.push({ ...problem("boundary.surges", atMs, allowed), between: ["boundary.surges"] });
  surges.forEach(({ fromMs, toMs }, at) => {
    if (toMs <= fromMs) clash(toMs, `"to" after "from", ${fromMs}`);
    const next = surges[at + 1];
    if (next !== undefined && next.fromMs < toMs) {
      clash(next.fromMs, `surges that do not overlap: the one before it ends at ${toMs}`);
    }
  });
  return found;
}

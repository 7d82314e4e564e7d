/** `spillway audit DIR`: the accounts of a store, from the store alone, while it runs or not. */
import type { Command } from "commander";
import { auditStore } from "../engines/sqlite/index.ts";
import type { PartitionAudit } from "../engines/sqlite/index.ts";
import { exitCodes } from "./exit-codes.ts";
import { count, plural, table } from "./format.ts";

export function addAudit(program: Command): void {
  program
    .command("audit")
    .description(
      "check the accounts of a data directory: accepted = acked + dead + discarded + pending",
    )
    .argument("<dir>", "the data directory; it may be in use")
    .option("--json", "print one JSON object")
    .action((dir: string, options: { json?: true }) => {
      const audits = auditStore(dir);
      const faults = audits.flatMap(faultsOf);
      const text =
        options.json === true ? asJson(dir, audits, faults) : asText(dir, audits, faults);
      process.stdout.write(`${text}\n`);
      process.exitCode = faults.length === 0 ? exitCodes.ok : exitCodes.failed;
    });
}

/** What does not hold, a line each. */
export function faultsOf({ ref, report }: PartitionAudit): string[] {
  const name = `${ref.flow}/${ref.partition}`;
  const faults: string[] = [];
  if (report.firstDifference !== undefined) faults.push(`${name}: ${report.firstDifference}`);
  if (report.damaged.length > 0) {
    const some = report.damaged.slice(0, 5).join(", ");
    faults.push(`${name}: ${plural(report.damaged.length, "damaged message")}, seq ${some}`);
  }
  return faults;
}

function asJson(dir: string, audits: readonly PartitionAudit[], faults: readonly string[]): string {
  const partitions = audits.map(({ ref, report }) => ({ ...ref, ...report }));
  return JSON.stringify({ dir, ok: faults.length === 0, faults, partitions });
}

const columns = ["flow", "partition", "accepted", "acked", "dead", "discarded", "pending", "bytes"];
const numbers = ["accepted", "acked", "dead", "discarded", "pending", "bytes"] as const;

function asText(dir: string, audits: readonly PartitionAudit[], faults: readonly string[]): string {
  const rows = [columns];
  for (const flow of new Set(audits.map(({ ref }) => ref.flow))) {
    const own = audits.filter(({ ref }) => ref.flow === flow);
    for (const { ref, report } of own) {
      rows.push([
        flow,
        String(ref.partition),
        ...numbers.map((name) => count(report.counters[name])),
      ]);
    }
    const sum = (name: (typeof numbers)[number]): number =>
      own.reduce((total, { report }) => total + report.counters[name], 0);
    rows.push([flow, "all", ...numbers.map((name) => count(sum(name)))]);
  }
  const verdict =
    faults.length === 0
      ? [
          "The accounts hold: accepted = acked + dead + discarded + pending in every partition,",
          "the counters agree with the rows, and every message is intact.",
        ]
      : ["The accounts do not hold:", ...faults.map((fault) => `  ${fault}`)];
  const body =
    audits.length === 0 ? ["  no flows yet"] : table(rows, new Set([1, 2, 3, 4, 5, 6, 7]));
  return [`Audit of ${dir}`, "", ...body, "", ...verdict].join("\n");
}

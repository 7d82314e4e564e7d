/** `spillway backup TO`: a checked copy of a store, while it runs or not. */
import { constants, setPriority } from "node:os";
import { resolve } from "node:path";
import type { Command } from "commander";
import { backupStore, leftOvers } from "../engines/sqlite/index.ts";
import type { Manifest } from "../engines/sqlite/index.ts";
import { faultsOf } from "./audit.ts";
import { findConfig, readConfig } from "./config-file.ts";
import { exitCodes } from "./exit-codes.ts";
import { count, plural, table } from "./format.ts";
import { packageVersion } from "./package-root.ts";
import { stopOnSignals } from "./stop.ts";

interface BackupFlags {
  readonly dir?: string;
  readonly config?: string;
  readonly json?: true;
}

const after = `
The copy is of one moment: everything that was accepted before the backup began is in it. It is checked
(pages, accounts, checksums), synced and named last: a folder that is called TO is a whole backup.
Exit codes: 0 done, 1 it failed, or the store itself has damaged messages, which are named, 2 wrong flags.`;

export function addBackup(program: Command): void {
  program
    .command("backup")
    .description("copy a store into a new folder, while a server uses it or not")
    .argument("<to>", "the folder to make")
    .option("--dir <dir>", "the data directory (that of the configuration, else .spillway)")
    .option("-c, --config <file>", "the configuration that names the data directory")
    .option("--json", "print one JSON object")
    .addHelpText("after", after)
    .action(async (to: string, flags: BackupFlags) => {
      using stop = stopOnSignals();
      const dir = await dataDirectory(flags);
      setPriority(constants.priority.PRIORITY_LOW); // The server's work comes first.
      const left = await leftOvers(to);
      const manifest = await backupStore(dir, to, {
        version: packageVersion(),
        signal: stop.signal,
        ...(process.stderr.isTTY && { onProgress: showProgress }),
      });
      const faults = manifest.partitions.flatMap(faultsOf);
      process.stdout.write(
        flags.json === true
          ? `${JSON.stringify({ dir, to: resolve(to), ok: faults.length === 0, faults, left, ...manifest })}\n`
          : pageOf(dir, to, manifest, faults, left),
      );
      process.exitCode = faults.length === 0 ? exitCodes.ok : exitCodes.failed;
    });
}

/** The data directory that is named, or that of the configuration. @throws {SpillwayError} config_invalid */
export async function dataDirectory(flags: {
  readonly dir?: string;
  readonly config?: string;
}): Promise<string> {
  if (flags.dir !== undefined) return resolve(flags.dir);
  const file = findConfig(flags.config);
  return file === undefined ? resolve(".spillway") : (await readConfig(file)).engine.dir;
}

export function accountLines({ partitions }: Manifest): string[] {
  const names = [...new Set(partitions.map(({ ref }) => ref.flow))];
  const rows = names.map((flow) => {
    const own = partitions.filter(({ ref }) => ref.flow === flow);
    const sum = (name: "accepted" | "acked" | "dead" | "pending"): string =>
      count(own.reduce((total, { report }) => total + report.counters[name], 0));
    return [flow, sum("accepted"), sum("acked"), sum("dead"), sum("pending")];
  });
  if (rows.length === 0) return ["  no flows yet"];
  return table([["flow", "accepted", "acked", "dead", "pending"], ...rows], new Set([1, 2, 3, 4]));
}

function showProgress(share: number): void {
  process.stderr.write(`\r${Math.floor(share * 100)} %${share === 1 ? "\r\u001B[K" : ""}`);
}

function pageOf(
  dir: string,
  to: string,
  manifest: Manifest,
  faults: readonly string[],
  left: readonly string[],
): string {
  const bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  const lines = [
    `Backup of ${dir}`,
    `    in ${resolve(to)}: ${plural(bytes, "byte")}, as of ${manifest.createdAt}`,
    "",
    ...accountLines(manifest),
    "",
    ...(faults.length === 0
      ? ["It is complete and checked. `spillway restore` puts it into a data directory."]
      : ["It is complete, and so is the damage that the store has:", ...faults.map(indented)]),
    ...(left.length === 0
      ? []
      : ["Backups that were not finished lie beside it; remove them:", ...left.map(indented)]),
  ];
  return `${lines.join("\n")}\n`;
}

function indented(text: string): string {
  return `  ${text}`;
}

/** `spillway doctor`: looks at all that a server needs, and says what to do. Nothing is changed. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { isSpillwayError } from "../base/index.ts";
import { parseConfig } from "../config/index.ts";
import type { Config } from "../config/index.ts";
import { inspectStore } from "../engines/sqlite/index.ts";
import { hasProblems, problemText } from "./complaint.ts";
import { configNamesText, findConfig, readConfig } from "./config-file.ts";
import { checkDisk, checkStore } from "./doctor/disk.ts";
import { fail, ok, warn } from "./doctor/finding.ts";
import type { Finding } from "./doctor/finding.ts";
import { checkClock, checkFiles, checkNode, readClocks } from "./doctor/machine.ts";
import { checkPort, checkTargets, checkTls } from "./doctor/network.ts";
import { exitCodes } from "./exit-codes.ts";
import { plural } from "./format.ts";

const after = `
Checks: config, Node, disk, data directory and accounts, port, TLS files, secrets, push targets (a
connection, no request), open files, clock. It may run beside the server.
Exit codes: 0 nothing fails (warnings may be there), 1 something does.`;

export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("check configuration, disk, data, port, clock and targets, and say what to do")
    .option("-c, --config <file>", `the configuration (${configNamesText}, if one is here)`)
    .option("--json", "print one JSON object")
    .addHelpText("after", after)
    .action(async (flags: { readonly config?: string; readonly json?: true }) => {
      const file = findConfig(flags.config);
      const findings = await examine(file);
      const isWell = findings.every(({ level }) => level !== "fail");
      process.stdout.write(
        flags.json === true
          ? `${JSON.stringify({ file: file ?? null, ok: isWell, findings })}\n`
          : pageOf(file, findings),
      );
      process.exitCode = isWell ? exitCodes.ok : exitCodes.failed;
    });
}

async function examine(file: string | undefined): Promise<Finding[]> {
  const clocks = readClocks();
  const { config, findings } = await checkConfig(file);
  findings.push(...checkNode());
  if (config !== undefined) {
    const { dir } = config.engine;
    findings.push(...checkDisk(config), ...checkStore(config));
    findings.push(...(await checkPort(config, isHeld(dir))));
    findings.push(...checkTls(config, Date.now()), ...(await checkTargets(config)));
    findings.push(...checkFiles(config));
  }
  return [...findings, ...checkClock(clocks, readClocks())];
}

/** Whether a process has the data open; what cannot be read is told by the check of the store. */
function isHeld(dir: string): boolean {
  try {
    return existsSync(dir) && inspectStore(dir).holder !== undefined;
  } catch {
    return false;
  }
}

async function checkConfig(
  file: string | undefined,
): Promise<{ readonly config?: Config; readonly findings: Finding[] }> {
  if (file === undefined) {
    const advice = "`spillway init` writes one; what follows is for the defaults, without flows";
    const findings = [warn("config", `no ${configNamesText} here`, advice)];
    const engine = { kind: "sqlite", dir: resolve(".spillway") } as const;
    return { config: parseConfig({ engine, flows: {} }), findings };
  }
  try {
    const config = await readConfig(file);
    const flows = Object.keys(config.flows);
    if (flows.length > 0) return { config, findings: [ok("config", `flows: ${flows.join(", ")}`)] };
    return { config, findings: [warn("config", "it names no flows", "add one under flows")] };
  } catch (error) {
    if (!isSpillwayError(error, "config_invalid")) throw error;
    const findings = hasProblems(error)
      ? error.details.problems.map((each) =>
          fail("config", `${each.path}: ${problemText(each)}`, "correct it; docs/contract.md"),
        )
      : [fail("config", String(error.details["found"]), "correct the file")];
    return { findings };
  }
}

const shown = { ok: "ok  ", warn: "warn", fail: "FAIL" } as const;

function pageOf(file: string | undefined, findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.flatMap(({ level, check, found, advice }) => {
    const line = `  ${shown[level]}  ${check.padEnd(width)}  ${found}`;
    return advice === undefined ? [line] : [line, `${" ".repeat(width + 10)}-> ${advice}`];
  });
  const number = (level: Finding["level"]): number =>
    findings.filter((finding) => finding.level === level).length;
  const [fails, warns] = [number("fail"), number("warn")];
  const end =
    fails + warns === 0
      ? "Nothing to do."
      : `${plural(fails, "problem")}, ${plural(warns, "warning")}.`;
  const about = file === undefined ? "" : ` of ${file}`;
  return `spillway doctor${about}\n\n${lines.join("\n")}\n\n${end}\n`;
}

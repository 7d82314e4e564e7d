/** The command line. Each command is a file of its own. */
import { Command, CommanderError } from "commander";
import { isSpillwayError } from "../base/index.ts";
import { addAudit } from "./audit.ts";
import { addBackup } from "./backup.ts";
import { complaintOf } from "./complaint.ts";
import { addInit } from "./init.ts";
import { addRestore } from "./restore.ts";
import { addDoctor } from "./doctor.ts";
import { addConsume } from "./consume.ts";
import { addSend } from "./send.ts";
import { addServe } from "./serve.ts";
import { addSimulate } from "./simulate.ts";
import { addToken } from "./token.ts";
import { addDemo } from "./demo/command.ts";
import { exitCodes } from "./exit-codes.ts";
import { packageVersion } from "./package-root.ts";

const usageErrors = new Set<string>([
  "option_invalid",
  "not_found",
  "contract_invalid",
  "config_invalid",
  "request_invalid",
]);

process.exitCode = await main(process.argv);

async function main(argv: readonly string[]): Promise<number> {
  process.stdout.on("error", leaveOnClosedPipe);
  process.stderr.on("error", leaveOnClosedPipe);
  const program = new Command("spillway")
    .description("Durable queues that protect their consumers.")
    .version(packageVersion(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .showHelpAfterError("(spillway --help lists what is possible)")
    .exitOverride();
  addServe(program);
  addSend(program);
  addConsume(program);
  addDemo(program);
  addInit(program);
  addDoctor(program);
  addAudit(program);
  addBackup(program);
  addRestore(program);
  addSimulate(program);
  addToken(program);
  try {
    await program.parseAsync(argv);
    return Number(process.exitCode ?? exitCodes.ok);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage;
    if (!isSpillwayError(error)) throw error;
    process.stderr.write(`spillway: ${complaintOf(error)}`);
    return usageErrors.has(error.code) ? exitCodes.usage : exitCodes.failed;
  }
}

/** `spillway ... | head` has seen enough. */
function leaveOnClosedPipe(error: NodeJS.ErrnoException): void {
  process.exit(error.code === "EPIPE" ? exitCodes.ok : exitCodes.failed);
}

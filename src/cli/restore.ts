/** `spillway restore FROM`: a backup becomes the store of a data directory. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { restoreStore } from "../engines/sqlite/index.ts";
import type { Restored } from "../engines/sqlite/index.ts";
import { accountLines, dataDirectory } from "./backup.ts";

interface RestoreFlags {
  readonly dir?: string;
  readonly config?: string;
  readonly force?: true;
  readonly json?: true;
}

const after = `
The backup is checked before anything is touched. A store that is there is moved aside, never deleted.
Exit codes: 0 restored and audited, 1 it failed (the backup is damaged, the directory is in use, ...),
2 wrong flags, or a directory that is not empty.`;

export function addRestore(program: Command): void {
  program
    .command("restore")
    .description("put a backup into a data directory that no server uses")
    .argument("<from>", "the folder of the backup")
    .option("--dir <dir>", "the data directory (that of the configuration, else .spillway)")
    .option("-c, --config <file>", "the configuration that names the data directory")
    .option("--force", "move a store aside that is there")
    .option("--json", "print one JSON object")
    .addHelpText("after", after)
    .action(async (from: string, flags: RestoreFlags) => {
      const dir = await dataDirectory(flags);
      const restored = await restoreStore(resolve(from), dir, { force: flags.force === true });
      process.stdout.write(
        flags.json === true
          ? `${JSON.stringify({ from: resolve(from), dir, ok: true, ...restored })}\n`
          : pageOf(from, dir, restored),
      );
    });
}

function pageOf(from: string, dir: string, { manifest, movedTo }: Restored): string {
  return `Restored ${resolve(from)}
    into ${dir}: the store as of ${manifest.createdAt}
${movedTo === undefined ? "" : `    what was there lies in ${movedTo}\n`}
${accountLines(manifest).join("\n")}

The files are those of the backup, and the accounts hold. What this means:
  - What was acked since ${manifest.createdAt} is pending again, and will be delivered again.
  - What was accepted since is gone, and its ids will be given to other messages.
  - Idempotency keys are known as of then: a repeat of something accepted since is accepted anew.
  - Nothing that was being delivered before the restore can be settled any more.
`;
}

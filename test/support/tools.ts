/** Programs that some suites need and npm does not bring. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

export interface Tool {
  /** What does not run without it. */
  readonly suites: string;
  readonly binaries: readonly string[];
  readonly install: string;
}

const tools: readonly Tool[] = [
  {
    suites: "crash states of the embedded store",
    binaries: ["cc", "gcc"],
    install: "apt-get install gcc libc6-dev",
  },
  {
    suites: "TLS and client certificates",
    binaries: ["openssl"],
    install: "apt-get install openssl",
  },
  {
    suites: "the client in Python",
    binaries: ["python3"],
    install: "apt-get install python3",
  },
  {
    suites: "the client in a browser",
    binaries: ["chromium"],
    install: "scripts/install-tools.sh, or apt-get install chromium",
  },
  {
    suites: "the example in curl",
    binaries: ["curl"],
    install: "apt-get install curl",
  },
];

/** @param path Where to look: folders as `PATH` names them. */
export function missingTools(path: string = process.env["PATH"] ?? ""): Tool[] {
  const folders = path.split(delimiter);
  return tools.filter(
    ({ binaries }) =>
      !binaries.some((binary) => folders.some((folder) => isExecutable(join(folder, binary)))),
  );
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

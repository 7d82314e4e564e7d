/** Pages of the documentation whose code blocks together are one program. */
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const root = join(import.meta.dirname, "../..");
const run = promisify(execFile);

function isImport(line: string): boolean {
  return line.startsWith("import ");
}

/** One module of all `ts` blocks: the imports first, package names as paths from a folder in `reports`. */
export function programOf(page: string): string {
  const blocks = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => match[1]!);
  const lines = blocks.flatMap((block) => block.split("\n"));
  const imports = new Set(lines.filter(isImport));
  const text = [...imports, ...lines.filter((line) => !isImport(line)), ""].join("\n");
  return text
    .replaceAll('"spillway"', '"../../src/spillway.ts"')
    .replaceAll(/"spillway\/(client|config|server|engines\/\w+)"/g, '"../../src/$1/index.ts"');
}

/**
 * Writes a program into a folder of `reports`: not under node_modules, where Node strips no types.
 * @returns What the compiler says; nothing when all is well.
 */
export async function compileProgram(folder: string, file: string, text: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, file), text);
  const config = {
    extends: "../../tsconfig.base.json",
    compilerOptions: {
      noEmit: true,
      composite: false,
      isolatedDeclarations: false,
      rewriteRelativeImportExtensions: false,
      allowImportingTsExtensions: true,
      types: ["node"],
    },
    files: [file],
  };
  await writeFile(join(folder, "tsconfig.json"), JSON.stringify(config));
  const tsc = join(root, "node_modules/.bin/tsc");
  const { stdout } = await run(process.execPath, [tsc, "-p", folder]).catch(
    (error: { stdout: string }) => error,
  );
  return stdout;
}

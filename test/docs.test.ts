/** The documentation holds to the code: names, defaults, links, and programs that do what they say. */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { contractSchema, policyFields } from "../src/flow/index.ts";
import { Flow } from "../src/spillway.ts";
import { compileProgram, programOf } from "./support/pages.ts";

const root = resolve(import.meta.dirname, "..");
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const contractPage = read("docs/contract.md");
const guide = read("docs/guide.md");

interface Node {
  readonly properties?: Readonly<Record<string, Node>>;
  readonly items?: Node | false;
  readonly prefixItems?: readonly Node[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
}

/** What the schema says of each field that takes a value, by its path. */
function fieldsOf(node: Node, above = ""): { readonly path: string; readonly node: Node }[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, inner]) => {
    const path = `${above}${name}`;
    if (inner.properties !== undefined) return fieldsOf(inner, `${path}.`);
    const items = typeof inner.items === "object" ? fieldsOf(inner.items, `${path}[].`) : [];
    return [{ path, node: inner }, ...items];
  });
}

const fields = fieldsOf(contractSchema());

/** Cells of the table row that stands for a field. */
function rowOf(path: string): string[] {
  const row = contractPage.split("\n").find((line) => line.startsWith(`| \`${path}\` |`));
  return row?.split("|").map((cell) => cell.trim()) ?? [];
}

test("the contract's page has a row for every field of the schema, and no other", () => {
  const tables = contractPage.slice(0, contractPage.indexOf("## Options of a message"));
  const rows = [...tables.matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1]!);
  expect(fields.length).toBeGreaterThan(30);
  expect(rows.toSorted()).toEqual(fields.map(({ path }) => path).toSorted());
});

test.each(fields)("the contract's page gives default and bounds of $path", ({ path, node }) => {
  const [, , defaultCell, allowedCell] = rowOf(path);
  const defaults = node.prefixItems?.map((item) => item.default) ?? [node.default];
  for (const value of defaults) {
    if (value === undefined) continue;
    expect(defaultCell).toContain(typeof value === "string" ? value : JSON.stringify(value));
  }
  const { minimum, maximum } = node;
  if (minimum === undefined || maximum === undefined) return;
  expect(allowedCell).toContain(`${minimum} to ${maximum}`);
});

test.each(fields)("the contract's page says whether $path may change", ({ path }) => {
  const may = (policyFields as readonly string[]).includes(path.split(".")[0]!);
  expect(rowOf(path)[4]?.startsWith("yes")).toBe(may);
});

test("every method and event of a flow is in the contract's reference", () => {
  const source = read("src/flow-handle.ts");
  const body = /export interface FlowEvents \{(.*?)\n\}/s.exec(source)![1]!;
  const events = [...body.matchAll(/^ {2}(\w+): \[/gm)].map((match) => match[1]!);
  const methods = Object.getOwnPropertyNames(Flow.prototype).filter(
    (name) => name !== "constructor" && !name.startsWith("tell"),
  );
  expect(events.length).toBeGreaterThan(10);
  expect(methods.length).toBeGreaterThan(20);
  const reference = contractPage.slice(contractPage.indexOf("## Methods of a flow"));
  for (const method of methods) expect(reference).toMatch(new RegExp(`\`${method}[\`(]`));
  for (const event of events) expect(reference).toContain(`| \`${event}\` |`);
});

const pages = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  "CHANGELOG.md",
  "SECURITY.md",
  "DEPENDENCIES.md",
].concat(
  readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
);

/** As GitHub makes them: lower case, punctuation away, blanks to dashes. */
function anchorsOf(page: string): Set<string> {
  const headings = [...read(page).matchAll(/^#+ (.+)$/gm)].map((match) => match[1]!);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\- ]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

test.each(pages)("the relative links of %s lead somewhere", (page) => {
  const links = [...read(page).matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1]!);
  const broken = links.filter((link) => {
    if (/^[a-z]+:/.test(link)) return false;
    const [path, anchor] = link.split("#");
    const target = path === "" ? page : join(dirname(page), path!);
    if (!existsSync(join(root, target))) return true;
    return anchor !== undefined && !anchorsOf(target).has(anchor);
  });
  expect(broken).toEqual([]);
});

const run = promisify(execFile);
/** Not under node_modules: Node strips no types there. */
const folder = join(root, "reports/guide");
const program = join(folder, "guide.ts");

test("the guide's program compiles", async () => {
  expect(await compileProgram(folder, "guide.ts", programOf(guide))).toBe("");
});

test("the guide's program runs, and prints what its comments say", async () => {
  await mkdir(folder, { recursive: true });
  await writeFile(program, programOf(guide));
  const dir = await mkdtemp(join(tmpdir(), "spillway-guide-"));
  try {
    const args = ["--conditions=source", "--disable-warning=ExperimentalWarning", program];
    const { stdout } = await run(process.execPath, args, { cwd: dir, timeout: 15_000 });
    const expected = [...guide.matchAll(/\/\/ prints (.+)$/gm)].map((match) => match[1]!);
    expect(stdout.trimEnd().split("\n")).toEqual(expected);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

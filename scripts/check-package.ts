/**
 * Packs the package, has publint judge the tarball, installs it into an empty folder, and there
 * type-checks a consumer, runs it and the command, on Node 24 and on the machine's own Node if that is
 * older: what a user gets is what is checked, not the sources.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

/** The recorded data of the demonstration are the most of it. */
const kilobytesMax = 1500;
const consumer = `import { openSpillway, SpillwayError, type Receipt } from "spillway";
import { memory } from "spillway/engines/memory";
await using spillway = await openSpillway({ dir: "data" });
const orders = spillway.flow<{ sku: string }>("orders", { partitions: 2 });
const handled = Promise.withResolvers<string>();
orders.consume((order, delivery) => handled.resolve(order.sku + delivery.attempt));
const receipt: Receipt = await orders.send({ sku: "a" }, { key: "k", idempotencyKey: "i" });
if (receipt.durability !== "fsync" || receipt.duplicate) throw new Error(JSON.stringify(receipt));
if ((await handled.promise) !== "a1") throw new Error("another message than the one sent");
await using other = await openSpillway({ engine: memory() });
const refused: unknown = await other.flow<string>("x").send("m", { key: "" }).catch((error: unknown) => error);
if (!(refused instanceof SpillwayError) || refused.code !== "option_invalid") throw refused;
console.log("consumed");
`;
/** The other doors: a server from a configuration, and a client of it, at both ends of a flow. */
const remote = `import { connect, type Client, type Receipt } from "spillway/client";
import { defineConfig, flow, parseConfig, sqlite, type ConfigOptions } from "spillway/config";
import { Server } from "spillway/server";
const options: ConfigOptions = defineConfig({
  engine: sqlite({ dir: "remote" }),
  listen: { port: 0 },
  log: "silent",
  flows: { orders: flow({ partitions: 2 }) },
});
const server = await Server.open(parseConfig(options));
const client: Client = connect({ url: server.url, token: process.env["SPILLWAY_TOKEN"] });
const orders = client.flow<{ sku: string }>("orders");
const handled = Promise.withResolvers<string>();
orders.consume(({ sku }, { attempt }) => handled.resolve(sku + attempt));
const receipt: Receipt = await orders.send({ sku: "a" }, { key: "k", idempotencyKey: "i" });
if (receipt.durability !== "fsync" || receipt.duplicate) throw new Error(JSON.stringify(receipt));
if ((await handled.promise) !== "a1") throw new Error("another message than the one sent");
await client.close();
await server.close();
console.log("served");
`;
const folder = await mkdtemp(join(tmpdir(), "spillway-package-"));

function run(command: string, args: readonly string[], cwd?: string): string {
  const { stdout, stderr, status, error } = spawnSync(command, args, { encoding: "utf8", cwd });
  if (status === 0) return stdout;
  const reason = error?.message ?? `exits ${status}`;
  throw new Error(`${command} ${args.join(" ")}: ${reason}\n${stdout}${stderr}`);
}

async function pack(): Promise<{ tarball: string; files: number }> {
  const packing = ["pack", "--json", "--silent", "--pack-destination", folder];
  const packed = JSON.parse(run("npm", packing)) as object;
  // An array, or from npm 12 an object by package name.
  const [entry] = Object.values(packed) as [{ filename: string; entryCount: number }];
  const { filename, entryCount } = entry;
  return { tarball: join(folder, filename), files: entryCount };
}

async function consume(tarball: string): Promise<void> {
  await writeFile(join(folder, "package.json"), '{"private":true,"type":"module"}');
  await writeFile(join(folder, "consumer.ts"), consumer);
  run("npm", ["install", "--silent", "--no-save", tarball], folder);
  const strict = ["--noEmit", "--strict", "--target", "esnext", "--types", "node", "consumer.ts"];
  const typeRoots = ["--typeRoots", join(process.cwd(), "node_modules/@types")];
  run("tsc", ["--module", "nodenext", ...typeRoots, ...strict], folder);
  const bundler = ["--module", "esnext", "--moduleResolution", "bundler"];
  run("tsc", [...bundler, ...typeRoots, ...strict], folder);
  const said = run("node", ["consumer.ts"], folder);
  if (said.trim() !== "consumed") throw new Error(`the consumer says: ${said}`);
  await configure([...typeRoots, ...strict.slice(0, -1)]);
}

/** What `init` writes imports the installed package, for the compiler and for the commands. */
async function configure(compiler: readonly string[]): Promise<void> {
  const spillway = ["--no-install", "spillway"];
  run("npx", [...spillway, "init"], folder);
  const file = join(folder, "spillway.config.ts");
  run("tsc", ["--module", "nodenext", ...compiler, file], folder);
  await writeFile(file, (await readFile(file, "utf8")).replace("// port: 7411", "port: 0"));
  const said = run("npx", [...spillway, "doctor", "--json"], folder);
  if (!said.includes('"found":"flows: orders"')) throw new Error(`the doctor says: ${said}`);
}

/** As `consume`, for what is reached over a connection; the client's types are checked without Node's, too. */
async function serve(): Promise<void> {
  await writeFile(join(folder, "remote.ts"), remote);
  const page = 'import { connect } from "spillway/client";\nconnect({ url: location.origin });\n';
  await writeFile(join(folder, "page.ts"), page);
  const strict = ["--noEmit", "--strict", "--target", "esnext"];
  const typeRoots = ["--typeRoots", join(process.cwd(), "node_modules/@types")];
  const node = [...strict, ...typeRoots, "--types", "node", "remote.ts"];
  run("tsc", ["--module", "nodenext", ...node], folder);
  const bundler = ["--module", "esnext", "--moduleResolution", "bundler"];
  run("tsc", [...bundler, ...node], folder);
  run("tsc", [...bundler, ...strict, "--lib", "esnext,dom", "page.ts"], folder);
  const said = run("node", ["remote.ts"], folder);
  if (said.trim() !== "served") throw new Error(`the remote consumer says: ${said}`);
}

/** An older Node gets one clear line, not a stack trace. */
function meetOldNode(): void {
  const ownNode = (process.env["PATH"] ?? "")
    .split(delimiter)
    .filter((path) => !path.includes("node_modules"))
    .map((path) => join(path, "node"))
    .find((path) => existsSync(path));
  if (ownNode === undefined) return;
  const version = execFileSync(ownNode, ["-v"], { encoding: "utf8" });
  if (Number(/^v(\d+)/.exec(version)?.[1]) >= 24) return;
  const command = join(folder, "node_modules/spillway/bin/spillway.js");
  const { stderr, status } = spawnSync(ownNode, [command], { cwd: folder, encoding: "utf8" });
  if (status === 1 && /^spillway needs Node\.js 24 or newer; this is v\S+\n$/.test(stderr)) return;
  throw new Error(`an old Node.js gets no clear line but exit ${status}:\n${stderr}`);
}

try {
  const { tarball, files } = await pack();
  run("publint", ["--strict", tarball]);
  await consume(tarball);
  await serve();
  meetOldNode();
  const kilobytes = (await stat(tarball)).size / 1000;
  process.stdout.write(
    `package: ${kilobytes.toFixed(1)} kB in ${files} files (limit ${kilobytesMax} kB)\n`,
  );
  if (kilobytes > kilobytesMax) process.exitCode = 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}

/**
 * `task.ts MODULE JSON`: calls what a module of this folder exports as `task`, with the JSON, and
 * prints what it returns as one line of JSON. Under `node --cpu-prof` it shows where the time goes.
 */
const [module = "", options = "null"] = process.argv.slice(2);
const { task } = (await import(new URL(`${module}.ts`, import.meta.url).href)) as {
  task: (options: unknown) => unknown;
};
process.stdout.write(`${JSON.stringify((await task(JSON.parse(options))) ?? null)}\n`);

#!/usr/bin/env -S node --max-semi-space-size=4
// V8 lets garbage pile up where memory is plenty: a small young generation costs little speed.
// Plain JavaScript that Node 20 can read: an older Node gets one clear line, not a stack trace.
if (Number(process.versions.node.split(".")[0]) < 24) {
  process.stderr.write(`spillway needs Node.js 24 or newer; this is ${process.version}.\n`);
  process.exitCode = 1;
} else {
  await import("#cli").catch((error) => {
    if (error.code !== "ERR_MODULE_NOT_FOUND" || !error.url?.endsWith("/dist/cli/main.js"))
      throw error;
    process.stderr.write("spillway: this clone is not built: npm run build, or npm start\n");
    process.exitCode = 1;
  });
}

#!/usr/bin/env node
// Plain JavaScript that Node 20 can read: an older Node gets one clear line, not a stack trace.
if (Number(process.versions.node.split(".")[0]) < 24) {
  process.stderr.write(`spillway needs Node.js 24 or newer; this is ${process.version}.\n`);
  process.exitCode = 1;
} else {
  await import("#cli");
}

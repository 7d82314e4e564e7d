// Plain JavaScript that Node 20 can read. npm puts node_modules/.bin first on PATH, so this is the Node of tools/node.
if (Number(process.versions.node.split(".")[0]) < 24) {
  process.stderr.write(
    `This repository runs on Node.js 24; this is ${process.version}, and no packaged Node was installed for ${process.platform}-${process.arch}. Run npm ci (without --omit=optional), or install Node.js 24.\n`,
  );
  process.exitCode = 1;
}

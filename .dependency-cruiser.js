// What each room may import (docs: ARCHITECTURE.md). A rule per room: everything in `src` that is
// not named for it is forbidden. `test/tidy.test.ts` plants one violation per rule.
const pure = ["base", "flow", "control", "protocol"];
const parties = ["producer", "queue", "consumer"];
const port = "engines/engine\\.ts$";
const rooms = {
  base: [],
  flow: ["base/"],
  control: ["base/"],
  protocol: ["base/"],
  producer: ["base/", "flow/", "control/", "protocol/"],
  queue: ["base/", "flow/", "control/", "protocol/", port],
  consumer: ["base/", "flow/", "control/", "protocol/"],
  engines: ["base/", "flow/"],
  config: ["base/", "flow/"],
  client: [...pure.map((room) => `${room}/`), "producer/", "consumer/", "system-clock\\.ts$"],
};
const below = [...pure, ...parties, "engines"];
// What does I/O or waits: the drivers, and what stands beside them at the client's edge.
const drivers =
  "^src/(producer/(driver|codec|sender|index)|queue/(digests|driver|shelves|writes|index)|consumer/(driver|delivery|taking|index))\\.ts$";
const checker = "^src/simulator/(check-history|history-(events|records))\\.ts$";
const frontDoor = "spillway|flow-handle|message-view|system-clock";
const anyPackage = ["npm", "npm-dev", "npm-optional", "npm-peer", "npm-no-pkg", "npm-unknown"];

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    ...Object.entries(rooms).map(([room, allowed]) => ({
      name: `${room}-imports-only-what-it-may`,
      severity: "error",
      from: { path: `^src/${room}/`, pathNot: "\\.test\\.ts$" },
      to: { path: "^src/", pathNot: `^src/(${[`${room}/`, ...allowed].join("|")})` },
    })),
    {
      name: "front-door-imports-only-what-is-below",
      severity: "error",
      from: { path: `^src/(${frontDoor})\\.ts$` },
      to: { path: "^src/", pathNot: `^src/((${below.join("|")})/|(${frontDoor})\\.ts$)` },
    },
    {
      name: "nothing-but-the-commands-imports-the-server",
      severity: "error",
      from: { path: "^src/(?!cli/|server/)" },
      to: { path: "^src/server/" },
    },
    {
      name: "nothing-imports-the-commands",
      severity: "error",
      from: { path: "^src/(?!cli/)" },
      to: { path: "^src/cli/" },
    },
    {
      name: "only-doors-are-opened",
      comment: "A room is entered by its index.ts (the engine port by engine.ts).",
      severity: "error",
      from: { path: "^src/([^/]+)/", pathNot: "\\.test\\.ts$" },
      to: {
        path: "^src/(?!engines/)[^/]+/",
        pathNot: ["^src/$1/", "^src/[^/]+/index\\.ts$"],
      },
    },
    {
      name: "pure-rooms-have-no-node-modules",
      severity: "error",
      from: {
        path: `^src/(${[...pure, ...parties].join("|")})/`,
        pathNot: [drivers, "\\.test\\.ts$"],
      },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "pure-rooms-have-no-packages",
      comment: "flow/ validates contracts with zod; nothing else pure imports a package.",
      severity: "error",
      from: {
        path: `^src/(${[...pure, ...parties].join("|")})/`,
        pathNot: [drivers, "^src/flow/", "\\.test\\.ts$"],
      },
      to: { dependencyTypes: anyPackage },
    },
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    { name: "resolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
    {
      name: "no-dev-dependency-in-src",
      severity: "error",
      from: { path: "^src/", pathNot: "\\.test\\.ts$" },
      to: { dependencyTypes: ["npm-dev"], dependencyTypesNot: ["npm-peer", "type-only"] },
    },
    {
      name: "the-checker-imports-nothing-of-ours",
      comment: "check-history judges the product and shares no code with it.",
      severity: "error",
      from: { path: checker },
      to: { path: "^src/", pathNot: checker },
    },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.base.json" },
    enhancedResolveOptions: {
      conditionNames: ["source", "import", "types", "node", "default"],
      exportsFields: ["exports"],
      extensions: [".ts", ".js", ".mjs", ".d.ts", ".json"],
    },
    doNotFollow: { path: "node_modules" },
    exclude: { path: "^dist/" },
  },
};

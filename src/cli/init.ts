/** `spillway init`: a first configuration, commented. It asks nothing. */
import { writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { SpillwayError } from "../base/index.ts";
import { configsHere } from "./config-file.ts";

/** What is commented out is the default, as it would be written; a test holds it to that. */
const typescript = `// Configuration of a Spillway server: \`spillway serve\` reads it, \`spillway doctor\` checks it, and
// SIGHUP reads it again. Lines that are commented out show defaults. docs/contract.md has every field.
import { defineConfig, flow, sqlite } from "spillway/config";

export default defineConfig({
  // One folder, beside this file; one server at a time.
  engine: sqlite({ dir: ".spillway" }),

  listen: {
    // Elsewhere than on loopback, tokens and TLS are demanded.
    // host: "127.0.0.1",
    // port: 7411,
  },

  // How long a stopping server waits for what is in flight.
  // drain: "10s",

  flows: {
    // Its name stands in the address: POST /v1/flows/orders/messages
    orders: flow({
      // Slices with one owner each. Fixed once the flow is made.
      // partitions: 8,

      // What may be stored and not yet settled. Beyond it senders are told to wait.
      // buffer: { messages: 1000000, bytes: "2 GiB" },

      // Messages of one key are handled one at a time, in order; or "none".
      // order: "key",

      // A repeat with the same Idempotency-Key is accepted once within this time.
      // dedup: { window: "24h" },

      // Deliveries that may fail until a message becomes a dead letter, and the delays between them.
      // retry: { attempts: 12, delay: ["200ms", "15m"] },

      // How long one delivery may take.
      // lease: "30s",

      // Where messages are pushed to. Without it, workers come and take them.
      // deliver: { kind: "push", url: "https://example.com/orders", secret: { env: "ORDERS_SECRET" } },
    }),
  },
});
`;

const json = `{
  "engine": { "kind": "sqlite", "dir": ".spillway" },
  "listen": { "host": "127.0.0.1", "port": 7411 },
  "drain": "10s",
  "flows": {
    "orders": {
      "partitions": 8,
      "buffer": { "messages": 1000000, "bytes": "2 GiB" },
      "order": "key",
      "dedup": { "window": "24h" },
      "retry": { "attempts": 12, "delay": ["200ms", "15m"] },
      "lease": "30s"
    }
  }
}
`;

export function addInit(program: Command): void {
  program
    .command("init")
    .description("write a first configuration with a flow, commented; it asks nothing")
    .option("--json", "write spillway.config.json instead of spillway.config.ts")
    .option("--force", "write over a configuration that is there")
    .action(async ({ json: isJson, force }: { readonly json?: true; readonly force?: true }) => {
      const name = isJson === true ? "spillway.config.json" : "spillway.config.ts";
      const [first] = configsHere();
      if (first !== undefined && force !== true) {
        throw new SpillwayError("option_invalid", {
          option: "init",
          found: `${first} is here`,
          allowed: "a folder without a configuration, or --force",
        });
      }
      await writeFile(name, isJson === true ? json : typescript);
      const [used] = configsHere();
      process.stdout.write(`Wrote ${resolve(name)}: a server with one flow, "orders".
${used === name ? "" : `But ${used} is here, too, and is read first: remove it, or name the other with --config.\n`}
Next:
  spillway doctor    checks it, and this machine
  spillway serve     starts it, and prints a line that sends a message
`);
    });
}

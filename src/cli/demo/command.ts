/** `spillway demo`: its flags and its help. */
import type { Command } from "commander";
import { demo } from "./demo.ts";
import { parseFlags } from "./options.ts";
import type { DemoFlags } from "./options.ts";

const after = `
Recordings that come along: Twitter_volume_AAPL (the default), elb_request_count_8c0756, nyc_taxi.
With --rate and no --arrivals the load is constant: --rate 5000 --seconds 20 is the reference spike.
A second run with the same --data goes on where the first one stopped.
Exit codes: 0 all accounted for, 1 something did not hold or failed, 2 wrong flags or files,
130 a second Ctrl-C.`;

export function addDemo(program: Command): void {
  program
    .command("demo")
    .description("a recorded spike into a consumer that collapses when overdriven, live")
    .option("--arrivals <file>", "a CSV file of timestamp,value, or a bundled recording")
    .option("--payloads <file>", "a message on each line; of an access log, the client is the key")
    .option("--speed <n>", "recorded seconds per second")
    .option("--seconds <n>", "how long the load lasts (30; 20 where it is constant)")
    .option("--rate <n>", "messages per second: constant, or the mean of --arrivals")
    .option(
      "--concurrency <adaptive|n>",
      "calls in flight: found by measuring, or fixed",
      "adaptive",
    )
    .option("--data <dir>", "keep the store there (a new temporary one, removed at the end)")
    .option("--no-compare", "leave out the same spike at fixed concurrencies 8, 12 and 64")
    .option("--loop", "again and again until Ctrl-C")
    .option("--json", "print one JSON object at the end, and nothing else on standard output")
    .addHelpText("after", after)
    .action(async (flags: DemoFlags) => {
      process.exitCode = await demo(parseFlags(flags));
    });
}

/** The judge of histories as a command; `docs/history.md` says how it is called. */
import { main } from "../src/simulator/check-history.ts";

process.exitCode = await main(process.argv.slice(2));

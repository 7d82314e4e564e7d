/** The client's side of `namespaces.test.ts`, in a network namespace of its own; prints a line of JSON each 100 ms. */
import { connect } from "../../src/client/index.ts";

const [url = "", token = ""] = process.argv.slice(2);
const client = connect({ url, token, drain: "1s" });
const flow = client.flow<number>("orders");
const ids = new Set<string>();
const handled = new Map<number, number>();
let sent = 0;
let answered = 0;
const ending = new AbortController();

flow.consume((value) => {
  handled.set(value, (handled.get(value) ?? 0) + 1);
});
async function produce(): Promise<void> {
  while (!ending.signal.aborted) {
    const n = sent++;
    const { id } = await flow.send(n, { key: `k${n % 20}`, idempotencyKey: `n${n}` });
    ids.add(id);
    answered++;
    await new Promise((wake) => setTimeout(wake, 5));
  }
}
const tell = (): void => {
  const { messages: credits } = flow.credits();
  const twice = [...handled.values()].filter((times) => times > 1).length;
  const state = { sent, answered, ids: ids.size, handled: handled.size, twice, credits };
  process.stdout.write(`${JSON.stringify(state)}\n`);
};
const timer = setInterval(tell, 100);
process.once("SIGTERM", () => ending.abort());
await Promise.all(Array.from({ length: 20 }, produce));
while (handled.size < answered) await new Promise((wake) => setTimeout(wake, 20));
clearInterval(timer);
tell();
await client.close();

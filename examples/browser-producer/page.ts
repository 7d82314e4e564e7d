/** The page: one client, one flow, and what they say of themselves. */
import { connect, SpillwayError } from "../../src/client/index.ts";
import type { Receipt } from "../../src/client/index.ts";

const { url } = (await (await fetch("server.json")).json()) as { readonly url: string };
const client = connect({ url, name: "browser-producer" });
const clicks = client.flow<{ readonly at: string; readonly n: number }>("clicks");

let sent = 0;
let accepted = 0;
const refused = new Map<string, number>();
let blocked: string | undefined;

function element<Tag extends keyof HTMLElementTagNameMap>(
  id: string,
  tag: Tag,
): HTMLElementTagNameMap[Tag] {
  return document.querySelector<HTMLElementTagNameMap[Tag]>(`${tag}#${id}`)!;
}

// Sending: each message has a key of its own, so that a repeat after a broken connection is accepted once.
async function send(count: number): Promise<void> {
  const begunAtMs = performance.now();
  const sending: Promise<Receipt>[] = [];
  for (let n = 0; n < count; n++) {
    const message = { at: new Date().toISOString(), n: ++sent };
    sending.push(clicks.send(message, { idempotencyKey: crypto.randomUUID() }));
  }
  for (const each of sending) each.then(() => accepted++, refuse);
  const outcomes = await Promise.allSettled(sending);
  const receipts = outcomes.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  const seconds = ((performance.now() - begunAtMs) / 1000).toFixed(2);
  const last = receipts.at(-1);
  if (last === undefined) return tell(`none of ${count} accepted`);
  const { id, durability } = last;
  tell(
    count === 1
      ? `accepted as ${id} (${durability}) after ${seconds} s`
      : `${receipts.length.toLocaleString("en")} accepted in ${seconds} s, the last as ${id}`,
  );
}

function refuse(error: unknown): void {
  const code = error instanceof SpillwayError ? error.code : String(error);
  refused.set(code, (refused.get(code) ?? 0) + 1);
}

element("one", "button").addEventListener("click", () => void send(1));
element("many", "button").addEventListener("click", () => void send(1000));

// Seeing: events say when something changed, `credits()` how it stands.
client.on("connected", () => tell(`connected to ${url}`));
client.on("disconnected", ({ message }) => tell(message));
clicks.on("blocked", ({ code }) => {
  blocked = code;
  tell(`held back: ${code}`);
});
clicks.on("resumed", () => {
  blocked = undefined;
  tell("sending again");
});
clicks.on("error", ({ message }) => tell(message));

const eventsMax = 6;

function tell(text: string): void {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString("en-GB");
  item.append(time, text);
  const list = element("events", "ol");
  list.prepend(item);
  while (list.children.length > eventsMax) list.lastElementChild?.remove();
}

function show(): void {
  const { messages, waiting } = clicks.credits();
  const refusals = [...refused].map(([code, times]) => `${times} ${code}`);
  element("credit", "dd").textContent = messages.toLocaleString("en");
  element("waiting", "dd").textContent = waiting.toLocaleString("en");
  element("accepted", "dd").textContent = accepted.toLocaleString("en");
  element("refused", "dd").textContent = refusals.length === 0 ? "0" : refusals.join(", ");
  const progress = element("progress", "progress");
  progress.max = Math.max(1, sent);
  progress.value = accepted;
  const state = element("state", "output");
  const isFree = blocked === undefined;
  state.dataset["state"] = client.isConnected ? (isFree ? "free" : "blocked") : "disconnected";
  state.textContent = client.isConnected
    ? isFree
      ? "free to send"
      : "held back"
    : "no connection";
  requestAnimationFrame(show);
}
show();

/** A listener of a test server's events. */
import { expect, onTestFinished } from "vitest";
import type { Server } from "../../src/server/index.ts";

export interface Told {
  readonly event: string;
  /** JSON. */
  readonly data: string;
}

/** Events of a stream, as they come. */
export async function listen(server: Server, path: string): Promise<Told[]> {
  const end = new AbortController();
  onTestFinished(() => end.abort());
  const response = await fetch(`${server.url}${path}`, { signal: end.signal });
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const events: Told[] = [];
  let text = "";
  const read = async (): Promise<void> => {
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      for (let at = text.indexOf("\n\n"); at !== -1; at = text.indexOf("\n\n")) {
        const match = /^event: (\w+)\ndata: (.*)$/.exec(text.slice(0, at));
        text = text.slice(at + 2);
        if (match !== null) events.push({ event: match[1]!, data: match[2]! });
      }
    }
  };
  read().catch(() => undefined);
  return events;
}

/** The demonstration flow of `spillway serve --demo`: pushed to the knee consumer in a process of its own. */
import { parseConfig } from "../../config/index.ts";
import type { Config } from "../../config/index.ts";
import { Service } from "./service.ts";

export interface DemoFlow extends AsyncDisposable {
  readonly config: Config;
  /** What to try, for people. */
  about(url: string): string;
}

export async function openDemoFlow(): Promise<DemoFlow> {
  const service = await Service.start();
  const { port } = service;
  return {
    config: parseConfig({
      flows: {
        demo: {
          buffer: { messages: 20_000 },
          deliver: {
            kind: "push",
            url: `http://127.0.0.1:${port}/`,
            allow: ["http", "loopback"],
            ports: [port],
          },
        },
      },
    }),
    about: (
      url,
    ) => `  target   http://127.0.0.1:${port}/ takes about 1,650 messages a second, and collapses beyond

Send a message, and look at the flow:

  curl -i ${url}/v1/flows/demo/messages -H 'content-type: text/plain' -d 'hello'
  curl ${url}/v1/flows/demo
`,
    [Symbol.asyncDispose]: () => service[Symbol.asyncDispose](),
  };
}

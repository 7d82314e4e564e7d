/** Webhooks of GitHub are taken at any speed, and pushed to a small service which checks that they are genuine. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import examples from "@octokit/webhooks-examples" with { type: "json" };
import { defineConfig, env, flow, parseConfig, push, sqlite } from "../src/config/index.ts";
import { Server, verifyWebhook, WebhookMemory } from "../src/server/index.ts";

/** By event, payloads as GitHub has sent them. */
const events = examples as unknown as readonly {
  readonly name: string;
  readonly examples: readonly object[];
}[];
const secret = `whsec_${randomBytes(32).toString("base64")}`;
process.env["HOOK_SECRET"] = secret;

// The service: it takes what carries a good signature and is new, and fails now and then.
const handled: { readonly body: string; readonly repository: string }[] = [];
const seen = new WebhookMemory();
let calls = 0;
async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await buffer(request);
  try {
    const { id } = verifyWebhook({ secret, headers: request.headers, body, seen });
    if (++calls % 10 === 0) {
      seen.forget(id); // Not handled: its next attempt is no repeat.
      response.writeHead(500).end();
      return;
    }
    const text = body.toString();
    const { repository } = JSON.parse(text) as { readonly repository?: { full_name: string } };
    handled.push({ body: text, repository: repository?.full_name ?? "none" });
    response.writeHead(204).end();
  } catch (error) {
    const isRepeat = (error as { readonly code?: string }).code === "webhook_repeated";
    response.writeHead(isRepeat ? 204 : 401).end();
  }
}
const service = createServer((request, response) => void serve(request, response));
service.listen(0, "127.0.0.1");
await once(service, "listening");
const { port } = service.address() as AddressInfo;

const dir = await mkdtemp(join(tmpdir(), "spillway-github-"));
const config = parseConfig(
  defineConfig({
    engine: sqlite({ dir }),
    listen: { port: 0 },
    log: "warn",
    flows: {
      github: flow({
        retry: { delay: ["10ms", "1s"], budget: 1 },
        deliver: push({
          url: `http://127.0.0.1:${port}/hooks`,
          secret: env("HOOK_SECRET"),
          allow: ["http", "loopback"], // This example stays on this machine.
          ports: [port],
        }),
      }),
    },
  }),
);
try {
  await using server = await Server.open(config);
  const sent: string[] = [];
  for (const { name, examples: payloads } of events) {
    const answers = payloads.map(async (payload) => {
      const body = JSON.stringify(payload);
      sent.push(body);
      return fetch(`${server.url}/v1/flows/github/messages`, {
        method: "POST",
        headers: { "content-type": "application/json", "ce-type": `com.github.${name}` },
        body,
      });
    });
    for (const { status } of await Promise.all(answers)) {
      if (status !== 202) throw new Error(`not accepted: ${status}`);
    }
  }
  await server.spillway.flow("github").drain();
  const repositories = new Set(handled.map(({ repository }) => repository));
  console.log(
    `${sent.length} webhooks sent, ${handled.length} handled in ${calls} calls, ` +
      `of ${repositories.size} repositories, every signature checked`,
  );
  const missing = new Set(sent).difference(new Set(handled.map(({ body }) => body)));
  if (missing.size > 0) throw new Error(`${missing.size} webhooks are missing`);
} finally {
  service.close();
  await rm(dir, { recursive: true, force: true });
}

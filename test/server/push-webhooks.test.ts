/** S6: pushes are signed by the Standard Webhooks scheme, and our verifier takes nothing else. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { memory } from "../../src/engines/memory/index.ts";
import { verifyWebhook, WebhookMemory } from "../../src/server/index.ts";
import type { WebhookRequest } from "../../src/server/index.ts";
import { Pusher } from "../../src/server/push/index.ts";
import { signWebhook, webhookKey } from "../../src/server/webhooks.ts";
import { openSpillway } from "../../src/spillway.ts";
import { openServer } from "../support/server.ts";
import { PushTarget, until } from "../support/push-target.ts";
import { TempDir } from "../support/temp-dir.ts";
import { failureOf } from "../support/world.ts";

// The example of the specification.
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const other = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
const atS = 1_614_265_330;
const fields = {
  "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
  "webhook-timestamp": String(atS),
  "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
};
const example: WebhookRequest = {
  secret,
  headers: fields,
  body: '{"test": 2432232314}',
  now: () => atS * 1000,
};
const bytes = new TextEncoder().encode("hello");

function thrownBy(call: () => unknown): { readonly code?: string; readonly text?: string } {
  try {
    call();
    return {};
  } catch (error) {
    return { code: (error as { code: string }).code, text: String(error) };
  }
}

function codeOf(request: WebhookRequest): string {
  return thrownBy(() => verifyWebhook(request)).code ?? "taken";
}

function withHeader(name: string, value: string | undefined): WebhookRequest {
  return { ...example, headers: { ...fields, [name]: value } };
}

test("S6 the published vector is made and taken, as text, as bytes, and with fetch's headers", () => {
  const key = webhookKey(secret, "secret");
  const body = new TextEncoder().encode(example.body as string);
  const made = signWebhook([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", atS, body);
  expect(made).toBe("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
  expect(verifyWebhook(example)).toEqual({
    id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
    sentAt: new Date(atS * 1000),
  });
  expect(codeOf({ ...example, body })).toBe("taken");
  const headers = new Headers(fields);
  expect(codeOf({ ...example, headers })).toBe("taken");
});

test("S6 what is tampered with is refused", () => {
  const signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
  const hostile: readonly WebhookRequest[] = [
    { ...example, body: '{"test": 2432232315}' },
    { ...example, body: "" },
    { ...example, secret: other },
    withHeader("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJel"),
    withHeader("webhook-id", undefined),
    withHeader("webhook-id", ""),
    withHeader("webhook-timestamp", String(atS + 1)),
    withHeader("webhook-timestamp", `${atS}.0`),
    withHeader("webhook-timestamp", `0${atS}`),
    withHeader("webhook-timestamp", ` ${atS}`),
    withHeader("webhook-timestamp", "NaN"),
    withHeader("webhook-timestamp", "Infinity"),
    withHeader("webhook-timestamp", undefined),
    withHeader("webhook-signature", undefined),
    withHeader("webhook-signature", "v1,"),
    withHeader("webhook-signature", signature.slice(0, -1)),
    withHeader("webhook-signature", signature.replace("v1,", "v1a,")),
    withHeader("webhook-signature", signature.replace("v1,", "")),
    withHeader("webhook-signature", signature.replace("g0h", "g1h")),
    // Moving the dots: id and time together are the same text as before.
    {
      ...example,
      headers: { ...fields, "webhook-id": `msg_p5jXN8AQM9LWM0D4loKWxJek.${atS}` },
    },
  ];
  for (const request of hostile) {
    expect([request.headers, codeOf(request)]).toEqual([request.headers, "webhook_invalid"]);
  }
  expect(codeOf(withHeader("webhook-signature", `v1,AAAA v1a,BBBB ${signature}`))).toBe("taken");
  const many = `${"v1,AAAA ".repeat(1000)}${signature}`;
  expect(codeOf(withHeader("webhook-signature", many))).toBe("webhook_invalid");
});

test("S6 a request from more than five minutes ago, or ahead, is refused", () => {
  for (const [byS, expected] of [
    [-301, "webhook_invalid"],
    [-300, "taken"],
    [300, "taken"],
    [301, "webhook_invalid"],
  ] as const) {
    expect(codeOf({ ...example, now: () => (atS + byS) * 1000 })).toBe(expected);
  }
  expect(codeOf({ ...example, now: () => (atS + 900) * 1000, toleranceS: 900 })).toBe("taken");
});

test("S6 a captured request is refused when it comes again, until its time has passed", () => {
  const seen = new WebhookMemory();
  expect(codeOf({ ...example, seen })).toBe("taken");
  expect(codeOf({ ...example, seen })).toBe("webhook_repeated");
  expect(codeOf({ ...example, seen, now: () => (atS + 300) * 1000 })).toBe("webhook_repeated");
  expect(codeOf({ ...example, seen, now: () => (atS + 301) * 1000 })).toBe("webhook_invalid");
});

test("S6 an id whose handling failed is welcome again, and a forgery does not use one up", () => {
  const seen = new WebhookMemory();
  expect(codeOf({ ...example, body: "forged", seen })).toBe("webhook_invalid");
  expect(codeOf({ ...example, seen })).toBe("taken");
  seen.forget("msg_p5jXN8AQM9LWM0D4loKWxJek");
  expect(codeOf({ ...example, seen })).toBe("taken");
});

test("the memory of ids is bounded in time and in number", () => {
  const seen = new WebhookMemory({ windowS: 10, idsMax: 3 });
  expect(["a", "b", "c", "d"].map((id) => seen.add(id, 0))).toEqual([true, true, true, true]);
  expect([seen.add("d", 1), seen.add("a", 1)]).toEqual([false, true]); // The oldest made room.
  expect(seen.add("d", 10_001)).toBe(true);
});

test("a secret that is too short or has another form is refused, and not shown", () => {
  for (const bad of [
    `whsec_${Buffer.alloc(23, 1).toString("base64")}`,
    `whsec_${Buffer.alloc(65, 1).toString("base64")}`,
    Buffer.alloc(32, 1).toString("base64"),
    "whsec_",
    "whsec_not base64, but long enough to be one",
    "",
  ]) {
    const error = thrownBy(() => webhookKey(bad, "deliver.secret"));
    expect(error).toMatchObject({ code: "config_invalid" });
    expect(JSON.stringify(error)).not.toContain(bad.slice(6) || "nothing to hide");
  }
});

test("S6 a push is signed: the id is the message's on every attempt, the time is of the attempt", async () => {
  vi.stubEnv("ORDERS_SECRET", secret);
  onTestFinished(() => void vi.unstubAllEnvs());
  let calls = 0;
  const target = await new PushTarget((_got, response) => {
    if (++calls > 1) return 200;
    response.writeHead(503, { "retry-after": "1" }).end();
    return undefined;
  }).listen();
  const server = await openServer({
    flows: { orders: target.deliver({ secret: { env: "ORDERS_SECRET" } }) },
  });
  const flow = server.spillway.flow<Uint8Array>("orders");
  const { id } = await flow.send(bytes);
  await until(() => flow.state().counters.acked === 1);
  const webhooks = target.got.map(({ headers, body }) => verifyWebhook({ secret, headers, body }));
  expect(webhooks.map((webhook) => webhook.id)).toEqual([id, id]);
  expect(webhooks[1]!.sentAt.getTime()).toBeGreaterThan(webhooks[0]!.sentAt.getTime());
  for (const { headers, body } of target.got) {
    expect(codeOf({ secret: other, headers, body })).toBe("webhook_invalid");
  }
});

test("S6 in a rotation both secrets sign; after it the old one does not", async () => {
  using dir = new TempDir();
  const file = join(dir.path, "new-secret");
  writeFileSync(file, `${other}\n`);
  vi.stubEnv("OLD_SECRET", secret);
  onTestFinished(() => void vi.unstubAllEnvs());
  const target = await new PushTarget().listen();
  await using spillway = await openSpillway({ engine: memory() });
  const flow = spillway.flow<Uint8Array>("orders", {
    payload: "bytes",
    ...target.deliver({ secret: [{ file }, { env: "OLD_SECRET" }] }),
  });
  using pusher = new Pusher();
  pusher.add(flow);
  pusher.start();
  const sendOne = async (): Promise<WebhookRequest> => {
    const before = target.got.length;
    await flow.send(bytes);
    await until(() => target.got.length === before + 1);
    return { secret, ...target.got.at(-1)! };
  };
  const first = await sendOne();
  expect(codeOf({ ...first, secret })).toBe("taken");
  expect(codeOf({ ...first, secret: other })).toBe("taken");
  const third = `whsec_${Buffer.alloc(32, 9).toString("base64")}`;
  vi.stubEnv("OLD_SECRET", third);
  pusher.prepare()();
  const second = await sendOne();
  expect(codeOf({ ...second, secret })).toBe("webhook_invalid");
  expect(codeOf({ ...second, secret: [secret, other] })).toBe("taken");
  expect(codeOf({ ...second, secret: third })).toBe("taken");
  // A reload that cannot read one of them changes none.
  writeFileSync(file, "");
  expect(() => pusher.prepare()).toThrow(
    expect.objectContaining({ code: "config_invalid" }) as Error,
  );
  expect(codeOf({ ...(await sendOne()), secret: other })).toBe("taken");
});

const python = spawnSync("python3", ["--version"]).status === 0;

test.skipIf(!python)(
  "S6 the verifier that docs/push.md gives for another language takes what we sign (without python3: skipped)",
  () => {
    const page = readFileSync(new URL("../../docs/push.md", import.meta.url), "utf8");
    const program = /^```python\n(.*?)^```$/ms.exec(page)![1]!;
    const call = (request: WebhookRequest, nowS: number): string =>
      `print(verify(${JSON.stringify(request.secret)}, ${JSON.stringify(request.headers)}, ` +
      `${JSON.stringify(request.body)}.encode(), ${nowS}))`;
    const calls = [
      call(example, atS),
      call({ ...example, body: "{}" }, atS),
      call({ ...example, secret: other }, atS),
      call(example, atS + 301),
    ];
    const { stdout } = spawnSync("python3", ["-c", `${program}\n${calls.join("\n")}`]);
    expect(stdout.toString().trim().split("\n")).toEqual(["True", "False", "False", "False"]);
  },
);

test("S11 a server whose secret is not there does not start, and says where it looked", async () => {
  const target = await new PushTarget().listen();
  for (const ref of [{ env: "NO_SUCH_SECRET" }, { file: "/no/such/secret" }]) {
    const flows = { orders: target.deliver({ secret: ref }) };
    expect(await failureOf(openServer({ flows }))).toMatchObject({
      code: "config_invalid",
      details: { path: "flows.orders.deliver.secret" },
    });
  }
});

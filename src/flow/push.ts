/** The part of a contract that says where messages are pushed to. */
import { z } from "zod";
import * as defaults from "./defaults.ts";
import * as fields from "./fields.ts";
import type { SecretRef } from "./options.ts";

const rangeNames = ["http", "loopback", "private", "link-local"];
const rangeForm = new RegExp(
  `^(${rangeNames.join("|")}|[0-9]{1,3}(\\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*/[0-9]{1,3})$`,
);
const secret = fields.secretRef({ description: "Signs the requests." });

/** One secret, or two while one replaces the other. */
const secrets = z
  .preprocess(
    (value) => (Array.isArray(value) ? value : [value]),
    z.array(secret).min(1).max(2, { error: "at most two secrets: the new one and the old one" }),
  )
  .meta({ description: "Signs the requests by the Standard Webhooks scheme; two in a rotation." });

/** What was written. */
export interface GivenPush {
  url: string;
  timeout?: number | undefined;
  connectTimeout?: number | undefined;
  secret?: SecretRef[] | undefined;
  headers?: Record<string, string> | undefined;
  allow?: string[] | undefined;
  ports?: number[] | undefined;
  rejectAfter?: number | undefined;
  batch?: { messages: number } | undefined;
}

export const push: z.ZodType<GivenPush> = fields.section({
  kind: fields.choice(["push"], { description: "How messages leave." }),
  url: fields.text({
    form: /^https?:\/\/[^\s/?#@\\]+([/?][^\s#\\]*)?$/,
    allowed: 'an address such as "https://billing.example/orders", without user name or fragment',
    description: "Where messages are posted to.",
  }),
  timeout: fields
    .span({
      min: "10ms",
      max: "1h",
      description: "For the whole call.",
      default: "10s",
    })
    .optional(),
  connectTimeout: fields
    .span({
      min: "10ms",
      max: "5m",
      description: "For name look-up, connection and TLS.",
      default: "3s",
    })
    .optional(),
  secret: secrets.optional(),
  headers: fields
    .texts({
      name: /^(?!(host|content-length|transfer-encoding|connection|keep-alive|expect|te|trailer|upgrade|webhook-.*|spillway-.*)$)[a-z0-9!#$%&'*+.^_`|~-]{1,128}$/i,
      text: /^[\t\x20-\x7e\x80-\xff]{0,4096}$/,
      allowed:
        "an object of header fields; host, length, those of the connection, webhook-* and spillway-* are Spillway's own",
      description: "Sent with every request.",
    })
    .optional(),
  allow: z
    .array(
      fields.text({
        form: rangeForm,
        allowed: `"http", "loopback", "private", "link-local", or a range such as "10.1.0.0/16"`,
        description: "What is refused otherwise.",
      }),
      { error: "a list of what is allowed" },
    )
    .max(100, { error: "at most 100 ranges" })
    .optional(),
  ports: z
    .array(fields.count({ min: 1, max: 65_535, description: "A port." }), {
      error: "a list of ports",
    })
    .min(1, { error: "at least one port" })
    .max(100, { error: "at most 100 ports" })
    .meta({ description: "Ports that the address may name.", default: defaults.pushDefault.ports })
    .optional(),
  rejectAfter: fields
    .count({
      min: 1,
      max: 1000,
      description: "Answers of another 4xx after which a message is dead-lettered.",
      default: defaults.pushDefault.rejectAfter,
    })
    .optional(),
  batch: fields
    .section({
      messages: fields.count({ min: 2, max: 1000, description: "In one request, at most." }),
    })
    .optional(),
});

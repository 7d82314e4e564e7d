/**
 * Bodies: read up to a limit, or passed over so that the refusal still reaches a client that is sending.
 * What declares itself too large is refused before it is read.
 */
import type { IncomingMessage } from "node:http";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { SpillwayError } from "../base/index.ts";
import { scanJson } from "./json-scan.ts";

/** Of calls that are no messages (S10). */
export const envelopeBytesMax: number = 64 * 1024;

/** What is read of a body that was refused, so that its sender comes to read the answer. */
const passedOverBytesMax = 1024 ** 2;
const passedOverMs = 1000;

type BodyDone = (error: Error | null, body?: Buffer) => void;

/** @throws {SpillwayError} message_too_large, media_type_unsupported: a compressed body */
export function checkDeclared({ headers }: FastifyRequest, allowed: number): void {
  const encoding = headers["content-encoding"];
  if (encoding !== undefined && encoding !== "identity") {
    const details = { header: "content-encoding", found: encoding, allowed: "no compression" };
    throw new SpillwayError("media_type_unsupported", details);
  }
  const found = Number(headers["content-length"] ?? 0);
  if (found > allowed) throw new SpillwayError("message_too_large", { found, allowed });
}

/** Reads a body whole; one that grows past the limit is cut off there. */
export function readBody(payload: IncomingMessage, limitBytes: number, done: BodyDone): void {
  const chunks: Buffer[] = [];
  let length = 0;
  const stop = (): void => {
    payload.off("data", onData);
    payload.off("end", onEnd);
    payload.off("error", onError);
  };
  const onData = (chunk: Buffer): void => {
    length += chunk.length;
    if (length <= limitBytes) chunks.push(chunk);
    else {
      stop();
      const found = `more than ${limitBytes}`;
      done(new SpillwayError("message_too_large", { found, allowed: limitBytes }));
    }
  };
  const onEnd = (): void => {
    stop();
    done(null, chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, length));
  };
  const onError = (cause: Error): void => {
    stop();
    done(new SpillwayError("request_invalid", { found: "a body that broke off" }, { cause }));
  };
  payload.on("data", onData);
  payload.on("end", onEnd);
  payload.on("error", onError);
}

/** JSON of calls: small, shallow, and looked at before it is parsed. */
export function addJsonParser(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    ["application/json", "application/merge-patch+json"],
    (request, payload, done) => {
      checkDeclared(request, envelopeBytesMax);
      readBody(payload, envelopeBytesMax, (error, body) => {
        if (error !== null || body === undefined || body.length === 0) return done(error);
        try {
          scanJson(body);
        } catch (refusal) {
          return done(refusal as Error);
        }
        done(null, JSON.parse(body.toString()));
      });
    },
  );
}

/** Whether a client is still sending, or may be. */
export function isUnread({ complete, headers }: IncomingMessage): boolean {
  if (complete) return false;
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}

/**
 * Reads on for a moment without keeping anything: a connection that is closed while its client sends is
 * reset, and the client never sees why. Whoever has more than that is cut off.
 */
export function passOver(raw: IncomingMessage): void {
  let left = passedOverBytesMax;
  const cut = setTimeout(() => raw.destroy(), passedOverMs);
  raw.on("data", (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) raw.destroy();
  });
  raw.once("close", () => clearTimeout(cut));
  raw.once("end", () => clearTimeout(cut));
  raw.resume();
}

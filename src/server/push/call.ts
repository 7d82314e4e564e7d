/**
 * One request to a target, from its first byte to the last one of the answer.
 *
 * L1  It ends: with an answer, or with a code, within the time limit.
 * L2  Of an answer at most 64 KiB are read; then its connection is cut, and its status counts.
 * L3  An answer that breaks off before its end is none: whoever sends a status first and works then has
 *     not said that it is done.
 */
import { request as plainRequest } from "node:http";
import type { ClientRequest, IncomingMessage } from "node:http";
import { request as tlsRequest } from "node:https";
import type { Destination } from "./addresses.ts";
import type { Deadlines, Limited } from "./deadlines.ts";
import type { Answer } from "./outcome.ts";
import type { Pool } from "./pool.ts";

const answerBytesMax = 64 * 1024;

const staleCodes: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);

/** Where calls go, and what they share. */
export interface Endpoint {
  readonly destination: Destination;
  readonly pool: Pool;
  readonly deadlines: Deadlines<Call>;
  readonly timeoutMs: number;
}

export type Ended =
  | { readonly kind: "answered"; readonly answer: Answer; readonly body: Buffer }
  | { readonly kind: "failed"; readonly code: string };

export class Call implements Limited<Call> {
  before: Call | undefined;
  after: Call | undefined;
  deadlineAtMs = 0;
  readonly #endpoint: Endpoint;
  readonly #headers: readonly string[];
  readonly #body: Uint8Array;
  readonly #keepsBody: (answer: Answer) => boolean;
  readonly #onEnd: (ended: Ended) => void;
  #request: ClientRequest | undefined;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #isOver = false;
  #mayRepeat = true;

  /**
   * @param headers Name, value, name, value and so on, with Host and Content-Length.
   * @param keepsBody Whether the body of this answer is wanted; else it is read and dropped.
   */
  constructor(
    endpoint: Endpoint,
    headers: readonly string[],
    body: Uint8Array,
    keepsBody: (answer: Answer) => boolean,
    onEnd: (ended: Ended) => void,
  ) {
    this.#endpoint = endpoint;
    this.#headers = headers;
    this.#body = body;
    this.#keepsBody = keepsBody;
    this.#onEnd = onEnd;
  }

  start(): void {
    this.#endpoint.deadlines.begin(this);
    this.#send();
  }

  #send(): void {
    const { host, port, path, isTls } = this.#endpoint.destination;
    const make = isTls ? tlsRequest : plainRequest;
    const request = make({
      agent: this.#endpoint.pool.agent,
      host,
      port,
      path,
      method: "POST",
      headers: this.#headers,
    });
    this.#request = request;
    request.on("response", (response) => this.#receive(response));
    request.on("error", (error) => this.#failed(request, error));
    request.on("close", () => {
      if (this.#request === request) this.#end({ kind: "failed", code: "connection closed" });
    });
    request.end(this.#body);
  }

  #receive(response: IncomingMessage): void {
    const answer: Answer = { status: response.statusCode ?? 0, headers: response.headers };
    const keeps = this.#keepsBody(answer);
    this.#mayRepeat = false;
    response.on("data", (chunk: Buffer) => {
      this.#bytes += chunk.length;
      if (keeps && this.#bytes <= answerBytesMax) this.#chunks.push(chunk);
      if (this.#bytes > answerBytesMax) this.#answered(answer); // L2: the rest is not wanted.
    });
    response.on("end", () => this.#answered(answer));
    response.on("error", (error) => this.#end({ kind: "failed", code: codeOf(error) })); // L3
  }

  #failed(request: ClientRequest, error: Error): void {
    if (this.#request !== request || this.#isOver) return;
    // A kept connection that its server closed as we wrote: the request was most likely not read. Once.
    if (request.reusedSocket && this.#mayRepeat && staleCodes.has(codeOf(error))) {
      this.#mayRepeat = false;
      this.#send();
      return;
    }
    this.#end({ kind: "failed", code: codeOf(error) });
  }

  #answered(answer: Answer): void {
    const isWhole = this.#bytes <= answerBytesMax;
    const body = isWhole ? Buffer.concat(this.#chunks) : Buffer.alloc(0);
    this.#end({ kind: "answered", answer, body });
    if (!isWhole) this.#request?.destroy();
  }

  expire(): void {
    this.#finish({ kind: "failed", code: `no answer within ${this.#endpoint.timeoutMs} ms` });
    this.#request?.destroy();
  }

  #end(ended: Ended): void {
    if (this.#isOver) return;
    this.#endpoint.deadlines.end(this);
    this.#finish(ended);
  }

  #finish(ended: Ended): void {
    this.#isOver = true;
    this.#onEnd(ended);
  }
}

function codeOf(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  return code ?? error.name;
}

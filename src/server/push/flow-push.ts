/**
 * The push of one flow: a handler like any other, which makes a request of each delivery, or of several,
 * and settles them by what is answered. Window, rate, breaker and retry budget are the library's.
 *
 * F1  Each delivery is settled once, by the answer, its absence, or a time limit below its lease.
 * F2  Only first attempts share a request: whom a batch failed is tried alone, so that one message cannot
 *     take the others' attempts along.
 */
import type { KeyObject } from "node:crypto";
import { SpillwayError } from "../../base/index.ts";
import type { Push, Verdict } from "../../flow/index.ts";
import type { Consumer, Delivery, Flow } from "../../spillway.ts";
import { readSecret } from "../secrets.ts";
import { webhookKey } from "../webhooks.ts";
import type { Destination } from "./addresses.ts";
import { Call } from "./call.ts";
import type { Endpoint, Ended } from "./call.ts";
import { Deadlines } from "./deadlines.ts";
import { capacityOf, exhaustedForMs, policyRatePerS } from "./limits.ts";
import { fieldOf, noAnswer, verdictOf } from "./outcome.ts";
import type { Answer } from "./outcome.ts";
import { refusedCode } from "./pool.ts";
import type { Pool } from "./pool.ts";
import { batchBody, batchBytesMax, batchId, envelopeOf, RequestForm } from "./request.ts";
import { hasResults, resultsOf } from "./results.ts";

/** A delivery whose handler has not returned. */
interface Pending {
  readonly delivery: Delivery<Uint8Array>;
  readonly resolve: () => void;
}

export interface FlowPushParts {
  readonly flow: Flow<Uint8Array>;
  readonly push: Push;
  readonly destination: Destination;
  readonly pool: Pool;
}

/** The answer to a single message is its status. */
const keepsNothing = (): boolean => false;

export class FlowPush implements Disposable {
  readonly #flow: Flow<Uint8Array>;
  readonly #push: Push;
  readonly #form: RequestForm;
  readonly #endpoint: Endpoint;
  readonly #deadlines: Deadlines<Call>;
  #keys: readonly KeyObject[];
  #consumer: Consumer | undefined;
  /** Came in this turn of the event loop, and leave together. */
  #collected: Pending[] = [];
  #capacity: number | undefined;
  #policy: string | undefined;
  #ratePerS: number | undefined;
  /** Told once, until a call gets through again. */
  #isRefused = false;

  /** @throws {SpillwayError} config_invalid: a secret */
  constructor({ flow, push, destination, pool }: FlowPushParts) {
    this.#flow = flow;
    this.#push = push;
    this.#form = new RequestForm(flow.name, push, destination);
    this.#deadlines = new Deadlines(push.timeoutMs);
    const { timeoutMs } = push;
    this.#endpoint = { destination, pool, deadlines: this.#deadlines, timeoutMs };
    this.#keys = this.readKeys();
  }

  /** @throws {SpillwayError} config_invalid */
  readKeys(): readonly KeyObject[] {
    const path = `flows.${this.#flow.name}.deliver.secret`;
    return this.#push.secrets.map((ref) => webhookKey(readSecret(ref, path), path));
  }

  /** From now on requests are signed by these. */
  useKeys(keys: readonly KeyObject[]): void {
    this.#keys = keys;
  }

  start(): void {
    const collects = this.#push.batchMessages > 1;
    this.#consumer ??= this.#flow.consume((_value, delivery) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const pending = { delivery, resolve };
      if (!collects) this.#sendOne(pending);
      else if (this.#collected.push(pending) === 1) setImmediate(() => this.#sendCollected());
      return promise;
    });
  }

  #sendOne(pending: Pending): void {
    const { delivery } = pending;
    const headers = this.#form.ofMessage(delivery, this.#keys, Date.now());
    this.#call(headers, delivery.bytes, [pending], keepsNothing);
  }

  #sendCollected(): void {
    const all = this.#collected;
    this.#collected = [];
    let group: Pending[] = [];
    let envelopes: string[] = [];
    let bytes = 0;
    const leave = (): void => {
      if (group.length > 0) this.#sendBatch(group, envelopes);
      group = [];
      envelopes = [];
      bytes = 0;
    };
    for (const pending of all) {
      const envelope = envelopeOf(pending.delivery);
      if (pending.delivery.attempt > 1) {
        this.#sendBatch([pending], [envelope]); // F2
        continue;
      }
      const size = Buffer.byteLength(envelope);
      if (bytes + size > batchBytesMax || group.length === this.#push.batchMessages) leave();
      group.push(pending);
      envelopes.push(envelope);
      bytes += size;
    }
    leave();
  }

  #sendBatch(group: readonly Pending[], envelopes: readonly string[]): void {
    const body = batchBody(envelopes);
    const id = batchId(
      this.#flow.name,
      group.map(({ delivery }) => delivery.id),
    );
    const headers = this.#form.ofBatch(id, body, this.#keys, Date.now());
    this.#call(headers, body, group, hasResults);
  }

  #call(
    headers: readonly string[],
    body: Uint8Array,
    group: readonly Pending[],
    keepsBody: (answer: Answer) => boolean,
  ): void {
    new Call(this.#endpoint, headers, body, keepsBody, (ended) =>
      this.#settleAll(group, ended),
    ).start();
  }

  #settleAll(group: readonly Pending[], ended: Ended): void {
    if (ended.kind === "failed") {
      this.#tellRefused(ended.code);
      for (const pending of group) settle(pending, noAnswer(ended.code));
      return;
    }
    const { answer, body } = ended;
    this.#isRefused = false;
    this.#learn(answer);
    const isBatch = this.#push.batchMessages > 1;
    const results = isBatch && hasResults(answer) ? resultsOf(body) : none;
    const nowMs = Date.now();
    for (const pending of group) {
      const { attempt, id } = pending.delivery;
      const own = results?.get(id);
      const isAlone = group.length === 1 || own !== undefined;
      const { rejectAfter } = this.#push;
      const verdict =
        results === undefined
          ? unreadable
          : verdictOf(own ?? answer, { nowMs, attempt, rejectAfter, isAlone });
      settle(pending, verdict);
    }
  }

  #tellRefused(code: string): void {
    if (code !== refusedCode || this.#isRefused) return;
    this.#isRefused = true;
    const { name } = this.#flow;
    const found = "a name with an address that is not allowed";
    const allowed = "public addresses, and those of deliver.allow";
    this.#flow.tellError(
      new SpillwayError("target_refused", { flow: name, path: "deliver.url", found, allowed }),
    );
  }

  /** What the target says of its limits. Only a success without a field takes back what one has said. */
  #learn({ status, headers }: Answer): void {
    const isOk = status >= 200 && status < 300;
    const capacity = capacityOf(fieldOf(headers, "spillway-capacity"));
    if (capacity !== this.#capacity && (capacity !== undefined || isOk)) {
      this.#capacity = capacity;
      this.#flow.publishCapacity(capacity ?? null);
    }
    const policy = fieldOf(headers, "ratelimit-policy");
    if (policy !== this.#policy && (policy !== undefined || isOk)) {
      this.#policy = policy;
      const ratePerS = policyRatePerS(policy);
      if (ratePerS !== this.#ratePerS) this.#flow.publishRate(ratePerS ?? null);
      this.#ratePerS = ratePerS;
    }
    const pauseMs = exhaustedForMs(fieldOf(headers, "ratelimit"));
    if (pauseMs !== undefined) this.#flow.publishPause(pauseMs);
  }

  /** What still runs is left to its connection, which the pool closes. */
  [Symbol.dispose](): void {
    this.#consumer?.stop();
    this.#deadlines[Symbol.dispose]();
  }
}

const none: ReadonlyMap<string, Answer> = new Map();
const unreadable: Verdict = {
  kind: "nack",
  error: "answered results that cannot be read",
  fault: "target",
};

function settle({ delivery, resolve }: Pending, verdict: Verdict): void {
  switch (verdict.kind) {
    case "ack":
      break; // By returning.
    case "nack":
      delivery.nack(verdict).catch(lost);
      break;
    case "release": {
      const { delayMs: delay, overload = false } = verdict;
      delivery.release(delay === undefined ? { overload } : { overload, delay }).catch(lost);
      break;
    }
    case "term":
      delivery.term(verdict.reason).catch(lost);
      break;
  }
  resolve();
}

/** Its lease has ended, or the instance: then it comes again, or is settled. */
function lost(): void {}

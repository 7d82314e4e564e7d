/**
 * `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10) of a flow: how much room its
 * buffer has, and how fast it drains. A policy's quota changes slowly, what is left is as of the last
 * tenth of a second.
 *
 *     RateLimit-Policy: "buffer";q=800000, "drain";q=16500;w=10
 *     RateLimit: "buffer";r=799000, "drain";r=799000;t=10
 */
import type { MessageClass } from "../flow/index.ts";
import type { Flow, FlowState } from "../spillway.ts";

export interface RateHeaders {
  readonly policy: string;
  readonly limit: string;
}

const keptMs = 100;
const windowS = 10;
/** The largest integer of a structured field. */
const integerMax = 999_999_999_999_999;

interface Known {
  readonly atMs: number;
  readonly state: FlowState;
  readonly headers: Partial<Record<MessageClass, RateHeaders>>;
}

export class RateLimits {
  readonly #known = new WeakMap<Flow<Uint8Array>, Known>();

  /** For a message that was taken, or that nobody can tell about. */
  of(flow: Flow<Uint8Array>, messageClass: MessageClass = "normal"): RateHeaders {
    const { state, headers } = this.#now(flow);
    return (headers[messageClass] ??= headersOf(flow, state, messageClass));
  }

  /** For a message that was refused: nothing is left, for so long. */
  refused(flow: Flow<Uint8Array>, retryAfterMs: number): RateHeaders {
    const { policy } = this.of(flow);
    const seconds = Math.max(1, Math.ceil(retryAfterMs / 1000));
    const names = policy.split(", ").map((item) => item.split(";", 1)[0]!);
    return { policy, limit: names.map((name) => `${name};r=0;t=${seconds}`).join(", ") };
  }

  #now(flow: Flow<Uint8Array>): Known {
    const nowMs = performance.now();
    let known = this.#known.get(flow);
    if (known === undefined || nowMs - known.atMs >= keptMs) {
      known = { atMs: nowMs, state: flow.state(), headers: {} };
      this.#known.set(flow, known);
    }
    return known;
  }
}

function headersOf(
  { contract }: Flow<Uint8Array>,
  state: FlowState,
  messageClass: MessageClass,
): RateHeaders {
  const quota = Math.floor(contract.buffer.messages * contract.classes[messageClass]);
  const rate = state.drainRatePerS;
  const { seconds } = contract.buffer;
  let room = quota - state.depth;
  if (seconds !== undefined && rate !== undefined) {
    room = Math.min(room, seconds * rate * contract.classes[messageClass] - state.depth);
  }
  if (state.isIntakeClosed || state.isStoreFull || state.bytes >= state.limitBytes) room = 0;
  const left = whole(Math.max(0, room));
  const policies = [`"buffer";q=${whole(quota)}`];
  const limits = [`"buffer";r=${left}`];
  if (rate !== undefined) {
    policies.push(`"drain";q=${whole(rounded(rate * windowS))};w=${windowS}`);
    limits.push(`"drain";r=${left};t=${windowS}`);
  }
  const boundary = contract.boundary.rate;
  if (boundary !== undefined) {
    const perWindow = whole(boundary.perSecond * windowS);
    policies.push(`"boundary";q=${perWindow};w=${windowS}`);
    limits.push(`"boundary";r=${Math.min(left, perWindow)};t=${windowS}`);
  }
  return { policy: policies.join(", "), limit: limits.join(", ") };
}

function whole(value: number): number {
  return Math.min(integerMax, Math.floor(value));
}

/** To two digits: a policy that changed with every answer would be none. */
function rounded(value: number): number {
  return value < 1 ? Math.ceil(value) : Number(value.toPrecision(2));
}

/**
 * Deliveries in the hands of workers that pull over HTTP, by the id under which they are settled.
 *
 * R1  Only what can still be settled is held: a delivery leaves when it is settled, and when its lease
 *     ends. So there are never more than the flows' windows let out.
 */
import { SpillwayError } from "../base/index.ts";
import type { Delivery } from "../spillway.ts";

type Held = Delivery<Uint8Array>;

/** What a delivery's id says. */
export interface DeliveryId {
  readonly flow: string;
  readonly partition: number;
  readonly seq: number;
}

const idForm = /^([A-Za-z0-9._-]{1,128})\.(\d{1,6})\.(\d{1,16})\.(\d{1,9})$/;

/** @param id "flow.partition.seq.attempt" @returns undefined when the text is no such id. */
export function parseDeliveryId(id: string): DeliveryId | undefined {
  const match = idForm.exec(id);
  if (match === null) return undefined;
  return { flow: match[1]!, partition: Number(match[2]), seq: Number(match[3]) };
}

export class Deliveries {
  readonly #held = new Map<string, Held>();
  /** By flow and partition: the highest seq that was handed out. */
  readonly #highest = new Map<string, number[]>();

  get size(): number {
    return this.#held.size;
  }

  /** @returns Its id. */
  add(delivery: Held): string {
    const id = `${delivery.id.replaceAll("/", ".")}.${delivery.attempt}`;
    const { flow, partition, seq } = parseDeliveryId(id)!;
    this.#held.set(id, delivery);
    delivery.signal.addEventListener("abort", () => this.#held.delete(id), { once: true });
    let highest = this.#highest.get(flow);
    if (highest === undefined) this.#highest.set(flow, (highest = []));
    highest[partition] = Math.max(highest[partition] ?? 0, seq);
    return id;
  }

  /**
   * The delivery, to be settled now: nobody gets it twice.
   * @throws {SpillwayError} delivery_settled: it was, or its lease ended; not_found: it was never there.
   */
  take(id: string): Held {
    const delivery = this.find(id);
    this.#held.delete(id);
    return delivery;
  }

  /** @throws {SpillwayError} As `take`. */
  find(id: string): Held {
    const delivery = this.#held.get(id);
    if (delivery !== undefined && !delivery.isSettled) return delivery;
    const parsed = parseDeliveryId(id);
    const highest =
      parsed === undefined ? undefined : this.#highest.get(parsed.flow)?.[parsed.partition];
    if (highest === undefined || parsed!.seq > highest) {
      throw new SpillwayError("not_found", { delivery: id.slice(0, 200) });
    }
    throw new SpillwayError("delivery_settled", { delivery: id });
  }
}

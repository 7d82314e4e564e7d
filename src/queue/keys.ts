/**
 * Order per key, without memory of the backlog. A chain stands for one key whose first pending message
 * is known: that message, the head, is the only one that may be on its way; some that follow are kept
 * at hand, the others stay in the store.
 *
 * K1  At most one message of a key is past "behind": the head (G4).
 * K2  The kept followers are the messages that come next, in order, without a gap.
 * K3  A message of the key that is in the store and not kept implies `more`. So a chain that begins
 *     while part of the backlog is unseen begins with `more`, and asks the store for its next head.
 */
import { assert, Deque, IntegerMap } from "../base/index.ts";
import type { Entry } from "./entry.ts";

/** Followers kept at hand, per key: enough for one read, little enough for a hot key to cost nothing. */
export const followersMax = 32;

export interface Chain {
  head: Entry;
  readonly followers: Deque<Entry>;
  /** The store may hold messages of this key after the last one kept. */
  more: boolean;
  /** A read of the followers is on its way. */
  reading: boolean;
  /** Something was stored for the key while that read was on its way. */
  missed: boolean;
  /** The head has ended and the next one is not known yet. */
  headless: boolean;
}

export class Keys {
  readonly #chains = new IntegerMap<Chain>();

  get(keyHash: number): Chain | undefined {
    return this.#chains.get(keyHash);
  }

  get size(): number {
    return this.#chains.size;
  }

  /** Begins the chain of a key whose head became known. */
  begin(head: Entry, more: boolean): void {
    assert(!this.#chains.has(head.keyHash), "K1 a key has one head");
    this.#chains.set(head.keyHash, {
      head,
      followers: new Deque<Entry>(),
      more,
      reading: false,
      missed: false,
      headless: false,
    });
  }

  /** Begins the chain of a key that has messages, the first of which the caller reads. */
  seek(one: Entry): void {
    this.begin(one, true);
    this.advance(this.#chains.get(one.keyHash)!);
  }

  /** A new message of the key was stored. @returns Whether it may be kept at hand (K2, K3). */
  follows(chain: Chain): boolean {
    if (chain.reading) chain.missed = true;
    if (!chain.more && !chain.reading && chain.followers.size < followersMax) return true;
    chain.more = true;
    return false;
  }

  /**
   * The head has ended. @returns The next head, which the caller makes ready; "read" when it must be
   * read from the store first; undefined when the key has none left or the read is on its way.
   */
  advance(chain: Chain): Entry | "read" | undefined {
    const next = chain.followers.popFront();
    if (next !== undefined) {
      chain.head = next;
      chain.headless = false;
      return next;
    }
    if (!chain.more && !chain.reading) {
      this.#chains.delete(chain.head.keyHash);
      return undefined;
    }
    chain.headless = true;
    if (chain.reading) return undefined;
    chain.reading = true;
    return "read";
  }

  /**
   * What a read of the key brought, in order, without what was known already.
   * @param complete The store had no more than these.
   */
  read(chain: Chain, entries: readonly Entry[], complete: boolean): Entry | "read" | undefined {
    chain.reading = false;
    chain.more = !complete || chain.missed;
    chain.missed = false;
    for (const entry of entries) {
      entry.state = "behind";
      chain.followers.pushBack(entry);
    }
    return chain.headless ? this.advance(chain) : undefined;
  }

  /** Forgets a key whose head leaves memory: the store keeps it, and its followers. */
  forget(chain: Chain): Iterable<Entry> {
    this.#chains.delete(chain.head.keyHash);
    return chain.followers;
  }

  check(): void {
    for (const [keyHash, chain] of this.#chains) {
      assert(chain.head.keyHash === keyHash, "K1 a chain is its head's");
      assert(chain.headless || chain.head.state !== "behind", "K1 a head is not behind");
      let { seq } = chain.head;
      for (const follower of chain.followers) {
        assert(follower.seq > seq || chain.headless, "K2 followers are in order");
        assert(follower.state === "behind", "K1 a follower waits");
        ({ seq } = follower);
      }
    }
  }
}

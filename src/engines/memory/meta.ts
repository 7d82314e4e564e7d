/**
 * Small values with revisions. One counter serves all keys, so that a revision never comes back, not
 * even after its key was removed: an old compare-and-set cannot hit a new entry (E18).
 */
import { SpillwayError } from "../../base/index.ts";
import type { AbortSignalLike, MetaEntry, MetaStore } from "../engine.ts";
import { Watchers } from "../watchers.ts";

export class MemoryMeta implements MetaStore {
  readonly #needOpen: () => void;
  readonly #entries = new Map<string, MetaEntry>();
  readonly #watchers = new Watchers();
  #revision = 0;

  constructor(needOpen: () => void) {
    this.#needOpen = needOpen;
  }

  async get(key: string): Promise<MetaEntry | null> {
    this.#needOpen();
    return this.#entries.get(key) ?? null;
  }

  async list(prefix: string): Promise<MetaEntry[]> {
    this.#needOpen();
    return [...this.#entries.values()]
      .filter((entry) => entry.key.startsWith(prefix))
      .toSorted((a, b) => (a.key < b.key ? -1 : 1));
  }

  async set(key: string, value: Uint8Array | null, expectedRevision: number): Promise<number> {
    this.#needOpen();
    const revision = this.#entries.get(key)?.revision ?? 0;
    if (revision !== expectedRevision) {
      throw new SpillwayError("revision_conflict", { key, revision, expectedRevision });
    }
    const entry = { key, value, revision: ++this.#revision };
    if (value === null) this.#entries.delete(key);
    else this.#entries.set(key, entry);
    this.#watchers.tell(entry);
    return entry.revision;
  }

  watch(prefix: string, signal: AbortSignalLike): AsyncIterable<MetaEntry> {
    this.#needOpen();
    return this.#watchers.watch(prefix, signal);
  }

  close(): void {
    this.#watchers.close();
  }
}

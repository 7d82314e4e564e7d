/**
 * Small values with revisions. One counter serves all keys, so that a revision never comes back, not
 * even after its key was removed: an old compare-and-set cannot hit a new entry (E18).
 */
import { SpillwayError } from "../../base/index.ts";
import type { AbortSignalLike, MetaEntry, MetaStore } from "../engine.ts";

interface Watcher {
  readonly prefix: string;
  /** The newest change of each key that the reader has not taken yet. */
  readonly news: Map<string, MetaEntry>;
  wake: () => void;
  ended: boolean;
}

export class MemoryMeta implements MetaStore {
  readonly #needOpen: () => void;
  readonly #entries = new Map<string, MetaEntry>();
  readonly #watchers = new Set<Watcher>();
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
    for (const watcher of this.#watchers) {
      if (!key.startsWith(watcher.prefix)) continue;
      watcher.news.delete(key); // The newest change goes last.
      watcher.news.set(key, entry);
      watcher.wake();
    }
    return entry.revision;
  }

  /** Watching begins with the call, not with the first `next`. */
  watch(prefix: string, signal: AbortSignalLike): AsyncIterable<MetaEntry> {
    this.#needOpen();
    const watcher: Watcher = { prefix, news: new Map(), wake: () => {}, ended: signal.aborted };
    const end = (): void => {
      watcher.ended = true;
      this.#watchers.delete(watcher);
      watcher.wake();
    };
    if (!watcher.ended) {
      this.#watchers.add(watcher);
      signal.addEventListener("abort", end);
    }
    return read(watcher, () => {
      end();
      signal.removeEventListener("abort", end);
    });
  }

  close(): void {
    for (const watcher of this.#watchers) {
      watcher.ended = true;
      watcher.wake();
    }
    this.#watchers.clear();
  }
}

async function* read(
  watcher: Watcher,
  end: () => void,
): AsyncGenerator<MetaEntry, void, undefined> {
  try {
    while (!watcher.ended) {
      for (const [key, entry] of watcher.news) {
        watcher.news.delete(key);
        yield entry;
        if (watcher.ended) return;
      }
      if (watcher.news.size === 0 && !watcher.ended) {
        const { promise, resolve } = Promise.withResolvers<void>();
        watcher.wake = resolve;
        await promise;
      }
    }
  } finally {
    end();
  }
}

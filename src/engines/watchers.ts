/** Watchers of `meta` in the one process that changes it: each hears the newest change of every key. */
import type { AbortSignalLike, MetaEntry } from "./engine.ts";

interface Watcher {
  readonly prefix: string;
  /** The newest change of each key that the reader has not taken yet. */
  readonly news: Map<string, MetaEntry>;
  wake: () => void;
  ended: boolean;
}

export class Watchers {
  readonly #all = new Set<Watcher>();

  tell(entry: MetaEntry): void {
    for (const watcher of this.#all) {
      if (!entry.key.startsWith(watcher.prefix)) continue;
      watcher.news.delete(entry.key); // The newest change goes last.
      watcher.news.set(entry.key, entry);
      watcher.wake();
    }
  }

  /** Watching begins with the call, not with the first `next`. */
  watch(prefix: string, signal: AbortSignalLike): AsyncIterable<MetaEntry> {
    const watcher: Watcher = { prefix, news: new Map(), wake: () => {}, ended: signal.aborted };
    const end = (): void => {
      watcher.ended = true;
      this.#all.delete(watcher);
      watcher.wake();
    };
    if (!watcher.ended) {
      this.#all.add(watcher);
      signal.addEventListener("abort", end);
    }
    return read(watcher, () => {
      end();
      signal.removeEventListener("abort", end);
    });
  }

  close(): void {
    for (const watcher of this.#all) {
      watcher.ended = true;
      watcher.wake();
    }
    this.#all.clear();
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
      if (watcher.news.size > 0 || watcher.ended) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      watcher.wake = resolve;
      await promise;
    }
  } finally {
    end();
  }
}

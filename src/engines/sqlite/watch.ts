/**
 * `meta` as callers see it. There is one process, so every change passes here: watchers hear of it
 * when its commit is durable.
 */
import type { AbortSignalLike, MetaEntry, MetaStore } from "../engine.ts";
import { op } from "./wire.ts";
import type { Op, Requests, WireEntry } from "./wire.ts";

interface Watcher {
  readonly prefix: string;
  /** The newest change of each key that the reader has not taken yet. */
  readonly news: Map<string, MetaEntry>;
  wake: () => void;
  ended: boolean;
}

type Ask = (kind: Op, request: Requests["meta"] | Requests["metaSet"]) => Promise<unknown>;

export class Meta implements MetaStore {
  readonly #ask: Ask;
  readonly #watchers = new Set<Watcher>();

  constructor(ask: Ask) {
    this.#ask = ask;
  }

  async get(key: string): Promise<MetaEntry | null> {
    const entry = (await this.#ask(op.metaGet, [key])) as WireEntry | null;
    return entry === null ? null : toEntry(entry);
  }

  async list(prefix: string): Promise<MetaEntry[]> {
    return ((await this.#ask(op.metaList, [prefix])) as WireEntry[]).map(toEntry);
  }

  async set(key: string, value: Uint8Array | null, expectedRevision: number): Promise<number> {
    const kept = value === null ? null : new Uint8Array(value); // Watchers must not see later changes of it.
    const base64 = kept === null ? null : Buffer.from(kept.buffer).toString("base64");
    const revision = (await this.#ask(op.metaSet, [key, base64, expectedRevision])) as number;
    for (const watcher of this.#watchers) {
      if (!key.startsWith(watcher.prefix)) continue;
      watcher.news.delete(key); // The newest change goes last.
      watcher.news.set(key, { key, value: kept, revision });
      watcher.wake();
    }
    return revision;
  }

  /** Watching begins with the call, not with the first `next`. */
  watch(prefix: string, signal: AbortSignalLike): AsyncIterable<MetaEntry> {
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
      if (watcher.news.size > 0 || watcher.ended) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      watcher.wake = resolve;
      await promise;
    }
  } finally {
    end();
  }
}

function toEntry({ key, base64, revision }: WireEntry): MetaEntry {
  return { key, value: new Uint8Array(Buffer.from(base64, "base64")), revision };
}

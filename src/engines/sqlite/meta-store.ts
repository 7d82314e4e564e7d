/**
 * `meta` as callers see it. There is one process, so every change passes here: watchers hear of it
 * when its commit is durable.
 */
import type { AbortSignalLike, MetaEntry, MetaStore } from "../engine.ts";
import { Watchers } from "../watchers.ts";
import { op } from "./wire.ts";
import type { Op, Requests, WireEntry } from "./wire.ts";

type Ask = (kind: Op, request: Requests["meta"] | Requests["metaSet"]) => Promise<unknown>;

export class Meta implements MetaStore {
  readonly #ask: Ask;
  readonly #watchers = new Watchers();

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
    this.#watchers.tell({ key, value: kept, revision });
    return revision;
  }

  watch(prefix: string, signal: AbortSignalLike): AsyncIterable<MetaEntry> {
    return this.#watchers.watch(prefix, signal);
  }

  close(): void {
    this.#watchers.close();
  }
}

function toEntry({ key, base64, revision }: WireEntry): MetaEntry {
  return { key, value: new Uint8Array(Buffer.from(base64, "base64")), revision };
}

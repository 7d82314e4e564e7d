/**
 * Rebuilds the states in which a power cut could leave a recorded store, and asks each whether it
 * holds every write that was acknowledged before, at most one more per partition, and nothing partial.
 *
 * After each recorded operation: all unsynced writes kept, none kept, and random subsets of them with
 * torn 512-byte sectors, lost truncates and lost unlinks. A file's sync makes its writes durable, the
 * folder's sync its names. A failed sync loses its writes for good, whatever is synced later.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sequence } from "../../src/base/index.ts";
import { digestOf, Direct, Expected, faultOf } from "./content.ts";

const operation = { opened: 1, written: 2, synced: 3, truncated: 4, unlinked: 5, syncFailed: 6 };
const sectorBytes = 512;
const ledgerName = "ledger.log";

interface Operation {
  readonly kind: number;
  /** Name in the store's folder; "" is the folder itself. */
  readonly name: string;
  readonly offset: number;
  readonly data: Buffer;
}

/** A file as it would be found. `bytes` may be longer than the file, and may be shared with `durable`. */
interface Image {
  bytes: Buffer;
  length: number;
  shared: boolean;
}

type Files = Map<string, Image>;

export interface ReplayOptions {
  readonly log: string;
  readonly dir: string;
  /** Where states are laid out; memory is fastest. */
  readonly scratch: string;
  readonly partitions: number;
  readonly statesMax: number;
  /** Random subsets after each operation. */
  readonly variants: number;
}

export interface ReplayReport {
  readonly operations: number;
  readonly states: number;
  readonly receipts: number;
  readonly bad: number;
  readonly first?: string;
}

export function replay(options: ReplayOptions): ReplayReport {
  const operations = parse(readFileSync(options.log), options.dir);
  using expected = new Expected(options.partitions);
  const run = new Replay(options, operations, expected);
  return run.all();
}

function parse(log: Buffer, dir: string): Operation[] {
  const found: Operation[] = [];
  for (let at = 0; at < log.length;) {
    const kind = log.readUInt32LE(at);
    const pathLength = log.readUInt32LE(at + 4);
    const offset = Number(log.readBigUInt64LE(at + 8));
    const length = kind === operation.written ? Number(log.readBigUInt64LE(at + 16)) : 0;
    const dataAt = at + 24 + pathLength;
    const name = log.toString("utf8", at + 24, dataAt).slice(dir.length + 1);
    found.push({ kind, name, offset, data: log.subarray(dataAt, dataAt + length) });
    at = dataAt + length;
  }
  const relevant = /^(|store\.db|store\.db-wal|store\.db-journal|ledger\.log)$/;
  return found.filter(({ name }) => relevant.test(name));
}

class Replay {
  readonly #options: ReplayOptions;
  readonly #operations: readonly Operation[];
  readonly #expected: Expected;
  readonly #draw = sequence(7);
  readonly #durable: Files = new Map();
  readonly #acked: number[];
  #pending: Operation[] = [];
  #claimed = false;
  #receipts = 0;
  #states = 0;
  #bad = 0;
  #first: string | undefined;

  constructor(options: ReplayOptions, operations: readonly Operation[], expected: Expected) {
    this.#options = options;
    this.#operations = operations;
    this.#expected = expected;
    this.#acked = Array.from({ length: options.partitions }, () => 0);
    mkdirSync(options.scratch, { recursive: true });
  }

  all(): ReplayReport {
    // Spread over the whole record: early states show creation, late ones checkpoints and upkeep.
    const { statesMax, variants } = this.#options;
    const perStep = 2 + variants;
    const stride = Math.max(1, Math.ceil((this.#operations.length * perStep) / statesMax));
    for (const [index, next] of this.#operations.entries()) {
      this.#take(next);
      if (next.name !== ledgerName && index % stride === 0) this.#look(index);
    }
    const first = this.#first === undefined ? {} : { first: this.#first };
    const [operations, receipts] = [this.#operations.length, this.#receipts];
    return { operations, receipts, states: this.#states, bad: this.#bad, ...first };
  }

  #take(next: Operation): void {
    if (next.name === ledgerName) this.#note(next);
    else if (next.kind === operation.synced) this.#sync(next.name);
    else if (next.kind === operation.syncFailed) {
      this.#pending = this.#pending.filter(({ name }) => name !== next.name);
    } else this.#pending.push(next);
  }

  #note({ kind, data }: Operation): void {
    if (kind !== operation.written) return;
    const [tag, partition, k] = data.toString().trim().split(" ");
    if (tag === "C") this.#claimed = true;
    if (tag !== "A") return;
    this.#acked[Number(partition)] = Number(k);
    this.#receipts++;
  }

  #sync(name: string): void {
    this.#pending = this.#pending.filter((waiting) => {
      const isName = waiting.kind === operation.opened || waiting.kind === operation.unlinked;
      const hit = waiting.name === name || (name === "" && isName);
      if (hit) apply(this.#durable, waiting);
      return !hit;
    });
  }

  #look(index: number): void {
    const all = copyOf(this.#durable);
    for (const waiting of this.#pending) apply(all, waiting);
    this.#check(all, `all kept, operation ${index}`);
    const none = copyOf(this.#durable);
    for (const waiting of this.#pending)
      if (waiting.kind === operation.opened) apply(none, waiting);
    this.#check(none, `none kept, operation ${index}`);
    for (let i = 0; i < this.#options.variants && this.#pending.length > 0; i++) {
      const some = copyOf(this.#durable);
      for (const waiting of this.#pending) this.#perhaps(some, waiting);
      this.#check(some, `subset ${i}, operation ${index}`);
    }
  }

  #perhaps(files: Files, waiting: Operation): void {
    const luck = this.#draw();
    if (waiting.kind === operation.opened) apply(files, waiting);
    else if (waiting.kind !== operation.written) {
      if (luck < 0.5) apply(files, waiting);
    } else if (luck < 0.4) apply(files, waiting);
    else if (luck >= 0.7) this.#tear(files, waiting);
  }

  #tear(files: Files, waiting: Operation): void {
    const { offset, data } = waiting;
    for (let at = 0; at < data.length;) {
      const end = Math.min(data.length, at + sectorBytes - ((offset + at) % sectorBytes));
      if (this.#draw() < 0.5) {
        apply(files, { ...waiting, offset: offset + at, data: data.subarray(at, end) });
      }
      at = end;
    }
  }

  #check(files: Files, label: string): void {
    this.#states++;
    const { scratch } = this.#options;
    for (const name of ["store.db", "store.db-wal", "store.db-shm", "store.db-journal"]) {
      rmSync(join(scratch, name), { force: true });
    }
    for (const [name, { bytes, length }] of files) {
      writeFileSync(join(scratch, name), bytes.subarray(0, length));
    }
    const fault = this.#faultOf(scratch);
    if (fault === undefined) return;
    this.#bad++;
    this.#first ??= `${label}: ${fault}`;
  }

  #faultOf(dir: string): string | undefined {
    try {
      using store = new Direct(dir);
      if (!this.#claimed) return undefined;
      for (const [partition, acked] of this.#acked.entries()) {
        const fault = faultOf(store.db, partition) ?? this.#difference(store, partition, acked);
        if (fault !== undefined) return `partition ${partition}: ${fault}`;
      }
      if (this.#states % 50 === 0) {
        store.write(store.claim(0), this.#acked[0]! + 2); // It accepts writes again.
        return faultOf(store.db, 0);
      }
      return undefined;
    } catch (error) {
      return String(error);
    }
  }

  /** One write of a partition may have happened without a receipt. */
  #difference(store: Direct, partition: number, acked: number): string | undefined {
    const found = digestOf(store.db, partition);
    if (this.#expected.has(partition, acked, found)) return undefined;
    if (this.#expected.has(partition, acked + 1, found)) return undefined;
    return `it is not what ${acked} or ${acked + 1} writes leave`;
  }
}

/** Shares the bytes until they change. */
function copyOf(files: Files): Files {
  const copy: Files = new Map();
  for (const [name, { bytes, length }] of files) copy.set(name, { bytes, length, shared: true });
  return copy;
}

function apply(files: Files, { kind, name, offset, data }: Operation): void {
  if (kind === operation.unlinked) {
    files.delete(name);
    return;
  }
  if (name === "") return;
  const image = files.get(name) ?? { bytes: Buffer.alloc(0), length: 0, shared: false };
  files.set(name, image);
  if (kind === operation.opened) {
    if (offset === 1) resize(image, 0);
  } else if (kind === operation.truncated) resize(image, offset);
  else {
    resize(image, Math.max(image.length, offset + data.length));
    data.copy(image.bytes, offset);
  }
}

/** Makes the bytes the image's own, as many as needed and zero where they are new. */
function resize(image: Image, length: number): void {
  if (image.shared || length > image.bytes.length) {
    const bytes = Buffer.alloc(Math.max(length, image.shared ? 0 : length * 2));
    image.bytes.copy(bytes, 0, 0, Math.min(image.length, length));
    image.bytes = bytes;
    image.shared = false;
  } else if (length < image.length) image.bytes.fill(0, length, image.length);
  image.length = length;
}

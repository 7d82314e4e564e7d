/**
 * The caller's end of the writer's thread. Calls of one turn of the event loop travel in one
 * transferred buffer; while two messages are on their way, what comes in gathers for the next one, so
 * that a slow disk makes larger commits and not a longer queue of small ones. A message that is full
 * does not wait for the turn to end: the other thread would have nothing to do meanwhile.
 *
 * L1  Every call ends: with its reply, or when the thread ends, whichever way it does.
 * L2  Calls are done in the order in which they were made.
 */
import { Worker } from "node:worker_threads";
import { Deque, IntegerMap, SpillwayError } from "../../base/index.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { readResult } from "./results.ts";
import { readMessage } from "./rows.ts";
import type { ToClient, ToWorker, WorkerOptions } from "./thread.ts";
import { decodeError, op, reply } from "./wire.ts";
import type { Op } from "./wire.ts";

/** Two: the thread has the next message at hand when it is done with one. */
const onTheirWayMax = 2;
/** Of full ones, to which nothing would be added: they keep the thread busy while this one collects garbage. */
const fullOnTheirWayMax = 4;
/** A message is closed at this size: one transaction must not grow with the queue before it. */
const messageBytesMax = 4 * 1024 ** 2;
/** Less than this is not worth a commit of its own. */
const messageBytesMin = 32 * 1024;
/** How fast the size of what is under way is forgotten, at each message. */
const peakFade = 0.95;
const bufferBytesMin = 16_384;
/** Rows of a page die young; V8's default would keep 48 MiB of them around (E11). */
const youngMebibytes = 8;

interface Call {
  readonly kind: Op;
  /** How many results a write has. */
  readonly elements: number;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: SpillwayError) => void;
}

/** Calls at the end of what is to travel together. */
export type Defer = (call: () => void) => void;

export class Link {
  readonly #worker: Worker;
  readonly #defer: Defer;
  readonly #dir: string;
  readonly #calls = new IntegerMap<Call>();
  readonly #full: ByteWriter[] = [];
  readonly #opened: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly #closed: PromiseWithResolvers<void> = Promise.withResolvers();
  #current: ByteWriter = new ByteWriter(bufferBytesMin);
  #sizeHint = bufferBytesMin;
  #onTheirWay = 0;
  /** Sizes of the messages on their way, oldest first, and what they and those behind them sum up to. */
  readonly #sizes = new Deque<number>();
  #bytes = 0;
  #peakBytes = 0;
  #nextId = 0;
  #scheduled = false;
  #closing = false;
  /** Whether the thread was told to close. */
  #asked = false;
  #ended: SpillwayError | undefined;

  /** Resolves when the store is open. */
  static async open(options: WorkerOptions, defer: Defer): Promise<Link> {
    const link = new Link(options, defer);
    await link.#opened.promise;
    return link;
  }

  private constructor(options: WorkerOptions, defer: Defer) {
    this.#dir = options.dir;
    this.#defer = defer;
    const url = new URL(import.meta.resolve("#sqlite-worker"));
    this.#worker = new Worker(url, {
      execArgv: [], // What the caller's thread was started with is not for this one.
      workerData: options,
      name: "spillway-sqlite",
      resourceLimits: { maxYoungGenerationSizeMb: youngMebibytes },
    });
    this.#worker.on("message", (message: ToClient) => this.#hear(message));
    this.#worker.on("error", (error) => this.#end({ cause: error.message }));
    this.#worker.on("exit", (exitCode) => this.#end({ exitCode }));
  }

  /**
   * @param encode Writes the request after its head; what it throws ends this call alone.
   * @param elements How many results a write has.
   */
  call(kind: Op, encode: (to: ByteWriter) => void, elements = 0): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#closing) return Promise.reject(new SpillwayError("closed", { dir: this.#dir }));
    const to = this.#current;
    const start = to.at;
    const id = this.#nextId;
    to.u8(kind);
    to.u32(id);
    to.u32(0);
    try {
      encode(to);
    } catch (error) {
      to.at = start;
      return Promise.reject(asError(error));
    }
    to.view.setUint32(start + 5, to.at - start - 9, true);
    this.#nextId = (id + 1) >>> 0;
    if (to.at >= this.#messageBytes) {
      this.#close(to);
      this.#postFull();
    }
    if (!this.#scheduled) this.#schedule();
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { kind, elements, resolve, reject });
    });
  }

  get isOpen(): boolean {
    return !this.#closing && this.#ended === undefined;
  }

  /** Takes nothing new, ends what was called, and lets go of the store. Twice is once. */
  async close(): Promise<void> {
    if (!this.#closing && this.#ended === undefined) {
      this.#closing = true;
      this.#flush();
      this.#closeWhenIdle();
    }
    await this.#closed.promise;
    await this.#worker.terminate();
  }

  #schedule(): void {
    this.#scheduled = true;
    this.#defer(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  /**
   * Half of what is under way at most times: then the one thread writes one half while the other
   * thread answers and refills the other. On a slow disk more is under way, and messages grow.
   */
  get #messageBytes(): number {
    return Math.min(messageBytesMax, Math.max(messageBytesMin, this.#peakBytes / 2));
  }

  #close(writer: ByteWriter): void {
    this.#bytes += writer.at;
    this.#peakBytes = Math.max(peakFade * this.#peakBytes, this.#bytes);
    this.#full.push(writer);
    this.#sizeHint = Math.max(bufferBytesMin, Math.ceil(writer.at * 1.25));
    this.#current = new ByteWriter(this.#sizeHint);
  }

  #flush(): void {
    this.#postFull();
    if (this.#onTheirWay >= onTheirWayMax || this.#current.at === 0) return;
    this.#close(this.#current);
    this.#postFull();
  }

  #postFull(): void {
    while (this.#onTheirWay < fullOnTheirWayMax && this.#full.length > 0) {
      const { bytes, at } = this.#full.shift()!;
      this.#onTheirWay++;
      this.#sizes.pushBack(at);
      this.#post({ kind: "requests", buffer: bytes.buffer, length: at }, bytes.buffer);
    }
  }

  #post(message: ToWorker, ...transferred: ArrayBuffer[]): void {
    this.#worker.postMessage(message, transferred);
  }

  #hear(message: ToClient): void {
    switch (message.kind) {
      case "opened":
        this.#opened.resolve();
        break;
      case "refused":
        this.#ended = new SpillwayError(message.code, message.details);
        this.#opened.reject(this.#ended);
        void this.#worker.terminate();
        break;
      case "reply":
        this.#take(new ByteReader(new Uint8Array(message.buffer)));
        this.#closeWhenIdle();
        break;
      case "closed":
        this.#end(message.cause === undefined ? {} : { cause: message.cause });
        break;
    }
  }

  #take(from: ByteReader): void {
    if (from.u8() === 1) {
      this.#onTheirWay--;
      this.#bytes -= this.#sizes.popFront() ?? 0;
      if (!this.#scheduled) this.#schedule(); // What these replies bring about travels with it.
    }
    while (from.at < from.bytes.length) {
      const kind = from.u8();
      const id = from.u32();
      const call = this.#calls.delete(id)!;
      if (kind === reply.error) call.reject(decodeError(from));
      else if (kind === reply.json) call.resolve(JSON.parse(from.text()));
      else if (kind === reply.messages) call.resolve(readMany(from, from.u32(), readMessage));
      else call.resolve(readMany(from, call.elements, readResult));
    }
  }

  #closeWhenIdle(): void {
    if (!this.#closing || this.#asked || this.#calls.size > 0) return;
    this.#asked = true;
    this.#post({ kind: "close" });
  }

  /** L1: what has no reply by now may have happened if it was a write, and did not otherwise. */
  #end(details: Record<string, unknown>): void {
    const dir = this.#dir;
    this.#ended ??= this.#closing
      ? new SpillwayError("closed", { dir })
      : new SpillwayError("store_failed", { dir, ...details });
    this.#opened.reject(this.#ended);
    this.#opened.promise.catch(() => {}); // Nobody waits for it any more.
    for (const [, { kind, reject }] of this.#calls) {
      const unknown = kind === op.write || kind === op.metaSet;
      reject(new SpillwayError(unknown ? "outcome_unknown" : "store_unavailable", { dir }));
    }
    this.#calls.clear();
    this.#closed.resolve();
  }
}

function readMany<T>(from: ByteReader, count: number, read: (from: ByteReader) => T): T[] {
  const found: T[] = [];
  for (let i = 0; i < count; i++) found.push(read(from));
  return found;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

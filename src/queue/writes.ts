/**
 * Carries the writes of all flows of one process to their engine. A joint write (the ack of one
 * delivery and the append that it led to) has its halves in two partitions, often of two flows: they
 * go in one batch, which the engine makes durable as a whole (E2), once both partitions are free.
 */
import type { Engine, PartitionWrite, WriteResult } from "../engines/engine.ts";
import type { QueueMachine } from "./machine.ts";

export interface Writer {
  readonly machine: QueueMachine;
  /** The write of a partition, with the claim that it goes under. */
  prepare(
    partition: number,
    write: ReturnType<QueueMachine["writes"]>[number]["write"],
  ): PartitionWrite;
  written(partition: number, result: WriteResult): void;
  /** @returns The joint writes whose other halves wait in vain. */
  failed(partition: number, error: unknown): readonly number[];
  /** Its machine has something to do. */
  schedule(): void;
}

interface Part {
  readonly writer: Writer;
  readonly partition: number;
  readonly write: PartitionWrite;
}

/** What goes to the engine as one, and again as one: all of it happens or none. */
interface Batch {
  readonly parts: readonly Part[];
  /** Parts that want it sent again. */
  asked: number;
}

const none = (): boolean => false;

export class Writes {
  readonly #engine: Engine;
  readonly #writers = new Set<Writer>();
  /** Joint writes on their way, by each of their parts. */
  readonly #batches = new WeakMap<PartitionWrite, Batch>();
  /** Given up; a half may still be on a link. */
  readonly #dropped = new Set<number>();
  #joints = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  add(writer: Writer): void {
    this.#writers.add(writer);
  }

  remove(writer: Writer): void {
    this.#writers.delete(writer);
  }

  /** @returns The token of a new joint write; give it back with `endJoint`. */
  beginJoint(): number {
    this.#joints++;
    return ++this.#token;
  }

  endJoint(joint: number): void {
    this.#joints--;
    this.#dropped.delete(joint);
  }

  #token = 0;

  /** The other half will not come. */
  dropJoint(joint: number): void {
    this.#dropped.add(joint);
    for (const writer of this.#writers) {
      writer.machine.dropJoint(joint);
      writer.schedule();
    }
  }

  flush(writer: Writer, nowMs: number): void {
    if (this.#joints === 0) {
      this.#send(writer, nowMs, none, none, undefined);
      return;
    }
    const all = new Map<number, number>();
    const free = new Map<number, number>();
    for (const { machine } of this.#writers) machine.joints(all, free);
    for (const joint of this.#dropped) if (all.has(joint)) this.dropJoint(joint);
    const isWhole = (token: number): boolean => free.get(token) === 2;
    const isSoon = (token: number): boolean => all.get(token) === 2 && !isWhole(token);
    const parts: Part[] = [];
    for (const each of this.#writers) {
      this.#send(each, nowMs, isWhole, isSoon, parts);
    }
    if (parts.length === 0) return;
    const batch: Batch = { parts, asked: 0 };
    for (const { write } of parts) this.#batches.set(write, batch);
    this.#sendBatch(batch);
  }

  #sendBatch({ parts }: Batch): void {
    this.#engine.write(parts.map(({ write }) => write)).then(
      (results) => {
        for (const [at, { writer, partition }] of parts.entries()) {
          writer.written(partition, results[at]!);
        }
      },
      (error: unknown) => {
        // Only when all of it is back where it waited can what will not come be dropped.
        const lost = parts.flatMap(({ writer, partition }) => writer.failed(partition, error));
        for (const token of lost) this.dropJoint(token);
      },
    );
  }

  #send(
    writer: Writer,
    nowMs: number,
    isWhole: (joint: number) => boolean,
    isSoon: (joint: number) => boolean,
    joint: Part[] | undefined,
  ): void {
    for (const { partition, write } of writer.machine.writes(nowMs, isWhole, isSoon)) {
      const prepared = writer.prepare(partition, write);
      if (write.isJoint && joint !== undefined) joint.push({ writer, partition, write: prepared });
      else this.#sendOne(writer, partition, prepared);
    }
  }

  #sendOne(writer: Writer, partition: number, write: PartitionWrite): void {
    this.#engine.write([write]).then(
      (results) => writer.written(partition, results[0]!),
      (error: unknown) => {
        for (const token of writer.failed(partition, error)) this.dropJoint(token);
      },
    );
  }

  /**
   * Sends a write again whose outcome is unknown: it is applied once (E17). A joint write goes again as
   * a whole, once all of its parts ask for it.
   */
  repeat(writer: Writer, partition: number, write: PartitionWrite): void {
    const batch = this.#batches.get(write);
    if (batch === undefined) this.#sendOne(writer, partition, write);
    else if (++batch.asked === batch.parts.length) {
      batch.asked = 0;
      this.#sendBatch(batch);
    }
  }
}

/**
 * The one connection that writes, and the order of its work.
 *
 * W1  One request message is one transaction at the most: every write in it, from all partitions, is
 *     durable before any reply to it is sent. Reads in it see the writes before them.
 * W2  A refused write changes nothing and fails alone; a failed transaction fails whole, and what the
 *     thread remembers is read again.
 * W3  Long reads, audits and upkeep go on in slices between transactions.
 * W4  After a failed commit or sync nothing is written any more (R7): SQLite would carry on, but the
 *     kernel may have dropped the pages for good.
 */
import { DatabaseSync } from "node:sqlite";
import { SpillwayError } from "../../base/index.ts";
import { auditPartition } from "./audit.ts";
import { ByteReader, ByteWriter } from "./bytes.ts";
import { storePath } from "./directory.ts";
import { failureOf, toSpillwayError } from "./failures.ts";
import { metaGet, metaList, metaSet } from "./meta.ts";
import { Owner } from "./owner.ts";
import { Partitions } from "./partition.ts";
import { readers } from "./readers.ts";
import type { Answer } from "./readers.ts";
import type { Space } from "./space.ts";
import { prepareStatements } from "./statements.ts";
import type { Statements } from "./statements.ts";
import { maintain } from "./upkeep.ts";
import { encodeError, op, reply } from "./wire.ts";
import type { Op, ReplyKind, Requests } from "./wire.ts";

/** A log that nobody adds to for this long is emptied by `maintain`. */
const quietMs = 1000;

interface Task {
  readonly id: number;
  readonly walk: Generator<void, Answer, void>;
}

export interface WriterOptions {
  readonly dir: string;
  /** Added to every commit, for benchmarks and tests. */
  readonly slowDiskMs: number;
}

export class Writer {
  readonly #db: DatabaseSync;
  readonly #statements: Statements;
  readonly #partitions: Partitions;
  readonly #owner: Owner;
  readonly #space: Space;
  readonly #options: WriterOptions;
  readonly #out = new ByteWriter(65_536);
  readonly #tasks: Task[] = [];
  #dead: SpillwayError | undefined;
  #committing = false;
  #lastWriteMs = 0;

  constructor(db: DatabaseSync, space: Space, options: WriterOptions) {
    this.#db = db;
    this.#space = space;
    this.#options = options;
    this.#statements = prepareStatements(db);
    this.#partitions = new Partitions(this.#statements);
    this.#owner = new Owner(this.#statements, this.#partitions);
  }

  /** Does a request message and gives the reply message. */
  process(request: Uint8Array): Uint8Array<ArrayBuffer> {
    const refuse = this.#space.refusesAppends(performance.now());
    const first = this.#try(request, refuse);
    if (first === undefined) return this.#out.copy();
    if (failureOf(first) === "full") return this.#processWhenFull(request);
    this.#failAll(request, first);
    return this.#out.copy();
  }

  /** Goes on with a task. @returns The reply of one that ended. */
  step(): Uint8Array<ArrayBuffer> | undefined {
    const task = this.#tasks.shift();
    if (task === undefined) return undefined;
    const out = this.#out;
    out.at = 0;
    out.u8(0);
    try {
      const { done, value } = task.walk.next();
      if (done === true) this.#put(task.id, value);
      else this.#tasks.push(task);
    } catch (error) {
      this.#noteFatal(error);
      this.#putError(task.id, toSpillwayError(error, { dir: this.#options.dir }));
    }
    return out.at > 1 ? out.copy() : undefined;
  }

  get hasTasks(): boolean {
    return this.#tasks.length > 0;
  }

  close(): void {
    for (const { walk } of this.#tasks) walk.return({ json: null });
    this.#tasks.length = 0;
    if (this.#dead === undefined) this.#db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    this.#db.close();
  }

  /** E20: the reserve is released, and what only settles is tried again. */
  #processWhenFull(request: Uint8Array): Uint8Array<ArrayBuffer> {
    this.#space.release();
    let error = this.#try(request, true);
    if (error !== undefined && failureOf(error) === "full") {
      error = this.#emptyLog() ?? this.#try(request, true);
    }
    if (error !== undefined) this.#failAll(request, error);
    return this.#out.copy();
  }

  /** The log's own space, as a last resort. @returns What failed: the file had no room to grow. */
  #emptyLog(): unknown {
    try {
      this.#db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** @returns What failed the transaction; undefined when the reply is written. */
  #try(request: Uint8Array, refuseAppends: boolean): unknown {
    const tasks = this.#tasks.length;
    try {
      this.#run(new ByteReader(request), refuseAppends ? this.#space.refusal() : undefined);
      return undefined;
    } catch (error) {
      this.#tasks.length = tasks;
      this.#rollBack();
      return error ?? new SpillwayError("invariant_broken", { invariant: "an error is thrown" });
    }
  }

  #run(from: ByteReader, refuseAppends: SpillwayError | undefined): void {
    const out = this.#out;
    out.at = 0;
    out.u8(1);
    this.#committing = false;
    while (from.at < from.bytes.length) {
      const kind = from.u8() as Op;
      const id = from.u32();
      const end = from.u32() + from.at;
      const start = out.at;
      try {
        this.#do(kind, id, from, refuseAppends);
      } catch (error) {
        if (!(error instanceof SpillwayError) && writes(kind)) throw error;
        out.at = start;
        this.#putError(id, toSpillwayError(error, { dir: this.#options.dir }));
      }
      from.at = end;
    }
    if (!this.#db.isTransaction) return;
    this.#partitions.save();
    this.#committing = true;
    this.#statements.commit.run();
    this.#partitions.committed();
    this.#lastWriteMs = performance.now();
    if (this.#options.slowDiskMs > 0) wait(this.#options.slowDiskMs);
  }

  #do(kind: Op, id: number, from: ByteReader, refuseAppends: SpillwayError | undefined): void {
    if (writes(kind)) {
      if (this.#dead !== undefined) throw this.#dead;
      if (!this.#db.isTransaction) this.#statements.begin.run();
    }
    if (kind === op.write) {
      const results = this.#owner.write(from, refuseAppends);
      this.#head(reply.written, id);
      for (const result of results) this.#out.raw(result);
      return;
    }
    const answer = this.#answer(kind, JSON.parse(from.text()), id);
    if (answer !== undefined) this.#put(id, answer);
  }

  /** @returns undefined when the answer comes from a task. */
  #answer(kind: Op, args: unknown, id: number): Answer | undefined {
    const read = readers[kind];
    if (read !== undefined) {
      const [{ flow, partition }] = args as Requests["claim"];
      const part = this.#partitions.get(flow, partition);
      return this.#begin({ id, walk: read(part, args, this.#statements) });
    }
    if (kind === op.audit || kind === op.maintain) {
      const walk =
        kind === op.audit
          ? this.#audit(args as Requests["audit"])
          : this.#maintain(args as Requests["maintain"]);
      this.#tasks.push({ id, walk });
      return undefined;
    }
    return { json: this.#decide(kind, args) };
  }

  /** What is done at once. @returns What the reply's JSON says. */
  #decide(kind: Op, args: unknown): unknown {
    if (kind === op.claim) return this.#owner.claim(...(args as Requests["claim"]));
    if (kind === op.renew) this.#owner.owned(...(args as Requests["held"]));
    if (kind === op.release) this.#owner.release(...(args as Requests["held"]));
    if (kind === op.metaGet) return metaGet(this.#statements, ...(args as Requests["meta"]));
    if (kind === op.metaList) return metaList(this.#statements, ...(args as Requests["meta"]));
    if (kind === op.metaSet) return metaSet(this.#statements, ...(args as Requests["metaSet"]));
    return null;
  }

  /** The first page at once: most reads are no longer. */
  #begin(task: Task): Answer | undefined {
    const { done, value } = task.walk.next();
    if (done === true) return value;
    this.#tasks.push(task);
    return undefined;
  }

  /** On a connection of its own: it keeps one snapshot while commits go on. */
  *#audit([ref]: Requests["audit"]): Generator<void, Answer, void> {
    const db = new DatabaseSync(storePath(this.#options.dir), { readOnly: true });
    try {
      return { json: yield* auditPartition(db, ref) };
    } finally {
      db.close();
    }
  }

  *#maintain([claim, nowMs, budgetMs]: Requests["maintain"]): Generator<void, Answer, void> {
    if (this.#dead !== undefined) throw this.#dead;
    const part = this.#owner.owned(claim);
    const quiet = (): boolean => clock() - this.#lastWriteMs > quietMs;
    const walk = maintain(this.#db, this.#statements, part, nowMs, budgetMs, clock, quiet);
    for (;;) {
      const step = walk.next();
      if (step.done === true) return { json: step.value };
      yield;
      this.#owner.owned(claim); // E3: a new claim may have come in between.
    }
  }

  #put(id: number, answer: Answer): void {
    if (answer instanceof Uint8Array) {
      this.#head(reply.messages, id);
      this.#out.raw(answer);
    } else {
      this.#head(reply.json, id);
      this.#out.text(JSON.stringify(answer.json));
    }
  }

  #putError(id: number, error: SpillwayError): void {
    this.#head(reply.error, id);
    encodeError(this.#out, error);
  }

  #head(kind: ReplyKind, id: number): void {
    this.#out.u8(kind);
    this.#out.u32(id);
  }

  #rollBack(): void {
    this.#owner.reset();
    try {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      this.#partitions.rolledBack();
    } catch (error) {
      this.#die(error);
    }
  }

  /** The transaction failed: everything in the message that writes shares its fate. */
  #failAll(request: Uint8Array, error: unknown): void {
    const committing = this.#committing;
    this.#noteFatal(error);
    const shown = toSpillwayError(error, { dir: this.#options.dir });
    const unknown = committing && failureOf(error) === "fatal";
    const forWrites = unknown ? new SpillwayError("outcome_unknown", shown.details) : shown;
    const out = this.#out;
    out.at = 0;
    out.u8(1);
    const from = new ByteReader(request);
    while (from.at < request.length) {
      const kind = from.u8() as Op;
      const id = from.u32();
      from.at = from.u32() + from.at;
      this.#putError(id, writes(kind) ? forWrites : shown);
    }
  }

  #noteFatal(error: unknown): void {
    const failure = failureOf(error);
    if (failure === "fatal" || failure === "corrupt") this.#die(error);
  }

  #die(error: unknown): void {
    const { dir } = this.#options;
    const { details, code } = toSpillwayError(error, { dir });
    this.#dead ??= new SpillwayError(code === "store_corrupt" ? code : "store_failed", details);
  }
}

function clock(): number {
  return performance.now();
}

function writes(kind: Op): boolean {
  return kind === op.write || kind === op.claim || kind === op.metaSet;
}

function wait(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

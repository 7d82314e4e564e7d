/**
 * The writer's thread: opens the store, then answers request messages one by one. Every file here is
 * imported by a relative path, for the thread inherits no import conditions.
 */
import { DatabaseSync } from "node:sqlite";
import { setImmediate } from "node:timers";
import { parentPort, workerData } from "node:worker_threads";
import type { SpillwayError } from "../../base/index.ts";
import { lockDirectory, refuseDamagedLog, storePath, syncDirectory } from "./directory.ts";
import type { DirectoryLock } from "./directory.ts";
import { toSpillwayError } from "./failures.ts";
import { prepareStore, requireSqlite } from "./schema.ts";
import { Space } from "./space.ts";
import type { ToClient, ToWorker, WorkerOptions } from "./thread.ts";
import { Writer } from "./writer.ts";

const options = workerData as WorkerOptions;
const port = parentPort!;
let lock: DirectoryLock | undefined; // D1: it must stay referenced.
let writer: Writer | undefined;
let stepping = false;

try {
  writer = open();
  send({ kind: "opened" });
} catch (error) {
  lock?.connection.close();
  const { code, details } = toSpillwayError(error, { dir: options.dir });
  send({ kind: "refused", code, details });
}

port.on("message", (message: ToWorker) => {
  if (message.kind === "close") {
    close();
    return;
  }
  const reply = writer!.process(new Uint8Array(message.buffer, 0, message.length));
  send({ kind: "reply", buffer: reply.buffer }, reply.buffer);
  stepOn();
});

function open(): Writer {
  requireSqlite(process.versions["sqlite"] ?? "0");
  const { dir } = options;
  lock = lockDirectory(dir);
  refuseDamagedLog(dir);
  const db = new DatabaseSync(storePath(dir), { timeout: 0 });
  try {
    prepareStore(db, undefined, options.synchronous);
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    syncDirectory(dir);
    const space = new Space(dir, options.reserveBytes, options.minFreeBytes);
    space.refusesAppends(performance.now()); // Makes the reserve.
    db.exec(`PRAGMA wal_autocheckpoint=${space.logPages}`);
    return new Writer(db, space, options);
  } catch (error) {
    db.close();
    throw error;
  }
}

/** One slice of the tasks per turn, so that requests come in between. */
function stepOn(): void {
  if (stepping || writer?.hasTasks !== true) return;
  stepping = true;
  setImmediate(() => {
    stepping = false;
    const reply = writer?.step();
    if (reply !== undefined) send({ kind: "reply", buffer: reply.buffer }, reply.buffer);
    stepOn();
  });
}

function close(): void {
  let failure: SpillwayError | undefined;
  try {
    writer?.close();
  } catch (error) {
    failure = toSpillwayError(error, { dir: options.dir });
  }
  writer = undefined;
  lock?.connection.close();
  lock = undefined;
  send({ kind: "closed", ...(failure === undefined ? {} : { cause: failure.message }) });
  port.close();
}

function send(message: ToClient, buffer?: ArrayBuffer): void {
  port.postMessage(message, buffer === undefined ? [] : [buffer]);
}

/**
 * What waits to be written to one partition: appends and changes, merged into one write at a time.
 *
 * P1  One write at a time; what comes meanwhile is merged into the next, in the order in which it came.
 * P6  A place is reserved for every append until it is durable or refused (G3).
 * P7  Half of a joint write goes only in a batch with its other half.
 *
 * It must not know entries' states, lanes or keys.
 */
import { assert } from "../base/index.ts";
import type { Append, Change } from "../engines/engine.ts";
import type { Entry } from "./entry.ts";

/** `started` is decided when it is written. */
type Appending = Omit<Append, "started"> & { started?: boolean };

export interface PendingAppend {
  readonly append: Appending;
  readonly bytes: number;
  readonly producer: string;
  readonly position: number;
  readonly joint: number | undefined;
}

export interface PendingChange {
  readonly change: Change;
  /** Undefined for a change of a shelved message. */
  readonly entry: Entry | undefined;
  /** Who wants to hear that it is durable. */
  readonly confirmTo: string | undefined;
  readonly attempt: number;
  readonly joint: number | undefined;
}

export interface Writing {
  readonly appends: readonly PendingAppend[];
  readonly changes: readonly PendingChange[];
  readonly startedAtMs: number;
}

/** Who settled, and whether they want to hear of it. */
export interface Confirm {
  readonly to: string | undefined;
  readonly attempt: number;
  readonly joint: number | undefined;
}

/** Appends in one write: enough to share a commit, little enough for short transactions. */
const appendsMax = 1024;
const appendBytesMax = 4 * 1024 * 1024;

export class Outgoing {
  writing: Writing | undefined;
  reservedMessages: number = 0;
  reservedBytes: number = 0;
  #appends: PendingAppend[] = [];
  #changes: PendingChange[] = [];
  /** Joint parts that wait or are being written. */
  #joints = 0;

  get hasWork(): boolean {
    return this.#appends.length > 0 || this.#changes.length > 0;
  }

  append(pending: PendingAppend): void {
    if (pending.joint !== undefined) this.#joints++;
    this.reserve(pending.bytes);
    this.#appends.push(pending);
  }

  change(change: Change, entry: Entry | undefined, confirm?: Confirm): void {
    if (confirm?.joint !== undefined) this.#joints++;
    this.#changes.push({
      change,
      entry,
      confirmTo: confirm?.to,
      attempt: confirm?.attempt ?? 0,
      joint: confirm?.joint,
    });
  }

  reserve(bytes: number): void {
    this.reservedMessages++;
    this.reservedBytes += bytes;
  }

  unreserve(bytes: number): void {
    this.reservedMessages--;
    this.reservedBytes -= bytes;
    assert(this.reservedMessages >= 0 && this.reservedBytes >= 0, "P6 a place is given back once");
  }

  /** Which joint tokens wait here, as far as the next write reaches. */
  joints(into: Map<number, number>): void {
    if (this.#joints === 0) return;
    const reach = this.#reach();
    for (let at = 0; at < reach; at++) count(into, this.#appends[at]!.joint);
    for (const { joint } of this.#changes) count(into, joint);
  }

  /** Whether halves wait here, none of which can go, and one only for a write on its way to end. */
  isAwaited(isWhole: (joint: number) => boolean, isSoon: (joint: number) => boolean): boolean {
    if (this.#joints === 0) return false;
    const has = (is: (joint: number) => boolean): boolean => {
      const fits = (p: { readonly joint: number | undefined }): boolean =>
        p.joint !== undefined && is(p.joint);
      return this.#appends.some(fits) || this.#changes.some(fits);
    };
    return !has(isWhole) && has(isSoon);
  }

  /** The other half of a joint write will not come: the half that waits here is the caller's to end. */
  dropJoint(joint: number): { readonly change?: PendingChange; readonly append?: PendingAppend } {
    if (this.#joints === 0) return {};
    const isIt = (pending: { readonly joint: number | undefined }): boolean =>
      pending.joint === joint;
    const atChange = this.#changes.findIndex(isIt);
    const atAppend = this.#appends.findIndex(isIt);
    const change = atChange < 0 ? undefined : this.#changes.splice(atChange, 1)[0]!;
    const append = atAppend < 0 ? undefined : this.#appends.splice(atAppend, 1)[0]!;
    if (change !== undefined) this.#joints--;
    if (append !== undefined) {
      this.#joints--;
      this.unreserve(append.bytes);
    }
    return { ...(change && { change }), ...(append && { append }) };
  }

  /**
   * P1, P7: takes what waits into one write; joint parts stay behind unless `isWhole` says that their
   * other half is taken in the same batch. @returns undefined when there is nothing to take.
   */
  take(nowMs: number, isWhole: (joint: number) => boolean): Writing | undefined {
    assert(this.writing === undefined, "P1 one write at a time");
    const appends = this.#takeAppends(isWhole);
    const changes = this.#takeChanges(isWhole);
    if (appends.length === 0 && changes.length === 0) return undefined;
    this.writing = { appends, changes, startedAtMs: nowMs };
    return this.writing;
  }

  /** Whether a write holds a half of a joint one. */
  isJoint({ appends, changes }: Writing): boolean {
    return this.#joints > 0 && (appends.some(isHalf) || changes.some(isHalf));
  }

  // What follows runs for every write: without joint parts nothing is looked through.

  /** How many of the appends, from the first, go into one write. */
  #reach(): number {
    let bytes = 0;
    let reach = 0;
    for (const pending of this.#appends) {
      if (reach >= appendsMax || (reach > 0 && bytes + pending.bytes > appendBytesMax)) break;
      bytes += pending.bytes;
      reach++;
    }
    return reach;
  }

  #takeAppends(isWhole: (joint: number) => boolean): PendingAppend[] {
    const all = this.#appends;
    const taken = this.#reach();
    const stays = (p: PendingAppend): boolean => p.joint !== undefined && !isWhole(p.joint);
    if (this.#joints === 0 || !all.some(stays)) {
      this.#appends = taken === all.length ? [] : all.slice(taken);
      return taken === all.length ? all : all.slice(0, taken);
    }
    const go = (p: PendingAppend, at: number): boolean => at < taken && !stays(p);
    this.#appends = all.filter((pending, at) => !go(pending, at));
    return all.filter(go);
  }

  #takeChanges(isWhole: (joint: number) => boolean): PendingChange[] {
    const all = this.#changes;
    if (this.#joints === 0) {
      this.#changes = [];
      return all;
    }
    const stays = (p: PendingChange): boolean => p.joint !== undefined && !isWhole(p.joint);
    this.#changes = all.some(stays) ? all.filter(stays) : [];
    return this.#changes.length === 0 ? all : all.filter((pending) => !stays(pending));
  }

  /** The write is durable; the caller gives the places of its appends back one by one. */
  done(): Writing {
    const writing = this.writing!;
    this.writing = undefined;
    if (this.#joints > 0) {
      this.#joints -= writing.appends.filter(isHalf).length;
      this.#joints -= writing.changes.filter(isHalf).length;
    }
    return writing;
  }

  /** Nothing of the write happened: changes wait again, appends are the caller's to answer. */
  undone(): Writing {
    const writing = this.writing!;
    this.writing = undefined;
    this.#changes = [...writing.changes, ...this.#changes];
    for (const pending of writing.appends) {
      this.unreserve(pending.bytes);
      if (isHalf(pending)) this.#joints--;
    }
    return writing;
  }

  /** Nothing is written any more. What may be stored by now keeps its place: nobody will tell (G3). */
  stop(): {
    appends: readonly PendingAppend[];
    maybe: readonly PendingAppend[];
    changes: readonly PendingChange[];
  } {
    const maybe = this.writing?.appends ?? [];
    const appends = this.#appends;
    const changes = [...(this.writing?.changes ?? []), ...this.#changes];
    this.writing = undefined;
    this.#appends = [];
    this.#changes = [];
    for (const pending of appends) this.unreserve(pending.bytes);
    return { appends, maybe, changes };
  }
}

function isHalf(pending: { readonly joint: number | undefined }): boolean {
  return pending.joint !== undefined;
}

function count(into: Map<number, number>, token: number | undefined): void {
  if (token !== undefined) into.set(token, (into.get(token) ?? 0) + 1);
}

/**
 * Deliberate faults: each breaks one rule of the shipped code from outside, by replacing a method or by
 * changing what passes, and takes itself back. Whoever judges must notice every one of them.
 */
import { ProducerMachine } from "../../src/producer/machine.ts";
import type { Append, Claim, Engine, PartitionWrite } from "../../src/engines/index.ts";
import type { Draft, ToProducerFrame } from "../../src/protocol/index.ts";
import { Delivery } from "../../src/queue/delivery.ts";
import { Dispatch } from "../../src/queue/dispatch.ts";
import type { QueueEffect } from "../../src/queue/effects.ts";
import { Keys } from "../../src/queue/keys.ts";
import { QueueMachine } from "../../src/queue/machine.ts";
import { Partition } from "../../src/queue/partition.ts";
import { ReadAhead } from "../../src/queue/read-ahead.ts";
import { Writes } from "../../src/queue/writes.ts";
import { Store } from "../../src/simulator/store.ts";

export interface Canary {
  readonly name: string;
  /** @returns How to take it back. */
  readonly release: () => () => void;
}

/** Replaces a method or getter of a class; `make` gets the one before. */
function replace<T extends object, Name extends keyof T>(
  owner: T,
  name: Name,
  make: (before: PropertyDescriptor) => PropertyDescriptor,
): () => void {
  const before = Object.getOwnPropertyDescriptor(owner, name);
  if (before === undefined) throw new Error(`there is no ${String(name)} to replace`);
  Object.defineProperty(owner, name, { ...before, ...make(before) });
  return () => Object.defineProperty(owner, name, before);
}

function method<T extends object, Name extends keyof T>(
  owner: T,
  name: Name,
  make: (before: T[Name]) => T[Name],
): () => void {
  return replace(owner, name, ({ value }) => ({ value: make(value as T[Name]) }));
}

function getter<T extends object, Name extends keyof T>(
  owner: T,
  name: Name,
  value: T[Name],
): () => void {
  return replace(owner, name, () => ({ get: () => value }));
}

/** Changes the store that processes see. */
function onStore(change: (engine: Engine) => Partial<Engine>): () => void {
  return method(
    Store.prototype,
    "connect",
    (connect) =>
      function (this: Store, life) {
        const engine = connect.call(this, life);
        return { ...engine, ...change(engine) };
      },
  );
}

function onWrites(change: (write: PartitionWrite) => PartitionWrite): () => void {
  return onStore((engine) => ({ write: (batch) => engine.write(batch.map(change)) }));
}

function onGrants(
  change: (
    frame: Extract<ToProducerFrame, { kind: "grant" }>,
    machine: object,
    nowMs: number,
  ) => ToProducerFrame,
): () => void {
  return method(
    ProducerMachine.prototype,
    "frame",
    (take) =>
      function (this: ProducerMachine<unknown>, frame, nowMs) {
        take.call(this, frame.kind === "grant" ? change(frame, this, nowMs) : frame, nowMs);
      },
  );
}

/** Effects that a machine gives before those that it decided on. */
function early(): { push: (machine: QueueMachine, effect: QueueEffect) => void; undo: () => void } {
  const effects = new WeakMap<QueueMachine, QueueEffect[]>();
  const undo = method(
    QueueMachine.prototype,
    "take",
    (take) =>
      function (this: QueueMachine) {
        const more = effects.get(this) ?? [];
        effects.delete(this);
        return [...more, ...take.call(this)];
      },
  );
  const push = (machine: QueueMachine, effect: QueueEffect): void => {
    effects.set(machine, [...(effects.get(machine) ?? []), effect]);
  };
  return { push, undo };
}

export const canaries: readonly Canary[] = [
  {
    name: "a send is accepted before its write is durable",
    release: () => {
      const { push, undo } = early();
      const undoWrites = method(
        QueueMachine.prototype,
        "writes",
        (writes) =>
          function (this: QueueMachine, ...args) {
            const taken = writes.apply(this, args);
            for (const { partition } of taken) {
              const { counters, outgoing } = this.partitions[partition]!;
              for (const [
                at,
                { append, position, producer },
              ] of outgoing.writing!.appends.entries()) {
                if (append.idempotency !== undefined) break;
                const seq = counters.accepted + at + 1;
                const results = [{ kind: "accepted", position, seq, count: 1 }] as const;
                push(this, {
                  kind: "toProducer",
                  producer,
                  frame: { kind: "results", partition, results },
                });
              }
            }
            return taken;
          },
      );
      return () => {
        undoWrites();
        undo();
      };
    },
  },
  {
    name: "a settle is confirmed before it is durable",
    release: () => {
      const { push, undo } = early();
      const undoFrame = method(
        QueueMachine.prototype,
        "consumerFrame",
        (take) =>
          function (this: QueueMachine, consumer, frame, nowMs) {
            for (const { partition, seq, attempt, confirm } of frame.kind === "settle"
              ? frame.settlements
              : []) {
              if (!confirm) continue;
              push(this, {
                kind: "toConsumer",
                consumer,
                frame: { kind: "settled", partition, seq, attempt, effective: true },
              });
            }
            take.call(this, consumer, frame, nowMs);
          },
      );
      return () => {
        undoFrame();
        undo();
      };
    },
  },
  {
    name: "the store honours every fence",
    release: () => {
      const newest = new Map<string, Claim>();
      const nameOf = ({ ref }: Claim): string => `${ref.flow}/${ref.partition}`;
      return onStore((engine) => ({
        claim: async (...args) => {
          const result = await engine.claim(...args);
          if (result.kind === "claimed") newest.set(nameOf(result.claim), result.claim);
          return result;
        },
        write: (batch) =>
          engine.write(
            batch.map((write) => ({
              ...write,
              claim: newest.get(nameOf(write.claim)) ?? write.claim,
            })),
          ),
      }));
    },
  },
  {
    name: "credit is added up instead of set",
    release: () => {
      const sums = new WeakMap<object, Map<number, number>>();
      return onGrants((frame, machine) => {
        const sum = sums.get(machine) ?? new Map<number, number>();
        sums.set(machine, sum);
        const limitMessages = (sum.get(frame.partition) ?? 0) + frame.grant.limitMessages;
        sum.set(frame.partition, limitMessages);
        return { ...frame, grant: { ...frame.grant, limitMessages } };
      });
    },
  },
  {
    name: "a credit's lease runs from the receipt of its grant",
    release: () =>
      onGrants((frame, _, nowMs) => ({
        ...frame,
        grant: { ...frame.grant, echoHeartbeatMs: nowMs },
      })),
  },
  {
    name: "the queue spends more than its consumer granted",
    release: () =>
      method(
        QueueMachine.prototype,
        "consumerFrame",
        (take) =>
          function (this: QueueMachine, consumer, frame, nowMs) {
            const more =
              frame.kind === "credit"
                ? {
                    ...frame,
                    grant: { ...frame.grant, limitMessages: frame.grant.limitMessages + 2 },
                  }
                : frame;
            take.call(this, consumer, more, nowMs);
          },
      ),
  },
  {
    name: "idempotency keys are forgotten at once",
    release: () =>
      onWrites((write) => ({ ...write, appends: write.appends.map(withoutIdempotency) })),
  },
  {
    name: "other content under an idempotency key is a duplicate",
    release: () =>
      onStore((engine) => ({
        write: async (batch) =>
          (await engine.write(batch)).map(({ appended, counters }) => ({
            counters,
            appended: appended.map(({ kind, seq }) => ({
              kind: kind === "conflict" ? "duplicate" : kind,
              seq,
            })),
          })),
      })),
  },
  {
    name: "a write is repeated under a new id",
    release: () =>
      method(
        Writes.prototype,
        "repeat",
        (repeat) =>
          function (this: Writes, writer, partition, write) {
            repeat.call(this, writer, partition, { ...write, writeId: `${write.writeId}+` });
          },
      ),
  },
  {
    name: "a retry forgets its attempts",
    release: () =>
      onWrites((write) => ({
        ...write,
        changes: write.changes.map((change) =>
          change.kind === "retry"
            ? { seq: change.seq, kind: "released", dueAtMs: change.dueAtMs }
            : change,
        ),
      })),
  },
  {
    name: "a release costs an attempt",
    release: () =>
      onWrites((write) => ({
        ...write,
        changes: write.changes.map((change) =>
          change.kind === "released"
            ? {
                seq: change.seq,
                kind: "retry",
                dueAtMs: change.dueAtMs ?? write.nowMs,
                error: "released",
              }
            : change,
        ),
      })),
  },
  {
    name: "a crash costs no attempt",
    release: () =>
      method(
        Partition.prototype,
        "claimed",
        (claimed) =>
          function (this: Partition, claim) {
            const interrupted = claim.interrupted.map((each) => ({
              ...each,
              attempts: each.attempts - 1,
            }));
            claimed.call(this, { ...claim, interrupted });
          },
      ),
  },
  {
    name: "messages of a key run side by side",
    release: () =>
      method(
        ProducerMachine.prototype,
        "offer",
        (offer) =>
          function (this: ProducerMachine<unknown>, partition, draft, ...rest) {
            return offer.call(this, partition, withoutKey(draft), ...rest);
          },
      ),
  },
  {
    name: "the followers of a key come in the wrong order",
    release: () =>
      method(
        Keys.prototype,
        "read",
        (read) =>
          function (this: Keys, chain, entries, complete) {
            return read.call(this, chain, entries.toReversed(), complete);
          },
      ),
  },
  {
    name: "all is believed to be known",
    release: () => getter(ReadAhead.prototype, "complete", true),
  },
  {
    name: "the settle of an earlier attempt counts",
    release: () =>
      method(
        Delivery.prototype,
        "settled",
        (settled) =>
          function (this: Delivery, entry, consumer, _attempt, nowMs) {
            return settled.call(this, entry, consumer, entry.attempts, nowMs);
          },
      ),
  },
  {
    name: "the bound in messages is not looked at",
    release: () => {
      const undo = getter(Partition.prototype, "storedMessages", 0);
      const undoWrites = onWrites(unlimited);
      return () => {
        undoWrites();
        undo();
      };
    },
  },
  {
    name: "the bound in bytes is not looked at",
    release: () => {
      const undo = getter(Partition.prototype, "storedBytes", 0);
      const undoWrites = onWrites(unlimited);
      return () => {
        undoWrites();
        undo();
      };
    },
  },
  {
    name: "dead letters come back without room",
    release: () =>
      method(
        QueueMachine.prototype,
        "redrive",
        () =>
          function (this: QueueMachine, partition, letters) {
            for (const letter of letters) this.partitions[partition]!.redrive(letter);
            return letters.length;
          },
      ),
  },
  {
    name: "a paused partition goes on",
    release: () =>
      method(
        QueueMachine.prototype,
        "pause",
        (pause) =>
          function (this: QueueMachine, partition) {
            if (partition === undefined) pause.call(this);
          },
      ),
  },
  {
    name: "what has expired is handled all the same",
    release: () =>
      method(
        Dispatch.prototype,
        "pick",
        (pick) =>
          function (this: Dispatch, rates) {
            const picked = pick.call(this, rates);
            if (picked !== undefined) Object.assign(picked.entry, { deadlineAtMs: undefined });
            return picked;
          },
      ),
  },
  {
    name: "the halves of a joint write go apart",
    release: () =>
      method(
        QueueMachine.prototype,
        "writes",
        (writes) =>
          function (this: QueueMachine, nowMs) {
            return writes.call(
              this,
              nowMs,
              () => true,
              () => false,
            );
          },
      ),
  },
  {
    name: "a lease that ended is told to nobody",
    release: () =>
      method(
        Delivery.prototype,
        "expired",
        () =>
          function () {
            return [];
          },
      ),
  },
];

function withoutIdempotency(append: Append): Append {
  const { idempotency: _forgotten, ...rest } = append;
  return rest;
}

function withoutKey(draft: Draft): Draft {
  const { keyHash: _unordered, ...rest } = draft;
  return rest;
}

function unlimited(write: PartitionWrite): PartitionWrite {
  return { ...write, limits: { messages: Infinity, bytes: Infinity } };
}

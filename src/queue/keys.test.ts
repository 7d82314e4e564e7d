import fc from "fast-check";
import { expect, test } from "vitest";
import { entryOf } from "./entry.ts";
import type { Entry } from "./entry.ts";
import { followersMax, Keys } from "./keys.ts";

const keyHash = 7;

function message(seq: number): Entry {
  return entryOf(
    0,
    { seq, class: "normal", keyHash, bytes: 1, attempts: 0, crashes: 0, acceptedAtMs: 0 },
    undefined,
  );
}

/** The store's side of one key: what is pending there, and what the chain was told of. */
class Model {
  readonly keys = new Keys();
  readonly stored: number[] = [];
  readonly kept = new Set<number>();
  readonly ended: number[] = [];
  reading: number[] | undefined;
  #next = 1;

  append(): void {
    const seq = this.#next++;
    this.stored.push(seq);
    const chain = this.keys.get(keyHash);
    if (chain === undefined) {
      this.keys.begin(message(seq), false);
      this.kept.add(seq);
    } else if (this.keys.follows(chain)) {
      const entry = message(seq);
      entry.state = "behind";
      chain.followers.pushBack(entry);
      this.kept.add(seq);
    }
  }

  end(): void {
    const chain = this.keys.get(keyHash);
    if (chain === undefined || chain.headless) return;
    this.ended.push(chain.head.seq);
    this.stored.shift();
    this.#came(this.keys.advance(chain));
  }

  show(): void {
    if (this.keys.get(keyHash)?.reading !== true || this.reading !== undefined) return;
    this.reading = this.stored.slice(0, followersMax + 1);
  }

  answer(): void {
    const seqs = this.reading;
    if (seqs === undefined) return;
    this.reading = undefined;
    const entries = seqs.filter((seq) => !this.kept.has(seq)).map(message);
    for (const { seq } of entries) this.kept.add(seq);
    const chain = this.keys.get(keyHash)!;
    this.#came(this.keys.read(chain, entries, seqs.length <= followersMax));
  }

  #came(next: Entry | "read" | undefined): void {
    if (next !== undefined && next !== "read") next.state = "ready";
  }

  check(): void {
    this.keys.check();
    const chain = this.keys.get(keyHash);
    const known = chain === undefined ? [] : [...chain.followers].map(({ seq }) => seq);
    if (chain !== undefined && !chain.headless) known.unshift(chain.head.seq);
    expect(known, "K2 what is kept comes next, without a gap").toEqual(
      this.stored.slice(0, known.length),
    );
    if (chain === undefined || !(chain.more || chain.reading)) {
      expect(known, "K3 what is stored and not kept implies more").toEqual(this.stored);
    }
  }
}

test("K1, K2 and K3 hold whatever comes between a read and its answer", () => {
  const history = fc.array(fc.nat(9), { minLength: 50, maxLength: 400, size: "max" });
  fc.assert(
    fc.property(history, (moves) => {
      const model = new Model();
      for (const move of moves) {
        if (move < 4) for (let more = 0; more < 12; more++) model.append();
        else if (move < 7) for (let more = 0; more < 9; more++) model.end();
        else if (move < 8) model.show();
        else model.answer();
        model.check();
      }
      for (let left = 10_000; left > 0 && model.stored.length > 0; left--) {
        model.show();
        model.answer();
        model.end();
      }
      model.show();
      model.answer();
      expect(model.stored, "K3 the last of a key is found").toEqual([]);
      expect(model.ended).toEqual(model.ended.toSorted((a, b) => a - b));
      expect(model.keys.size).toBe(0);
    }),
    { numRuns: 60 },
  );
});

test("K1 a key has one head", () => {
  const keys = new Keys();
  keys.begin(message(1), false);
  expect(() => keys.begin(message(2), false)).toThrow("invariant");
});

test("K3 a key that is sought waits for the read, and what is stored meanwhile is not missed", () => {
  const keys = new Keys();
  keys.seek(message(5));
  const chain = keys.get(keyHash)!;
  expect(chain).toMatchObject({ headless: true, reading: true });
  expect(keys.follows(chain)).toBe(false);
  expect(keys.read(chain, [message(4)], true)).toMatchObject({ seq: 4 });
  expect(keys.advance(chain)).toBe("read");
});

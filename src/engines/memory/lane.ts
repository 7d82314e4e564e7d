/** The pending seqs of one class, all together and by group; null stands for "without a group". */
import type { Seq } from "../../flow/index.ts";
import { Sorted } from "./sorted.ts";

export const bySeq = (a: Seq, b: Seq): number => a - b;
const byName = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export class Lane {
  readonly all: Sorted<Seq> = new Sorted(bySeq);
  readonly names: Sorted<string> = new Sorted(byName);
  readonly #byGroup = new Map<string | null, Sorted<Seq>>();

  add(seq: Seq, group: string | null): void {
    this.all.add(seq);
    let members = this.#byGroup.get(group);
    if (members === undefined) {
      members = new Sorted(bySeq);
      this.#byGroup.set(group, members);
      if (group !== null) this.names.add(group);
    }
    members.add(seq);
  }

  delete(seq: Seq, group: string | null): void {
    this.all.delete(seq);
    const members = this.#byGroup.get(group);
    members?.delete(seq);
    if (members?.size !== 0) return;
    this.#byGroup.delete(group);
    if (group !== null) this.names.delete(group);
  }

  /** Ascending after a seq, of one group, or of all where `group` is undefined. */
  after(seq: Seq, group: string | null | undefined): Iterable<Seq> {
    const members = group === undefined ? this.all : this.#byGroup.get(group);
    return members?.after(seq) ?? [];
  }
}

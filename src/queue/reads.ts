/**
 * Messages that ended while reads of the store were on their way: such a read may still show them as
 * pending. Kept in two generations, so that a read that follows another for ever holds nothing back:
 * a seq is remembered until every read that began before its end has come back.
 */
export class Reads {
  #generation = 0;
  #older = 0;
  #newer = 0;
  #endedBefore = new Set<number>();
  #endedSince = new Set<number>();

  /** @returns The token to give back to `end`. */
  begin(): number {
    this.#newer++;
    return this.#generation;
  }

  end(token: number): void {
    if (token === this.#generation) this.#newer--;
    else this.#older--;
    if (this.#older > 0) return;
    this.#generation++;
    this.#older = this.#newer;
    this.#newer = 0;
    this.#endedBefore = this.#endedSince;
    this.#endedSince = new Set();
  }

  ended(seq: number): void {
    if (this.#older + this.#newer > 0) this.#endedSince.add(seq);
  }

  /** It was brought back: what shows it from now on is right. */
  back(seq: number): void {
    this.#endedBefore.delete(seq);
    this.#endedSince.delete(seq);
  }

  hasEnded(seq: number): boolean {
    return this.#endedSince.has(seq) || this.#endedBefore.has(seq);
  }
}

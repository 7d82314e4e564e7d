/** Lines of NDJSON out of the chunks of a body, as they come. */

const lineFeed = 0x0a;
const carriageReturn = 0x0d;

export class Lines {
  readonly #lengthMax: number;
  readonly #onLine: (line: Buffer) => void;
  readonly #onTooLong: () => void;
  /** The beginning of a line whose end has not come. */
  #begun: Buffer[] = [];
  #length = 0;

  /**
   * @param onLine Lines that are empty or only white space at their end are left out.
   * @param onTooLong Instead of a line longer than `lengthMax` bytes, which is never kept.
   */
  constructor(lengthMax: number, onLine: (line: Buffer) => void, onTooLong: () => void) {
    this.#lengthMax = lengthMax;
    this.#onLine = onLine;
    this.#onTooLong = onTooLong;
  }

  push(chunk: Buffer): void {
    let from = 0;
    for (;;) {
      const end = chunk.indexOf(lineFeed, from);
      if (end === -1) break;
      this.#end(chunk.subarray(from, end));
      from = end + 1;
    }
    if (from < chunk.length) this.#keep(chunk.subarray(from));
  }

  /** What is left is a line, too. */
  finish(): void {
    if (this.#length > 0) this.#end(Buffer.alloc(0));
  }

  #keep(part: Buffer): void {
    this.#length += part.length;
    if (this.#length <= this.#lengthMax) this.#begun.push(part);
    else this.#begun = [];
  }

  #end(last: Buffer): void {
    const length = this.#length + last.length;
    const begun = this.#begun;
    this.#length = 0;
    if (begun.length > 0) this.#begun = [];
    if (length > this.#lengthMax) this.#onTooLong();
    else {
      const line = begun.length === 0 ? last : Buffer.concat([...begun, last], length);
      const end = line.at(-1) === carriageReturn ? line.length - 1 : line.length;
      if (end > 0) this.#onLine(end === line.length ? line : line.subarray(0, end));
    }
  }
}

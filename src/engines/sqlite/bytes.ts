/**
 * Growing byte writer and its reader: the one encoding between the two threads and of small blobs in
 * the store. Little-endian; text is UTF-8 behind its length; nothing is aligned.
 */

const encoder = new TextEncoder();
/** Below this length the loop over ASCII beats a call into the platform. */
const loopMax = 64;

export class ByteWriter {
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView<ArrayBuffer>;
  at = 0;

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Makes sure that `count` bytes fit, so that the caller may write through `view` and `bytes`. */
  need(count: number): void {
    if (this.at + count > this.bytes.length) this.#grow(count);
  }

  u8(value: number): void {
    this.need(1);
    this.view.setUint8(this.at, value);
    this.at += 1;
  }

  u32(value: number): void {
    this.need(4);
    this.view.setUint32(this.at, value, true);
    this.at += 4;
  }

  f64(value: number): void {
    this.need(8);
    this.view.setFloat64(this.at, value, true);
    this.at += 8;
  }

  raw(bytes: Uint8Array): void {
    this.need(bytes.length);
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }

  text(text: string): void {
    this.need(4 + text.length * 3);
    const start = this.at + 4;
    const written = this.#utf8(text, start);
    this.view.setUint32(this.at, written, true);
    this.at = start + written;
  }

  /** A copy of what was written from `start` on. */
  copy(start = 0): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(start, this.at);
  }

  #utf8(text: string, start: number): number {
    if (text.length <= loopMax) {
      let i = 0;
      for (; i < text.length; i++) {
        const code = text.charCodeAt(i);
        if (code > 127) break;
        this.bytes[start + i] = code;
      }
      if (i === text.length) return i;
    }
    return encoder.encodeInto(text, this.bytes.subarray(start)).written;
  }

  #grow(count: number): void {
    const next = new Uint8Array(Math.max(this.bytes.length * 2, this.at + count));
    next.set(this.bytes.subarray(0, this.at));
    this.bytes = next;
    this.view = new DataView(next.buffer);
  }
}

export class ByteReader {
  readonly bytes: Buffer;
  readonly view: DataView;
  /** What both are views of, and where they begin: a typed array's own answers are calls. */
  readonly #buffer: ArrayBufferLike;
  readonly #start: number;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.#buffer = bytes.buffer;
    this.#start = bytes.byteOffset;
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(): number {
    return this.view.getUint8(this.at++);
  }

  u32(): number {
    const value = this.view.getUint32(this.at, true);
    this.at += 4;
    return value;
  }

  f64(): number {
    const value = this.view.getFloat64(this.at, true);
    this.at += 8;
    return value;
  }

  /** A view, not a copy: it keeps the whole buffer alive. */
  raw(count: number): Uint8Array {
    const found = this.slice(this.at, count);
    this.at += count;
    return found;
  }

  /** The same at any place. */
  slice(at: number, count: number): Uint8Array {
    return new Uint8Array(this.#buffer, this.#start + at, count);
  }

  text(): string {
    const count = this.u32();
    const start = this.at;
    this.at += count;
    return count === 0 ? "" : this.bytes.toString("utf8", start, this.at);
  }
}

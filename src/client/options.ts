/** What a client is opened with. */
import type { Size, Span } from "../base/index.ts";

export interface ConnectOptions {
  /** Of the server: "https://queue.example.com"; the WebSocket's address follows from it. */
  readonly url: string;
  /** "spw_..."; goes in the first frame, never in the address. */
  readonly token?: string | undefined;
  /** Who this is, for the server's log; at most 128 characters. */
  readonly name?: string;
  /** What may wait here for credit or for a connection, of each flow; a send beyond it is refused. */
  readonly outbox?: {
    /** By default 10,000. */
    readonly messages?: number;
    /** By default 16 MiB. */
    readonly bytes?: Size;
  };
  /** How long `close` waits for handlers and answers; by default 10s. */
  readonly drain?: Span;
}

/** The messages between the two threads; what their buffers hold is said in `wire.ts`. */
import type { ErrorCode, ErrorDetails } from "../../base/index.ts";

export interface WorkerOptions {
  readonly dir: string;
  readonly reserveBytes: number;
  readonly minFreeBytes: number;
  readonly slowDiskMs: number;
  /** NORMAL loses what was acknowledged: it is the canary of the crash-state replay. */
  readonly synchronous: "FULL" | "NORMAL";
}

export type ToWorker =
  | { readonly kind: "requests"; readonly buffer: ArrayBuffer; readonly length: number }
  | { readonly kind: "close" };

export type ToClient =
  | { readonly kind: "opened" }
  | { readonly kind: "refused"; readonly code: ErrorCode; readonly details: ErrorDetails }
  | { readonly kind: "reply"; readonly buffer: ArrayBuffer }
  | { readonly kind: "closed"; readonly cause?: string };

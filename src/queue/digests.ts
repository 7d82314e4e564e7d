/** Digests of idempotency keys and of contents: what the store remembers of a message that it took once. */
import { hash } from "node:crypto";
import type { Draft } from "../protocol/index.ts";

/** Those that a queue's machine needs, and whoever sent the drafts did not make. */
export function addDigests(drafts: readonly Draft[]): void {
  for (const draft of drafts) {
    if (draft.idempotencyKey === undefined) continue;
    draft.idempotency ??= {
      id: sha256(draft.idempotencyKey, 16),
      content: sha256(draft.payload, 8),
    };
  }
}

/** The first bytes of the digest, in memory that small buffers share: one of its own each would be dear. */
function sha256(data: string | Uint8Array, lengthBytes: number): Buffer {
  return Buffer.from(hash("sha256", data, "binary").slice(0, lengthBytes), "latin1");
}

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A directory that is gone after the test. */
export class TempDir implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "spillway-test-"));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A small disk for tests of full ones: a tmpfs of its own. Mounting needs root, on Linux. */
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export class SmallDisk implements Disposable {
  readonly dir: string;

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** @returns Why there is none, where mounting is not permitted. */
  static mount(sizeMebibytes: number): SmallDisk | string {
    if (process.platform !== "linux") return "a small disk is a tmpfs, which Linux has";
    const dir = mkdtempSync(join(tmpdir(), "spillway-disk-"));
    const options = ["-t", "tmpfs", "-o", `size=${sizeMebibytes}m`, "tmpfs", dir];
    try {
      execFileSync("mount", options, { stdio: "ignore" });
    } catch {
      rmSync(dir, { recursive: true });
      return "mounting a small disk is not permitted here (it needs root)";
    }
    return new SmallDisk(dir);
  }

  /** Takes the space that is left, but for `leaveBytes`. */
  fill(leaveBytes = 0): void {
    this.#write("ballast", Infinity);
    if (leaveBytes === 0) return;
    rmSync(join(this.dir, "ballast"));
    const spare = join(this.dir, "spare");
    this.#write("spare", leaveBytes);
    this.#write("ballast", Infinity);
    rmSync(spare);
  }

  makeRoom(): void {
    rmSync(join(this.dir, "ballast"), { force: true });
  }

  [Symbol.dispose](): void {
    execFileSync("umount", ["-l", this.dir]);
    rmSync(this.dir, { recursive: true });
  }

  #write(name: string, bytes: number): void {
    const handle = openSync(join(this.dir, name), "a");
    const chunk = new Uint8Array(4096);
    try {
      for (let left = bytes; left > 0; left -= chunk.length) writeSync(handle, chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    } finally {
      closeSync(handle);
    }
  }
}

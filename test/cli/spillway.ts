/** Runs the command line as users do: a process of its own, from the sources. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

const bin = join(import.meta.dirname, "../../bin/spillway.js");

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  /** Resolves when standard output contains the text, with all that it has said. */
  said(text: string): Promise<string>;
  /** The same of standard error. */
  complained(text: string): Promise<string>;
  /** Resolves when what it has written so far is as wanted; rejects when it ends before. */
  until(isThere: (written: Omit<Ended, "code">) => boolean): Promise<void>;
}

export function start(...args: readonly string[]): Running {
  return startIn(process.cwd(), ...args);
}

/** @param cwd The folder where it runs. */
export function startIn(cwd: string, ...args: readonly string[]): Running {
  const child = spawn(process.execPath, ["--conditions=source", bin, ...args], {
    cwd,
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1" },
  });
  child.stdin.on("error", () => undefined); // It may end without having read it.
  onTestFinished(() => void child.kill("SIGKILL"));
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => (stdout += part));
  child.stderr.setEncoding("utf8").on("data", (part: string) => (stderr += part));
  const ended = once(child, "close").then(([code]) => ({
    code: code as number | null,
    stdout,
    stderr,
  }));
  const said = async (text: string): Promise<string> => {
    while (!stdout.includes(text)) await once(child.stdout, "data");
    return stdout;
  };
  const complained = async (text: string): Promise<string> => {
    while (!stderr.includes(text)) await once(child.stderr, "data");
    return stderr;
  };
  const until: Running["until"] = async (isThere) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = (): void => {
      if (isThere({ stdout, stderr })) resolve();
    };
    child.stdout.on("data", look);
    child.stderr.on("data", look);
    void ended.then(() => reject(new Error(`it ended before:\n${stdout}${stderr}`)));
    look();
    await promise;
    child.stdout.off("data", look);
    child.stderr.off("data", look);
  };
  return { child, ended, said, complained, until };
}

export function spillway(...args: readonly string[]): Promise<Ended> {
  return start(...args).ended;
}

/**
 * Presses Ctrl-C again and again, as people do, until it has ended: what comes right after the first
 * counts as the same press.
 */
export async function pressUntilEnded({ child, ended }: Running): Promise<Ended> {
  const pressing = setInterval(() => child.kill("SIGINT"), 50);
  try {
    return await ended;
  } finally {
    clearInterval(pressing);
  }
}

export async function emptyDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "spillway-cli-"));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

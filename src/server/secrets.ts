/** Secrets are read from where the configuration says, when they are needed, and never shown. */
import { readFileSync } from "node:fs";
import { SpillwayError } from "../base/index.ts";
import type { SecretRef } from "../config/index.ts";

/**
 * @param path Of the field that names the secret, for people: "deliver.secret".
 * @returns The text, without white space around it.
 * @throws {SpillwayError} config_invalid: it is not there, or empty. Says where, never what.
 */
export function readSecret(ref: SecretRef, path: string): string {
  const place = "env" in ref ? `the variable ${ref.env}` : `the file ${ref.file}`;
  const refuse = (found: string, cause?: unknown): never => {
    const allowed = `a secret in ${place}`;
    throw new SpillwayError("config_invalid", { path, found, allowed }, { cause });
  };
  let text: string | undefined;
  try {
    text = "env" in ref ? process.env[ref.env] : readFileSync(ref.file, "utf8");
  } catch (error) {
    refuse((error as NodeJS.ErrnoException).code ?? "unreadable", error);
  }
  const secret = text?.trim() ?? "";
  return secret === "" ? refuse("none") : secret;
}

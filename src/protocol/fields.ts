/** Reads what another end sent: every value is checked before it is used, and a wrong one is named. */
import { SpillwayError } from "../base/index.ts";

export function violation(path: string, found: unknown, allowed: string): SpillwayError {
  const shown =
    typeof found === "object" && found !== null ? "an object" : String(found).slice(0, 60);
  return new SpillwayError("protocol_violated", { path, found: shown, allowed });
}

const integerMax = Number.MAX_SAFE_INTEGER;

/** An object that came; `path` is where it stood. Every method throws `protocol_violated`. */
export class Fields {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #path: string;

  constructor(value: unknown, path: string) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw violation(path, value, "an object");
    }
    this.#values = value as Readonly<Record<string, unknown>>;
    this.#path = path;
  }

  #of(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? this.#values[name] : undefined;
  }

  has(name: string): boolean {
    return this.#of(name) !== undefined;
  }

  refuse(name: string, allowed: string): never {
    throw violation(`${this.#path}.${name}`, this.#of(name), allowed);
  }

  integer(name: string, min = 0, max: number = integerMax): number {
    const value = this.#of(name);
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) {
      return value;
    }
    return this.refuse(name, `a whole number from ${min} to ${max}`);
  }

  /** Times and amounts: finite, and not beyond what a date can be. */
  number(name: string, min = 0, max = 8.64e15): number {
    const value = this.#of(name);
    if (typeof value === "number" && value >= min && value <= max) return value;
    return this.refuse(name, `a number from ${min} to ${max}`);
  }

  text(name: string, lengthMax: number): string {
    const value = this.#of(name);
    if (typeof value === "string" && value.length <= lengthMax) return value;
    return this.refuse(name, `text of at most ${lengthMax} characters`);
  }

  flag(name: string): boolean {
    const value = this.#of(name);
    if (typeof value === "boolean") return value;
    return this.refuse(name, "true or false");
  }

  choice<const T extends string>(name: string, values: readonly T[]): T {
    const value = this.#of(name);
    return (
      values.find((each) => each === value) ?? this.refuse(name, `one of ${values.join(", ")}`)
    );
  }

  /** An object inside. */
  inner(name: string): Fields {
    return new Fields(this.#of(name), `${this.#path}.${name}`);
  }

  list<T>(name: string, lengthMax: number, read: (item: Fields) => T): T[] {
    const value = this.#of(name);
    if (!Array.isArray(value) || value.length > lengthMax) {
      return this.refuse(name, `a list of at most ${lengthMax}`);
    }
    return value.map((item, at) => read(new Fields(item, `${this.#path}.${name}[${at}]`)));
  }

  maybe<T>(name: string, read: (name: string) => T): T | undefined {
    return this.#of(name) === undefined ? undefined : read(name);
  }
}

/** Without the fields that are undefined. */
export function some<T extends object>(value: { [Name in keyof T]: T[Name] | undefined }): T {
  const entries = Object.entries(value).filter(([, each]) => each !== undefined);
  return entries.length === Object.keys(value).length
    ? (value as T)
    : (Object.fromEntries(entries) as T);
}

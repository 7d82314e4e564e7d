/** What a check found, and what to do about it. */
export interface Finding {
  /** "disk", "port" and so on; several findings may share one. */
  readonly check: string;
  readonly level: "ok" | "warn" | "fail";
  readonly found: string;
  readonly advice?: string;
}

export function ok(check: string, found: string): Finding {
  return { check, level: "ok", found };
}

/** It works, and somebody should look at it. */
export function warn(check: string, found: string, advice: string): Finding {
  return { check, level: "warn", found, advice };
}

/** It will not work, or a promise would not hold. */
export function fail(check: string, found: string, advice: string): Finding {
  return { check, level: "fail", found, advice };
}

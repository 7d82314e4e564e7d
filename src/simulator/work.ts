/** What a simulated message carries. */
import { hash32 } from "../base/index.ts";

export interface Work {
  readonly n: string;
  readonly pad: string;
  /** Always fails. */
  readonly poison?: true;
}

export function digest(work: Work): string {
  return hash32(0, work.n, work.pad).toString(36);
}

/** What became of a stream's messages, and how long the flow held it back. */
import { count, plural, span } from "./format.ts";

export interface SendSummary {
  readonly accepted: number;
  readonly duplicates: number;
  /** By code. */
  readonly refused: Readonly<Record<string, number>>;
  /** Read, and not sent because the command ended. */
  readonly notSent: number;
  readonly seconds: number;
  readonly blockedMs: number;
  readonly blockedTimes: number;
}

export class SendTally {
  readonly #startedAtMs: number = performance.now();
  readonly #refused = new Map<string, number>();
  #accepted = 0;
  #duplicates = 0;
  #notSent = 0;
  #blockedTimes = 0;
  #blockedMs = 0;
  #blocked: { readonly code: string; readonly sinceMs: number } | undefined;
  /** Of the line before: when, and how many were accepted by then. */
  #shown: { readonly atMs: number; readonly accepted: number };

  constructor() {
    this.#shown = { atMs: this.#startedAtMs, accepted: 0 };
  }

  accepted(isDuplicate: boolean): void {
    if (isDuplicate) this.#duplicates++;
    else this.#accepted++;
  }

  /** @returns Whether it is the first with this code. */
  refused(code: string): boolean {
    const before = this.#refused.get(code) ?? 0;
    this.#refused.set(code, before + 1);
    return before === 0;
  }

  notSent(): void {
    this.#notSent++;
  }

  blocked(code: string): void {
    this.#blockedTimes++;
    this.#blocked = { code, sinceMs: performance.now() };
  }

  resumed(): void {
    if (this.#blocked !== undefined) this.#blockedMs += performance.now() - this.#blocked.sinceMs;
    this.#blocked = undefined;
  }

  get isAllAccepted(): boolean {
    return this.#refused.size === 0 && this.#notSent === 0;
  }

  summary(): SendSummary {
    this.resumed();
    return {
      accepted: this.#accepted,
      duplicates: this.#duplicates,
      refused: Object.fromEntries(this.#refused),
      notSent: this.#notSent,
      seconds: Number(((performance.now() - this.#startedAtMs) / 1000).toFixed(3)),
      blockedMs: Math.round(this.#blockedMs),
      blockedTimes: this.#blockedTimes,
    };
  }

  text(): string {
    const { accepted, duplicates, notSent, seconds, blockedMs, blockedTimes } = this.summary();
    const rate = seconds > 0 ? `, ${count(accepted / seconds)}/s` : "";
    const refused = [...this.#refused].map(([code, times]) => `, ${count(times)} ${code}`);
    return [
      `${count(accepted)} accepted`,
      duplicates > 0 ? `, ${plural(duplicates, "duplicate")}` : "",
      ...refused,
      notSent > 0 ? `, ${count(notSent)} not sent` : "",
      ` in ${span(seconds * 1000)}${rate}`,
      blockedTimes > 0
        ? `; held back ${plural(blockedTimes, "time")}, for ${span(blockedMs)} in all`
        : "; never held back",
    ].join("");
  }

  /** For the terminal: now, and since the line before. */
  line(credits: number, underWay: number): string {
    const nowMs = performance.now();
    const accepted = this.#accepted + this.#duplicates;
    const { atMs, accepted: before } = this.#shown;
    this.#shown = { atMs: nowMs, accepted };
    const rate = (1000 * (accepted - before)) / Math.max(1, nowMs - atMs);
    const held =
      this.#blocked === undefined
        ? ""
        : `  held back: ${this.#blocked.code} for ${span(nowMs - this.#blocked.sinceMs)}`;
    return `${count(accepted)} accepted  ${count(rate)}/s  credit ${count(credits)}  under way ${count(underWay)}${held}`;
  }
}

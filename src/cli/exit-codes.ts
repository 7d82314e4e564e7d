/** What the commands end with; `docs/cli.md` says it for people. */
export const exitCodes = {
  ok: 0,
  /** It failed, or what it checked does not hold. */
  failed: 1,
  /** Flags or files that cannot be used. */
  usage: 2,
  /** Ended at once by a second Ctrl-C. */
  interrupted: 130,
} as const;

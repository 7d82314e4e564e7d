/**
 * Tokens and certificates that may call the server, kept in the store's meta: `token/<id>` holds what it
 * may do and the SHA-256 of its secret, `token-used/<id>` when it was last used.
 *
 * T1  The store never holds what a caller must show.
 * T2  An unknown id costs the same work as a wrong secret, and digests are compared in constant time.
 * T3  What was revoked or has expired is refused from then on, and its listeners hear of it, so that
 *     open connections are cut.
 * T4  Every change is in the audit log before it is made.
 */
import { timingSafeEqual } from "node:crypto";
import { isSpillwayError, SpillwayError } from "../base/index.ts";
import type { Clock, Timer } from "../base/index.ts";
import type { Quota } from "../config/index.ts";
import type { MetaEntry, MetaStore } from "../engines/index.ts";
import { audited } from "./audit.ts";
import type { Audit } from "./audit.ts";
import { patternForm, verbs } from "./scope.ts";
import type { Scope } from "./scope.ts";
import { digestOf, newToken, parseToken } from "./token-text.ts";

export interface TokenRecord extends Scope {
  readonly kind: "token" | "certificate";
  readonly id: string;
  /** For people. */
  readonly name?: string;
  /** SHA-256 of the secret, hex; of a token. */
  readonly digest?: string;
  /** The name in the certificate. */
  readonly certificate?: string;
  readonly createdAtMs: number;
  readonly expiresAtMs?: number;
  /** Instead of the configuration's. */
  readonly quota?: Quota;
}

/** What may be shown. */
export type TokenView = Omit<TokenRecord, "digest"> & { readonly lastUsedAtMs?: number };

export interface NewToken extends Scope {
  readonly name?: string;
  /** Of a certificate: this name in it stands for the token, and there is no secret. */
  readonly certificate?: string;
  readonly expiresAtMs?: number;
  readonly quota?: Quota;
}

/** Who changes tokens, for the audit log. */
export interface Actor {
  readonly principal: string;
  readonly requestId: string;
}

export interface TokensDeps {
  readonly meta: MetaStore;
  readonly audit: Audit;
  readonly clock: Clock;
}

const recordPrefix = "token/";
const usedPrefix = "token-used/";
const usedWriteGapMs = 60_000;
const tokensMax = 10_000;
const flowsMax = 32;
/** Compared with where there is no such id (T2). */
const noDigest = digestOf("");

export class Tokens implements Disposable {
  readonly #meta: MetaStore;
  readonly #audit: Audit;
  readonly #clock: Clock;
  readonly #records = new Map<string, TokenRecord>();
  readonly #digests = new Map<string, Buffer>();
  /** The same digests, see `verify`. */
  #decoys: readonly Buffer[] | undefined;
  readonly #certificates = new Map<string, string>();
  readonly #usedAtMs = new Map<string, number>();
  readonly #usedWrittenAtMs = new Map<string, number>();
  readonly #revisions = new Map<string, number>();
  readonly #listeners = new Set<(id: string) => void>();
  readonly #closed = new AbortController();
  #expiry: Timer | undefined;
  #hadSome = false;

  static async open(deps: TokensDeps): Promise<Tokens> {
    const tokens = new Tokens(deps);
    // Watching begins before reading, so that no change falls between.
    const changes = deps.meta.watch(recordPrefix, tokens.#closed.signal);
    for (const entry of await deps.meta.list(recordPrefix)) tokens.#take(entry);
    for (const { key, value, revision } of await deps.meta.list(usedPrefix)) {
      const id = key.slice(usedPrefix.length);
      tokens.#revisions.set(key, revision);
      tokens.#usedAtMs.set(id, Number(new TextDecoder().decode(value ?? undefined)));
    }
    void tokens.#follow(changes);
    tokens.#awaitExpiry();
    return tokens;
  }

  private constructor({ meta, audit, clock }: TokensDeps) {
    this.#meta = meta;
    this.#audit = audit;
    this.#clock = clock;
  }

  /**
   * Whether there was never a token here while this server ran: revoking the last one must not open
   * the server to everybody.
   */
  get isEmpty(): boolean {
    return !this.#hadSome;
  }

  get(id: string): TokenRecord | undefined {
    return this.#records.get(id);
  }

  list(): TokenView[] {
    return [...this.#records.values()]
      .toSorted((a, b) => a.createdAtMs - b.createdAtMs)
      .map((record) => this.#view(record));
  }

  /**
   * @returns What it may do; `token` is what the caller must show, and is never to be seen again.
   * @throws {SpillwayError} request_invalid: a field is not valid, the certificate stands for a token
   *   already, or there are too many tokens.
   */
  async create(wanted: NewToken, actor: Actor): Promise<{ view: TokenView; token?: string }> {
    const { certificate } = wanted;
    checkNew(wanted, this.#clock.now());
    if (certificate !== undefined && this.#certificates.has(certificate)) {
      throw new SpillwayError("request_invalid", {
        certificate,
        found: `token ${this.#certificates.get(certificate)} has this certificate`,
      });
    }
    if (this.#records.size >= tokensMax) {
      throw new SpillwayError("request_invalid", { allowed: `at most ${tokensMax} tokens` });
    }
    const { id, secret, text } = newToken();
    const record: TokenRecord = {
      ...wanted,
      kind: certificate === undefined ? "token" : "certificate",
      id,
      ...(certificate === undefined ? { digest: digestOf(secret).toString("hex") } : {}),
      createdAtMs: Math.floor(this.#clock.now()),
    };
    const view = this.#view(record);
    await audited(this.#audit, { ...actor, action: "token.create", after: view }, async () => {
      const key = recordPrefix + id;
      const value = new TextEncoder().encode(JSON.stringify(record));
      this.#take({ key, value, revision: await this.#meta.set(key, value, 0) });
    });
    this.#awaitExpiry();
    return certificate === undefined ? { view, token: text } : { view };
  }

  /** @throws {SpillwayError} not_found */
  async revoke(id: string, actor: Actor): Promise<TokenView> {
    const record = this.#records.get(id);
    if (record === undefined) throw new SpillwayError("not_found", { token: id });
    const view = this.#view(record);
    await audited(this.#audit, { ...actor, action: "token.revoke", before: view }, async () => {
      const key = recordPrefix + id;
      this.#drop(id); // Refused from here on, even if the store were slow.
      await this.#meta.set(key, null, this.#revisions.get(key) ?? 0).catch((error: unknown) => {
        // Somebody else has revoked it at the same time, or the store has failed.
        if (!isSpillwayError(error, "revision_conflict")) this.#keep(record);
        throw error;
      });
      this.#revisions.delete(key);
      const used = usedPrefix + id;
      const revision = this.#revisions.get(used);
      this.#revisions.delete(used);
      // When a token that is gone was used last is of no use to anybody: what stays of it does no harm.
      if (revision !== undefined) await this.#meta.set(used, null, revision).catch(() => undefined);
    });
    return view;
  }

  /** @returns Undefined: no such token, or it has expired. Nobody learns which. */
  verify(text: string): TokenRecord | undefined {
    const parsed = parseToken(text);
    if (parsed === undefined) return undefined;
    const shown = digestOf(parsed.secret);
    // T2: an unknown id is held against the digest of some other token, as near or far as one's own.
    this.#decoys ??= [...this.#digests.values(), noDigest];
    const decoy = this.#decoys[shown.readUInt32LE(0) % this.#decoys.length]!;
    const own = this.#digests.get(parsed.id);
    const isSame = timingSafeEqual(shown, own ?? decoy) && own !== undefined;
    return isSame ? this.#used(this.#records.get(parsed.id)) : undefined;
  }

  /** @param names In the certificate, in their order: the first that is known counts. */
  ofCertificate(names: readonly string[]): TokenRecord | undefined {
    const name = names.find((each) => this.#certificates.has(each));
    return name === undefined ? undefined : this.#used(this.get(this.#certificates.get(name)!));
  }

  onRevoked(listener: (id: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  [Symbol.dispose](): void {
    this.#closed.abort();
    this.#expiry?.cancel();
    this.#listeners.clear();
  }

  #view({ digest: _digest, ...shown }: TokenRecord): TokenView {
    const lastUsedAtMs = this.#usedAtMs.get(shown.id);
    return { ...shown, ...(lastUsedAtMs === undefined ? {} : { lastUsedAtMs }) };
  }

  #used(record: TokenRecord | undefined): TokenRecord | undefined {
    const nowMs = Math.floor(this.#clock.now());
    if (record === undefined || isExpired(record, nowMs)) return undefined;
    const { id } = record;
    this.#usedAtMs.set(id, nowMs);
    if (nowMs - (this.#usedWrittenAtMs.get(id) ?? -Infinity) >= usedWriteGapMs) {
      this.#usedWrittenAtMs.set(id, nowMs);
      void this.#writeUsed(id, nowMs);
    }
    return record;
  }

  /** For people, so a lost one does no harm: the next use after a minute writes again. */
  async #writeUsed(id: string, nowMs: number): Promise<void> {
    const key = usedPrefix + id;
    try {
      const value = new TextEncoder().encode(String(nowMs));
      const revision = await this.#meta.set(key, value, this.#revisions.get(key) ?? 0);
      if (this.#records.has(id)) this.#revisions.set(key, revision);
      else await this.#meta.set(key, null, revision); // Revoked meanwhile.
    } catch {
      const entry = await this.#meta.get(key).catch(() => null);
      if (entry !== null) this.#revisions.set(key, entry.revision);
    }
  }

  async #follow(changes: AsyncIterable<MetaEntry>): Promise<void> {
    for await (const entry of changes) this.#take(entry);
  }

  #take({ key, value, revision }: MetaEntry): void {
    const id = key.slice(recordPrefix.length);
    if (value === null) {
      this.#drop(id);
      return;
    }
    if ((this.#revisions.get(key) ?? 0) >= revision) return; // Known already.
    this.#revisions.set(key, revision);
    this.#keep(JSON.parse(new TextDecoder().decode(value)) as TokenRecord);
    this.#awaitExpiry();
  }

  #keep(record: TokenRecord): void {
    this.#hadSome = true;
    this.#records.set(record.id, record);
    if (record.digest !== undefined) {
      this.#digests.set(record.id, Buffer.from(record.digest, "hex"));
      this.#decoys = undefined;
    }
    if (record.certificate !== undefined) this.#certificates.set(record.certificate, record.id);
  }

  #drop(id: string): void {
    const record = this.#records.get(id);
    if (record === undefined) return;
    this.#records.delete(id);
    this.#digests.delete(id);
    this.#decoys = undefined;
    if (record.certificate !== undefined) this.#certificates.delete(record.certificate);
    this.#usedAtMs.delete(id);
    this.#usedWrittenAtMs.delete(id);
    this.#tell(id);
  }

  #tell(id: string): void {
    for (const listener of this.#listeners) listener(id); // T3
  }

  /** One timer for the next token to expire: its connections are cut then (T3). */
  #awaitExpiry(): void {
    this.#expiry?.cancel();
    this.#expiry = undefined;
    if (this.#closed.signal.aborted) return;
    const nowMs = this.#clock.now();
    const nextMs = Math.min(
      ...[...this.#records.values()]
        .map(({ expiresAtMs }) => expiresAtMs ?? Infinity)
        .filter((atMs) => atMs > nowMs),
    );
    if (nextMs === Infinity) return;
    this.#expiry = this.#clock.after(nextMs - nowMs, () => {
      for (const record of this.#records.values()) {
        const { expiresAtMs = Infinity } = record;
        if (expiresAtMs > nowMs && isExpired(record, this.#clock.now())) this.#tell(record.id);
      }
      this.#awaitExpiry();
    });
  }
}

/** What the types do not say. @throws {SpillwayError} request_invalid */
function checkNew(wanted: NewToken, nowMs: number): void {
  const { verbs: given, flows, group, name, certificate, expiresAtMs } = wanted;
  const known = verbs.join(", ");
  check(given.length > 0 && given.every((verb) => verbs.includes(verb)), "verbs", given, known);
  check(
    flows.length > 0 && flows.length <= flowsMax && flows.every((flow) => patternForm.test(flow)),
    "flows",
    flows,
    `1 to ${flowsMax} names of flows, in which * may stand for any characters`,
  );
  // What people read in lists holds nothing that a terminal would obey.
  check(isText(group, /^\P{C}{1,256}$/u), "group", group, "1 to 256 printable characters");
  check(isText(name, /^\P{C}{1,128}$/u), "name", name, "1 to 128 printable characters");
  check(isText(certificate, /^[\x21-\x7e]{1,256}$/), "certificate", certificate, "a name in ASCII");
  check(
    (expiresAtMs ?? Infinity) > nowMs,
    "expiresAtMs",
    expiresAtMs,
    "a time in the future, in ms",
  );
}

function check(isGood: boolean, path: string, found: unknown, allowed: string): void {
  if (!isGood) throw new SpillwayError("request_invalid", { path, found, allowed });
}

function isText(text: string | undefined, form: RegExp): boolean {
  return text === undefined || form.test(text);
}

function isExpired({ expiresAtMs = Infinity }: TokenRecord, nowMs: number): boolean {
  return expiresAtMs <= nowMs;
}

/** The parts that protect a server, opened together: log, audit log, tokens, quotas, certificates, sockets. */
import type { Config } from "../config/index.ts";
import type { MetaStore } from "../engines/index.ts";
import type { Spillway } from "../spillway.ts";
import { systemClock } from "../system-clock.ts";
import { createAccess } from "./access.ts";
import type { Access } from "./access.ts";
import { Audit } from "./audit.ts";
import { Connections } from "./connections.ts";
import { checkListen, isOpenListen } from "./guard.ts";
import { Log } from "./log.ts";
import { Quotas } from "./quota.ts";
import { Certificates } from "./tls.ts";
import { Tokens } from "./tokens.ts";

export interface Security {
  readonly log: Log;
  readonly audit: Audit;
  readonly tokens: Tokens;
  readonly access: Access;
  readonly connections: Connections;
  readonly certificates: Certificates | undefined;
}

/**
 * @param owner Closes what is opened here.
 * @throws {SpillwayError} listen_unsafe, config_invalid
 */
export async function openSecurity(
  config: Config,
  meta: MetaStore,
  owner: AsyncDisposableStack,
  writeLog: (line: string) => void,
): Promise<Security> {
  const log = new Log(config.log, writeLog);
  const audit = await Audit.open(meta, systemClock);
  const tokens = owner.use(await Tokens.open({ meta, audit, clock: systemClock }));
  checkListen(config, !tokens.isEmpty);
  const quotas = new Quotas(config.quota, systemClock);
  tokens.onRevoked((id) => quotas.forget(id));
  const { tls } = config.listen;
  const certificates = tls === undefined ? undefined : owner.use(new Certificates(tls, log));
  const connections = owner.use(new Connections(config, { log, certificates }));
  const access = createAccess(tokens, quotas, isOpenListen(config));
  return { log, audit, tokens, access, connections, certificates };
}

/** The tokens of a store on which no server runs, for the command line. */
export async function openTokenStore({ meta }: Spillway): Promise<Tokens> {
  const audit = await Audit.open(meta, systemClock);
  return Tokens.open({ meta, audit, clock: systemClock });
}

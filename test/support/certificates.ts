/** Authorities and certificates for tests, made by the `openssl` program. */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface Pair {
  /** Paths of PEM files. */
  readonly cert: string;
  readonly key: string;
}

/** A self-signed authority. */
export async function makeAuthority(dir: string, name: string): Promise<Pair> {
  const pair = pairOf(dir, name);
  await openssl(
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "2",
    "-subj",
    `/CN=${name}`,
    "-keyout",
    pair.key,
    "-out",
    pair.cert,
  );
  return pair;
}

export interface Wanted {
  readonly name: string;
  /** As "DNS:localhost,IP:127.0.0.1". */
  readonly alternativeNames?: string;
  readonly isExpired?: boolean;
}

export async function makeCertificate(dir: string, authority: Pair, wanted: Wanted): Promise<Pair> {
  const { name, alternativeNames, isExpired = false } = wanted;
  const pair = pairOf(dir, `${name}-${process.hrtime.bigint()}`);
  const request = `${pair.key}.csr`;
  const extensions = `${pair.key}.ext`;
  await openssl(
    "req",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-subj",
    `/CN=${name}`,
    "-keyout",
    pair.key,
    "-out",
    request,
  );
  await writeFile(
    extensions,
    alternativeNames === undefined
      ? "basicConstraints=CA:FALSE\n"
      : `subjectAltName=${alternativeNames}\n`,
  );
  const times = isExpired
    ? ["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"]
    : ["-days", "2"];
  await sign(authority, { request, extensions, out: pair.cert, times, dir });
  return pair;
}

interface Signing {
  readonly request: string;
  readonly extensions: string;
  readonly out: string;
  readonly times: readonly string[];
  readonly dir: string;
}

/** `openssl ca` can date a certificate back, `openssl x509` only from version 3.4 on. */
async function sign(
  authority: Pair,
  { request, extensions, out, times, dir }: Signing,
): Promise<void> {
  const config = join(dir, "ca.cnf");
  const database = `${out}.db`;
  await writeFile(database, "");
  await writeFile(
    config,
    `[ca]\ndefault_ca=own\n[own]\ndatabase=${database}\nnew_certs_dir=${dir}\nrand_serial=yes\n` +
      "default_md=sha256\npolicy=any\nunique_subject=no\n[any]\ncommonName=supplied\n",
  );
  const dates = times.map((each) =>
    each === "-not_before" ? "-startdate" : each === "-not_after" ? "-enddate" : each,
  );
  await openssl(
    "ca",
    "-batch",
    "-notext",
    "-config",
    config,
    "-in",
    request,
    "-out",
    out,
    "-cert",
    authority.cert,
    "-keyfile",
    authority.key,
    "-extfile",
    extensions,
    ...dates,
  );
}

function pairOf(dir: string, name: string): Pair {
  return { cert: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) };
}

async function openssl(...args: readonly string[]): Promise<void> {
  await run("openssl", [...args]);
}

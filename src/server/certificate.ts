/**
 * Names in a client's certificate (mTLS). The TLS stack has judged the certificate by then: a connection
 * whose certificate is of no known authority, or out of its time, never becomes a request.
 */
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";

const none: readonly string[] = [];
const namesOf = new WeakMap<TLSSocket, readonly string[]>();

/**
 * @returns The subject's alternative names (DNS, URI, email) in their order; its common name where it
 *   has none of them. Nothing without a certificate that was verified.
 */
export function certificateNames(socket: Socket): readonly string[] {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return none;
  const known = namesOf.get(socket);
  if (known !== undefined) return known;
  const { subject, subjectaltname } = socket.getPeerCertificate();
  const common: unknown = subject?.CN; // An array where there are several: such a subject has no name.
  const names =
    subjectaltname !== undefined
      ? alternativeNames(subjectaltname)
      : typeof common === "string"
        ? [common]
        : none;
  namesOf.set(socket, names);
  return names;
}

/**
 * Of "DNS:a.example, URI:spiffe://b". Node puts a name that holds a comma or a quote into quotes; such
 * a name could imitate two, so it counts for nothing.
 */
export function alternativeNames(text: string): string[] {
  if (text.includes('"')) return [];
  return text.split(", ").flatMap((part) => {
    const match = /^(?:DNS|URI|email):([\x21-\x7e]{1,256})$/.exec(part);
    return match === null ? [] : [match[1]!];
  });
}

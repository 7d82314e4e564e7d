/**
 * Where a push may go (S5). A target is named by whoever writes the contract, and must not become a way
 * into the network that the server stands in.
 *
 * A1  Only global unicast addresses are reached, unless the contract names the range.
 * A2  An IPv4 address in an IPv6 one is judged as what it is; one that cannot be read is refused.
 * A3  Of a name, one address that is refused refuses all of them.
 *
 * It must not know requests. Sources: the IANA registries of special-purpose addresses, RFC 6890.
 */
import { BlockList, isIP, isIPv4 } from "node:net";
import { SpillwayError } from "../../base/index.ts";
import type { Push } from "../../flow/index.ts";

/** Of IPv4: everything that is not global unicast. */
const special4 = blockList([
  "0.0.0.0/8", // This network.
  "10.0.0.0/8", // Private.
  "100.64.0.0/10", // Shared by carriers.
  "127.0.0.0/8", // Loopback.
  "169.254.0.0/16", // Link-local, with the metadata services of clouds.
  "172.16.0.0/12", // Private.
  "192.0.0.0/24", // Protocol assignments.
  "192.0.2.0/24", // Documentation.
  "192.88.99.0/24", // Relays of 6to4.
  "192.168.0.0/16", // Private.
  "198.18.0.0/15", // Benchmarks.
  "198.51.100.0/24", // Documentation.
  "203.0.113.0/24", // Documentation.
  "224.0.0.0/4", // Multicast.
  "240.0.0.0/4", // Reserved, and broadcast.
]);
/** Of IPv6: what may be global unicast at all, ... */
const global6 = blockList(["2000::/3"]);
/** ... and what of that is not, or leads to an IPv4 address that nobody judges. */
const special6 = blockList([
  "2001::/23", // Protocol assignments: Teredo, benchmarks, ORCHID.
  "2001:db8::/32", // Documentation.
  "2002::/16", // 6to4.
  "3fff::/20", // Documentation.
]);

const ranges: Readonly<Record<string, readonly string[]>> = {
  http: [],
  loopback: ["127.0.0.0/8", "::1/128"],
  private: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
  "link-local": ["169.254.0.0/16", "fe80::/10"],
};

export class Addresses {
  readonly #allowed: BlockList;

  /**
   * @param allow As in `deliver.allow`.
   * @throws {SpillwayError} contract_invalid: a range that is none
   */
  constructor(allow: readonly string[]) {
    this.#allowed = blockList(allow.flatMap((each) => ranges[each] ?? [each]));
  }

  /** @param address As the resolver or a URL gives it, an IPv6 one without brackets. */
  allows(address: string): boolean {
    const plain = plainOf(address);
    if (plain === undefined) return false; // A2
    if (isIPv4(plain)) return !special4.check(plain) || this.#allowed.check(plain);
    const isGlobal = global6.check(plain, "ipv6") && !special6.check(plain, "ipv6");
    return isGlobal || this.#allowed.check(plain, "ipv6");
  }
}

/** Where requests go, from `deliver.url`. */
export interface Destination {
  readonly isTls: boolean;
  /** Without brackets and without the dot at the end. */
  readonly host: string;
  readonly port: number;
  /** With the query. */
  readonly path: string;
  /** What the Host field says. */
  readonly authority: string;
}

/**
 * Reads `deliver.url` the way it will be used, and judges all that can be judged without a resolver.
 * @throws {SpillwayError} target_refused, contract_invalid
 */
export function destinationOf(flow: string, push: Push, addresses: Addresses): Destination {
  const { url, allow, ports } = push;
  const refuse = (found: string, allowed: string): never => {
    throw new SpillwayError("target_refused", { flow, path: "deliver.url", found, allowed });
  };
  const parsed = URL.parse(url);
  if (parsed === null) {
    const allowed = "an address such as https://billing.example/orders";
    throw new SpillwayError("contract_invalid", { flow, path: "deliver.url", allowed });
  }
  const { protocol, username, password, hostname, pathname, search } = parsed;
  const isTls = protocol === "https:";
  if (!isTls && !(protocol === "http:" && allow.includes("http"))) {
    refuse(protocol, 'https:, or http: with "http" in deliver.allow');
  }
  if (username !== "" || password !== "") refuse("a user name", "an address without one");
  const standardPort = isTls ? 443 : 80;
  const port = parsed.port === "" ? standardPort : Number(parsed.port);
  if (!ports.includes(port)) refuse(String(port), `a port of deliver.ports, ${ports.join(", ")}`);
  const host = hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.+$/, "");
  const isAddress = isIP(host) !== 0;
  const isLocalName = /^(.+\.)?localhost$/.test(host);
  if (host === "" || (isAddress && !addresses.allows(host))) {
    refuse(hostname, "a public address, or one of deliver.allow");
  }
  if (isLocalName && !addresses.allows("127.0.0.1")) {
    refuse(hostname, 'a public name, or "loopback" in deliver.allow');
  }
  const name = isAddress ? hostname : host;
  return {
    isTls,
    host,
    port,
    path: `${pathname}${search}`,
    authority: port === standardPort ? name : `${name}:${port}`,
  };
}

/** In one form: an IPv4 address that an IPv6 one maps as itself, without zone. */
function plainOf(address: string): string | undefined {
  const [plain = ""] = address.split("%", 1);
  const version = isIP(plain);
  if (version === 0) return undefined;
  if (version === 4) return plain;
  const canonical = URL.parse(`http://[${plain}]/`)?.hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical ?? "");
  if (mapped === null) return canonical;
  const bits = (Number.parseInt(mapped[1]!, 16) << 16) | Number.parseInt(mapped[2]!, 16);
  return [bits >>> 24, (bits >>> 16) & 255, (bits >>> 8) & 255, bits & 255].join(".");
}

function blockList(subnets: readonly string[]): BlockList {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [net = "", prefix] = subnet.split("/");
    try {
      list.addSubnet(net, Number(prefix), isIPv4(net) ? "ipv4" : "ipv6");
    } catch (cause) {
      const allowed = 'a range such as "10.1.0.0/16"';
      const where = { path: "deliver.allow", found: subnet, allowed };
      throw new SpillwayError("contract_invalid", where, { cause });
    }
  }
  return list;
}

import { createHash } from "node:crypto";
import { formatIp, parseIpBytes } from "#/base/address.ts";
import type { IpAddress } from "#/base/address.ts";

/** IPv4 network as numbers. */
export interface Network {
  readonly base: number;
  readonly size: number;
}

export function parseNetwork(cidr: string): Network | null {
  const match = /^([0-9.]+)\/(\d{1,2})$/.exec(cidr);
  const bytes = match === null ? null : parseIpBytes(match[1]!);
  const bits = Number(match?.[2]);
  if (bytes === null || bytes.length !== 4 || bits > 32) return null;
  const size = 2 ** (32 - bits);
  const address = number(bytes);
  return { base: address - (address % size), size };
}

export function contains(network: Network, ip: string): boolean {
  const bytes = parseIpBytes(ip);
  if (bytes === null || bytes.length !== 4) return false;
  const at = number(bytes);
  return at >= network.base && at < network.base + network.size;
}

export type Allocation =
  | { readonly kind: "ip"; readonly ip: IpAddress }
  | { readonly kind: "refused"; readonly reason: string };

/**
 * Gives each Service its virtual IP. The first choice comes from the name, so that a Service that is removed and put back
 * has its old address again, and a lost state folder loses nothing; a clash goes on to the next free address. What was
 * given stays, so that addresses never move while a Service lives.
 */
export function allocateVirtualIps(
  services: readonly { readonly key: string; readonly wanted: string | null }[],
  before: Readonly<Record<string, string>>,
  cidr: string,
): { ips: Map<string, Allocation>; taken: Record<string, string> } {
  const network = parseNetwork(cidr);
  const ips = new Map<string, Allocation>();
  const owner = new Map<string, string>();
  const give = (key: string, ip: IpAddress): void => {
    owner.set(ip, key);
    ips.set(key, { kind: "ip", ip });
  };
  const ordered = services.toSorted((a, b) => (a.key < b.key ? -1 : 1));
  for (const { key, wanted } of ordered) {
    if (wanted === null) continue;
    if (network === null || !contains(network, wanted))
      ips.set(key, {
        kind: "refused",
        reason: `${wanted} is not in the service network ${cidr}; remove the field, or begin the mesh with another --service-cidr`,
      });
    else if (owner.has(wanted))
      ips.set(key, {
        kind: "refused",
        reason: `${wanted} is also asked for by Service ${owner.get(wanted) ?? ""}`,
      });
    else give(key, wanted as IpAddress);
  }
  for (const { key, wanted } of ordered) {
    const old = before[key];
    if (wanted === null && old !== undefined && network !== null && contains(network, old) && !owner.has(old))
      give(key, old as IpAddress);
  }
  for (const { key } of ordered) {
    if (ips.has(key)) continue;
    // The first and the last address of a network name the network itself and its broadcast.
    const span = network === null ? 0 : network.size - 2;
    if (network === null || owner.size >= span) {
      ips.set(key, {
        kind: "refused",
        reason: `the service network ${cidr} has no free address; begin the mesh with a wider --service-cidr`,
      });
      continue;
    }
    let at = createHash("sha256").update(key).digest().readUInt32BE(0) % span;
    while (owner.has(text(network.base + 1 + at))) at = (at + 1) % span;
    give(key, text(network.base + 1 + at));
  }
  const taken = Object.fromEntries([...owner].map(([ip, key]) => [key, ip]));
  return { ips, taken };
}

function number(bytes: Uint8Array): number {
  return ((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0;
}

function text(address: number): IpAddress {
  return formatIp(
    Uint8Array.of((address >>> 24) & 0xff, (address >>> 16) & 0xff, (address >>> 8) & 0xff, address & 0xff),
  );
}

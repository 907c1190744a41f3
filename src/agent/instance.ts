import { createHash } from "node:crypto";
import { join } from "node:path";
import type { IpAddress } from "#/base/address.ts";

/** Where one mesh instance keeps its things on this machine, and what its kernel objects are called. */
export interface Instance {
  readonly name: string;
  /** Survives reboots. Below it `control/` belongs to the control plane and is never opened by the agent. */
  readonly stateDir: string;
  /** Sockets, namespaces, exit statuses: gone after `down`. */
  readonly runDir: string;
  /** Interface name of the bridge (at most 15 bytes). */
  readonly bridge: string;
  /** Host ends of the pods' links: this and a number. */
  readonly linkPrefix: string;
  readonly nftTable: string;
  readonly podCidr: string;
  readonly serviceCidr: string;
  /** The bridge's own address: the pods' way out, name server and control plane. */
  readonly gatewayIp: IpAddress;
}

export interface InstanceOptions {
  readonly name: string;
  readonly stateRoot: string;
  readonly runRoot: string;
  readonly podCidr: string;
  readonly serviceCidr: string;
}

/** Lower-case letters, digits and dashes: the name becomes part of paths, nft tables and interface names. */
const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;

export function describeInstance(options: InstanceOptions): Instance {
  if (!NAME.test(options.name)) {
    throw new Error(`"${options.name}" cannot name an instance: use at most 32 of a-z, 0-9 and "-"`);
  }
  const hash = createHash("sha256").update(`${options.runRoot}\0${options.name}`).digest("hex").slice(0, 6);
  const [first] = cidrRange(options.podCidr);
  return {
    name: options.name,
    stateDir: join(options.stateRoot, options.name),
    runDir: join(options.runRoot, options.name),
    bridge: `pln-${hash}`,
    linkPrefix: `pln${hash}.`,
    nftTable: `pillion_${options.name.replaceAll("-", "_")}`,
    podCidr: options.podCidr,
    serviceCidr: options.serviceCidr,
    gatewayIp: ipv4FromNumber(first + 1),
  };
}

const USUAL_ROOTS = ["/var/lib/pillion", "/run/pillion"];

/** State and run folders of all instances, which no sandbox may show: ours' siblings, and those in the usual places. */
export function hiddenRoots(instance: Instance): string[] {
  return [...new Set([join(instance.stateDir, ".."), join(instance.runDir, ".."), ...USUAL_ROOTS])];
}

/** First and last address of an IPv4 CIDR as numbers. Throws when the text is none. */
export function cidrRange(cidr: string): [first: number, last: number] {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(cidr);
  const bits = Number(match?.[5]);
  if (match === null || bits < 8 || bits > 29)
    throw new Error(`"${cidr}" is no IPv4 network between /8 and /29`);
  const base = match.slice(1, 5).reduce((sum, part) => sum * 256 + Number(part), 0);
  const size = 2 ** (32 - bits);
  const first = Math.floor(base / size) * size;
  return [first, first + size - 1];
}

export function cidrBits(cidr: string): number {
  return Number(cidr.slice(cidr.indexOf("/") + 1));
}

export function ipv4FromNumber(value: number): IpAddress {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".") as IpAddress;
}

export function ipv4ToNumber(ip: string): number {
  return ip.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

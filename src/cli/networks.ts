import { InvalidArgumentError } from "commander";
import { cidrRange } from "#/agent/instance.ts";

export const DEFAULT_POD_CIDR = "10.201.0.0/16";
export const DEFAULT_SERVICE_CIDR = "10.202.0.0/16";

/** Reads `--pod-cidr` and `--service-cidr`: an IPv4 network, as text. */
export function network(text: string): string {
  const octets = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/\d+$/.exec(text)?.slice(1, 5);
  try {
    cidrRange(text);
  } catch {
    throw new InvalidArgumentError("It must be an IPv4 network of /8 to /29, such as 10.201.0.0/16.");
  }
  if (octets?.some((octet) => Number(octet) > 255))
    throw new InvalidArgumentError("Each of its four numbers is at most 255.");
  return text;
}

/** Whether two networks share an address. */
export function overlap(a: string, b: string): boolean {
  const [firstA, lastA] = cidrRange(a);
  const [firstB, lastB] = cidrRange(b);
  return firstA <= lastB && firstB <= lastA;
}

/** The machine's own networks, from /proc/net/route: hexadecimal, in the machine's byte order (little-endian). */
export function routedNetworks(procNetRoute: string): { readonly cidr: string; readonly device: string }[] {
  return procNetRoute
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [device = "", to = "", , , , , , mask = ""] = line.split("\t");
      const bits = [...octetsOf(mask)].reduce((sum, octet) => sum + ones(octet), 0);
      // The default route is everywhere, a single host no network.
      if (mask === "" || bits < 8 || bits > 29) return [];
      return [{ cidr: `${octetsOf(to).join(".")}/${bits}`, device }];
    });
}

function octetsOf(hex: string): number[] {
  return [6, 4, 2, 0].map((at) => Number.parseInt(hex.slice(at, at + 2), 16) || 0);
}

function ones(octet: number): number {
  return octet.toString(2).replaceAll("0", "").length;
}

/** A port that is taken on every address, from /proc/net/{tcp,udp,tcp6,udp6}. State 0A: listening; 07: UDP. */
export function takenEverywhere(procNet: string): Set<number> {
  const ports = new Set<number>();
  for (const line of procNet.split("\n").slice(1)) {
    const [, local = "", , state = ""] = line.trim().split(/\s+/);
    const [address = "", port = ""] = local.split(":");
    if (/^0+$/.test(address) && (state === "0A" || state === "07")) ports.add(Number.parseInt(port, 16));
  }
  return ports;
}

import { parseIpBytes, type IpAddress } from "#/base/address.ts";

/** A block of addresses, read once and asked often. */
export interface Network {
  readonly bytes: Uint8Array;
  readonly prefixBits: number;
}

/** Reads `10.0.0.0/8`, `fd00::/8` or a single address; null when it is none. Host bits are ignored. */
export function parseNetwork(text: string): Network | null {
  const slash = text.indexOf("/");
  const bytes = parseIpBytes(slash === -1 ? text : text.slice(0, slash));
  if (bytes === null) return null;
  const prefixBits = slash === -1 ? bytes.length * 8 : Number(text.slice(slash + 1));
  if (!Number.isInteger(prefixBits) || prefixBits < 0 || prefixBits > bytes.length * 8) return null;
  return { bytes, prefixBits };
}

export function networkContains(network: Network, ip: IpAddress): boolean {
  const bytes = parseIpBytes(ip);
  if (bytes === null || bytes.length !== network.bytes.length) return false;
  const whole = network.prefixBits >> 3;
  for (let i = 0; i < whole; i++) if (bytes[i] !== network.bytes[i]) return false;
  const rest = network.prefixBits & 7;
  if (rest === 0) return true;
  const mask = 0xff << (8 - rest);
  return ((bytes[whole] as number) & mask) === ((network.bytes[whole] as number) & mask);
}

export function isLoopback(ip: IpAddress): boolean {
  return ip.startsWith("127.") || ip === "::1";
}

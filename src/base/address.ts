/** An IP address in canonical text: dotted IPv4, or RFC 5952 IPv6. v4-mapped IPv6 is written as IPv4. */
export type IpAddress = string & { readonly __ip: never };

/** One end of a TCP connection. Compare with `sameSocketAddress`, key maps with `addressKey`. */
export interface SocketAddress {
  readonly ip: IpAddress;
  /** 1..65535 (0 only where a listener asks for any port). */
  readonly port: number;
}

/** What an intercepted connection was meant for. Branded so that it cannot be mixed up with a client's address. */
export type OriginalDestination = SocketAddress & { readonly __role?: "original-destination" };

/** `ip:port`, or `[ip]:port` for IPv6. */
export function addressKey(address: SocketAddress): string {
  return address.ip.includes(":") ? `[${address.ip}]:${address.port}` : `${address.ip}:${address.port}`;
}

export function sameSocketAddress(a: SocketAddress, b: SocketAddress): boolean {
  return a.port === b.port && a.ip === b.ip;
}

/** Parses `ip:port` or `[ip]:port`; null when it is neither. */
export function parseSocketAddress(text: string): SocketAddress | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const ip = parseIp(match[1] ?? match[2] ?? "");
  const port = Number(match[3]);
  if (ip === null || port > 65535) return null;
  return { ip, port };
}

/** Canonical form of an IP address text, or null when it is none. Zone ids are refused. */
export function parseIp(text: string): IpAddress | null {
  const bytes = parseIpBytes(text);
  return bytes === null ? null : formatIp(bytes);
}

/** 4 or 16 bytes, network order; v4-mapped IPv6 gives 4 bytes. Null when `text` is no IP address. */
export function parseIpBytes(text: string): Uint8Array | null {
  if (!text.includes(":")) return parseIpv4(text);
  let head = text;
  const out = new Uint8Array(16);
  let tailBytes = 0;
  if (head.includes(".")) {
    const at = head.lastIndexOf(":");
    const v4 = parseIpv4(head.slice(at + 1));
    if (v4 === null) return null;
    out.set(v4, 12);
    tailBytes = 4;
    head = head.slice(0, at + 1);
    head = head.endsWith("::") ? head : head.slice(0, -1);
  }
  const gap = head.indexOf("::");
  if (gap !== -1 && head.indexOf("::", gap + 1) !== -1) return null;
  const left = (gap === -1 ? head : head.slice(0, gap))
    .split(":")
    .filter((part, _at, all) => part !== "" || all.length > 1);
  const right =
    gap === -1
      ? []
      : head
          .slice(gap + 2)
          .split(":")
          .filter((part, _at, all) => part !== "" || all.length > 1);
  const groupsMax = (16 - tailBytes) / 2;
  if (gap === -1 ? left.length !== groupsMax : left.length + right.length >= groupsMax) return null;
  const put = (groups: string[], at: number): boolean =>
    groups.every((group, i) => {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return false;
      const value = Number.parseInt(group, 16);
      out[at + 2 * i] = value >> 8;
      out[at + 2 * i + 1] = value & 0xff;
      return true;
    });
  if (!put(left, 0) || !put(right, 16 - tailBytes - 2 * right.length)) return null;
  const mapped = out.subarray(0, 10).every((b) => b === 0) && out[10] === 0xff && out[11] === 0xff;
  return mapped ? out.slice(12) : out;
}

/** Text of 4 or 16 network-order bytes (RFC 5952 §4 for IPv6). */
export function formatIp(bytes: Uint8Array): IpAddress {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as IpAddress;
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  if (groups.slice(0, 5).every((g) => g === 0) && groups[5] === 0xffff) return formatIp(bytes.subarray(12));
  // RFC 5952 §4.2: the longest run of two or more zero groups, the first among equals, becomes "::".
  let best = -1;
  let bestLength = 1;
  for (let i = 0; i < 8;) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > bestLength) {
      best = i;
      bestLength = length;
    }
    i += length + 1;
  }
  const hex = groups.map((g) => g.toString(16));
  if (best === -1) return hex.join(":") as IpAddress;
  return `${hex.slice(0, best).join(":")}::${hex.slice(best + bestLength).join(":")}` as IpAddress;
}

/** RFC 6943 §3.1.1: no leading zeros, which some read as octal. */
const IPV4 = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/;

function parseIpv4(text: string): Uint8Array | null {
  const match = IPV4.exec(text);
  if (match === null) return null;
  const out = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const value = Number(match[i + 1]);
    if (value > 255) return null;
    out[i] = value;
  }
  return out;
}

import { parseIpBytes } from "#/base/address.ts";
import { InterceptionError } from "./errors.ts";

export interface Cidr {
  /** 4 or 16 bytes; bits behind the prefix are zero. */
  readonly bytes: Uint8Array;
  readonly prefixBits: number;
  readonly port: number | null;
}

/** `10.0.0.0/8`, `fd00::/8`, a bare address, or a network with one port (`10.0.0.0/8:443`). */
export function parseCidr(text: string): Cidr {
  const match = /^([^/]+)(?:\/(\d{1,3})(?::(\d{1,5}))?)?$/.exec(text);
  const bytes = match?.[1] === undefined ? null : parseIpBytes(match[1]);
  if (bytes === null)
    throw new InterceptionError("BAD_INPUT", `"${text}" is no CIDR: write 10.0.0.0/8 or 10.0.0.0/8:443`);
  const bits = bytes.length * 8;
  const prefixBits = match?.[2] === undefined ? bits : Number(match[2]);
  if (prefixBits > bits)
    throw new InterceptionError("BAD_INPUT", `"${text}" has a prefix longer than ${bits} bits`);
  const port = match?.[3] === undefined ? null : checkedPort(Number(match[3]));
  const masked = bytes.map(
    (byte, i) => byte & (0xff00 >> Math.max(0, Math.min(8, prefixBits - 8 * i))) & 0xff,
  );
  return { bytes: masked, prefixBits, port };
}

export function checkedPort(port: number): number {
  if (Number.isInteger(port) && port >= 1 && port <= 65535) return port;
  throw new InterceptionError("BAD_INPUT", `${port} is no port`);
}

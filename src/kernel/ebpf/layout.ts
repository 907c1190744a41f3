/**
 * Keys and values of the kernel programs' maps, as `bpf/mesh.h` lays them out. Its sizes and offsets are checked against
 * the BTF of the committed objects in `spec.test.ts`.
 */
import { formatIp, parseIpBytes, type IpAddress, type SocketAddress } from "#/base/address.ts";
import { checkedPort, parseCidr } from "../cidr.ts";
import { InterceptionError } from "../errors.ts";
import type { ObjectSpec } from "./spec.ts";

export const MESH_ABI = 2;

export const SIZE = {
  mesh_addr: 16,
  mesh_endpoint: 20,
  mesh_settings: 44,
  mesh_port_set: 8192,
  mesh_cidr_key: 24,
  mesh_service_key: 20,
  mesh_service: 8,
  mesh_backend_key: 8,
  mesh_traffic_key: 24,
  mesh_traffic: 48,
} as const;

/** How much fits into a map, and what we call it when it is too much. */
export const BOUNDS = {
  mesh_own: { entries: 64, what: "addresses of the pod" },
  mesh_cidrs: { entries: 16384, what: "let-through and refused networks" },
  mesh_traffic: { entries: 1024, what: "targets" },
  mesh_services: { entries: 32768, what: "virtual IPs" },
  mesh_backends: { entries: 131072, what: "backends of virtual IPs" },
} as const;

/** Throws when an object was built from another `mesh.h` than this file speaks of. */
export function checkLayout(spec: ObjectSpec): void {
  const wrong = [
    ...Object.entries(SIZE).filter(([name, bytes]) => spec.structs.get(name)?.bytes !== bytes),
    ...Object.entries(BOUNDS).filter(([name, { entries }]) => spec.maps.get(name)?.maxEntries !== entries),
  ].map(([name]) => name);
  if (wrong.length === 0) return;
  throw new InterceptionError(
    "LOAD_FAILED",
    `the kernel programs are of another version than this program (${wrong.join(", ")}): install both from one package`,
  );
}

/** `REFUSED` in mesh_cidrs alone. */
export const Direction = { INBOUND: 0, OUTBOUND: 1, REFUSED: 2 } as const;
export type Direction = (typeof Direction)[keyof typeof Direction];

const PROTOCOL = { tcp: 6, udp: 17 } as const;

export interface Settings {
  readonly mode: "meshed" | "service-only";
  readonly inboundPort: number;
  readonly outboundPort: number;
  readonly adminPort: number;
  readonly source4: IpAddress | null;
  readonly source6: IpAddress | null;
}

export function encodeSettings(settings: Settings): Buffer {
  const out = Buffer.alloc(SIZE.mesh_settings);
  out.writeUInt32LE(MESH_ABI, 0);
  out.writeUInt16LE(settings.mode === "meshed" ? 1 : 0, 4);
  out.writeUInt16LE(settings.inboundPort, 6);
  out.writeUInt16LE(settings.outboundPort, 8);
  out.writeUInt16LE(settings.adminPort, 10);
  if (settings.source4 !== null) writeAddress(out, 12, settings.source4);
  if (settings.source6 !== null) writeAddress(out, 28, settings.source6);
  return out;
}

export function encodeAddress(ip: string): Buffer {
  const out = Buffer.alloc(SIZE.mesh_addr);
  writeAddress(out, 0, ip);
  return out;
}

/** The key of an array map. */
export function encodeIndex(index: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(index, 0);
  return out;
}

/** One bit per port. */
export function encodePortSet(ports: readonly number[]): Buffer {
  const out = Buffer.alloc(SIZE.mesh_port_set);
  // On a little-endian machine the bits of 64-bit words and those of bytes lie alike.
  for (const port of ports.map(checkedPort)) out[port >> 3] = (out[port >> 3] ?? 0) | (1 << (port & 7));
  return out;
}

export function encodeCidrKey(direction: Direction, text: string): Buffer {
  const cidr = parseCidr(text);
  const out = Buffer.alloc(SIZE.mesh_cidr_key);
  // The kernel compares a prefix of direction (16 bits), port (16) and address; IPv4 sits behind 96 bits of mapping.
  out.writeUInt32LE(32 + (cidr.bytes.length === 4 ? 96 : 0) + cidr.prefixBits, 0);
  out.writeUInt16LE(direction, 4);
  out.writeUInt16BE(cidr.port ?? 0, 6);
  mapped(cidr.bytes).copy(out, 8);
  return out;
}

export function encodeServiceKey(ip: IpAddress, port: number, protocol: "tcp" | "udp"): Buffer {
  const out = Buffer.alloc(SIZE.mesh_service_key);
  writeAddress(out, 0, ip);
  out.writeUInt16BE(checkedPort(port), 16);
  out.writeUInt16LE(PROTOCOL[protocol], 18);
  return out;
}

export function encodeService(id: number, backends: number): Buffer {
  const out = Buffer.alloc(SIZE.mesh_service);
  out.writeUInt32LE(id, 0);
  out.writeUInt32LE(backends, 4);
  return out;
}

export function decodeService(bytes: Buffer): { id: number; backends: number } {
  return { id: bytes.readUInt32LE(0), backends: bytes.readUInt32LE(4) };
}

export function encodeBackendKey(id: number, slot: number): Buffer {
  return encodeService(id, slot);
}

export function encodeEndpoint(endpoint: SocketAddress): Buffer {
  const out = Buffer.alloc(SIZE.mesh_endpoint);
  writeAddress(out, 0, endpoint.ip);
  out.writeUInt16BE(checkedPort(endpoint.port), 16);
  return out;
}

export function decodeEndpoint(bytes: Buffer): SocketAddress {
  // formatIp writes a v4-mapped address as IPv4.
  return { ip: formatIp(bytes.subarray(0, 16)), port: bytes.readUInt16BE(16) };
}

export interface TrafficKey {
  readonly target: SocketAddress;
  readonly direction: "inbound" | "outbound";
  readonly path: TrafficPath;
}

const PATHS = ["proxied", "let-through", "refused"] as const;
export type TrafficPath = (typeof PATHS)[number];

export function decodeTrafficKey(bytes: Buffer): TrafficKey {
  return {
    target: decodeEndpoint(bytes),
    direction: bytes.readUInt16LE(20) === Direction.INBOUND ? "inbound" : "outbound",
    path: PATHS[bytes.readUInt16LE(22)] ?? "proxied",
  };
}

export interface TrafficCounters {
  readonly connections: number;
  readonly failures: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly retransmits: number;
  readonly rttUs: number | null;
}

export function decodeTraffic(bytes: Buffer): TrafficCounters {
  const rttUs = Number(bytes.readBigUInt64LE(40));
  return {
    connections: Number(bytes.readBigUInt64LE(0)),
    failures: Number(bytes.readBigUInt64LE(8)),
    bytesIn: Number(bytes.readBigUInt64LE(16)),
    bytesOut: Number(bytes.readBigUInt64LE(24)),
    retransmits: Number(bytes.readBigUInt64LE(32)),
    rttUs: rttUs === 0 ? null : rttUs,
  };
}

function writeAddress(out: Buffer, at: number, ip: string): void {
  const bytes = parseIpBytes(ip);
  if (bytes === null) throw new InterceptionError("BAD_INPUT", `"${ip}" is no IP address`);
  mapped(bytes).copy(out, at);
}

/** RFC 4291 §2.5.5.2: IPv4 as ::ffff:a.b.c.d. */
function mapped(bytes: Uint8Array): Buffer {
  if (bytes.length === 16) return Buffer.from(bytes);
  const out = Buffer.alloc(16);
  out.writeUInt16BE(0xffff, 10);
  out.set(bytes, 12);
  return out;
}

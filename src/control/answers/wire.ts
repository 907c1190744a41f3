import { create } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { parseIpBytes } from "#/base/address.ts";
import type { IPAddress, IPNetwork, TcpAddress } from "#/gen/linkerd/net_pb.ts";
import { IPAddressSchema, IPNetworkSchema, TcpAddressSchema } from "#/gen/linkerd/net_pb.ts";
import type { Metadata } from "#/gen/linkerd/meta_pb.ts";
import { MetadataSchema } from "#/gen/linkerd/meta_pb.ts";
import type { PolicySource } from "#/model/policy.ts";

/** The API writes an IPv4 address as one big-endian number, an IPv6 address as two. */
export function wireIp(ip: string): IPAddress {
  const bytes = parseIpBytes(ip);
  if (bytes === null) throw new TypeError(`${ip} is no IP address`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return create(IPAddressSchema, {
    ip:
      bytes.length === 4
        ? { case: "ipv4", value: view.getUint32(0) }
        : { case: "ipv6", value: { first: view.getBigUint64(0), last: view.getBigUint64(8) } },
  });
}

export function wireNetwork(ip: string, prefixLen: number): IPNetwork {
  return create(IPNetworkSchema, { ip: wireIp(ip), prefixLen });
}

export function wireAddress(ip: string, port: number): TcpAddress {
  return create(TcpAddressSchema, { ip: wireIp(ip), port });
}

/** Null for a message that carries no usable address. */
export function addressOf(address: TcpAddress | undefined): { ip: string; port: number } | null {
  const ip = address?.ip?.ip;
  if (
    address === undefined ||
    ip === undefined ||
    ip.case === undefined ||
    address.port < 1 ||
    address.port > 65535
  )
    return null;
  if (ip.case === "ipv4")
    return { ip: [24, 16, 8, 0].map((shift) => (ip.value >>> shift) & 0xff).join("."), port: address.port };
  const hex = (
    ip.value.first.toString(16).padStart(16, "0") + ip.value.last.toString(16).padStart(16, "0")
  ).match(/.{4}/g)!;
  return { ip: hex.join(":"), port: address.port };
}

export function millis(ms: number): Duration {
  return create(DurationSchema, {
    seconds: BigInt(Math.floor(ms / 1000)),
    nanos: Math.round((ms % 1000) * 1_000_000),
  });
}

/** Where a duration is absent there is none of it. */
export function millisOrNone(ms: number | null): Duration | undefined {
  return ms === null ? undefined : millis(ms);
}

/** What the model names, on the wire. A default has only a name; an object's core group is written "core". */
export function wireSource(source: PolicySource): Metadata {
  const { group, kind, name, namespace, section, port } = source;
  if (kind === "default") return byDefault(name);
  return create(MetadataSchema, {
    kind: {
      case: "resource",
      value: { group: group === "" ? "core" : group, kind, name, namespace, section, port },
    },
  });
}

/** A configuration of our own making, not of any object. */
export function byDefault(name: string): Metadata {
  return create(MetadataSchema, { kind: { case: "default", value: name } });
}

/** The core group is written "core"; real proxies refuse an empty one. */
export function byResource(kind: string, namespace: string, name: string, port: number): Metadata {
  return create(MetadataSchema, {
    kind: { case: "resource", value: { group: "core", kind, name, namespace, port } },
  });
}

import { formatIp, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { Endpoint, EndpointIdentity, OriginatedTls } from "#/model/endpoint.ts";
import type { Labels } from "#/model/identity.ts";
import type { ProtoReader } from "#/wire/proto.ts";

/** `destination.WeightedAddr` with the labels of its set; null when it has no address. */
export function decodeEndpoint(reader: ProtoReader, setLabels: Labels): Endpoint | null {
  let address: SocketAddress | null = null;
  let weight = 0;
  let identity: EndpointIdentity | null = null;
  let hint: Hint = { protocol: "unknown", tunnelPort: null };
  let authorityOverride: string | null = null;
  let originatedTls: OriginatedTls | null = null;
  const labels: Record<string, string> = { ...setLabels };
  while (reader.next()) {
    if (reader.field === 1) address = decodeAddress(reader.part());
    else if (reader.field === 3) weight = reader.uint();
    else if (reader.field === 4) decodeLabel(reader.part(), labels);
    else if (reader.field === 5) identity = decodeIdentity(reader.part());
    else if (reader.field === 6) hint = decodeHint(reader.part());
    else if (reader.field === 10_000) originatedTls = decodeOriginatedTls(reader.part());
    else if (reader.field === 7) authorityOverride = decodeName(reader.part()) || null;
  }
  if (reader.error !== null || address === null) return null;
  return {
    address,
    weight,
    identity,
    protocolHint: hint.protocol,
    tunnelPort: hint.tunnelPort,
    authorityOverride,
    labels,
    ...(originatedTls === null ? {} : { originatedTls }),
  };
}

function decodeOriginatedTls(reader: ProtoReader): OriginatedTls {
  let serverName = "";
  let caPem = "";
  while (reader.next()) {
    if (reader.field === 1) serverName = reader.text();
    else if (reader.field === 2) caPem = reader.text();
  }
  return { serverName, caPem };
}

/** `net.TcpAddress`. */
export function decodeAddress(reader: ProtoReader): SocketAddress | null {
  let ip: IpAddress | null = null;
  let port = 0;
  while (reader.next()) {
    if (reader.field === 1) ip = decodeIp(reader.part());
    else if (reader.field === 2) port = reader.uint();
  }
  return ip === null || port > 65535 || reader.error !== null ? null : { ip, port };
}

/** `net.IPAddress`: the number of an IPv4 address, or the two halves of an IPv6 one. */
export function decodeIp(reader: ProtoReader): IpAddress | null {
  let ip: IpAddress | null = null;
  while (reader.next()) {
    if (reader.field === 1) {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, reader.fixed32());
      ip = formatIp(bytes);
    } else if (reader.field === 2) {
      const view = new DataView(new ArrayBuffer(16));
      const halves = reader.part();
      while (halves.next()) {
        if (halves.field === 1) view.setBigUint64(0, halves.fixed64());
        else if (halves.field === 2) view.setBigUint64(8, halves.fixed64());
      }
      ip = formatIp(new Uint8Array(view.buffer));
    }
  }
  return reader.error === null ? ip : null;
}

/** One entry of a `map<string, string>`. */
export function decodeLabel(reader: ProtoReader, into: Record<string, string>): void {
  let key = "";
  let value = "";
  while (reader.next()) {
    if (reader.field === 1) key = reader.text();
    else if (reader.field === 2) value = reader.text();
  }
  into[key] = value;
}

/** A message that holds a string in field 1 and nothing else that we read. */
export function decodeName(reader: ProtoReader): string {
  let name = "";
  while (reader.next()) if (reader.field === 1) name = reader.text();
  return name;
}

/** A URI identity without a server name cannot be dialled: the endpoint then counts as unmeshed (facts §11.3). */
function decodeIdentity(reader: ProtoReader): EndpointIdentity | null {
  let dnsName = "";
  let uri = "";
  let serverName = "";
  while (reader.next()) {
    if (reader.field === 1) dnsName = decodeName(reader.part());
    else if (reader.field === 3) uri = decodeName(reader.part());
    else if (reader.field === 4) serverName = decodeName(reader.part());
  }
  if (dnsName !== "") return { name: dnsName, serverName: serverName || dnsName };
  return uri !== "" && serverName !== "" ? { name: uri, serverName } : null;
}

interface Hint {
  readonly protocol: Endpoint["protocolHint"];
  readonly tunnelPort: number | null;
}

function decodeHint(reader: ProtoReader): Hint {
  let protocol: Endpoint["protocolHint"] = "unknown";
  let port = 0;
  while (reader.next()) {
    if (reader.field === 1) protocol = "http2";
    else if (reader.field === 3) protocol = "opaque";
    else if (reader.field === 2) {
      const transport = reader.part();
      while (transport.next()) if (transport.field === 1) port = transport.uint();
    }
  }
  return { protocol, tunnelPort: port >= 1 && port <= 65535 ? port : null };
}

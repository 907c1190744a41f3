import { formatIp, type IpAddress, type SocketAddress } from "#/base/address.ts";
import type { IPAddress, TcpAddress } from "#/gen/linkerd/net_pb.ts";
import type { ProtocolHint, TlsIdentity, WeightedAddr } from "#/gen/linkerd/destination_pb.ts";
import type { Endpoint, EndpointIdentity } from "#/model/endpoint.ts";
import type { Labels } from "#/model/identity.ts";

/** The endpoint that a `WeightedAddr` means, with the labels of its set; null when it has no address. */
export function decodeEndpoint(message: WeightedAddr, setLabels: Labels): Endpoint | null {
  const address = decodeAddress(message.addr);
  if (address === null) return null;
  return {
    address,
    weight: message.weight,
    identity: decodeIdentity(message.tlsIdentity),
    protocolHint: decodeHint(message.protocolHint),
    tunnelPort: decodeTunnelPort(message.protocolHint),
    authorityOverride: message.authorityOverride?.authorityOverride || null,
    labels: { ...setLabels, ...message.metricLabels },
  };
}

export function decodeAddress(message: TcpAddress | undefined): SocketAddress | null {
  const ip = decodeIp(message?.ip);
  if (message === undefined || ip === null || message.port > 65535) return null;
  return { ip, port: message.port };
}

export function decodeIp(message: IPAddress | undefined): IpAddress | null {
  if (message?.ip.case === "ipv4") {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, message.ip.value);
    return formatIp(bytes);
  }
  if (message?.ip.case === "ipv6") {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, message.ip.value.first);
    view.setBigUint64(8, message.ip.value.last);
    return formatIp(bytes);
  }
  return null;
}

/** A URI identity without a server name cannot be dialled: the endpoint then counts as unmeshed (facts §11.3). */
function decodeIdentity(message: TlsIdentity | undefined): EndpointIdentity | null {
  const serverName = message?.serverName?.name ?? "";
  if (message?.strategy.case === "dnsLikeIdentity") {
    const { name } = message.strategy.value;
    return name === "" ? null : { name, serverName: serverName || name };
  }
  if (message?.strategy.case === "uriLikeIdentity" && serverName !== "") {
    return { name: message.strategy.value.uri, serverName };
  }
  return null;
}

function decodeHint(message: ProtocolHint | undefined): Endpoint["protocolHint"] {
  if (message?.protocol.case === "opaque") return "opaque";
  return message?.protocol.case === "h2" ? "http2" : "unknown";
}

function decodeTunnelPort(message: ProtocolHint | undefined): number | null {
  const port = message?.opaqueTransport?.inboundPort ?? 0;
  return port >= 1 && port <= 65535 ? port : null;
}
